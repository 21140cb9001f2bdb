//! The table of calls made, driven by a script: see [`check`].

use bytes::BytesMut;
use farcall_core::{MethodDescriptor, MethodTraits, Never};

use super::*;
use crate::frame::{Frame, get_frame};
use crate::inbound::reply_failure;

pub(crate) fn service(name: &str, methods: &[(&str, bool)]) -> ServiceDescriptor {
    let method = |&(name, oneway): &(&str, bool)| {
        MethodDescriptor::build::<(u32,), u64, Never>(name, None, "", &[], name, MethodTraits { oneway, ..Default::default() })
    };
    ServiceDescriptor {
        name: name.to_owned(),
        foreign_name: None,
        docs: String::new(),
        version: String::new(),
        group: String::new(),
        methods: methods.iter().map(method).collect(),
    }
}

/// A descriptor that lives for ever, as a stub's does.
pub(crate) fn kept(name: &str, methods: &[(&str, bool)]) -> &'static ServiceDescriptor {
    Box::leak(Box::new(service(name, methods)))
}

fn limits(in_flight: u32) -> PeerLimits {
    PeerLimits { in_flight, body: 1000, ..PeerLimits::BEFORE_HELLO }
}

/// A table of calls, its buffer on the way to the peer, and calls by a letter each.
struct Table {
    out: Outbound<String>,
    wire: OutBuf,
    written: BytesMut,
    now: u64,
    calls: Vec<(String, CallId)>,
    log: Vec<String>,
}

impl Table {
    fn new() -> Table {
        let mut out = Outbound::new(&PeerLimits::BEFORE_HELLO);
        out.established(limits(3), "peer".into());
        let first = out.bind(kept("Echo", &[("echo", false)])).unwrap();
        assert_eq!(first, 0);
        let mut t = Table { out, wire: OutBuf::default(), written: BytesMut::new(), now: 0, calls: Vec::new(), log: Vec::new() };
        t.step("write");
        t.log.clear();
        t
    }

    fn id(&self, name: &str) -> CallId {
        self.calls.iter().rev().find(|(n, _)| n == name).map(|(_, id)| *id).unwrap()
    }

    fn wrote(&mut self, n: usize) {
        let mut io = [std::io::IoSlice::new(&[]); 8];
        let count = self.wire.slices(&mut io);
        let bytes: Vec<u8> = io[..count].iter().flat_map(|s| s.to_vec()).take(n).collect();
        self.written.extend_from_slice(&bytes);
        self.wire.advance(bytes.len());
        self.out.flushed(self.now, self.wire.len());
        while let Some(frame) = get_frame(&mut self.written, 1 << 20).unwrap() {
            self.log.push(format!("{:?}", frame.header.kind));
        }
    }

    /// Payload bytes of the frames that leave now.
    fn frames(&mut self) -> Vec<usize> {
        let mut wire = OutBuf::default();
        self.out.take(&mut wire);
        self.out.pump(&mut wire, usize::MAX, &mut Vec::new());
        let mut bytes = BytesMut::new();
        while !wire.is_empty() {
            let mut io = [std::io::IoSlice::new(&[]); 8];
            let count = wire.slices(&mut io);
            let some: Vec<u8> = io[..count].iter().flat_map(|s| s.to_vec()).collect();
            bytes.extend_from_slice(&some);
            wire.advance(some.len());
        }
        std::iter::from_fn(|| get_frame(&mut bytes, 1 << 20).unwrap()).map(|f| f.payload.len()).collect()
    }

    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok());
        let mut woken = Vec::new();
        match words[0] {
            "call" => {
                let start = Start { row: 0, deadline: number(2), options: &[], body: Body::Copy(b"12345678"), streams: Streams::default() };
                match self.out.start(self.now, start, Some(words[1].into())) {
                    Ok(id) => self.calls.push((words[1].into(), id)),
                    Err(e) => self.log.push(show(words[1], &e)),
                }
            }
            "oneway" => self
                .out
                .start_oneway(Start { row: 0, deadline: None, options: &[], body: Body::Copy(b"1"), streams: Streams::default() })
                .unwrap(),
            "take" => assert!(self.out.take(&mut self.wire)),
            "wrote" => self.wrote(number(1).unwrap() as usize),
            "write" => {
                while self.wire.is_empty() && self.out.take(&mut self.wire) || !self.wire.is_empty() {
                    self.wrote(usize::MAX);
                }
            }
            "reply" => {
                let header = Header::new(Kind::Reply, 0, number(2).unwrap_or(0) as u16, self.id(words[1]).0);
                if let Err(v) = self.out.on_reply(header, Bytes::from_static(b"r"), &mut woken) {
                    self.log.push(format!("violation: {v}"));
                }
            }
            "cancel" => {
                self.out.cancel(self.id(words[1]), &mut woken);
            }
            "at" => {
                self.now = number(1).unwrap();
                self.out.expire(self.now, &mut woken);
            }
            "goaway" => {
                let reason = RpcError::new(Code::Unavailable, "leaving");
                self.out.go_away(GoAway { last: number(1).unwrap(), reason }, &mut woken);
            }
            "lose" => self.out.lose(RpcError::new(Code::Unavailable, "lost"), &mut woken),
            "look" => {
                let line = match self.out.poll(self.id(words[1]), |_| {}) {
                    None => format!("{} waits", words[1]),
                    Some(Answer::Failed(e)) => show(words[1], &e),
                    Some(_) => format!("{} ok", words[1]),
                };
                self.log.push(line);
            }
            other => panic!("no step {other}"),
        }
        self.log.extend(woken.into_iter().map(|w| format!("woke {w}")));
    }
}

