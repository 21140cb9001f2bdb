//! The table of calls received: frames in, what became of them out.

use bytes::BytesMut;
use farcall_core::{Certainty, ServiceDescriptor};

use super::*;
use crate::frame::get_frame;
use crate::options::tag;
use crate::outbound::tests::service;
use crate::table::BindRow;

struct One(ServiceDescriptor);

impl Catalogue for One {
    fn get(&self, _: usize) -> Option<&ServiceDescriptor> {
        Some(&self.0)
    }

    fn find(&self, service: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        match service == self.0.name {
            true => Ok((0, &self.0)),
            false => Err(RpcError::not_executed(Code::Unimplemented, format!("no service {service:?} here"))),
        }
    }
}

fn echo() -> ServiceDescriptor {
    let mut echo = service("Echo", &[("echo", false), ("note", true), ("fold", false), ("follow", false)]);
    echo.methods[2].traits.args_stream = true;
    echo.methods[3].traits.result_stream = true;
    echo
}

fn frame(kind: Kind, flags: u8, aux: u16, id: u32, payload: &[u8]) -> Frame {
    let header = Header { len: payload.len() as u32, ..Header::new(kind, flags, aux, id) };
    Frame { header, payload: Bytes::copy_from_slice(payload) }
}

fn bind(first: u16, bind: &Bind) -> Frame {
    frame(Kind::Bind, 0, first, 7, &bind.encode())
}

fn call(flags: u8, row: u16, id: u32) -> Frame {
    frame(Kind::Call, flags, row, id, &[0, 0, 0, 0, b'x'])
}

/// Hands frames over and collects: what is run, what is answered, what breaks the protocol.
struct Table {
    inbound: Inbound,
    out: OutBuf,
    log: Vec<String>,
}

impl Table {
    fn new(limits: Limits) -> Table {
        Table { inbound: Inbound::new(limits), out: OutBuf::default(), log: Vec::new() }
    }

    fn bound(limits: Limits) -> Table {
        let mut t = Table::new(limits);
        t.feed(bind(0, &Bind::of(&echo())));
        t.log.clear();
        t
    }

    fn feed(&mut self, frame: Frame) {
        let result = match frame.header.kind {
            Kind::Bind => self.inbound.on_bind(&frame, &One(echo()), &mut self.out).map(drop),
            Kind::Call => self.inbound.on_call(frame, 0, &mut self.out).map(|request| {
                if let Some(r) = request {
                    let how = if r.more { "hold" } else { "run" };
                    let once = if r.oneway { " one-way" } else { "" };
                    let stream = if r.streams.args { " stream" } else { "" };
                    self.log.push(format!("{how} {}{once}{stream}", r.method));
                    if r.more {
                        self.inbound.hold(r);
                    } else if !r.oneway {
                        self.inbound.park(r.id, 40 + r.method as usize);
                    }
                }
            }),
            Kind::Void => {
                self.inbound.on_void();
                Ok(())
            }
            other => panic!("{other:?}"),
        };
        self.answers();
        if let Err(v) = result {
            self.log.push(format!("violation: {v}"));
        }
    }

    fn answers(&mut self) {
        let mut bytes = BytesMut::new();
        while let Some(some) = self.out.contiguous().filter(|b| !b.is_empty()) {
            bytes.extend_from_slice(some);
            self.out.advance(self.out.len());
        }
        while let Some(f) = get_frame(&mut bytes, 1 << 20).unwrap() {
            self.log.push(match f.header.kind {
                Kind::Reply => {
                    let e = Failure::decode(&f.payload).unwrap().into_error();
                    assert_eq!(e.certainty(), Certainty::NotExecuted);
                    format!("{:?}: {}", e.code(), e.message())
                }
                Kind::GoAway => format!("GoAway {}", f.payload[0]),
                kind => format!("{kind:?} {}", f.header.aux),
            });
        }
    }
}

#[track_caller]
fn check(limits: Limits, frames: Vec<Frame>, expected: &[&str]) {
    let mut t = Table::bound(limits);
    frames.into_iter().for_each(|f| t.feed(f));
    assert_eq!(t.log, expected);
}

