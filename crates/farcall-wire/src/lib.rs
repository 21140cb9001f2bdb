//! The farcall protocol as a value: no socket, no task, no clock.
//!
//! A [`Session`] owns what outlives a link: the calls we made ([`Outbound`]), the calls the peer
//! made ([`Inbound`]) and the method tables of both. Frames go in, frames and events come out, and
//! the time is an argument (milliseconds on any clock that never goes back). `farcall-rpc` drives
//! it over sockets, tests drive two of them in one struct. The bytes are specified in
//! `docs/protocol.md`; this crate is its only implementation here.
//!
//! What it does not do: encode values (that is `farcall-core`), run handlers, or know any policy.

mod differences;
mod failure;
mod frame;
mod hello;
mod inbound;
mod moment;
mod options;
mod outbound;
mod outbuf;
mod session;
mod table;

pub use differences::{Differences, Readings, Replies, Settled};
pub use failure::Failure;
pub use frame::{
    FRAGMENT, Frame, HEADER, Header, Kind, PREFACE, PREFACE_LEN, Preface, VERSION, Violation, WHOLE, flags, get_frame, read_room,
    rest_of_frame, status,
};
pub use hello::{Hello, PeerLimits, SessionId, features};
pub use inbound::{Difference, HeldRows, Inbound, Request, begin_reply, end_reply, reply_failure};
pub use moment::KeyMoment;
pub use options::{CallKey, CallOptions, tag};
pub use outbound::{
    Answer, Body, CallId, Delivered, GoAway, Item, Load, NEVER, OurHeldRows, Outbound, Receiver, Sendable, Sender, Start, Streams, Waiting,
};
pub use outbuf::OutBuf;
pub use session::{Session, control};
pub use table::{Bind, BindRow, Catalogue, Parts, Verdict};