fn show(name: &str, e: &RpcError) -> String {
    format!("{name} {:?} {:?}", e.code(), e.certainty())
}

/// Runs a script and compares what could be seen: frames written, callers woken, what they found.
#[track_caller]
fn check(script: &str, expected: &str, in_flight: usize) {
    let mut t = Table::new();
    script.split("; ").for_each(|step| t.step(step));
    assert_eq!(t.log.join("; "), expected, "{script}");
    assert_eq!(t.out.in_flight(), in_flight, "in flight after {script}");
}

#[test]
fn a_call_ends_with_its_reply() {
    check("call a; write; look a; reply a; look a", "Call; a waits; woke a; a ok", 0);
    check("call a; write; reply a; reply a", "Call; woke a; violation: a reply to call 0x0, which does not wait for one", 1);
    check("call a; write; reply a; look a; reply a", "Call; woke a; a ok; violation: a reply to call 0x0, which does not wait for one", 0);
}

#[test]
fn a_reply_before_its_call_was_written_is_a_lie() {
    check("call a; reply a; look a", "violation: a reply to call 0x0, which does not wait for one; a waits", 1);
}

#[test]
fn a_reply_that_cannot_be_read_leaves_the_caller_to_be_told_when_the_link_ends() {
    let status = "violation: a reply with status 9, which is not in this protocol version";
    check("call a; write; reply a 9; lose; look a", &format!("Call; {status}; woke a; a Unavailable MaybeExecuted"), 0);
    let broken = "violation: a failure that cannot be read: certainty: the message ends early";
    check("call a; write; reply a 2; lose; look a", &format!("Call; {broken}; woke a; a Unavailable MaybeExecuted"), 0);
}

#[test]
fn a_reply_in_parts_is_not_taken_for_a_whole_one() {
    for bits in [flags::OPTIONS, flags::STREAM, flags::STREAM | flags::MORE, 0x80] {
        let mut t = Table::new();
        t.step("call a");
        t.step("write");
        assert!(t.out.on_reply(Header::new(Kind::Reply, bits, 0, t.id("a").0), Bytes::new(), &mut Vec::new()).is_err(), "flags {bits:#x}");
        t.step("look a");
        assert_eq!(t.log.join("; "), "Call; a waits");
    }
}

#[test]
fn a_number_is_not_used_again_before_the_reply() {
    // Cancelled after it was written: the slot is kept, the next call gets another one.
    check("call a; write; cancel a; call b; write; reply b; look b", "Call; Cancel; Call; woke b; b ok", 1);
    check("call a; write; cancel a; reply a; write", "Call; Cancel", 0);
    // Cancelled before: nothing will come.
    check("call a; cancel a; call b; write", "Void; Call", 1);
    // Taken for writing is too late to withdraw.
    check("call a; take; cancel a; write", "Call; Cancel", 1);
    let mut t = Table::new();
    for step in ["call a", "write", "cancel a", "call b"] {
        t.step(step);
    }
    assert_ne!(t.id("a").slot(), t.id("b").slot());
    for step in ["reply a", "call c"] {
        t.step(step);
    }
    assert_eq!(t.id("a").slot(), t.id("c").slot());
    assert_ne!(t.id("a"), t.id("c"), "the generation tells them apart");
}