fn check_call(call: Frame, expected: &str) {
    check(Limits::default(), vec![call], &[expected]);
}

/// What a call is told that is not what its row was bound for.
const MISMATCH: &str = "FailedPrecondition: the call is one-way or has a stream of arguments, and its binding says otherwise";

#[test]
fn a_call_is_run_refused_or_breaks_the_protocol() {
    check_call(call(0, 0, 1), "run 0");
    check_call(call(flags::ONEWAY, 1, 0), "run 1 one-way");
    check_call(call(0, 1, 1), MISMATCH);
    check_call(call(flags::TARGET_OBJECT, 0, 1), "Unimplemented: calls on remote objects are not built in this version");
    check_call(call(flags::TARGET_ANSWER, 9, 1), "Unimplemented: calls on results that are not there yet are not built in this version");
    check_call(call(flags::MORE, 0, 1), "hold 0");
    check_call(call(flags::MORE | flags::ONEWAY, 1, 1), "hold 1 one-way");
    check_call(call(flags::STREAM, 0, 1), MISMATCH);
    check_call(call(flags::STREAM, 2, 1), "run 2 stream");
    check_call(call(0, 2, 1), MISMATCH);
    check_call(call(0, 4, 1), "violation: a call on row 4, which is not bound");
    check_call(call(0, u16::MAX, 1), "violation: a call on row 65535, which is not bound");
    check_call(call(flags::TARGET, 0, 1), "violation: a call with flags 0x30, which are not in this protocol version");
    check_call(call(0x40, 0, 1), "violation: a call with flags 0x40, which are not in this protocol version");
    check_call(call(0x80 | flags::ONEWAY, 1, 1), "violation: a call with flags 0x84, which are not in this protocol version");
    check_call(frame(Kind::Call, 0, 0, 1, &[0; 3]), "violation: a Call frame without its deadline");
    check_call(frame(Kind::Call, flags::OPTIONS, 0, 1, &[0; 4]), "InvalidArgument: the options block of the call ends early");
    check(Limits::default(), vec![call(flags::ONEWAY, 0, 0)], &[]);
}

#[test]
fn limits_are_kept_with_an_answer() {
    let two = Limits { in_flight: 2, body: 1, ..Limits::default() };
    let full = "ResourceExhausted: 2 calls of this connection are running here, the limit `in_flight`";
    check(two.clone(), vec![call(0, 0, 0), call(flags::ONEWAY, 1, 0), call(0, 0, 1)], &["run 0", "run 1 one-way", full]);
    let large = frame(Kind::Call, 0, 0, 1, &[0; 6]);
    check(two, vec![large], &["ResourceExhausted: the arguments are 2 bytes, the limit `body` is 1"]);
    let options = [(tag::TRACE, vec![0; 5000])];
    let mut payload = vec![0; 4];
    let mut block = Vec::new();
    options.iter().for_each(|(tag, value)| crate::options::put_entry(&mut block, *tag, value));
    crate::options::put_varint(&mut payload, block.len() as u64);
    payload.extend_from_slice(&block);
    let small = Limits { metadata: 5000, ..Limits::default() };
    let why = "ResourceExhausted: the call's metadata and other options are 5005 bytes, the limit `metadata` is 5000";
    check(small, vec![frame(Kind::Call, flags::OPTIONS, 0, 1, &payload)], &[why]);
}

#[test]
fn calls_keep_to_the_credit_of_the_connection() {
    let mut t = Table::bound(Limits { credit: 0, ..Limits::default() });
    let body = vec![0; (64 << 10) - 64];
    let call = |id: u32| frame(Kind::Call, 0, 0, id, &body);
    // The least that may be given is a mebibyte.
    (0..16).for_each(|id| t.feed(call(id)));
    t.inbound.return_credit(&mut t.out);
    t.answers();
    assert_eq!(t.log, vec!["run 0"; 16], "nothing was taken, so nothing is given back");
    t.feed(call(16));
    assert_eq!(t.log[16], "violation: calls that cost 1114112 of the connection's credit, which is 1048576 (limit `credit`)");
    let mut t = Table::bound(Limits { credit: 0, ..Limits::default() });
    for id in 0..40 {
        t.feed(call(id));
        t.inbound.taken(64 << 10);
        t.inbound.return_credit(&mut t.out);
    }
    t.answers();
    assert_eq!(t.log.iter().filter(|l| *l == "Credit 0").count(), 5, "each time that half of it is used");
}

