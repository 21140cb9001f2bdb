//! What travels in Data frames: stream items, and bodies too large for one frame.
//!
//! A *flow* is one direction of one call. Its sender keeps to the credit that the receiver gave:
//! totals of bytes and items since the flow began. Items and bodies that are large are not queued
//! among the small frames: they wait here and leave one fragment at a time, by turns
//! ([`Outbound::pump`]), so that no small frame waits for more than a fragment of each.
//!
//! Both roles are here, because user code of both takes and gives items under the same lock: the
//! caller sends arguments and receives results, the provider the other way round.

mod receiving;
mod sending;
mod serving;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use farcall_core::{Certainty, Code, Limits, RpcError, Stage};

use super::{CallId, Outbound, Waiting};
use crate::failure::Failure;
use crate::frame::{FRAGMENT, Frame, HEADER, Header, Kind, Violation, WHOLE, flags, status};
use crate::outbuf::OutBuf;

/// An item above this many bytes is sent by turns, not among the small frames.
const SMALL: usize = 16 << 10;
/// Bytes of a large body that are under way at most, whatever the credit: what waits in the sockets is
/// ahead of every small frame. One fragment is read while the next is written.
const AHEAD: u64 = 2 * FRAGMENT as u64;
/// Items that a reader takes at a time, if they are small.
const AT_A_TIME: usize = 32;
/// Unread items of a stream that are kept as slices of what was read.
const UNCOPIED: usize = 4;
/// `aux` of a Reset: I send no more.
const NO_MORE: u16 = 0;
/// `aux` of a Reset: send no more, I discard.
pub(crate) const STOP: u16 = 1;
/// `aux` of a Credit for one flow.
const OF_CALL: u16 = 1;

/// One direction of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    call: u32,
    results: bool,
}

impl Flow {
    pub(crate) fn args(call: u32) -> Flow {
        Flow { call, results: false }
    }

    pub(crate) fn results(call: u32) -> Flow {
        Flow { call, results: true }
    }

    fn of(header: Header) -> Flow {
        Flow { call: header.id, results: header.flags & flags::RESULTS != 0 }
    }

    fn header(self, kind: Kind, extra: u8, aux: u16) -> Header {
        let direction = if self.results { flags::RESULTS } else { 0 };
        Header::new(kind, direction | extra, aux, self.call)
    }
}

/// A flow that items are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    flow: Flow,
    serial: u64,
}

/// A stream that items are taken from. It outlives its call's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    index: u32,
    serial: u64,
}

/// Whether an item may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sendable {
    /// Yes.
    Now,
    /// Not without more credit; whoever waits is told.
    Later,
    /// Never: the call is over, or its other side wants no more.
    Never,
}

/// What comes out of a stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// An item's bytes.
    Item(Bytes),
    /// It is over.
    End,
    /// It is over with the application's error.
    AppError(Bytes),
    /// It is over with a system error.
    Failed(RpcError),
}

/// What a Data frame completed.
#[derive(Debug)]
pub enum Delivered {
    /// Nothing that the driver must look after.
    Nothing,
    /// The arguments of a call that was held for them.
    Arguments(u32, Bytes),
    /// More is held of arguments than the limit `held` allows: the call is to be refused.
    TooMuch(u32),
}

/// What flows take; nothing of it is left once all has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Flows that are sent.
    pub sending: usize,
    /// Streams that are received, or whose end nobody has read.
    pub receiving: usize,
    /// Bodies that are put together.
    pub assembling: usize,
    /// Calls with streams that are served.
    pub serving: usize,
    /// Bytes of arguments that are put together.
    pub held: usize,
    /// Bytes that wait for their turn to be sent.
    pub resting: usize,
    /// Bytes that wait for their reader.
    pub unread: usize,
}

/// Bytes and items, as totals since a flow began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) items: u64,
}

#[derive(Debug)]
struct Sending<W> {
    serial: u64,
    granted: Totals,
    sent: Totals,
    /// What is not sent yet of the item or body under way.
    head: Bytes,
    tail: Bytes,
    /// It is one body, after which the flow is over.
    body: bool,
    /// It has its place among those whose turn comes.
    in_turn: bool,
    /// How to end once all is sent.
    end: Option<(u16, Vec<u8>)>,
    waiting: Waiting<W>,
}