#[test]
fn a_caller_that_goes_away_learns_what_is_known() {
    let check = |script: &str, expected: Certainty| {
        let mut t = Table::new();
        script.split("; ").for_each(|step| t.step(step));
        assert_eq!(t.out.cancel(t.id("a"), &mut Vec::new()), expected, "{script}");
    };
    check("call a", Certainty::NotSent);
    check("call a; take", Certainty::MaybeExecuted);
    check("call a; write; reply a", Certainty::MaybeExecuted);
    check("call a; write; goaway 0", Certainty::NotExecuted);
    check("call a; lose", Certainty::NotSent);
    check("call a; write; lose", Certainty::MaybeExecuted);
    check("call a 5; at 5", Certainty::NotSent);
    check("call a 5; write; at 5", Certainty::MaybeExecuted);
}

#[test]
fn generations_wrap_and_numbers_in_flight_still_differ() {
    let mut t = Table::new();
    t.step("call kept");
    for _ in 0..(1 << 16) + 2 {
        for step in ["call a", "write", "reply a", "look a"] {
            t.step(step);
        }
        t.calls.truncate(1);
        t.log.clear();
    }
    t.step("look kept");
    assert_eq!(t.log, ["kept waits"]);
    assert_eq!(t.out.in_flight(), 1);
}

#[test]
fn a_deadline_ends_the_call_and_says_what_is_known() {
    check("call a 10; at 9; at 10; look a", "woke a; a DeadlineExceeded NotSent", 0);
    check("call a 10; at 10; write; look a", "woke a; Void; a DeadlineExceeded NotSent", 0);
    check("call a 10; take; at 10; look a; lose", "woke a; a DeadlineExceeded MaybeExecuted", 0);
    check("call a 10; write; at 10; look a", "Call; woke a; a DeadlineExceeded MaybeExecuted", 1);
    check("call a 10; write; at 10; reply a; look a", "Call; woke a; a DeadlineExceeded MaybeExecuted", 0);
    check("call a 10; write; at 10; look a; reply a", "Call; woke a; a DeadlineExceeded MaybeExecuted", 0);
    check("call a 10; write; at 10; cancel a; write; reply a", "Call; woke a; Cancel", 0);
    check("call a 10; write; at 10; lose; look a", "Call; woke a; a DeadlineExceeded MaybeExecuted", 0);
}

#[test]
fn a_lost_link_says_which_frames_did_not_leave_whole() {
    let cut = |n: usize| format!("call a; call b; take; wrote {n}; lose; look a; look b");
    let (gone, not) = ("Unavailable MaybeExecuted", "Unavailable NotSent");
    // A call is 12 bytes of header, 4 of deadline, 8 of arguments.
    check(&cut(23), &format!("woke a; woke b; a {not}; b {not}"), 0);
    check(&cut(24), &format!("Call; woke a; woke b; a {gone}; b {not}"), 0);
    check(&cut(47), &format!("Call; woke a; woke b; a {gone}; b {not}"), 0);
    check(&cut(48), &format!("Call; Call; woke a; woke b; a {gone}; b {gone}"), 0);
    check("lose; call a", "a Unavailable NotSent", 0);
}

#[test]
fn a_go_away_counts_every_call_frame() {
    // Numbers: a 1, the one-way call 2, the withdrawn one 3, b 4.
    let script = |last: u64| format!("call a; oneway; call v; cancel v; call b; write; goaway {last}; look a; look b; call c");
    let (sent, refused, not) = ("Call; Call; Void; Call", "Unavailable NotExecuted", "c Unavailable NotSent");
    check(&script(4), &format!("{sent}; a waits; b waits; {not}"), 2);
    check(&script(3), &format!("{sent}; woke b; a waits; b {refused}; {not}"), 1);
    check(&script(1), &format!("{sent}; woke b; a waits; b {refused}; {not}"), 1);
    check(&script(0), &format!("{sent}; woke a; woke b; a {refused}; b {refused}; {not}"), 0);
    // The accepted ones are still answered; those of vanished callers are not waited for.
    check("call a; write; goaway 1; reply a; look a", "Call; woke a; a ok", 0);
    check("call a; write; cancel a; goaway 0", "Call", 0);
    check("call a 5; write; at 5; look a; goaway 0", "Call; woke a; a DeadlineExceeded MaybeExecuted", 0);
}