#[test]
fn a_slot_holds_one_call_and_lies_within_the_limit() {
    let again = "violation: call 0x10001 uses a slot whose call is still running";
    check(Limits::default(), vec![call(0, 0, 1), call(0, 0, 0x1_0001)], &["run 0", again]);
    let two = Limits { in_flight: 2, ..Limits::default() };
    // 64 calls may have been sent before our hello was read.
    check(two.clone(), vec![call(0, 0, 63)], &["run 0"]);
    check(two, vec![call(0, 0, 64)], &["violation: call 0x40 uses slot 64, the limit `in_flight` is 64"]);
    let mut t = Table::bound(Limits::default());
    t.feed(call(0, 0, 1));
    t.inbound.finished(1, false);
    t.feed(call(0, 0, 0x1_0001));
    assert_eq!((t.log, t.inbound.running()), (vec!["run 0".to_owned(), "run 0".into()], 1));
}

#[test]
fn a_cancel_means_one_call_only() {
    let mut t = Table::bound(Limits::default());
    t.feed(call(0, 0, 0x3_0001));
    assert_eq!(t.inbound.on_cancel(0x3_0001), Some(40));
    for other in [0x2_0001, 1, 0x3_0000, u32::MAX] {
        assert_eq!(t.inbound.on_cancel(other), None);
    }
    t.inbound.finished(0x3_0001, false);
    assert_eq!(t.inbound.on_cancel(0x3_0001), None);
}

#[test]
fn a_go_away_tells_how_many_call_frames_were_taken() {
    let mut t = Table::bound(Limits::default());
    let reason = RpcError::new(Code::Unavailable, "x".repeat(1 << 20));
    let void = || frame(Kind::Void, 0, 0, 5, b"what was in it");
    [call(0, 0, 1), call(flags::ONEWAY, 1, 0), void(), call(0, 1, 2)].into_iter().for_each(|f| t.feed(f));
    t.log.clear();
    t.inbound.drain(&reason, &mut t.out);
    assert!(t.out.len() < 10_000, "the text is cut");
    t.inbound.drain(&reason, &mut t.out);
    t.answers();
    // What comes later is neither run, nor answered, nor counted.
    [call(0, 0, 3), call(flags::ONEWAY, 1, 0), void()].into_iter().for_each(|f| t.feed(f));
    assert_eq!((&t.log[..], t.inbound.accepted()), (&["GoAway 4".to_owned()][..], 4));
}

#[test]
fn a_call_that_breaks_the_protocol_was_not_accepted() {
    let mut t = Table::bound(Limits::default());
    t.feed(call(0, 0, 1));
    t.feed(call(0, 9, 2));
    assert_eq!(t.inbound.accepted(), 1);
}

fn check_bind(edit: impl FnOnce(&mut Bind), expected: &str) -> Table {
    let mut wanted = Bind { rows: Bind::of(&echo()).rows[..2].to_vec(), ..Bind::of(&echo()) };
    edit(&mut wanted);
    let mut t = Table::new(Limits { bound_methods: 5000, ..Limits::default() });
    t.feed(bind(0, &wanted));
    assert_eq!(t.log, [expected]);
    t.log.clear();
    t
}

#[test]
fn a_binding_is_translated_or_refused_by_row() {
    let mut t = check_bind(|b| b.rows.reverse(), "Bound 0");
    t.feed(call(0, 1, 0));
    assert_eq!(t.log, ["run 0"]);
    let mut t = check_bind(|b| b.rows[0].result.0[3] ^= 1, "Bound 1");
    t.feed(call(0, 0, 0));
    t.feed(call(flags::ONEWAY, 1, 0));
    let why = "FailedPrecondition: Echo.echo: the result differs between caller and provider; the provider has `echo`; build both from the same types";
    assert_eq!(t.log, [why, "run 1 one-way"]);
    let refused = |bits: u8, why: &str| {
        let mut t = check_bind(|b| b.rows[0].bits = bits, "Bound 1");
        t.feed(call(0, 0, 0));
        assert_eq!(t.log, [why]);
    };
    let built = "the provider has `echo`; build both from the same types";
    refused(2, &format!("FailedPrecondition: Echo.echo: one side has a stream where the other has none; {built}"));
    refused(4, &format!("FailedPrecondition: Echo.echo: one side has a stream where the other has none; {built}"));
    refused(1, &format!("FailedPrecondition: Echo.echo: one side calls it one-way, the other two-way; {built}"));
    refused(8, "Unimplemented: Echo.echo: row bits 0x08 are not known here");
    check_bind(|b| b.extra.push((1, vec![])), "Bound 0");
    check_bind(|b| b.extra.push((2, vec![])), "Bound 1");
}

