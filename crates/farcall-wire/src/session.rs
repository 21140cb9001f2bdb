//! A session: everything two peers know of each other that is not the socket.

use bytes::Bytes;
use farcall_core::{Code, Limits, RpcError};

use crate::differences::Differences;
use crate::frame::{Frame, Header, Kind, PREFACE, VERSION, Violation};
use crate::hello::{Hello, SessionId, features};
use crate::inbound::{Inbound, go_away};
use crate::outbound::{GoAway, Outbound};
use crate::outbuf::OutBuf;

/// Our side of a session. The link under it is the driver's: it attaches one by exchanging hellos,
/// and a lost link ends the calls in flight ([`Outbound::lose`]); to replay them on the next one
/// (`Resume`) is not built yet.
///
/// The parts are public so that a driver may share [`Outbound`] with the callers while it
/// keeps the others to itself.
pub struct Session<W> {
    /// The hello we send.
    pub hello: Hello,
    /// The calls we make.
    pub outbound: Outbound<W>,
    /// The calls the peer makes.
    pub inbound: Inbound,
    /// What is said of rows on which the two sides differ.
    pub differences: Differences,
}

impl<W> Session<W> {
    /// A new session with these limits of ours.
    pub fn new(id: SessionId, incarnation: u64, limits: &Limits) -> Session<W> {
        let hello = Hello::new(id, incarnation, limits);
        let (inbound, differences) = (Inbound::new(limits.clone()), Differences::new(limits));
        Session { outbound: Outbound::new(&hello.limits), hello, inbound, differences }
    }

    /// The peer's hello is here: its limits hold from now on, and the features that both sides have.
    pub fn established(&mut self, theirs: &Hello, peer_name: String) {
        self.outbound.established(theirs.limits, peer_name);
        if theirs.features & self.hello.features & features::SCHEMAS != 0 {
            self.inbound.hold_differing();
            self.differences.begin();
        }
    }

    /// The first bytes of a link: preface and hello.
    pub fn opening(hello: &Hello) -> Vec<u8> {
        let mut out = crate::Preface::ours().to_vec();
        let payload = hello.encode();
        out.extend_from_slice(&Header { len: payload.len() as u32, ..Header::new(Kind::Hello, 0, 0, 0) }.to_bytes());
        out.extend_from_slice(&payload);
        out
    }
}

/// Frames that belong to the link rather than to calls.
pub mod control {
    use super::*;

    /// The hello that must be the first frame of a link. A GoAway in its place is the peer's refusal.
    pub fn expect_hello(frame: Frame) -> Result<Hello, RpcError> {
        match frame.header.kind {
            Kind::Hello => Hello::decode(&frame.payload)
                .map_err(|v| RpcError::not_executed(Code::InvalidArgument, format!("the peer broke the protocol: {v}"))),
            Kind::GoAway => match on_go_away(&frame.payload) {
                Ok(refused) => Err(refused.reason.with_certainty(farcall_core::Certainty::NotExecuted)),
                Err(v) => Err(RpcError::not_executed(Code::Internal, v.0)),
            },
            other => {
                let why = format!("the peer broke the protocol: its first frame is {other:?}, not Hello");
                Err(RpcError::not_executed(Code::InvalidArgument, why))
            }
        }
    }

    /// The answer to a Ping.
    pub fn pong(ping: &Frame, out: &mut OutBuf) {
        out.frame(Header::new(Kind::Pong, 0, 0, ping.header.id), &[]);
    }

    /// Reads a GoAway.
    pub fn on_go_away(payload: &Bytes) -> Result<GoAway, Violation> {
        let (Some(last), Some(code)) = (payload.first_chunk::<8>(), payload.get(8)) else {
            return Err(Violation("a GoAway frame that ends early".into()));
        };
        let text = String::from_utf8_lossy(&payload[9..payload.len().min(9 + farcall_core::limits::ERROR_MESSAGE)]).into_owned();
        Ok(GoAway { last: u64::from_le_bytes(*last), reason: RpcError::new(Code::from_u8(*code), text) })
    }

    /// Refuses a link before its first call.
    pub fn refuse(reason: &RpcError, out: &mut OutBuf) {
        go_away(0, reason, out);
    }

    /// What a peer is told that broke the protocol.
    pub fn broke(violation: &Violation) -> RpcError {
        RpcError::new(Code::InvalidArgument, format!("protocol error: {violation}"))
    }

    /// What is sent instead of a hello to a peer that is not let in: our preface, and a GoAway that says why.
    pub fn turn_away(reason: &RpcError, out: &mut OutBuf) {
        out.small().extend_from_slice(PREFACE);
        out.small().push(VERSION);
        go_away(0, reason, out);
    }

    /// Tells the peer why we hang up: nothing after call `last` was executed.
    pub fn hang_up(last: u64, violation: &Violation, out: &mut OutBuf) {
        go_away(last, &broke(violation), out);
    }

    /// Why a frame that is in the catalogue is refused here.
    pub fn not_built(kind: Kind) -> Violation {
        let what = match kind {
            Kind::Ack | Kind::Resume => "resuming a session",
            Kind::Release | Kind::Revoked => "remote objects",
            Kind::Hello => return Violation("a second Hello".into()),
            other => return Violation(format!("a {other:?} frame does not belong here")),
        };
        Violation(format!("a {kind:?} frame: {what} is not built in this version and was not negotiated"))
    }
}
