//! The provider's part of a driver: calls are held, queued, refused, run, answered, cancelled.

use std::sync::Arc;

use farcall_core::{Code, Reading, RpcError};
use farcall_wire::{
    Delivered, Difference, FRAGMENT, Frame, Receiver, Request, Streams, Verdict, WHOLE, begin_reply, end_reply, flags, reply_failure,
    status,
};

use crate::ledger::{Key, body, key_of};
use crate::pair::Pair;
use crate::side::{Arrived, Handler, Reader, Side, streams};
use crate::tap::Tap;

impl Pair {
    pub(crate) fn on_call(&mut self, who: usize, frame: Frame) {
        let side = &mut self.sides[who];
        let (oneway, cost) = (frame.header.flags & flags::ONEWAY != 0, 64 + frame.header.len);
        let Some(mut request) = side.session.inbound.on_call(frame, self.now, &mut side.replies).unwrap() else {
            if !side.draining {
                self.tap.took_call(who, cost);
            }
            return;
        };
        assert!(!side.draining, "taken after the GoAway");
        assert_eq!((request.oneway, request.cost), (oneway, cost));
        if request.more {
            let first = std::mem::take(&mut request.body);
            side.session.outbound.assemble_args(request.id, &first);
            return side.session.inbound.hold(request);
        }
        self.arrived(who, request);
    }

    pub(crate) fn delivered(&mut self, who: usize, delivered: Delivered) {
        let side = &mut self.sides[who];
        match delivered {
            Delivered::Nothing => {}
            Delivered::Arguments(id, body) => {
                let request = side.session.inbound.held(id).expect("arguments of no call");
                self.arrived(who, Request { body, more: false, ..request });
            }
            Delivered::TooMuch(id) => {
                self.too_much += 1;
                let error = RpcError::not_executed(Code::ResourceExhausted, "too much is held");
                self.refuse_held(who, id, &error);
            }
        }
    }

    fn refuse_held(&mut self, who: usize, id: u32, error: &RpcError) -> bool {
        let inbound = &mut self.sides[who].session.inbound;
        let before = inbound.taken_so_far();
        let refused = inbound.refuse_held(id, error, &mut self.sides[who].replies);
        let cost = self.sides[who].session.inbound.taken_so_far() - before;
        self.tap.took_call(who, cost as u32);
        refused
    }

    fn arrived(&mut self, who: usize, request: Request) {
        let side = &mut self.sides[who];
        let mut args = None;
        if request.streams != Streams::default() {
            if side.session.outbound.serving() >= side.limits.streams {
                let error = RpcError::not_executed(Code::ResourceExhausted, "too many streams");
                return self.refuse(who, &request, None, false, &error);
            }
            args = side.session.outbound.serve(request.id, request.streams.args);
            side.session.inbound.occupy(request.id);
        }
        side.serial += 1;
        let arrived = Arrived { request, args, serial: side.serial };
        if arrived.request.differs {
            return self.differing(who, arrived);
        }
        self.go_on(who, arrived);
    }

    fn go_on(&mut self, who: usize, arrived: Arrived) {
        let side = &mut self.sides[who];
        match side.full || !side.backlog.is_empty() {
            true => side.backlog.push_back(arrived),
            false => self.dispatch(who, arrived),
        }
    }

    /// A call on a row on which the sides differ.
    fn differing(&mut self, who: usize, arrived: Arrived) {
        let side = &mut self.sides[who];
        match side.session.inbound.difference(arrived.request.row) {
            Difference::Held => {
                self.held += 1;
                side.held.push(arrived);
            }
            Difference::Read(_) => self.go_on(who, arrived),
            Difference::Refused(error) => self.refuse_arrived(who, arrived, &error),
        }
    }

    /// The calls of a row run, or are refused.
    pub(crate) fn settle(&mut self, who: usize, row: u16, reading: Result<Arc<Reading>, Verdict>) {
        let side = &mut self.sides[who];
        side.session.inbound.settle(row, reading);
        let (settled, held) = std::mem::take(&mut side.held).into_iter().partition(|a: &Arrived| a.request.row == row);
        side.held = held;
        settled.into_iter().for_each(|arrived| self.differing(who, arrived));
    }