#[test]
fn a_binding_keeps_to_its_limits() {
    let many = |b: &mut Bind, n: usize| b.rows = vec![b.rows[0].clone(); n];
    check_bind(|b| many(b, 4096), "Bound 0");
    check_bind(|b| many(b, 4097), "violation: a binding of 4097 rows, the limit is 4096");
    check_bind(|b| b.rows[1].name = "n".repeat(257), "violation: a binding with a name of 257 bytes, the limit is 256");
    check_bind(|b| b.service = "n".repeat(257), "violation: a binding with a name of 257 bytes, the limit is 256");
    check_bind(|b| b.extra = vec![(1, vec![]), (1, vec![])], "violation: a binding whose options are out of order");
    let mut t = check_bind(|_| {}, "Bound 0");
    t.feed(bind(1, &Bind::of(&echo())));
    t.feed(frame(Kind::Bind, 0, 2, 8, b"?"));
    assert_eq!(t.log[0], "violation: a Bind frame for rows from 1, the next row is 2");
    assert!(t.log[1].starts_with("violation: a Bind frame that cannot be read"), "{}", t.log[1]);
}

#[test]
fn rows_end_before_their_number_would_wrap() {
    let mut t = Table::new(Limits { bound_methods: usize::MAX, ..Limits::default() });
    let row = BindRow { name: "echo".into(), ..Bind::of(&echo()).rows[0].clone() };
    let of = |n: usize| Bind { rows: vec![row.clone(); n], ..Bind::of(&echo()) };
    (0..15).for_each(|i| t.feed(bind(i * 4096, &of(4096))));
    t.feed(bind(15 * 4096, &of(4095)));
    assert_eq!(t.log, vec!["Bound 0"; 16]);
    t.log.clear();
    t.feed(bind(u16::MAX, &of(1)));
    assert_eq!(t.log, ["violation: more than 65535 methods bound on one connection (limit `bound_methods`)"]);
}

#[test]
fn a_caller_without_our_hello_may_bind_what_the_protocol_allows() {
    let mut t = Table::new(Limits { bound_methods: 1, ..Limits::default() });
    t.feed(bind(0, &Bind::of(&echo())));
    assert_eq!(t.log, ["Bound 0"]);
}

#[test]
fn refusals_do_not_outgrow_the_question() {
    // Every row of the largest binding refused, each with a long reason: it still fits the smallest frame.
    let names: Vec<String> = (0..500).map(|i| format!("method_with_a_name_{i}")).collect();
    let catalogue = One(service("Echo", &names.iter().map(|n| (n.as_str(), false)).collect::<Vec<_>>()));
    let mut inbound = Inbound::new(Limits::default());
    let mut wanted = Bind::of(&echo());
    wanted.rows = vec![wanted.rows[0].clone(); 4096];
    let mut out = OutBuf::default();
    inbound.on_bind(&bind(0, &wanted), &catalogue, &mut out).unwrap();
    let mut bytes = BytesMut::from(out.contiguous().unwrap());
    let bound = get_frame(&mut bytes, farcall_core::limits::FRAME_BEFORE_HELLO).unwrap().unwrap();
    let verdicts: Vec<Verdict> = compact::decode(&bound.payload).unwrap();
    assert_eq!(verdicts.len(), 4096);
    assert!(verdicts[0].message.contains("has no method \"echo\""));
    assert!(verdicts.iter().all(|v| !v.to_error().message().is_empty()));
}
