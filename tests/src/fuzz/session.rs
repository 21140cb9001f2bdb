//! Frames of a connection, and the small things in them.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use farcall::{Address, Code, Limits, Metadata, RpcError, ServiceDescriptor, Trace};
use farcall_wire::{
    Answer, Body, CallId, CallKey, CallOptions, Catalogue, Delivered, Differences, Failure, Frame, Header, Hello, Inbound, KeyMoment, Kind,
    OutBuf, Outbound, PeerLimits, Preface, Receiver, Request, Session, Settled, Start, Streams, Violation, begin_reply, control, end_reply,
    flags, get_frame, status,
};

use super::PREFACE;
use crate::PaymentClient;

const BODY: usize = 64 << 10;

fn limits() -> Limits {
    Limits { body: BODY, metadata: 8 << 10, in_flight: 16, ..Limits::default() }
}

/// The service of the tests, with a stream each way in a row of its own.
struct Served(ServiceDescriptor);

const CHAT: u16 = 0;

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let mut service = PaymentClient::descriptor().clone();
        let chat = &mut service.methods[CHAT as usize].traits;
        (chat.args_stream, chat.result_stream) = (true, true);
        Served(service)
    })
}

impl Catalogue for Served {
    fn get(&self, _: usize) -> Option<&ServiceDescriptor> {
        Some(&self.0)
    }

    fn find(&self, service: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        match service == self.0.name {
            true => Ok((0, &self.0)),
            false => Err(RpcError::not_executed(Code::Unimplemented, "no such service here")),
        }
    }
}

/// All that a peer sends: preface, hello, frames.
pub(super) fn session(input: &[u8]) {
    let mut side = Side::new();
    let ids = side.calls();
    let answered = side.feed(input);
    if let Err(violation) = answered {
        assert!(violation.0.len() < 4096, "a violation of {} bytes", violation.0.len());
        control::hang_up(side.inbound.accepted(), &violation, &mut side.out);
    }
    // Each frame is answered with a reply, and each row of a binding with a verdict.
    assert!(side.out.len() + side.outbound.queued() <= 32_000 + input.len() * 200, "answers out of proportion");
    side.end(ids);
}

/// A side of a session, its driver as small as can be.
struct Side {
    outbound: Outbound<u32>,
    inbound: Inbound,
    differences: Differences,
    out: OutBuf,
    parked: Vec<u32>,
    readers: Vec<Receiver>,
}

impl Side {
    fn new() -> Side {
        let ours = PeerLimits { streams: 8, ..PeerLimits::BEFORE_HELLO };
        let outbound = Outbound::new(&ours);
        let (inbound, differences) = (Inbound::new(limits()), Differences::new(&limits()));
        let mut side = Side { outbound, inbound, differences, out: OutBuf::default(), parked: vec![], readers: vec![] };
        side.outbound.established(ours, "peer".into());
        side
    }

    /// Calls whose replies the input may hold, some with streams.
    fn calls(&mut self) -> Vec<CallId> {
        let row = self.outbound.bind(&served().0).expect("a binding");
        let both = Streams { args: true, results: true };
        let start = |row, streams| Start { row, deadline: Some(10), options: &[], body: Body::Copy(b"x"), streams };
        let plain = (0..4).map(|i| (i, start(row + 1, Streams::default())));
        let streamed = (4..6).map(|i| (i, start(row + CHAT, both)));
        let ids: Vec<CallId> = plain.chain(streamed).map(|(i, start)| self.outbound.start(0, start, Some(i)).expect("a call")).collect();
        for &id in &ids[4..] {
            let to = self.outbound.open_args(id);
            self.outbound.send_item(to, b"item", &mut Bytes::new()).expect("room for an item");
        }
        self.outbound.take(&mut OutBuf::default());
        self.outbound.flushed(1, 0);
        ids
    }