#[test]
fn the_peers_limits_are_kept() {
    check("call a; call b; call c; call d; cancel a; call e", "d ResourceExhausted NotSent", 3);
    let mut t = Table::new();
    let mut call = |body: usize, options: usize| {
        let (body, options) = (vec![0; body], vec![0; options]);
        t.out
            .start_oneway(Start { row: 0, deadline: None, options: &options, body: Body::Copy(&body), streams: Streams::default() })
            .map_err(|e| e.message().to_owned())
    };
    call(1000, 4096).unwrap();
    assert!(call(1001, 0).unwrap_err().contains("limit `body` is 1000"));
    assert!(call(0, 4097).unwrap_err().contains("limit `metadata` is 4096"));
    t.out.established(PeerLimits { body: WHOLE as u32, frame: 64 << 10, ..limits(3) }, "peer".into());
    t.step("write");
    let mut frames = |body: usize| {
        let body = vec![0; body];
        t.out.start_oneway(Start { row: 0, deadline: None, options: &[], body: Body::Copy(&body), streams: Streams::default() }).unwrap();
        t.frames()
    };
    assert_eq!(frames((64 << 10) - 4), [64 << 10]);
    assert_eq!(frames((64 << 10) - 3), [64 << 10, 1], "what is larger than the peer's frames goes in fragments");
    assert_eq!(frames(120 << 10), [64 << 10, (56 << 10) + 4]);
    assert_eq!(t.out.in_flight(), 0, "the number of a one-way call is free once all of it is queued");
}

#[test]
fn before_the_peers_hello_only_so_much_is_queued() {
    let mut out = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    out.bind(kept("Echo", &[("echo", false)])).unwrap();
    let body = vec![0; 48 << 10];
    let mut call =
        || out.start_oneway(Start { row: 0, deadline: None, options: &[], body: Body::Copy(&body), streams: Streams::default() });
    let e = (0..64).find_map(|_| call().err()).unwrap();
    assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotSent));
    assert!(out.queued() <= 1 << 20, "{} bytes", out.queued());
}

#[test]
fn rows_do_not_wrap_whatever_the_peer_announces() {
    let mut out = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    out.established(PeerLimits { bound_methods: u32::MAX, frame: u32::MAX, ..PeerLimits::BEFORE_HELLO }, "peer".into());
    let names: Vec<String> = (0..4096).map(|i| format!("m{i}")).collect();
    let methods = names.iter().map(|n| (n.as_str(), false)).collect::<Vec<_>>();
    for n in 0..15 {
        assert_eq!(out.bind(kept("Large", &methods)).unwrap(), n * 4096);
    }
    assert!(out.bind(kept("Large", &methods)).unwrap_err().message().contains("limit `bound_methods` 65535"));
    let start = |row| Start { row, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() };
    out.start_oneway(start(15 * 4096 - 1)).unwrap();
    let e = out.start_oneway(start(15 * 4096)).unwrap_err();
    assert!(e.certainty() == Certainty::NotSent && e.message().contains("is not bound"), "a slip of ours does not cost the link: {e}");
}

#[test]
fn descriptors_that_come_and_go_are_known_by_what_they_say() {
    let mut out = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    let (ab, ba) = (service("S", &[("a", false), ("b", false)]), service("S", &[("b", false), ("a", false)]));
    assert_eq!(out.bind_by_value(&ab).unwrap(), 0);
    assert_eq!(out.bind_by_value(&ba).unwrap(), 2, "another order is another binding");
    assert_eq!(out.bind_by_value(&ab.clone()).unwrap(), 0, "the same again costs no rows");
}