    fn refuse_arrived(&mut self, who: usize, arrived: Arrived, error: &RpcError) {
        let Arrived { request, args, .. } = arrived;
        self.refuse(who, &request, args, request.streams != Streams::default(), error);
    }

    /// Calls that are held too long.
    pub(crate) fn expire_held(&mut self, who: usize) {
        let now = self.now;
        let late = |a: &Arrived| a.request.deadline.is_some_and(|ms| a.request.read_at + u64::from(ms) < now);
        let (late, held): (Vec<Arrived>, Vec<Arrived>) = std::mem::take(&mut self.sides[who].held).into_iter().partition(late);
        self.sides[who].held = held;
        for arrived in late {
            self.held_in_vain += 1;
            self.refuse_arrived(who, arrived, &RpcError::not_executed(Code::DeadlineExceeded, "too late"));
        }
    }

    fn refuse(&mut self, who: usize, request: &Request, args: Option<Receiver>, served: bool, error: &RpcError) {
        let side = &mut self.sides[who];
        side.session.inbound.taken(request.cost);
        self.tap.took_call(who, request.cost);
        let mut wake = Vec::new();
        args.into_iter().for_each(|at| side.session.outbound.drop_receiver(at, &mut wake));
        if !request.oneway {
            reply_failure(&mut side.replies, request.id, error);
        }
        side.finished(request.id, request.oneway, served, &self.tap);
        self.woke(who, wake);
    }

    fn dispatch(&mut self, who: usize, arrived: Arrived) {
        let Arrived { request, args, serial } = arrived;
        let key = key_of(&request.body, false);
        if request.differs {
            self.resolved += 1;
            self.tap.check_ready(who, request.row);
            let before = self.sides[who].last_run.insert(request.row, serial);
            assert!(before < Some(serial), "{key} overtook another call of its row");
        }
        let record = self.ledger.get_mut(&key).unwrap();
        assert_eq!(request.body.len(), record.len);
        // Some are refused by the driver, as those whose deadline has passed.
        if self.rng.one_in(8) {
            record.deadline = true;
            let error = RpcError::not_executed(Code::DeadlineExceeded, "too late");
            return self.refuse(who, &request, args, request.streams != Streams::default(), &error);
        }
        let side = &mut self.sides[who];
        let Request { id, oneway, method, cost, .. } = request;
        side.session.inbound.taken(cost);
        self.tap.took_call(who, cost);
        record.executed += 1;
        assert_eq!(record.executed, 1, "{key} is run twice");
        assert_eq!(record.oneway, oneway);
        if !oneway {
            assert!(side.handlers.iter().all(|h| h.oneway || h.id != id), "two running calls of one number");
            side.session.inbound.park(id, key as usize);
        }
        let line = (1 - who, id, false);
        side.readers.extend(args.map(|at| Reader { at, key, line, asleep: false, owner: Some(id) }));
        side.handlers.push(Handler { id, oneway, key, method, cancel: self.rng.one_in(2) });
    }

    /// The caller of a call is gone.
    pub(crate) fn cancelled(&mut self, who: usize, id: u32) {
        let side = &mut self.sides[who];
        let gone = || RpcError::new(Code::Cancelled, "the caller went away");
        let unstarted = RpcError::not_executed(Code::Cancelled, "the caller went away before");
        if let Some(token) = side.session.inbound.on_cancel(id) {
            let at = side.handlers.iter().position(|h| !h.oneway && h.id == id).expect("a Cancel for a call that does not run");
            assert_eq!(side.handlers[at].key, token as u64);
            let record = &self.ledger[&(token as u64)];
            assert!(record.cancelled || record.deadline && record.woken == 1, "a call was cancelled that nobody cancelled");
            if side.handlers[at].cancel {
                let handler = side.handlers.swap_remove(at);
                reply_failure(&mut side.replies, id, &gone());
                self.handler_over(who, &handler);
            }
        } else if let Some(at) = side.backlog.iter().position(|a| a.request.id == id && !a.request.oneway) {
            let arrived = side.backlog.remove(at).unwrap();
            self.refuse_arrived(who, arrived, &unstarted);
        } else if let Some(at) = side.held.iter().position(|a| a.request.id == id && !a.request.oneway) {
            let arrived = side.held.remove(at);
            self.held_in_vain += 1;
            self.refuse_arrived(who, arrived, &unstarted);
        } else if self.refuse_held(who, id, &unstarted) {
            self.sides[who].session.outbound.forget_args(id);
        }
        let mut wake = Vec::new();
        self.sides[who].session.outbound.caller_gone(id, &mut wake);
        self.woke(who, wake);
    }

