//! All that a peer sends on a connection: preface, hello, frames.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use farcall::{Code, Limits, RpcError};
use farcall_wire::{
    Answer, Body, CallId, Delivered, Differences, Frame, Inbound, Item, Kind, Load, OutBuf, Outbound, PREFACE_LEN, PeerLimits, Preface,
    Readings, Receiver, Request, Settled, Start, Streams, Violation, control, get_frame, read_room,
};

use super::conversation::{CHAT, conversation, echo};

const BODY: usize = 64 << 10;

/// As the sessions of one server share it.
static READINGS: OnceLock<Arc<Readings>> = OnceLock::new();

pub(super) fn limits() -> Limits {
    Limits { body: BODY, metadata: 8 << 10, in_flight: 16, ..Limits::default() }
}

pub(super) fn session(input: &[u8]) -> bool {
    let (mut side, ids) = Side::new();
    let fed = side.feed(input);
    if let Err(violation) = &fed {
        assert!(violation.0.len() < 2000, "a violation of {} bytes", violation.0.len());
        control::hang_up(side.inbound.accepted(), violation, &mut side.out);
    }
    // Each frame is answered with a reply, and each row of a binding with a verdict.
    let answered = side.out.len() + side.outbound.queued();
    assert!(answered <= 16_000 + input.len() * 100, "{answered} bytes in answer to {}", input.len());
    side.end(ids);
    fed.is_ok()
}

pub(super) fn session_seeds() -> Vec<Vec<u8>> {
    vec![conversation()]
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
    /// A side that made six calls, two of them with streams, whose replies the input may hold.
    fn new() -> (Side, Vec<CallId>) {
        let ours = PeerLimits { streams: 8, ..PeerLimits::BEFORE_HELLO };
        let mut side = Side {
            outbound: Outbound::new(&ours),
            inbound: Inbound::new(limits()),
            differences: Differences::new(&limits()),
            out: OutBuf::default(),
            parked: Vec::new(),
            readers: Vec::new(),
        };
        side.outbound.established(ours, "peer".into());
        side.inbound.hold_differing();
        side.differences.begin();
        side.differences.share(Arc::clone(READINGS.get_or_init(Arc::default)));
        let row = side.outbound.bind(&echo().0).expect("a binding");
        let start = |row, streams| Start { row, deadline: Some(10), options: &[], body: Body::Copy(b"x"), streams };
        let plain = (0..4).map(|i| (i, start(row, Streams::default())));
        let streamed = (4..6).map(|i| (i, start(row + CHAT, Streams { args: true, results: true })));
        let ids: Vec<CallId> = plain.chain(streamed).map(|(i, start)| side.outbound.start(0, start, Some(i)).expect("a call")).collect();
        for &id in &ids[4..] {
            let to = side.outbound.open_args(id);
            side.outbound.send_item(to, b"item", &mut Bytes::new()).expect("room for an item");
        }
        side.outbound.take(&mut OutBuf::default());
        side.outbound.flushed(1, 0);
        (side, ids)
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        match Preface::parse(bytes) {
            Preface::Farcall(1) => {}
            other => return Err(Violation(format!("{other:?}"))),
        }
        let mut buf = BytesMut::from(&bytes[PREFACE_LEN..]);
        let Some(hello) = get_frame(&mut buf, BODY * 2)? else { return Ok(()) };
        let hello = control::expect_hello(hello).map_err(|e| Violation(e.message().to_owned()))?;
        assert!(hello.software.len() <= 3 * 128);
        self.outbound.established(hello.limits, "peer".into());
        while let Some(frame) = get_frame(&mut buf, BODY * 2)? {
            self.frame(frame)?;
            let load = self.outbound.load();
            assert!(load.held + load.unread <= bytes.len(), "{load:?} kept of {} bytes", bytes.len());
            assert!(self.inbound.running() <= 16);
        }
        assert!(read_room(&buf, BODY * 2) <= BODY * 2 + 12);
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
            Kind::Bind => differences.offer(inbound.on_bind(&frame, echo(), out)?, echo(), out, &mut settled),
            Kind::Bound => {
                let held = outbound.on_bound(id, frame.header.aux, &frame.payload, differences.in_use())?;
                held.into_iter().for_each(|held| differences.answer(held, out, &mut settled));
            }
            Kind::Schema => differences.on_schema(&frame, echo(), out, &mut settled)?,
            Kind::Ready => differences.on_ready(&frame, &mut settled)?,
            Kind::Reply => outbound.on_reply(frame.header, frame.payload, &mut wake)?,
            Kind::Data => match outbound.on_data(frame, &limits(), &mut wake)? {
                Delivered::Nothing => {}
                Delivered::Arguments(id, body) => {
                    let request = inbound.held(id).expect("the arguments of a call");
                    self.called(Request { body, more: false, ..request })?;
                }
                Delivered::TooMuch(id) => {
                    assert!(inbound.refuse_held(id, &RpcError::new(Code::ResourceExhausted, "held"), out));
                }
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

    /// Whatever was said: the deadline and then the end of the link end every call and every stream.
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
            assert!(items.any(|item| !matches!(item, Item::Item(_))), "a stream without an end");
        }
        assert_eq!((self.outbound.in_flight(), self.outbound.load()), (0, Load::default()));
    }
}