#[test]
fn a_bound_frame_comes_once_and_only_for_its_rows() {
    let bound = |aux: u16, verdicts: &[Verdict]| {
        let mut t = Table::new();
        let payload = if aux == 0 { Vec::new() } else { farcall_core::compact::encode(&verdicts).unwrap() };
        let first = t.out.on_bound(1, aux, &payload, false);
        let again = t.out.on_bound(1, aux, &payload, false);
        assert!(again.is_err(), "a second one");
        assert!(t.out.on_bound(2, aux, &payload, false).is_err(), "a binding never sent");
        first
            .map(|_| t.out.start_oneway(Start { row: 0, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() }))
    };
    let verdict = |row: u16, code: u8, text: &str| Verdict { row, code, message: text.into() };
    bound(0, &[]).unwrap().unwrap();
    let e = bound(1, &[verdict(0, 9, "differs")]).unwrap().unwrap_err();
    assert_eq!((e.code(), e.certainty(), e.message()), (Code::FailedPrecondition, Certainty::NotSent, "differs"));
    let e = bound(1, &[verdict(0, 9, &"x".repeat(60_000))]).unwrap().unwrap_err();
    assert!(e.message().len() <= VERDICT_TEXT);
    assert!(!bound(1, &[verdict(0, 9, "")]).unwrap().unwrap_err().message().is_empty());
    bound(1, &[verdict(1, 9, "")]).unwrap_err();
    bound(1, &[verdict(0, 9, ""), verdict(0, 9, "")]).unwrap_err();
    bound(1, &[verdict(0, 0, "")]).unwrap_err();
    bound(2, &[]).unwrap_err();
}

#[test]
fn a_timeout_says_where_the_time_went_or_nothing() {
    let message = |t: &mut Table| match t.out.poll(t.id("a"), |_| {}) {
        Some(Answer::Failed(e)) => e.message().to_owned(),
        other => panic!("{other:?}"),
    };
    let mut t = Table::new();
    ["call a 500", "at 3", "write", "at 500"].iter().for_each(|s| t.step(s));
    assert_eq!(message(&mut t), "deadline 500 ms: 3 ms client queue, 497 ms no reply from peer after the request was written");
    // A thousand idle turns must not push the mark out.
    let mut t = Table::new();
    ["call a 5000", "at 3", "write"].iter().for_each(|s| t.step(s));
    (4..1000).for_each(|now| t.out.flushed(now, 0));
    t.step("at 5000");
    assert_eq!(message(&mut t), "deadline 5000 ms: 3 ms client queue, 4997 ms no reply from peer after the request was written");
    // A thousand busy ones do; then the split is not made up.
    let mut t = Table::new();
    t.step("call a 5000");
    (3..1000).for_each(|now| ["oneway", &format!("at {now}"), "write"].iter().for_each(|s| t.step(s)));
    t.step("at 5000");
    assert_eq!(message(&mut t), "deadline 5000 ms: no reply from peer after the request was written");
}

/// A table whose peer takes large bodies and streams, everything written so far.
fn streaming() -> Table {
    let mut t = Table::new();
    let roomy = PeerLimits { body: 1 << 20, streams: 8, in_flight: 3, stream_bytes: 1 << 20, ..PeerLimits::BEFORE_HELLO };
    t.out.established(roomy, "peer".into());
    t
}

impl Table {
    fn start(&mut self, body: usize, streams: Streams) -> CallId {
        let body = vec![0; body];
        self.out.start(self.now, Start { row: 0, deadline: None, options: &[], body: Body::Copy(&body), streams }, None).unwrap()
    }

    fn failure(&mut self, id: CallId) -> Certainty {
        match self.out.poll(id, |_| {}) {
            Some(Answer::Failed(e)) => e.certainty(),
            other => panic!("{other:?}"),
        }
    }

    /// Takes over what is queued and writes it.
    fn leave(&mut self) {
        self.frames();
        self.out.flushed(self.now, 0);
    }

    /// Header fields of the frames that leave now: kind, flags, aux.
    fn heads(&mut self) -> Vec<(Kind, u8, u16)> {
        let mut wire = OutBuf::default();
        self.out.take(&mut wire);
        let mut bytes = BytesMut::from(wire.contiguous().unwrap());
        std::iter::from_fn(|| get_frame(&mut bytes, 1 << 20).unwrap()).map(|f| (f.header.kind, f.header.flags, f.header.aux)).collect()
    }
}