impl<W> Sending<W> {
    fn rest(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

#[derive(Debug)]
struct Receiving<W> {
    serial: u64,
    flow: Flow,
    granted: Totals,
    received: Totals,
    taken: Totals,
    /// The item that is not whole yet.
    partial: Option<Vec<u8>>,
    items: VecDeque<Bytes>,
    /// Set once nothing more comes.
    end: Option<Item>,
    /// Nobody reads it any more.
    discarded: bool,
    waiting: Waiting<W>,
}

/// A body in pieces.
#[derive(Debug)]
struct Assembly {
    status: u16,
    bytes: Vec<u8>,
    received: u64,
    granted: u64,
    /// Nobody wants it any more.
    discarded: bool,
}

/// A call with a stream that we serve; its number is in use until all three are over.
#[derive(Debug)]
struct Served {
    running: bool,
    args: bool,
    results: bool,
}

/// Hashes a call's number: the numbers are ours or checked, so nobody can choose collisions that
/// cost more than a few steps.
#[derive(Default)]
pub(super) struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0 << 8 | u64::from(*b));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = self.0 << 32 | u64::from(n);
    }

    fn write_u8(&mut self, n: u8) {
        self.0 = self.0 << 1 | u64::from(n);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<ByNumber>>;

/// All flows of a session.
#[derive(Debug)]
pub(super) struct Flows<W> {
    serial: u64,
    sending: Map<Flow, Sending<W>>,
    /// Flows with something large to send and the credit for it.
    turns: VecDeque<Flow>,
    /// Bytes of bodies that wait for their turn.
    resting: usize,
    /// Bytes that will not be sent; they are to be dropped without the lock.
    unsent: Vec<Bytes>,
    receiving: Vec<Option<Receiving<W>>>,
    free: Vec<u32>,
    by_flow: Map<Flow, u32>,
    assembling: Map<Flow, Assembly>,
    /// Bytes of arguments being put together.
    held: usize,
    served: Map<u32, Served>,
    /// Served calls that are over since the driver last looked.
    over: Vec<u32>,
}

impl<W> Default for Flows<W> {
    fn default() -> Flows<W> {
        Flows {
            serial: 0,
            sending: Map::default(),
            turns: VecDeque::new(),
            resting: 0,
            unsent: Vec::new(),
            receiving: Vec::new(),
            free: Vec::new(),
            by_flow: Map::default(),
            assembling: Map::default(),
            held: 0,
            served: Map::default(),
            over: Vec::new(),
        }
    }
}

impl<W> Flows<W> {
    fn receiving(&mut self, at: Receiver) -> Option<&mut Receiving<W>> {
        self.receiving.get_mut(at.index as usize)?.as_mut().filter(|r| r.serial == at.serial)
    }

    fn by_flow(&mut self, flow: Flow) -> Option<&mut Receiving<W>> {
        let index = *self.by_flow.get(&flow)?;
        self.receiving.get_mut(index as usize)?.as_mut()
    }

    /// The place of a stream is free again.
    fn forget(&mut self, at: Receiver) {
        if self.receiving(at).is_some() {
            self.receiving[at.index as usize] = None;
            self.free.push(at.index);
        }
    }

    fn turn(&mut self, flow: Flow) {
        if let Some(s) = self.sending.get_mut(&flow)
            && s.rest() > 0
            && !std::mem::replace(&mut s.in_turn, true)
        {
            self.turns.push_back(flow);
        }
    }

    /// Streams open in either direction of calling.
    fn streams(&self) -> usize {
        self.by_flow.len() + self.sending.values().filter(|s| !s.body).count()
    }
}

impl<W> Outbound<W> {
    /// Bytes of large bodies that wait for their turn. Items are not counted: without credit they wait for
    /// their own reader, and nobody else is to wait for that.
    pub fn resting(&self) -> usize {
        self.flows.resting
    }

    /// Bytes that will not be sent. To drop the last piece of what a user owns runs the user's code, so
    /// they are handed out, to be dropped without a lock.
    pub fn take_unsent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.flows.unsent)
    }

    /// Whether a large body or item may leave now.
    #[inline]
    pub(super) fn has_turns(&self) -> bool {
        !self.flows.turns.is_empty()
    }

    /// What flows take now. It costs a look at every stream.
    pub fn load(&self) -> Load {
        let f = &self.flows;
        let unread = |r: &Receiving<W>| r.items.iter().map(Bytes::len).sum::<usize>() + r.partial.as_ref().map_or(0, Vec::len);
        Load {
            sending: f.sending.len(),
            receiving: f.receiving.iter().flatten().count(),
            assembling: f.assembling.len(),
            serving: f.served.len(),
            held: f.held,
            resting: f.resting,
            unread: f.receiving.iter().flatten().map(unread).sum(),
        }
    }

    /// Whether nothing is on its way in any flow that we send.
    pub fn flows_quiet(&self) -> bool {
        self.flows.sending.is_empty()
    }
}

#[cold]
fn beyond_credit(what: &str, received: u64, granted: u64) -> Violation {
    Violation(format!("{what} of {received} bytes, of which {granted} have credit"))
}

#[cold]
fn read_failure(payload: &Bytes, peer: &str) -> Result<RpcError, Violation> {
    let failure = Failure::decode(payload).map_err(|e| Violation(format!("a failure that cannot be read: {e}")))?;
    Ok(failure.into_error().with_peer(peer))
}
