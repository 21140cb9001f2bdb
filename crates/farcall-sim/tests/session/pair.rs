//! Both sides and the network between them: the steps, and what must hold at the end.

use std::collections::HashMap;

use bytes::Buf;
use farcall_core::{Certainty, Code, Limits, RpcError};
use farcall_sim::{Link, Rng};
use farcall_wire::{Answer, Body, CallId, Frame, Kind, Load, PREFACE_LEN, Preface, Session, Settled, Start, control, get_frame};

use crate::ledger::{Key, Record, Who, body, key_of};
use crate::side::{CHAT, ECHO, FOLD, FOLLOW, GROWN_CHAT, GROWN_ECHO, GROWN_NOTE, NOTE, ODD, Plan, Reader, Side, front, is_oneway, streams};
use crate::tap::Tap;

/// Steps of a run in which calls are made.
const STEPS: [usize; 3] = [100, 500, 1500];
/// Rounds after which everything must have come to its end.
const ROUNDS: usize = 20_000;
/// What a body may take in a run with large ones.
const LARGE: usize = 340 << 10;

pub(crate) struct Pair {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) sides: [Side; 2],
    /// Bytes under way from each side.
    links: [Link; 2],
    pub(crate) ledger: HashMap<Key, Record>,
    pub(crate) tap: Tap,
    /// Bodies and items that go in fragments.
    pub(crate) heavy: bool,
    next: Key,
    cut: bool,
    /// Whether new calls are made, and streams go on.
    pub(crate) busy: bool,
    /// One side starts no calls for long, so that credit for them runs out.
    flooded: bool,
    /// How long bytes are under way at most.
    delay: usize,
    pub(crate) starved: usize,
    pub(crate) too_much: usize,
    /// Calls on rows of another version: held, run, given up while held.
    pub(crate) held: usize,
    pub(crate) resolved: usize,
    pub(crate) held_in_vain: usize,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Pair {
        let mut rng = Rng(seed);
        let heavy = rng.one_in(5);
        let flooded = heavy && rng.one_in(3);
        let mut limits = || Limits {
            in_flight: if flooded { 100 } else { rng.pick(&[3, 10, 100]) },
            streams: rng.pick(&[2, 8, 1024]),
            schemas: rng.pick(&[0, 300, 2 << 20, 2 << 20, 2 << 20]),
            body: if heavy { LARGE } else { 4096 },
            held: rng.pick(&[0, 1 << 20, 64 << 20]),
            credit: rng.pick(&[0, 0, 16 << 20]),
            stream_bytes: rng.pick(&[0, 0, 256 << 10]),
            stream_items: rng.pick(&[0, 0, 1024]),
            ..Limits::default()
        };
        let mut sides = [Side::new(0, &limits()), Side::new(1, &limits())];
        sides[1].full = flooded;
        let capacity = if heavy { [64 << 10, 1 << 20] } else { [200, 64 << 10] };
        let links = [Link::new(rng.pick(&capacity)), Link::new(rng.pick(&capacity))];
        let tap = Tap::new([sides[0].session.hello.limits, sides[1].session.hello.limits]);
        let delay = rng.pick(&[0, 5, 50]);
        let ledger = HashMap::new();
        Pair {
            rng,
            now: 0,
            sides,
            links,
            ledger,
            tap,
            heavy,
            next: 1,
            cut: false,
            busy: true,
            flooded,
            delay,
            starved: 0,
            too_much: 0,
            held: 0,
            resolved: 0,
            held_in_vain: 0,
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    pub(crate) fn drains(&self) -> usize {
        self.sides.iter().filter(|s| s.draining).count()
    }

    fn step(&mut self) {
        let who = self.rng.below(2);
        match self.rng.below(100) {
            0..16 => self.call(who),
            16..20 => self.cancel(who),
            20..30 => self.look(who),
            30..44 => self.write(who),
            44..58 => self.deliver(who),
            58..66 => self.handle_on(who),
            66..76 => self.produce(who),
            76..86 => self.read(who),
            86..87 => self.drop_reader(who),
            87..89 => self.drop_producer(who),
            89..91 => self.retry(who),
            91 if !self.flooded || self.rng.one_in(8) => self.sides[who].full ^= true,
            92..98 => self.pass_time(),
            98 if self.rng.one_in(20) => self.drain(who),
            99 if self.rng.one_in(if self.heavy { 4 } else { 10 }) => self.cut(),
            _ => {}
        }
        for side in &self.sides {
            self.check_memory(side);
        }
    }

    /// Memory is bounded by limits with names, whatever the peer does.
    fn check_memory(&self, side: &Side) {
        let (load, limits) = (side.session.outbound.load(), &side.session.hello.limits);
        let body = side.limits.body;
        // First pieces come with their calls, on the connection's credit.
        let first_pieces = load.assembling * limits.frame as usize;
        assert!(load.held <= side.limits.held.max(body) + first_pieces, "{load:?}");
        assert!(load.unread <= load.receiving * (limits.stream_bytes as usize + body), "{load:?}");
        let nobody = side.readers.is_empty() && side.waiting.is_empty() && side.backlog.is_empty() && side.held.is_empty();
        assert!(!nobody || load.unread == 0, "{load:?}, and nobody reads");
    }

    fn call(&mut self, who: usize) {
        let key = self.next;
        self.next += 1;
        let method = match self.rng.below(26) {
            0..8 => ECHO,
            8..11 => NOTE,
            11 => ODD,
            12..15 => FOLD,
            15..17 => FOLLOW,
            17..20 => CHAT,
            20..23 => GROWN_ECHO,
            23 => GROWN_NOTE,
            _ => GROWN_CHAT,
        };
        let len = match (self.rng.below(6), self.heavy) {
            (0, true) => 1000 + self.rng.below(200 << 10),
            (1, true) => (128 << 10) + self.rng.below(210 << 10),
            (2..4, true) if self.flooded => (60 << 10) + self.rng.below(60 << 10),
            _ => 8 + self.rng.below(40),
        };
        let deadline = (!is_oneway(method) && self.rng.one_in(4)).then(|| self.rng.below(100) as u64);
        let record = Record { oneway: is_oneway(method), deadline: deadline.is_some(), len, ..Record::default() };
        self.ledger.insert(key, record);
        let plan = Plan { key, method, body: body(key, false, len), segment: self.rng.one_in(3), deadline };
        self.start(who, plan);
    }

    /// Starts a call, or lets it wait for credit.
    fn start(&mut self, who: usize, plan: Plan) {
        let side = &mut self.sides[who];
        let (key, method) = (plan.key, plan.method);
        let body = if plan.segment { Body::Segment(plan.body.clone()) } else { Body::Copy(&plan.body) };
        let streams = streams(method);
        let call = Start { row: 0, deadline: plan.deadline, options: &[], body, streams };
        let outbound = &mut side.session.outbound;
        if outbound.closed().is_none() && !outbound.has_credit(&call) {
            self.starved += 1;
            return side.room.push(plan);
        }
        let record = self.ledger.get_mut(&key).unwrap();
        let row = outbound.bind(side.calls).map(|first| first + method);
        let before = outbound.in_flight();
        let started = row.and_then(|row| match method {
            method if is_oneway(method) => outbound.start_oneway(Start { row, ..call }).map(|()| None),
            _ => outbound.start(self.now, Start { row, ..call }, Some(Who::Call(key))).map(Some),
        });
        match started {
            Ok(Some(id)) => {
                // A number of a call that is not over must not be given out again.
                assert!(side.waiting.iter().all(|(other, _)| *other != id), "{id:?} is given out twice");
                side.waiting.push((id, key));
                if streams.args {
                    let to = outbound.open_args(id);
                    self.open(who, to, key, (who, id.0, false));
                }
            }
            Ok(None) => record.ended = true,
            Err(e) => {
                assert_eq!(e.certainty(), Certainty::NotSent);
                assert_eq!(outbound.in_flight(), before);
                (record.promised, record.ended) = (Some(Certainty::NotSent), true);
            }
        }
    }

    /// Calls that waited for credit look again.
    fn retry(&mut self, who: usize) {
        if std::mem::take(&mut self.sides[who].room_awake) {
            let plans = std::mem::take(&mut self.sides[who].room);
            plans.into_iter().for_each(|plan| self.start(who, plan));
        }
    }

    fn cancel(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if side.waiting.is_empty() {
            return;
        }
        let (id, key) = side.waiting.swap_remove(self.rng.below(side.waiting.len()));
        let record = self.ledger.get_mut(&key).unwrap();
        // Before the call: it may be so that it is woken by it.
        record.cancelled = true;
        let (mut place, mut wake) = (None, Vec::new());
        side.session.outbound.take_waiting(id, &mut place);
        let certainty = side.session.outbound.cancel(id, &mut wake);
        (record.promised, record.ended) = (Some(certainty), true);
        self.woke(who, wake);
    }

    /// A caller looks whether its answer is there.
    fn look(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if side.waiting.is_empty() {
            return;
        }
        let at = self.rng.below(side.waiting.len());
        let (id, key) = side.waiting[at];
        let record = self.ledger.get_mut(&key).unwrap();
        let answer =
            side.session.outbound.poll(id, |waiting| assert_eq!(*waiting, Some(Who::Call(key)), "somebody else waits in this slot"));
        let Some(answer) = answer else {
            assert_eq!(record.woken, 0, "woken for nothing");
            return;
        };
        side.waiting.swap_remove(at);
        assert_eq!(record.woken, 1, "{key} ended without a word");
        assert!(!std::mem::replace(&mut record.ended, true), "{key} ended twice");
        self.answered(who, id, key, answer);
    }

    fn answered(&mut self, who: usize, id: CallId, key: Key, answer: Answer) {
        let record = self.ledger.get_mut(&key).unwrap();
        match answer {
            Answer::Ok(body) | Answer::AppError(body) => {
                assert_eq!(key_of(&body, true), key, "an answer to another call");
                assert_eq!(record.executed, 1, "{key} is answered and was not run");
            }
            Answer::Stream(at) => {
                assert_eq!(record.executed, 1, "{key} is answered and was not run");
                let line = (who, id.0, true);
                self.sides[who].readers.push(Reader { at, key, line, asleep: false, owner: None });
            }
            Answer::Failed(e) => {
                assert_ne!(e.code(), Code::Internal, "{e}");
                record.promised = Some(e.certainty());
                if e.message() == "cut" {
                    let exact = if record.sent { Certainty::MaybeExecuted } else { Certainty::NotSent };
                    assert_eq!(e.certainty(), exact, "{key} when the link was cut");
                }
                assert_ne!(e.message(), "the caller went away", "{key} was cancelled by somebody else");
                if e.code() == Code::DeadlineExceeded {
                    assert!(record.deadline, "{key} has no deadline");
                }
            }
        }
    }

    fn write(&mut self, who: usize) {
        let n = match self.rng.below(4) {
            0 => usize::MAX,
            1 => self.rng.below(60),
            _ => self.rng.below(if self.heavy { 300_000 } else { 2000 }),
        };
        self.write_bytes(who, n);
    }

    /// Writes up to `n` bytes, as a driver would: what was begun first, then replies, then what
    /// callers queued.
    fn write_bytes(&mut self, who: usize, n: usize) -> usize {
        let budget = self.rng.pick(&[1, 64 << 10, 128 << 10]);
        let arrives = self.now + self.rng.below(self.delay + 1) as u64;
        let side = &mut self.sides[who];
        let mut wake = Vec::new();
        if side.requests.is_empty() && side.replies.is_empty() {
            if !side.full {
                side.session.inbound.return_credit(&mut side.replies);
            }
            side.take_queued(budget, &self.tap, &mut wake);
        }
        let mut written = 0;
        for out in [&mut side.requests, &mut side.replies] {
            let bytes = front(out, n.min(self.links[who].room()) - written.min(n.min(self.links[who].room())));
            let sent = self.links[who].write(&bytes, arrives);
            side.written.extend_from_slice(&bytes[..sent]);
            out.advance(sent);
            written += sent;
            if !out.is_empty() {
                break;
            }
        }
        side.session.outbound.flushed(self.now, side.requests.len());
        if side.written.starts_with(b"farcall") && side.written.len() >= PREFACE_LEN {
            side.written.advance(PREFACE_LEN);
        }
        while !side.written.starts_with(b"farcal")
            && let Some(frame) = get_frame(&mut side.written, 1 << 20).unwrap_or_else(|v| panic!("{who} writes nonsense: {v}"))
        {
            self.tap.wrote(who, &frame, &mut self.ledger);
        }
        self.woke(who, wake);
        written
    }

    fn deliver(&mut self, who: usize) {
        let n = if self.rng.one_in(3) { usize::MAX } else { self.rng.below(if self.heavy { 200_000 } else { 500 }) };
        self.deliver_bytes(who, n);
    }

    fn deliver_bytes(&mut self, from: usize, n: usize) {
        let to = &mut self.sides[1 - from];
        self.links[from].read(self.now, n, &mut to.read);
        if !to.preface_read {
            match Preface::parse(&to.read) {
                Preface::Farcall(1) => to.read.advance(PREFACE_LEN),
                Preface::Partial => return,
                other => panic!("{other:?}"),
            }
            to.preface_read = true;
        }
        while let Some(frame) = get_frame(&mut self.sides[1 - from].read, self.sides[1 - from].max_frame).unwrap() {
            self.tap.arrived(1 - from, &frame);
            self.handle(1 - from, frame);
        }
    }

    fn handle(&mut self, who: usize, frame: Frame) {
        let side = &mut self.sides[who];
        let (outbound, inbound) = (&mut side.session.outbound, &mut side.session.inbound);
        let mut wake = Vec::new();
        if !side.greeted {
            let hello = control::expect_hello(frame).unwrap();
            side.session.established(&hello, "peer".into());
            side.greeted = true;
            side.room_awake = true;
            return;
        }
        match frame.header.kind {
            Kind::Bind | Kind::Bound | Kind::Schema | Kind::Ready => self.on_table(who, &frame),
            Kind::Void => inbound.on_void(),
            Kind::Reply => outbound.on_reply(frame.header, frame.payload, &mut wake).unwrap(),
            Kind::GoAway => {
                outbound.go_away(control::on_go_away(&frame.payload).unwrap(), &mut wake);
                side.room_awake = true;
            }
            Kind::Cancel => self.cancelled(who, frame.header.id),
            Kind::Call => self.on_call(who, frame),
            Kind::Data => {
                let delivered = outbound.on_data(frame, &side.limits, &mut wake).unwrap();
                self.delivered(who, delivered);
            }
            Kind::Credit => side.room_awake |= outbound.on_credit(&frame, &mut wake).unwrap(),
            Kind::End => outbound.on_end(frame, &mut wake).unwrap(),
            Kind::Reset => outbound.on_reset(&frame, &mut wake).unwrap(),
            other => panic!("{other:?} was never sent"),
        }
        self.sides[who].reap(&self.tap);
        self.woke(who, wake);
    }

    pub(crate) fn woke(&mut self, who: usize, wake: Vec<Who>) {
        let side = &mut self.sides[who];
        for woken in wake {
            match woken {
                Who::Call(key) => {
                    let record = self.ledger.get_mut(&key).unwrap();
                    record.woken += 1;
                    assert!(record.woken == 1 && !record.cancelled, "{key} was woken once too often");
                }
                Who::Reader(key, results) => {
                    side.readers.iter_mut().filter(|r| r.key == key && r.line.2 == results).for_each(|r| r.asleep = false);
                }
                Who::Producer(key, results) => {
                    side.producers.iter_mut().filter(|p| p.key == key && p.line.2 == results).for_each(|p| p.asleep = false);
                }
            }
        }
    }

    /// A frame about the method tables.
    fn on_table(&mut self, who: usize, frame: &Frame) {
        let side = &mut self.sides[who];
        let Session { outbound, inbound, differences, .. } = &mut side.session;
        let (out, header, mut settled) = (&mut side.replies, frame.header, Vec::new());
        match header.kind {
            Kind::Bind => {
                let held = inbound.on_bind(frame, &side.catalogue, out).unwrap();
                differences.offer(held, &side.catalogue, out, &mut settled);
            }
            Kind::Bound => {
                let held = outbound.on_bound(header.id, header.aux, &frame.payload, differences.in_use()).unwrap();
                held.into_iter().for_each(|held| differences.answer(held, out, &mut settled));
            }
            Kind::Schema => differences.on_schema(frame, &side.catalogue, out, &mut settled).unwrap(),
            _ => differences.on_ready(frame, &mut settled).unwrap(),
        }
        for settled in settled {
            match settled {
                Settled::Ours(row, replies) => self.sides[who].session.outbound.settle(row, replies),
                Settled::Theirs(row, reading) => self.settle(who, row, reading),
            }
        }
    }

    fn pass_time(&mut self) {
        self.now += if self.rng.one_in(50) { 10_000 } else { self.rng.below(20) as u64 };
        for who in 0..2 {
            let side = &mut self.sides[who];
            let mut wake = Vec::new();
            side.session.outbound.flushed(self.now, side.requests.len());
            if side.session.outbound.next_expiry() <= self.now {
                side.session.outbound.expire(self.now, &mut wake);
            }
            self.woke(who, wake);
            self.expire_held(who);
        }
    }

    fn drain(&mut self, who: usize) {
        let side = &mut self.sides[who];
        side.draining = true;
        side.session.inbound.drain(&RpcError::new(Code::Unavailable, "leaving"), &mut side.replies);
    }

    /// The link breaks: of what is under way, some arrives.
    fn cut(&mut self) {
        self.now += self.delay as u64;
        for from in 0..2 {
            let n = self.rng.below(self.links[from].len() + 1);
            self.deliver_bytes(from, n);
        }
        self.cut = true;
        for who in 0..2 {
            let side = &mut self.sides[who];
            let mut wake = Vec::new();
            side.session.outbound.flushed(self.now, side.requests.len());
            side.session.outbound.lose(RpcError::new(Code::Unavailable, "cut"), &mut wake);
            side.room_awake = true;
            self.woke(who, wake);
            self.drop_handlers(who);
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..self.rng.pick(&STEPS) {
            self.step();
            if self.cut {
                break;
            }
        }
        // Then nobody calls any more, and everything comes to its end.
        self.busy = false;
        for _ in 0..ROUNDS {
            // As long as bytes take: a narrow link must not use the rounds up.
            self.now += 1 + self.delay as u64;
            for who in 0..2 {
                self.sides[who].full = false;
                if !self.cut {
                    self.write_bytes(who, usize::MAX);
                    self.deliver_bytes(who, usize::MAX);
                    self.handle_on(who);
                }
                self.retry(who);
                self.look(who);
                self.produce(who);
                (0..8).for_each(|_| self.read(who));
            }
            if self.is_quiet() {
                break;
            }
        }
        self.check();
    }

    fn is_quiet(&self) -> bool {
        let still = |s: &Side| {
            let out = &s.session.outbound;
            let written = self.cut || s.requests.is_empty() && s.replies.is_empty() && !out.has_output();
            s.is_idle() && out.in_flight() == 0 && out.load() == Load::default() && written
        };
        self.sides.iter().all(still) && (self.cut || self.links.iter().all(Link::is_empty))
    }

    fn check(&self) {
        for (who, side) in self.sides.iter().enumerate() {
            let outbound = &side.session.outbound;
            let names = |n: Vec<Key>| assert!(n.is_empty(), "{who}: never ended: {n:?}");
            names(side.waiting.iter().map(|(_, key)| *key).collect());
            names(side.room.iter().map(|p| p.key).collect());
            names(side.readers.iter().map(|r| r.key).collect());
            names(side.producers.iter().map(|p| p.key).collect());
            names(side.handlers.iter().map(|h| h.key).collect());
            assert!(self.is_quiet(), "{who}: {} calls in flight, {:?}", outbound.in_flight(), outbound.load());
            assert!(self.cut || side.session.inbound.running() == 0, "{who}: {} calls run for ever", side.session.inbound.running());
            if !self.cut && self.drains() == 0 {
                self.tap.check_whole(who, outbound.spent());
            }
        }
        for (key, record) in &self.ledger {
            assert!(record.ended, "{key} never ended");
            if matches!(record.promised, Some(Certainty::NotSent | Certainty::NotExecuted)) {
                assert_eq!(record.executed, 0, "{key} was said not to have run: {record:?}");
            }
            if record.promised == Some(Certainty::NotSent) {
                assert!(!record.sent, "{key} was said not to have been sent: {record:?}");
            }
        }
    }
}