    fn feed(&mut self, input: &[u8]) -> Result<(), Violation> {
        let Preface::Farcall(_) = Preface::parse(input) else { return Ok(()) };
        let mut rest = BytesMut::from(&input[PREFACE..]);
        let Some(hello) = get_frame(&mut rest, BODY * 2)? else { return Ok(()) };
        let Ok(hello) = control::expect_hello(hello) else { return Ok(()) };
        self.outbound.established(hello.limits, "peer".into());
        while let Some(frame) = get_frame(&mut rest, BODY * 2)? {
            self.frame(frame)?;
            let load = self.outbound.load();
            assert!(load.held + load.unread <= input.len(), "{load:?} kept of {} bytes", input.len());
            assert!(self.inbound.running() <= 16);
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Violation> {
        let Side { outbound, inbound, out, differences, .. } = self;
        let (id, mut wake, mut settled) = (frame.header.id, Vec::new(), Vec::new());
        match frame.header.kind {
            Kind::Call => {
                if let Some(request) = inbound.on_call(frame, 0, out)? {
                    self.called(request)?;
                }
            }
            Kind::Void => inbound.on_void(),
            Kind::Bind => differences.offer(inbound.on_bind(&frame, served(), out)?, served(), out, &mut settled),
            Kind::Bound => {
                let held = outbound.on_bound(id, frame.header.aux, &frame.payload, differences.in_use())?;
                held.into_iter().for_each(|held| differences.answer(held, out, &mut settled));
            }
            Kind::Schema => differences.on_schema(&frame, served(), out, &mut settled)?,
            Kind::Ready => differences.on_ready(&frame, &mut settled)?,
            Kind::Reply => outbound.on_reply(frame.header, frame.payload, &mut wake)?,
            Kind::Data => match outbound.on_data(frame, &limits(), &mut wake)? {
                Delivered::Nothing => {}
                Delivered::Arguments(id, body) => {
                    let request = inbound.held(id).expect("the arguments of a call");
                    self.called(Request { body, more: false, ..request })?;
                }
                Delivered::TooMuch(id) => drop(inbound.refuse_held(id, &RpcError::new(Code::ResourceExhausted, "held"), out)),
            },
            Kind::Credit => drop(outbound.on_credit(&frame, &mut wake)?),
            Kind::End => outbound.on_end(frame, &mut wake)?,
            Kind::Reset => outbound.on_reset(&frame, &mut wake)?,
            Kind::Cancel => {
                if let Some(token) = inbound.on_cancel(id) {
                    inbound.finished(self.parked[token], false);
                } else if inbound.refuse_held(id, &RpcError::new(Code::Cancelled, "gone"), out) {
                    outbound.forget_args(id);
                }
                outbound.caller_gone(id, &mut wake);
            }
            Kind::Ping => control::pong(&frame, out),
            Kind::Pong => {}
            Kind::GoAway => outbound.go_away(control::on_go_away(&frame.payload)?, &mut wake),
            other => return Err(control::not_built(other)),
        }
        for settled in settled {
            match settled {
                Settled::Ours(row, replies) => self.outbound.settle(row, replies),
                Settled::Theirs(row, reading) => self.inbound.settle(row, reading),
            }
        }
        let mut over = Vec::new();
        self.outbound.take_over(&mut over);
        over.into_iter().for_each(|id| self.inbound.finished(id, false));
        Ok(())
    }

    fn called(&mut self, mut request: Request) -> Result<(), Violation> {
        assert!(request.body.len() <= BODY);
        if request.more {
            if request.streams.args {
                return Err(Violation("fragments beside a stream".into()));
            }
            let first = std::mem::take(&mut request.body);
            self.outbound.assemble_args(request.id, &first);
            self.inbound.hold(request);
        } else if request.streams != Streams::default() {
            self.readers.extend(self.outbound.serve(request.id, request.streams.args));
            self.inbound.occupy(request.id);
            self.outbound.open_results(request.id);
        } else if !request.oneway {
            self.inbound.park(request.id, self.parked.len());
            self.parked.push(request.id);
        }
        Ok(())
    }

    /// Whatever was said: the end of the link ends every call and every stream.
    fn end(mut self, ids: Vec<CallId>) {
        let mut wake = Vec::new();
        self.outbound.expire(20, &mut wake);
        self.outbound.lose(RpcError::new(Code::Unavailable, "lost"), &mut wake);
        for id in ids {
            if let Answer::Stream(at) = self.outbound.poll(id, |_| {}).expect("an answer") {
                self.readers.push(at);
            }
            self.outbound.cancel(id, &mut wake);
        }
        for at in self.readers {
            let mut items = std::iter::from_fn(|| self.outbound.poll_item(at, |_| {}));
            assert!(items.any(|item| !matches!(item, farcall_wire::Item::Item(_))), "a stream without an end");
        }
        assert_eq!(self.outbound.in_flight(), 0);
    }
}

/// A conversation with most kinds of frames.
pub(super) fn session_seeds() -> Vec<Vec<u8>> {
    let mut caller = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    let row = caller.bind(&served().0).unwrap();
    let options = options().encode();
    let start = |row| Start { row, deadline: Some(50), options: &options, body: Body::Copy(b"arguments"), streams: Streams::default() };
    let calls: Vec<CallId> = (1..4).map(|i| caller.start(0, start(row + i), Some(())).unwrap()).collect();
    caller.queue(Header::new(Kind::Ping, 0, 0, 9), &[]);
    let mut out = OutBuf::default();
    caller.take(&mut out);
    caller.cancel(calls[0], &mut Vec::new());
    let mut cancelled = OutBuf::default();
    caller.take(&mut cancelled);
    out.small().extend_from_slice(cancelled.contiguous().unwrap());
    let mut reply = |id: u32, status: u16, body: &[u8]| {
        let start = begin_reply(out.small(), id, status);
        out.small().extend_from_slice(body);
        end_reply(out.small(), start);
    };
    reply(0, status::OK, b"result");
    reply(1, status::APP_ERROR, b"error");
    reply(2, status::FAILURE, &failure());
    let credit = [100u64.to_le_bytes(), 7u64.to_le_bytes()].concat();
    let mut frame = |kind, bits, aux, id, payload: &[u8]| out.frame(Header::new(kind, bits, aux, id), &[payload]);
    frame(Kind::Call, flags::MORE, 1, 8, b"\0\0\0\0argu");
    frame(Kind::Data, 0, 0, 8, b"ments");
    frame(Kind::Call, flags::STREAM, CHAT, 11, b"\0\0\0\0arguments");
    frame(Kind::Data, 0, 0, 11, b"item");
    frame(Kind::Credit, flags::RESULTS, 1, 11, &credit);
    frame(Kind::End, 0, status::OK, 11, b"");
    frame(Kind::Reply, flags::STREAM, status::OK, 4, b"");
    frame(Kind::Data, flags::RESULTS, 0, 4, b"item");
    frame(Kind::Reset, flags::RESULTS, 0, 4, &failure());
    frame(Kind::GoAway, 0, 0, 0, &[&5u64.to_le_bytes()[..], &[14], b"leaving"].concat());
    let opening = Session::<()>::opening(&Hello::new([7; 16], 1, &limits()));
    vec![[&opening[..], out.contiguous().unwrap()].concat()]
}

fn failure() -> Vec<u8> {
    Failure::from_error(&RpcError::new(Code::Internal, "it broke")).encode()
}

fn options() -> CallOptions {
    let mut metadata = Metadata::default();
    metadata.set("tenant", "blue").unwrap();
    let key = CallKey { bytes: b"key"[..].into(), attempted: Some(KeyMoment { record: 1, ms: 2 }) };
    let trace = Some(Trace { trace_id: [1; 16], span_id: [2; 8], flags: 1 });
    CallOptions { metadata: Some(metadata), trace, key: Some(Box::new(key)), ..CallOptions::default() }
}

/// The first byte says what the others are.
pub(super) fn control(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    match what % 4 {
        0 => {
            if let Ok(hello) = Hello::decode(rest) {
                assert!(hello.software.len() <= 3 * 128);
                Hello::decode(&hello.encode()).expect("what was read can be written");
            }
        }
        1 => {
            let mut body = Bytes::copy_from_slice(rest);
            if let Ok(options) = CallOptions::take(&mut body, 1000) {
                let mut again = Bytes::from(options.encode());
                if !options.is_default() {
                    CallOptions::take(&mut again, 1000).expect("what was read can be written");
                }
            }
        }
        2 => {
            if let Ok(failure) = Failure::decode(rest) {
                let error = failure.into_error();
                Failure::decode(&Failure::from_error(&error).encode()).expect("what was read can be written");
            }
        }
        _ => drop(control::on_go_away(&Bytes::copy_from_slice(rest))),
    }
}

pub(super) fn control_seeds() -> Vec<Vec<u8>> {
    let hello = Hello::new([7; 16], 1, &limits()).encode();
    let go_away = [&5u64.to_le_bytes()[..], &[14], b"leaving"].concat();
    let parts = [hello, options().encode(), failure(), go_away];
    parts.iter().zip(0u8..).map(|(part, what)| [&[what][..], part].concat()).collect()
}

/// What people write, which is what registries will send.
pub(super) fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse::<Address>().expect("what is shown can be read"), address);
    }
    if let Some((key, value)) = text.split_once('=') {
        let mut metadata = Metadata::default();
        if metadata.set(key, value).is_ok() {
            assert_eq!(metadata.get(key), Some(value));
        }
    }
}

pub(super) fn address_seeds() -> Vec<Vec<u8>> {
    ["tcp://127.0.0.1:80", "tcp://[::1]:9000", "tcp://host.example:1", "unix:/run/x.sock", "mem:name", "key=value"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