#[test]
fn an_end_behind_a_large_item_is_counted_where_it_is_written() {
    let mut t = streaming();
    let streamed = t.start(8, Streams { args: true, results: false });
    let to = t.out.open_args(streamed);
    t.out.send_item(to, &[0; 20_000], &mut Bytes::new()).unwrap();
    t.out.end_items(to, status::OK, Vec::new());
    let large = t.start(140_000, Streams::default());
    t.leave();
    // Whatever is taken after it and not written says nothing of it.
    t.start(8, Streams::default());
    t.out.take(&mut t.wire);
    t.out.flushed(0, t.wire.len());
    t.out.lose(RpcError::new(Code::Unavailable, "lost"), &mut Vec::new());
    assert_eq!(t.failure(large), Certainty::MaybeExecuted, "it left whole");
}

#[test]
fn a_one_way_call_in_fragments_ends_with_a_go_away_before_it() {
    let mut t = streaming();
    let body = vec![0; 140_000];
    t.out.established(PeerLimits { body: 1 << 20, ..PeerLimits::BEFORE_HELLO }, "peer".into());
    let start = Start { row: 0, deadline: None, options: &[], body: Body::Copy(&body), streams: Streams::default() };
    t.out.start_oneway(start).unwrap();
    t.leave();
    assert_eq!((t.out.in_flight(), t.out.resting() > 0), (1, true), "the rest waits for credit");
    t.step("goaway 0");
    assert_eq!((t.out.in_flight(), t.out.resting()), (0, 0), "nobody takes the rest, and nobody gives credit for it");
}

#[test]
fn what_nobody_wants_is_stopped_also_if_the_cancel_did_not() {
    for (bits, streams) in [(flags::MORE, Streams::default()), (flags::STREAM, Streams { args: false, results: true })] {
        let mut t = streaming();
        let id = t.start(8, streams);
        t.leave();
        t.out.cancel(id, &mut Vec::new());
        t.heads();
        t.out.on_reply(Header::new(Kind::Reply, bits, 0, id.0), Bytes::new(), &mut Vec::new()).unwrap();
        assert_eq!(t.heads(), [(Kind::Reset, flags::RESULTS, STOP)], "it would wait for credit for ever");
        let no_more = Frame { header: Header::new(Kind::Reset, flags::RESULTS, 0, id.0), payload: reset() };
        t.out.on_reset(&no_more, &mut Vec::new()).unwrap();
        assert_eq!((t.out.in_flight(), t.out.load()), (0, Load::default()));
    }
}

fn reset() -> Bytes {
    Failure::from_error(&RpcError::new(Code::Cancelled, "")).encode().into()
}

#[test]
fn a_reply_is_begun_once() {
    let begun = |second: u8| {
        let mut t = streaming();
        let id = t.start(8, Streams::default());
        t.leave();
        let header = |bits| Header::new(Kind::Reply, bits, 0, id.0);
        t.out.on_reply(header(flags::MORE), Bytes::from_static(b"r"), &mut Vec::new()).unwrap();
        t.out.on_reply(header(second), Bytes::from_static(b"r"), &mut Vec::new()).unwrap_err();
    };
    // Each would leave its first piece behind.
    begun(0);
    begun(flags::MORE);
}

#[test]
fn a_failure_keeps_what_the_provider_said() {
    let mut t = Table::new();
    ["call a", "write"].iter().for_each(|s| t.step(s));
    let mut buf = OutBuf::default();
    reply_failure(&mut buf, t.id("a").0, &RpcError::not_executed(Code::ResourceExhausted, "full").with_stage(Stage::ServerQueue));
    let mut bytes = BytesMut::from(buf.contiguous().unwrap());
    let frame = get_frame(&mut bytes, 1000).unwrap().unwrap();
    t.out.on_reply(frame.header, frame.payload, &mut Vec::new()).unwrap();
    let Some(Answer::Failed(e)) = t.out.poll(t.id("a"), |_| {}) else { panic!() };
    assert_eq!((e.code(), e.certainty(), e.stage()), (Code::ResourceExhausted, Certainty::NotExecuted, Some(Stage::ServerQueue)));
    assert_eq!((e.message(), e.peer()), ("full", Some("peer")));
}
