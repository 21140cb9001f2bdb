//! Two sessions and a pipe in one struct, driven at random: calls both ways, one-way calls,
//! cancels, deadlines, refusals, replies in any order, GoAway at any time, cuts at any byte.
//!
//! What must hold is checked against a ledger of what handlers really did: every call ends once,
//! what is said about its execution is true and as exact as can be known, a reply reaches the call
//! it belongs to, numbers do not collide, no slot leaks. `FARCALL_SEED=n` replays one run.

mod support;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use farcall_core::{Certainty, Code, Limits, RpcError, ServiceDescriptor};
use farcall_wire::{
    Answer, Body, CallId, Frame, Kind, OutBuf, PREFACE_LEN, Preface, Session, Start, begin_reply, control, end_reply, flags, get_frame,
    reply_failure, status,
};
use support::{One, Rng, seeds, service};

/// A call in the ledger, by the number that travels in its body.
type Key = u64;

#[derive(Debug, Default)]
struct Record {
    oneway: bool,
    deadline: bool,
    /// Times its handler ran.
    executed: usize,
    /// Times its caller was woken.
    woken: usize,
    /// Its frame left whole, as a Call.
    sent: bool,
    /// The caller went away before it had an answer.
    cancelled: bool,
    /// Its caller was told this and may rely on it.
    promised: Option<Certainty>,
    ended: bool,
}

struct Handler {
    id: u32,
    oneway: bool,
    key: Key,
}

struct Side {
    name: &'static str,
    session: Session<Key>,
    catalogue: One,
    /// What this side calls; one method differs from what the other has.
    calls: ServiceDescriptor,
    requests: OutBuf,
    replies: OutBuf,
    read: BytesMut,
    preface_read: bool,
    greeted: bool,
    draining: bool,
    /// Calls whose callers still want an answer.
    waiting: Vec<(CallId, Key)>,
    handlers: Vec<Handler>,
    /// A copy of what was written, to see which calls left whole.
    written: BytesMut,
    max_frame: usize,
}

/// Methods of both sides: a two-way one, a one-way one, one on which they differ.
const ECHO: u16 = 0;
const NOTE: u16 = 1;
const ODD: u16 = 2;

impl Side {
    fn new(name: &'static str, limits: &Limits) -> Side {
        let served = service("Echo", &[("echo", false), ("note", true), ("odd", false)]);
        let mut calls = served.clone();
        calls.methods[ODD as usize].prints.args.0[0] ^= 1;
        let session = Session::new([name.len() as u8; 16], 1, limits);
        let mut replies = OutBuf::default();
        replies.small().extend_from_slice(&Session::<Key>::opening(&session.hello));
        let max_frame = session.hello.limits.frame as usize;
        Side {
            name,
            session,
            catalogue: One(served),
            calls,
            requests: OutBuf::default(),
            replies,
            read: BytesMut::new(),
            preface_read: false,
            greeted: false,
            draining: false,
            waiting: Vec::new(),
            handlers: Vec::new(),
            written: BytesMut::new(),
            max_frame,
        }
    }

    /// Writes up to `n` bytes, as a driver would: what was begun first, then replies, then what
    /// callers queued.
    fn write(&mut self, n: usize, now: u64, pipe: &mut VecDeque<u8>, ledger: &mut HashMap<Key, Record>) {
        if self.requests.is_empty() && self.replies.is_empty() {
            self.session.outbound.take(&mut self.requests);
        }
        for out in [&mut self.requests, &mut self.replies] {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = out.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).take(n).collect();
            out.advance(bytes.len());
            self.written.extend_from_slice(&bytes);
            pipe.extend(bytes.iter());
            if !out.is_empty() {
                break;
            }
        }
        self.session.outbound.flushed(now, self.requests.len());
        if self.written.starts_with(b"farcall") && self.written.len() >= PREFACE_LEN {
            self.written.advance(PREFACE_LEN);
        }
        while let Some(frame) = get_frame(&mut self.written, 1 << 20).unwrap_or_else(|v| panic!("{} writes nonsense: {v}", self.name)) {
            if frame.header.kind == Kind::Call {
                ledger.get_mut(&key_of(&frame.payload[4..])).unwrap().sent = true;
            }
        }
    }
}

fn key_of(body: &[u8]) -> Key {
    u64::from_le_bytes(*body.first_chunk().expect("a body without its key"))
}