    /// What a handler has beside its call goes away with it.
    fn handler_over(&mut self, who: usize, handler: &Handler) {
        self.ledger.get_mut(&handler.key).unwrap().over = true;
        self.drop_readers(who, |r| r.owner == Some(handler.id));
        self.sides[who].finished(handler.id, handler.oneway, handler.streamed(), &self.tap);
    }

    /// A handler ends, or the next call is started.
    pub(crate) fn handle_on(&mut self, who: usize) {
        if !self.sides[who].full
            && let Some(arrived) = self.sides[who].backlog.pop_front()
        {
            self.dispatch(who, arrived);
        }
        if self.sides[who].handlers.is_empty() {
            return;
        }
        let at = self.rng.below(self.sides[who].handlers.len());
        let handler = self.sides[who].handlers.swap_remove(at);
        let (id, key) = (handler.id, handler.key);
        if handler.oneway {
            return self.handler_over(who, &handler);
        }
        let failed = self.rng.one_in(4);
        if !failed && streams(handler.method).results {
            return self.open_results(who, &handler);
        }
        match failed {
            true => reply_failure(&mut self.sides[who].replies, id, &RpcError::new(Code::Aborted, "the handler failed")),
            false => self.reply(who, id, key),
        }
        self.handler_over(who, &handler);
    }

    /// Answers with a body that its caller takes.
    fn reply(&mut self, who: usize, id: u32, key: Key) {
        let large = self.heavy && self.rng.one_in(4);
        let len = if large { (100 << 10) + self.rng.below(200 << 10) } else { 8 + self.rng.below(100) };
        let how = self.rng.pick(&[status::OK, status::APP_ERROR]);
        let body = body(key, true, len.min(self.sides[1 - who].limits.body));
        let side = &mut self.sides[who];
        if body.len() > WHOLE {
            let head = self.rng.pick(&[0, 1, FRAGMENT]);
            return side.session.outbound.reply_in_fragments(id, how, &body[..head], body.slice(head..));
        }
        let out = side.replies.small();
        let start = begin_reply(out, id, how);
        out.extend_from_slice(&body);
        end_reply(out, start);
    }

    fn open_results(&mut self, who: usize, handler: &Handler) {
        let (id, key) = (handler.id, handler.key);
        let to = self.sides[who].session.outbound.open_results(id);
        self.open(who, to, key, (1 - who, id, true));
        // Its arguments may be read on while the results flow.
        let kept = self.rng.one_in(2);
        if !kept {
            self.drop_readers(who, |r| r.owner == Some(id));
        }
        self.sides[who].readers.iter_mut().filter(|r| r.owner == Some(id)).for_each(|r| r.owner = None);
        self.ledger.get_mut(&key).unwrap().over = true;
        self.sides[who].session.inbound.occupy(id);
        self.sides[who].reap(&self.tap);
    }

    /// The link is gone and the handlers with it.
    pub(crate) fn drop_handlers(&mut self, who: usize) {
        self.sides[who].handlers.clear();
        let Side { backlog, held, session, .. } = &mut self.sides[who];
        self.held_in_vain += held.len();
        for at in backlog.drain(..).chain(held.drain(..)).filter_map(|a| a.args) {
            session.outbound.drop_receiver(at, &mut Vec::new());
        }
    }
}

impl Side {
    /// A call has its reply, or needs none.
    fn finished(&mut self, id: u32, oneway: bool, served: bool, tap: &Tap) {
        if served {
            // Its number stays in use, but there is no handler any more.
            self.session.inbound.occupy(id);
            self.session.outbound.served(id);
            self.reap(tap);
        } else {
            self.session.inbound.finished(id, oneway);
        }
    }
}
