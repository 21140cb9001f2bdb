//! What travels in Data frames: stream items, and bodies too large for one frame.
//!
//! A *flow* is one direction of one call. Its sender keeps to the credit that the receiver gave:
//! totals of bytes and items since the flow began. Items and bodies that are large are not queued
//! among the small frames: they wait here and leave one fragment at a time, by turns
//! ([`Outbound::pump`]), so that no small frame waits for more than a fragment of each.
//!
//! Both roles are here, because user code of both takes and gives items under the same lock: the
//! caller sends arguments and receives results, the provider the other way round.

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

    // Sending.

    pub(super) fn check_streams(&self) -> Result<(), RpcError> {
        let (open, limit) = (self.flows.streams(), self.peer.streams as usize);
        match open < limit {
            true => Ok(()),
            false => {
                let why = format!("{open} streams are open on this connection, the provider's limit `streams` is {limit}");
                Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::ClientQueue))
            }
        }
    }

    fn open(&mut self, flow: Flow, body: Bytes) -> Sender {
        self.flows.serial += 1;
        let serial = self.flows.serial;
        let granted = Totals { bytes: self.peer.stream_bytes.into(), items: self.peer.stream_items.into() };
        self.flows.resting += body.len();
        let sending = Sending {
            serial,
            granted,
            sent: Totals::default(),
            head: Bytes::new(),
            body: !body.is_empty(),
            tail: body,
            in_turn: false,
            end: None,
            waiting: None,
        };
        self.flows.sending.insert(flow, sending);
        self.flows.turn(flow);
        Sender { flow, serial }
    }

    /// Sends the rest of a body behind its first frame.
    pub(super) fn send_body(&mut self, flow: Flow, rest: Bytes) {
        self.open(flow, rest);
    }

    /// Opens the stream of arguments of a call that was just started.
    pub fn open_args(&mut self, id: CallId) -> Sender {
        self.open(Flow::args(id.0), Bytes::new())
    }

    fn sending(&mut self, at: Sender) -> Option<&mut Sending<W>> {
        self.flows.sending.get_mut(&at.flow).filter(|s| s.serial == at.serial)
    }

    /// Whether an item may be sent. `waiting` may look at who waits, and replace it: they are told
    /// when an item may be sent, and when none may any more.
    pub fn poll_sendable(&mut self, at: Sender, waiting: impl FnOnce(&mut Waiting<W>)) -> Sendable {
        let Some(s) = self.sending(at) else { return Sendable::Never };
        waiting(&mut s.waiting);
        match s.rest() == 0 && s.sent.items < s.granted.items && s.sent.bytes < s.granted.bytes {
            true => Sendable::Now,
            false => Sendable::Later,
        }
    }

    /// Sends an item, `head` and `tail` together, after [`poll_sendable`](Outbound::poll_sendable)
    /// said that one may be. What is left in `tail` afterwards was copied, or is not wanted. An item above the receiver's limit is refused, and nothing is sent.
    pub fn send_item(&mut self, at: Sender, head: &[u8], tail: &mut Bytes) -> Result<(), RpcError> {
        let (len, limit) = (head.len() + tail.len(), self.peer.body as usize);
        if len > limit {
            let why = format!("a stream item is {len} bytes, the receiver's limit `body` is {limit}");
            // The item was not sent, but the call that it belongs to was.
            return Err(RpcError::new(Code::ResourceExhausted, why).with_stage(Stage::Encode));
        }
        let Some(s) = self.sending(at) else { return Ok(()) };
        s.sent.items += 1;
        if len <= SMALL && s.sent.bytes + len as u64 <= s.granted.bytes {
            s.sent.bytes += len as u64;
            self.queue(at.flow.header(Kind::Data, 0, 0), &[head, tail]);
            return Ok(());
        }
        (s.head, s.tail) = (Bytes::copy_from_slice(head), std::mem::take(tail));
        self.flows.turn(at.flow);
        Ok(())
    }

    /// Ends a stream, after what is under way of its last item.
    pub fn end_items(&mut self, at: Sender, how: u16, payload: Vec<u8>) {
        let Some(s) = self.sending(at) else { return };
        if s.rest() > 0 {
            s.end = Some((how, payload));
            return;
        }
        self.flows.sending.remove(&at.flow);
        self.queue(at.flow.header(Kind::End, 0, how), &[&payload]);
        self.results_over(at.flow);
    }

    /// Breaks a stream or body off that we send. Says whether there was one.
    fn break_off(&mut self, flow: Flow, error: &RpcError, wake: &mut Vec<W>) -> bool {
        if !self.forget_sending(flow, wake) {
            return false;
        }
        self.queue(flow.header(Kind::Reset, 0, NO_MORE), &[&Failure::from_error(error).encode()]);
        match flow.results {
            true => self.results_over(flow),
            false => self.sending_over(CallId(flow.call)),
        }
        true
    }

    /// Breaks off what we send of a call's arguments.
    #[cold]
    pub(super) fn break_off_args(&mut self, id: CallId, wake: &mut Vec<W>) {
        let error = RpcError::new(Code::Cancelled, "the call is over");
        self.break_off(Flow::args(id.0), &error, wake);
    }

    /// Stops sending without a word.
    pub(super) fn forget_sending(&mut self, flow: Flow, wake: &mut Vec<W>) -> bool {
        let Some(s) = self.flows.sending.remove(&flow) else { return false };
        self.flows.resting -= if s.body { s.rest() } else { 0 };
        self.flows.unsent.extend((!s.tail.is_empty()).then_some(s.tail));
        wake.extend(s.waiting);
        true
    }

    /// Moves fragments of what is large to `into`, whose bytes are written next: one of each flow by
    /// turns, up to about `budget` bytes. Says whether any were moved. What is queued must have been
    /// [taken](Outbound::take) before, into the same: a fragment must not overtake its call.
    pub fn pump(&mut self, into: &mut OutBuf, mut budget: usize, wake: &mut Vec<W>) -> bool {
        debug_assert!(self.out.is_empty(), "a fragment would overtake what is queued");
        let mut moved = false;
        while budget > 0 {
            let Some(flow) = self.flows.turns.pop_front() else { break };
            let least = self.peer.stream_bytes as u64 / 2;
            // An item that fits one frame goes in one: its reader gets it without a copy.
            let whole = WHOLE.min(self.peer.frame as usize);
            let Some(s) = self.flows.sending.get_mut(&flow) else { continue };
            s.in_turn = false;
            let (rest, mut credit) = (s.rest(), s.granted.bytes - s.sent.bytes);
            if s.body {
                // What was received is known from the credit that came back for it.
                let received = s.granted.bytes - u64::from(self.peer.stream_bytes);
                credit = credit.min((received + AHEAD).saturating_sub(s.sent.bytes));
            }
            // A fragment that is small only for want of credit is not worth a frame; once the receiver
            // has taken what it has, the credit is at least half of what it began with.
            let piece = if s.body || rest > whole { rest.min(FRAGMENT) } else { rest };
            if credit < (piece as u64).min(least) {
                continue;
            }
            let n = piece.min(credit as usize);
            let head = s.head.split_to(n.min(s.head.len()));
            let tail = s.tail.split_to(n - head.len());
            s.sent.bytes += n as u64;
            let (more, body) = (n < rest, s.body);
            let header = flow.header(Kind::Data, if more { flags::MORE } else { 0 }, 0);
            into.frame_with_segment(header, &[&head], tail);
            self.appended += (HEADER + n) as u64;
            self.taken = self.appended;
            self.flows.resting -= if s.body { n } else { 0 };
            budget = budget.saturating_sub(n);
            moved = true;
            match (more, body) {
                (true, _) => self.flows.turn(flow),
                (false, true) => self.body_sent(flow),
                (false, false) => self.item_sent(flow, into, wake),
            }
        }
        moved
    }

    fn body_sent(&mut self, flow: Flow) {
        self.flows.sending.remove(&flow);
        if !flow.results {
            self.call_left_whole(CallId(flow.call));
        }
    }

    fn item_sent(&mut self, flow: Flow, into: &mut OutBuf, wake: &mut Vec<W>) {
        let Some(s) = self.flows.sending.get_mut(&flow) else { return };
        wake.extend(s.waiting.take());
        if let Some((how, payload)) = s.end.take() {
            self.flows.sending.remove(&flow);
            // Not queued: fragments of others follow in this pump, and bytes are counted in the order in
            // which they are written.
            into.frame(flow.header(Kind::End, 0, how), &[&payload]);
            self.appended += (HEADER + payload.len()) as u64;
            self.taken = self.appended;
            self.results_over(flow);
        }
    }

    /// A Credit frame. Says whether it was for the whole connection.
    pub fn on_credit(&mut self, frame: &Frame, wake: &mut Vec<W>) -> Result<bool, Violation> {
        let (Some(bytes), Some(items)) = (frame.payload.first_chunk::<8>(), frame.payload.get(8..16)) else {
            return Err(Violation("a Credit frame that ends early".into()));
        };
        let items = items.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let granted = Totals { bytes: u64::from_le_bytes(*bytes), items };
        match frame.header.aux {
            0 => {
                self.credit = self.credit.max(granted.bytes);
                Ok(true)
            }
            OF_CALL => {
                let flow = Flow::of(frame.header);
                if let Some(s) = self.flows.sending.get_mut(&flow) {
                    s.granted.bytes = s.granted.bytes.max(granted.bytes);
                    s.granted.items = s.granted.items.max(granted.items);
                    if s.rest() == 0 {
                        wake.extend(s.waiting.take());
                    }
                    self.flows.turn(flow);
                }
                Ok(false)
            }
            other => Err(Violation(format!("a Credit frame for {other}, which is neither the connection nor a call"))),
        }
    }

    // Receiving.

    fn receive(&mut self, flow: Flow, discarded: bool) -> Receiver {
        self.flows.serial += 1;
        let serial = self.flows.serial;
        let receiving = Receiving {
            serial,
            flow,
            granted: self.window,
            received: Totals::default(),
            taken: Totals::default(),
            partial: None,
            items: VecDeque::new(),
            end: None,
            discarded,
            waiting: None,
        };
        let index = match self.flows.free.pop() {
            Some(index) => {
                self.flows.receiving[index as usize] = Some(receiving);
                index
            }
            None => {
                self.flows.receiving.push(Some(receiving));
                self.flows.receiving.len() as u32 - 1
            }
        };
        self.flows.by_flow.insert(flow, index);
        Receiver { index, serial }
    }

    /// The stream of results of one of our calls begins.
    pub(super) fn receive_results(&mut self, id: CallId, discarded: bool) -> Receiver {
        self.receive(Flow::results(id.0), discarded)
    }

    /// A body in fragments begins with these bytes.
    pub(crate) fn assemble(&mut self, flow: Flow, status: u16, first: &Bytes, discarded: bool) {
        let bytes = if discarded { Vec::new() } else { first.to_vec() };
        self.flows.held += if flow.results { 0 } else { bytes.len() };
        self.flows.assembling.insert(flow, Assembly { status, bytes, received: 0, granted: self.window.bytes, discarded });
    }

    /// The arguments of a call that the peer made begin with these bytes.
    pub fn assemble_args(&mut self, id: u32, first: &Bytes) {
        self.assemble(Flow::args(id), status::OK, first, false);
    }

    /// Nobody wants the rest of a call's arguments.
    pub fn forget_args(&mut self, id: u32) {
        if let Some(body) = self.flows.assembling.remove(&Flow::args(id)) {
            self.flows.held -= body.bytes.len();
        }
    }

    /// A body that is under way to us is not wanted any more; what comes of it is thrown away.
    pub(super) fn discard_results(&mut self, id: CallId) {
        if let Some(body) = self.flows.assembling.get_mut(&Flow::results(id.0)) {
            (body.discarded, body.bytes) = (true, Vec::new());
        }
    }

    /// A Data frame. Data of flows that are not there belongs to calls that were withdrawn, refused
    /// or broken off, and is thrown away.
    pub fn on_data(&mut self, frame: Frame, limits: &Limits, wake: &mut Vec<W>) -> Result<Delivered, Violation> {
        let flow = Flow::of(frame.header);
        let more = match frame.header.flags & !flags::RESULTS {
            0 => false,
            flags::MORE => true,
            other => return Err(Violation(format!("a Data frame with flags {other:#04x}, which are not in this protocol version"))),
        };
        if self.flows.assembling.contains_key(&flow) {
            return self.on_piece(flow, &frame.payload, more, limits, wake);
        }
        self.on_item(flow, frame.payload, more, limits.body, wake)?;
        Ok(Delivered::Nothing)
    }

    fn on_piece(&mut self, flow: Flow, piece: &Bytes, more: bool, limits: &Limits, wake: &mut Vec<W>) -> Result<Delivered, Violation> {
        let window = self.window.bytes;
        let Some(body) = self.flows.assembling.get_mut(&flow) else { return Ok(Delivered::Nothing) };
        body.received += piece.len() as u64;
        if body.received > body.granted {
            return Err(beyond_credit("a body", body.received, body.granted));
        }
        if !body.discarded {
            if body.bytes.len() + piece.len() > limits.body {
                return Err(Violation(format!("a body in fragments of more than {} bytes, the limit `body`", limits.body)));
            }
            if !flow.results {
                if self.flows.held + piece.len() > limits.held.max(limits.body) {
                    self.forget_args(flow.call);
                    return Ok(Delivered::TooMuch(flow.call));
                }
                self.flows.held += piece.len();
            }
            body.bytes.extend_from_slice(piece);
        }
        if more {
            // Put together at once, so credit comes back at once: what bounds bodies is `body`. Nobody
            // needs more of what is thrown away.
            if !body.discarded && body.received + window - body.granted >= (FRAGMENT as u64).min(window / 2) {
                body.granted = body.received + window;
                let total = Totals { bytes: body.granted, items: 0 };
                self.give_credit(flow, total);
            }
            return Ok(Delivered::Nothing);
        }
        let Some(body) = self.flows.assembling.remove(&flow) else { return Ok(Delivered::Nothing) };
        let bytes = Bytes::from(body.bytes);
        if flow.results {
            self.answer_whole(CallId(flow.call), body.status, bytes, wake)?;
            return Ok(Delivered::Nothing);
        }
        self.flows.held -= bytes.len();
        Ok(Delivered::Arguments(flow.call, bytes))
    }

    fn on_item(&mut self, flow: Flow, payload: Bytes, more: bool, limit: usize, wake: &mut Vec<W>) -> Result<(), Violation> {
        let Some(r) = self.flows.by_flow(flow) else { return Ok(()) };
        r.received.bytes += payload.len() as u64;
        r.received.items += u64::from(r.partial.is_none());
        if r.received.bytes > r.granted.bytes {
            return Err(beyond_credit("a stream", r.received.bytes, r.granted.bytes));
        }
        if r.received.items > r.granted.items {
            let (sent, granted) = (r.received.items, r.granted.items);
            return Err(Violation(format!("a stream of {sent} items, of which {granted} have credit")));
        }
        if r.discarded {
            r.partial = more.then(Vec::new);
            return Ok(());
        }
        let whole = match (&mut r.partial, more) {
            (None, false) => payload,
            (partial, _) => {
                let partial = partial.get_or_insert_default();
                if partial.len() + payload.len() > limit {
                    return Err(Violation(format!("a stream item of more than {limit} bytes, the limit `body`")));
                }
                partial.extend_from_slice(&payload);
                if more {
                    self.return_credit(flow);
                    return Ok(());
                }
                r.partial.take().unwrap_or_default().into()
            }
        };
        // A slice of the read buffer keeps all of it: a reader that is behind must not keep many.
        let whole = match r.items.len() >= UNCOPIED && whole.len() <= SMALL {
            true => Bytes::copy_from_slice(&whole),
            false => whole,
        };
        r.items.push_back(whole);
        wake.extend(r.waiting.take());
        Ok(())
    }

    fn give_credit(&mut self, flow: Flow, total: Totals) {
        let header = flow.header(Kind::Credit, 0, OF_CALL);
        self.queue(header, &[&total.bytes.to_le_bytes(), &total.items.to_le_bytes()]);
    }

    /// Gives the sender new credit if half of it is used: for what was taken, and for an item that
    /// is not whole and could not become so otherwise.
    fn return_credit(&mut self, flow: Flow) {
        let window = self.window;
        let Some(r) = self.flows.by_flow(flow).filter(|r| !r.discarded) else { return };
        let used = r.taken.bytes + r.partial.as_ref().map_or(0, |p| p.len() as u64);
        let next = Totals { bytes: r.granted.bytes.max(used + window.bytes), items: r.taken.items + window.items };
        if next.bytes - r.granted.bytes >= window.bytes / 2 || next.items - r.granted.items >= window.items / 2 {
            r.granted = next;
            self.give_credit(flow, next);
        }
    }

    /// The next item of a stream, if it is here. Otherwise `waiting` may look at who waits, and
    /// replace it. After anything but an item the stream is over and gone.
    pub fn poll_item(&mut self, at: Receiver, waiting: impl FnOnce(&mut Waiting<W>)) -> Option<Item> {
        let Some(r) = self.flows.receiving(at) else { return Some(Item::End) };
        if let Some(item) = r.items.pop_front() {
            r.taken.bytes += item.len() as u64;
            r.taken.items += 1;
            let (flow, over) = (r.flow, r.end.is_some());
            if !over {
                self.return_credit(flow);
            }
            return Some(Item::Item(item));
        }
        match r.end.take() {
            Some(end) => {
                self.flows.forget(at);
                Some(end)
            }
            None => {
                waiting(&mut r.waiting);
                None
            }
        }
    }

    /// Takes further items of a stream that are here, small ones and a few, to spare their reader a lock
    /// for each.
    pub fn take_items(&mut self, at: Receiver, into: &mut VecDeque<Bytes>) {
        let Some(r) = self.flows.receiving(at) else { return };
        let mut bytes = 0;
        while into.len() < AT_A_TIME
            && let Some(item) = r.items.pop_front_if(|item| bytes + item.len() <= SMALL)
        {
            bytes += item.len();
            into.push_back(item);
        }
        if into.is_empty() {
            return;
        }
        r.taken.bytes += bytes as u64;
        r.taken.items += into.len() as u64;
        let (flow, over) = (r.flow, r.end.is_some());
        if !over {
            self.return_credit(flow);
        }
    }

    /// Nobody reads a stream any more: its sender is told to stop.
    pub fn drop_receiver(&mut self, at: Receiver, wake: &mut Vec<W>) {
        let Some(r) = self.flows.receiving(at) else { return };
        if r.end.is_some() {
            return self.flows.forget(at);
        }
        let flow = r.flow;
        // That an item is not whole must still be known.
        (r.discarded, r.items, r.partial) = (true, VecDeque::new(), r.partial.take().map(|_| Vec::new()));
        wake.extend(r.waiting.take());
        self.stop(flow);
        if flow.results {
            // Who drops the results of a call drops the call.
            self.break_off_args(CallId(flow.call), wake);
        }
    }

    /// Tells the sender of a flow to stop: it is thrown away here.
    pub(super) fn stop(&mut self, flow: Flow) {
        let error = RpcError::new(Code::Cancelled, "nobody reads this any more");
        self.queue(flow.header(Kind::Reset, 0, STOP), &[&Failure::from_error(&error).encode()]);
    }

    /// A stream ends, in whatever way.
    fn received_end(&mut self, flow: Flow, end: Item, wake: &mut Vec<W>) {
        let Some(index) = self.flows.by_flow.remove(&flow) else { return };
        if let Some(r) = self.flows.receiving[index as usize].as_mut() {
            wake.extend(r.waiting.take());
            r.end = Some(end);
            if r.discarded {
                let at = Receiver { index, serial: r.serial };
                self.flows.forget(at);
            }
        }
        match flow.results {
            true => {
                self.break_off_args(CallId(flow.call), wake);
                self.stream_over(CallId(flow.call));
            }
            false => self.part_over(flow.call, |s| s.args = false),
        }
    }

    /// An End frame.
    pub fn on_end(&mut self, frame: Frame, wake: &mut Vec<W>) -> Result<(), Violation> {
        let flow = Flow::of(frame.header);
        let end = match frame.header.aux {
            status::OK => Item::End,
            status::APP_ERROR => Item::AppError(frame.payload),
            status::FAILURE => Item::Failed(read_failure(&frame.payload, &self.peer_name)?),
            other => return Err(Violation(format!("an End with status {other}, which is not in this protocol version"))),
        };
        if self.flows.assembling.contains_key(&flow) || self.flows.by_flow(flow).is_some_and(|r| r.partial.is_some()) {
            return Err(Violation("an End in the middle of a body or item".into()));
        }
        self.received_end(flow, end, wake);
        Ok(())
    }

    /// A Reset frame.
    pub fn on_reset(&mut self, frame: &Frame, wake: &mut Vec<W>) -> Result<(), Violation> {
        let flow = Flow::of(frame.header);
        let error = read_failure(&frame.payload, &self.peer_name)?;
        match frame.header.aux {
            NO_MORE if self.flows.assembling.contains_key(&flow) => {
                if !flow.results {
                    return Err(Violation("a Reset of a call's body, for which there is Cancel".into()));
                }
                self.flows.assembling.remove(&flow);
                self.broken_off(CallId(flow.call), error, wake);
            }
            NO_MORE => self.received_end(flow, Item::Failed(error), wake),
            STOP => drop(self.break_off(flow, &error, wake)),
            other => return Err(Violation(format!("a Reset of {other}, which is not in this protocol version"))),
        }
        Ok(())
    }

    // Calls with streams that we serve.

    /// A call of the peer with a stream begins; its number is in use until
    /// [`take_over`](Outbound::take_over) says so. Returns the stream of its arguments, if it has one.
    pub fn serve(&mut self, call: u32, args: bool) -> Option<Receiver> {
        self.flows.served.insert(call, Served { running: true, args, results: false });
        args.then(|| self.receive(Flow::args(call), false))
    }

    /// Whether this is a call with streams that we serve.
    pub fn serves(&self, call: u32) -> bool {
        self.flows.served.contains_key(&call)
    }

    /// Calls with streams that we serve.
    pub fn serving(&self) -> usize {
        self.flows.served.len()
    }

    /// The handler of such a call has ended with its one reply queued, or none.
    pub fn served(&mut self, call: u32) {
        self.part_over(call, |s| s.running = false);
    }

    /// The handler of such a call has answered with a stream: queues the Reply that opens it.
    pub fn open_results(&mut self, call: u32) -> Sender {
        self.queue(Header::new(Kind::Reply, flags::STREAM, status::OK, call), &[]);
        if let Some(s) = self.flows.served.get_mut(&call) {
            (s.running, s.results) = (false, true);
        }
        self.open(Flow::results(call), Bytes::new())
    }

    /// Sends a reply whose body, `head` and `tail` together, is too large for one frame. The head goes
    /// in the first piece: it is at most [`FRAGMENT`] bytes.
    pub fn reply_in_fragments(&mut self, call: u32, status: u16, head: &[u8], mut tail: Bytes) {
        debug_assert!(head.len() <= FRAGMENT, "a head of {} bytes", head.len());
        let first = tail.split_to(FRAGMENT.saturating_sub(head.len()).min(tail.len()));
        self.queue_segment(Header::new(Kind::Reply, flags::MORE, status, call), &[head], first);
        self.send_body(Flow::results(call), tail);
    }

    /// The caller of a call that we serve is gone: what we still send of its results is broken off,
    /// its arguments end.
    pub fn caller_gone(&mut self, call: u32, wake: &mut Vec<W>) {
        let error = RpcError::new(Code::Cancelled, "the caller went away");
        self.break_off(Flow::results(call), &error, wake);
        self.received_end(Flow::args(call), Item::Failed(error), wake);
    }

    fn results_over(&mut self, flow: Flow) {
        if flow.results {
            self.part_over(flow.call, |s| s.results = false);
        }
    }

    fn part_over(&mut self, call: u32, part: impl FnOnce(&mut Served)) {
        let Some(served) = self.flows.served.get_mut(&call) else { return };
        part(served);
        if !(served.running || served.args || served.results) {
            self.flows.served.remove(&call);
            self.flows.over.push(call);
        }
    }

    /// Numbers of served calls that are over since this was asked last; the peer may use them again
    /// once what is queued now is written.
    pub fn take_over(&mut self, into: &mut Vec<u32>) {
        into.append(&mut self.flows.over);
    }

    /// The link is gone: every flow ends.
    pub(super) fn lose_flows(&mut self, reason: &RpcError, wake: &mut Vec<W>) {
        let flows = std::mem::take(&mut self.flows);
        self.flows.unsent = flows.unsent;
        for s in flows.sending.into_values() {
            self.flows.unsent.push(s.tail);
            wake.extend(s.waiting);
        }
        self.flows.serial = flows.serial;
        (self.flows.receiving, self.flows.free) = (flows.receiving, flows.free);
        let mut gone = Vec::new();
        for (index, place) in self.flows.receiving.iter_mut().enumerate() {
            let Some(r) = place else { continue };
            wake.extend(r.waiting.take());
            r.end.get_or_insert_with(|| Item::Failed(reason.clone().with_certainty(Certainty::MaybeExecuted)));
            if r.discarded {
                gone.push(Receiver { index: index as u32, serial: r.serial });
            }
        }
        gone.into_iter().for_each(|at| self.flows.forget(at));
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