struct Pair {
    rng: Rng,
    now: u64,
    sides: [Side; 2],
    /// Bytes under way from each side.
    pipes: [VecDeque<u8>; 2],
    ledger: HashMap<Key, Record>,
    next: Key,
    cut: bool,
    /// Whether new calls are made.
    calling: bool,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let mut rng = Rng(seed);
        let in_flight = [3, 10, 100][rng.below(3)];
        let limits = Limits { in_flight, body: 4096, ..Limits::default() };
        Pair {
            sides: [Side::new("left", &limits), Side::new("right", &limits)],
            rng,
            now: 0,
            pipes: Default::default(),
            ledger: HashMap::new(),
            next: 1,
            cut: false,
            calling: true,
        }
    }

    fn step(&mut self) {
        let who = self.rng.below(2);
        match self.rng.below(100) {
            0..25 if self.calling => self.call(who),
            25..30 if self.calling => self.call_oneway(who),
            30..37 => self.cancel(who),
            37..50 => self.look(who),
            50..65 => self.write(who),
            65..80 => self.deliver(who),
            80..92 => self.finish_handler(who),
            92..98 => self.pass_time(),
            98 if self.rng.one_in(20) => self.drain(who),
            99 if self.rng.one_in(20) => self.cut(),
            _ => {}
        }
    }

    fn body(&mut self, oneway: bool) -> (Key, Vec<u8>) {
        let key = self.next;
        self.next += 1;
        self.ledger.insert(key, Record { oneway, ..Record::default() });
        let mut body = key.to_le_bytes().to_vec();
        body.resize(8 + self.rng.below(40), 0);
        (key, body)
    }

    fn call(&mut self, who: usize) {
        let (key, body) = self.body(false);
        let method = if self.rng.one_in(8) { ODD } else { ECHO };
        let deadline = self.rng.one_in(3).then(|| self.rng.below(50) as u64);
        let segment = self.rng.one_in(4);
        let side = &mut self.sides[who];
        let record = self.ledger.get_mut(&key).unwrap();
        record.deadline = deadline.is_some();
        let body = if segment { Body::Segment(Bytes::from(body)) } else { Body::Copy(&body.clone()) };
        let row = side.session.outbound.bind(1, &side.calls).map(|first| first + method);
        let before = side.session.outbound.in_flight();
        let started = row.and_then(|row| {
            side.session.outbound.start(self.now, Start { row, deadline, options: &[], body, streams: Streams::default() }, Some(key))
        });
        match started {
            Ok(id) => {
                // A number of a call that is not over must not be given out again.
                assert!(side.waiting.iter().all(|(other, _)| *other != id), "{id:?} is given out twice");
                side.waiting.push((id, key));
            }
            Err(e) => {
                assert_eq!(e.certainty(), Certainty::NotSent);
                assert_eq!(side.session.outbound.in_flight(), before);
                (record.promised, record.ended) = (Some(Certainty::NotSent), true);
            }
        }
    }

    fn call_oneway(&mut self, who: usize) {
        let (key, body) = self.body(true);
        let side = &mut self.sides[who];
        let start = |row| Start { row, deadline: None, options: &[], body: Body::Copy(&body), streams: Streams::default() };
        let row = side.session.outbound.bind(1, &side.calls).map(|first| first + NOTE);
        if let Err(e) = row.and_then(|row| side.session.outbound.start_oneway(start(row))) {
            self.ledger.get_mut(&key).unwrap().promised = Some(e.certainty());
        }
        self.ledger.get_mut(&key).unwrap().ended = true;
    }

    fn cancel(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if side.waiting.is_empty() {
            return;
        }
        let (id, key) = side.waiting.swap_remove(self.rng.below(side.waiting.len()));
        let certainty = side.session.outbound.cancel(id);
        let record = self.ledger.get_mut(&key).unwrap();
        (record.promised, record.ended) = (Some(certainty), true);
        record.cancelled = true;
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
        let answer = side.session.outbound.poll(id, |waiting| assert_eq!(*waiting, Some(key), "somebody else waits in this slot"));
        let Some(answer) = answer else {
            assert_eq!(record.woken, 0, "woken for nothing");
            return;
        };
        side.waiting.swap_remove(at);
        assert_eq!(record.woken, 1, "{key} ended without a word");
        assert!(!std::mem::replace(&mut record.ended, true), "{key} ended twice");
        match answer {
            Answer::Ok(body) | Answer::AppError(body) => {
                assert_eq!(key_of(&body), key, "an answer to another call");
                assert_eq!(record.executed, 1, "{key} is answered and was not run");
            }
            Answer::Failed(e) => {
                assert_ne!(e.code(), Code::Internal, "{e}");
                record.promised = Some(e.certainty());
                if e.message() == "cut" {
                    let exact = if record.sent { Certainty::MaybeExecuted } else { Certainty::NotSent };
                    assert_eq!(e.certainty(), exact, "{key} when the link was cut");
                }
                if e.code() == Code::DeadlineExceeded {
                    assert!(record.deadline, "{key} has no deadline");
                }
            }
        }
    }

    fn write(&mut self, who: usize) {
        let n = if self.rng.one_in(3) { usize::MAX } else { self.rng.below(60) };
        self.sides[who].write(n, self.now, &mut self.pipes[who], &mut self.ledger);
    }

    fn deliver(&mut self, who: usize) {
        let n = if self.rng.one_in(3) { usize::MAX } else { self.rng.below(60) };
        self.deliver_bytes(who, n);
    }

    fn deliver_bytes(&mut self, from: usize, n: usize) {
        let pipe = &mut self.pipes[from];
        let bytes: Vec<u8> = pipe.drain(..n.min(pipe.len())).collect();
        let to = &mut self.sides[1 - from];
        to.read.extend_from_slice(&bytes);
        if !to.preface_read {
            match Preface::parse(&to.read) {
                Preface::Farcall(1) => to.read.advance(PREFACE_LEN),
                Preface::Partial => return,
                other => panic!("{other:?}"),
            }
            to.preface_read = true;
        }
        while let Some(frame) = get_frame(&mut self.sides[1 - from].read, self.sides[1 - from].max_frame).unwrap() {
            self.handle(1 - from, frame);
        }
    }

    fn handle(&mut self, who: usize, frame: Frame) {
        let side = &mut self.sides[who];
        let mut woken = Vec::new();
        if !side.greeted {
            let hello = control::expect_hello(frame).unwrap();
            side.session.outbound.established(hello.limits, "peer".into());
            side.greeted = true;
            return;
        }
        match frame.header.kind {
            Kind::Bind => side.session.inbound.on_bind(&frame, &side.catalogue, &mut side.replies).unwrap(),
            Kind::Bound => side.session.outbound.on_bound(frame.header.id, frame.header.aux, &frame.payload).unwrap(),
            Kind::Void => side.session.inbound.on_void(),
            Kind::Reply => woken.extend(side.session.outbound.on_reply(frame.header, frame.payload).unwrap()),
            Kind::GoAway => side.session.outbound.go_away(control::on_go_away(&frame.payload).unwrap(), &mut woken),
            Kind::Cancel => self.cancelled(who, frame.header.id),
            Kind::Call => self.handle_call(who, frame),
            other => panic!("{other:?} was never sent"),
        }
        self.woke(woken);
    }

    fn woke(&mut self, woken: Vec<Key>) {
        for key in woken {
            let record = self.ledger.get_mut(&key).unwrap();
            record.woken += 1;
            assert!(record.woken == 1 && !record.cancelled, "{key} was woken once too often");
        }
    }

    fn handle_call(&mut self, who: usize, frame: Frame) {
        let side = &mut self.sides[who];
        let oneway = frame.header.flags & flags::ONEWAY != 0;
        let Some(request) = side.session.inbound.on_call(frame, 0, &mut side.replies).unwrap() else { return };
        assert!(!side.draining, "taken after the GoAway");
        assert_eq!(request.oneway, oneway);
        let (id, key) = (request.id, key_of(&request.body));
        // Some are refused by the driver, as those whose deadline has passed.
        if self.rng.one_in(6) {
            if !oneway {
                reply_failure(&mut side.replies, id, &RpcError::not_executed(Code::DeadlineExceeded, "too late"));
                self.ledger.get_mut(&key).unwrap().deadline = true;
            }
            return side.session.inbound.finished(id, oneway);
        }
        let record = self.ledger.get_mut(&key).unwrap();
        record.executed += 1;
        assert_eq!(record.executed, 1, "{key} is run twice");
        assert_eq!(record.oneway, oneway);
        if !oneway {
            assert!(side.handlers.iter().all(|h| h.oneway || h.id != id), "two running calls of one number");
            side.session.inbound.park(id, key as usize);
        }
        side.handlers.push(Handler { id, oneway, key });
    }

    /// The handler of a cancelled call is dropped, or not.
    fn cancelled(&mut self, who: usize, id: u32) {
        let side = &mut self.sides[who];
        let Some(token) = side.session.inbound.on_cancel(id) else { return };
        let at = side.handlers.iter().position(|h| !h.oneway && h.id == id).expect("a Cancel for a call that does not run");
        assert_eq!(side.handlers[at].key, token as u64);
        let record = &self.ledger[&(token as u64)];
        assert!(record.cancelled || record.deadline && record.woken == 1, "a call was cancelled that nobody cancelled");
        if self.rng.one_in(2) {
            side.handlers.swap_remove(at);
            reply_failure(&mut side.replies, id, &RpcError::new(Code::Cancelled, "the caller went away"));
            side.session.inbound.finished(id, false);
        }
    }

    fn finish_handler(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if side.handlers.is_empty() {
            return;
        }
        let Handler { id, oneway, key } = side.handlers.swap_remove(self.rng.below(side.handlers.len()));
        if !oneway {
            match self.rng.below(4) {
                0 => reply_failure(&mut side.replies, id, &RpcError::new(Code::Aborted, "the handler failed")),
                n => {
                    let status = if n == 1 { status::APP_ERROR } else { status::OK };
                    let out = side.replies.small();
                    let start = begin_reply(out, id, status);
                    out.extend_from_slice(&key.to_le_bytes());
                    end_reply(out, start);
                }
            }
        }
        side.session.inbound.finished(id, oneway);
    }

    fn pass_time(&mut self) {
        self.now += self.rng.below(20) as u64;
        let mut woken = Vec::new();
        for side in &mut self.sides {
            side.session.outbound.flushed(self.now, side.requests.len());
            if side.session.outbound.next_expiry() <= self.now {
                side.session.outbound.expire(self.now, &mut woken);
            }
        }
        self.woke(woken);
    }

    fn drain(&mut self, who: usize) {
        let side = &mut self.sides[who];
        side.draining = true;
        side.session.inbound.drain(&RpcError::new(Code::Unavailable, "leaving"), &mut side.replies);
    }

    /// The link breaks: of what is under way, some arrives.
    fn cut(&mut self) {
        if std::mem::replace(&mut self.cut, true) {
            return;
        }
        for from in 0..2 {
            let n = self.rng.below(self.pipes[from].len() + 1);
            self.deliver_bytes(from, n);
        }
        for who in 0..2 {
            let side = &mut self.sides[who];
            let mut woken = Vec::new();
            side.session.outbound.flushed(self.now, side.requests.len());
            side.session.outbound.lose(RpcError::new(Code::Unavailable, "cut"), &mut woken);
            self.woke(woken);
        }
    }

    fn run(&mut self) {
        for _ in 0..400 {
            self.step();
            if self.cut {
                break;
            }
        }
        // Then nobody calls any more, and everything comes to its end.
        self.calling = false;
        for _ in 0..10_000 {
            if self.cut {
                (0..2).for_each(|who| self.look(who));
            } else {
                for who in 0..2 {
                    self.sides[who].write(usize::MAX, self.now, &mut self.pipes[who], &mut self.ledger);
                    self.deliver_bytes(who, usize::MAX);
                    self.finish_handler(who);
                    self.look(who);
                }
            }
            if self.is_quiet() {
                break;
            }
        }
        self.check();
    }

    fn is_quiet(&self) -> bool {
        let still = |s: &Side| s.waiting.is_empty() && s.session.outbound.in_flight() == 0 && (self.cut || s.handlers.is_empty());
        self.sides.iter().all(still)
    }

    fn check(&self) {
        for side in &self.sides {
            assert_eq!(
                side.waiting.iter().map(|(_, key)| key).collect::<Vec<_>>(),
                Vec::<&Key>::new(),
                "{}: calls without an end",
                side.name
            );
            assert_eq!(side.session.outbound.in_flight(), 0, "{}: slots leak", side.name);
            assert!(self.cut || side.session.inbound.running() == 0, "{}: calls run for ever", side.name);
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

fn run(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.run()));
    if let Err(panic) = ran {
        eprintln!("seed {seed}: replay with FARCALL_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
    pair
}

#[test]
fn every_call_ends_once_and_truthfully() {
    let (mut cuts, mut drains, mut seen) = (0, 0, HashSet::new());
    for seed in seeds(0, 4000) {
        let pair = run(seed);
        cuts += pair.cut as usize;
        drains += pair.sides.iter().any(|s| s.draining) as usize;
        for r in pair.ledger.values() {
            seen.insert((r.promised, r.sent, r.executed, r.oneway));
        }
    }
    if std::env::var_os("FARCALL_SEED").is_none() {
        // A driver that never gets anywhere would pass too.
        assert!(cuts > 300 && drains > 300, "{cuts} cuts, {drains} drains");
        for promised in [Some(Certainty::NotSent), Some(Certainty::NotExecuted), Some(Certainty::MaybeExecuted), None] {
            assert!(seen.iter().any(|s| s.0 == promised), "never {promised:?}");
        }
        assert!(seen.contains(&(Some(Certainty::MaybeExecuted), true, 0, false)), "nothing was ever lost on the way");
        assert!(seen.contains(&(Some(Certainty::MaybeExecuted), true, 1, false)), "no answer was ever lost");
    }
}
