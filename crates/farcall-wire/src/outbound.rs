//! The calls we made: a slot for each that awaits its reply, our side of the method table, the
//! frames on their way out, and what flows beside calls (`flows/`).
//!
//! Slots are an array and a call's number is `generation << 16 | slot`. A slot whose caller went
//! away is kept until the reply arrives: every two-way call gets exactly one, so that a late reply
//! can never be taken for another call's.

mod flows;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::error::display_duration;
use farcall_core::limits::MAX_IN_FLIGHT;
use farcall_core::{Certainty, Code, RpcError, ServiceDescriptor, Stage};

use crate::differences::Replies;
use crate::failure::{Failure, cut};
use crate::frame::{CONTROL, FRAGMENT, HEADER, Header, Kind, Violation, WHOLE, flags, status};
use crate::hello::PeerLimits;
use crate::outbuf::OutBuf;
use crate::table::{Bind, MAX_ROWS, VERDICT_TEXT, Verdict};
pub(crate) use flows::STOP;
pub use flows::{Delivered, Item, Load, Receiver, Sendable, Sender};
use flows::{Flow, Flows, Totals};

/// A call without a deadline expires then.
pub const NEVER: u64 = u64::MAX;
const NO_SLOT: u32 = u32::MAX;
/// Offsets of `kind` in a header, from its start.
const KIND_AT: usize = 4;
/// Past flushes kept to tell how long a call waited in our own queue.
const MARKS: usize = 128;
/// Bytes that may be sent before the peer's hello.
const BYTES_BEFORE_HELLO: u64 = 1 << 20;
/// What a Call frame costs of the connection's credit beside its payload: it takes memory however
/// small it is.
pub(crate) const CALL_COST: u64 = 64;
/// The end of a frame whose last piece is not queued yet.
const NOT_YET: u64 = u64::MAX;

/// The number of a call: generation and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u32);

impl CallId {
    fn slot(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The result's bytes.
    Ok(Bytes),
    /// The application error's bytes.
    AppError(Bytes),
    /// A stream of results.
    Stream(Receiver),
    /// A system error.
    Failed(RpcError),
}

/// The bytes of a body: copied into the out-buffer, or kept beside it.
#[derive(Debug)]
pub enum Body<'a> {
    /// Copied.
    Copy(&'a [u8]),
    /// Written from where it is.
    Segment(Bytes),
}

impl Body<'_> {
    fn len(&self) -> usize {
        match self {
            Body::Copy(b) => b.len(),
            Body::Segment(b) => b.len(),
        }
    }
}

/// A call to be started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Row of our method table, from [`Outbound::bind`].
    pub row: u16,
    /// Milliseconds from now until the deadline; `None` = no deadline.
    pub deadline: Option<u64>,
    /// The options block with its length, empty if none.
    pub options: &'a [u8],
    /// The encoded arguments.
    pub body: Body<'a>,
    /// What flows beside the call.
    pub streams: Streams,
}

/// Which directions of a call are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// Items follow the arguments.
    pub args: bool,
    /// The result is a stream.
    pub results: bool,
}

/// Whom to tell that a call has ended; a `std::task::Waker` in the driver, anything in a test.
pub type Waiting<W> = Option<W>;

#[derive(Debug)]
enum State<W> {
    /// Next free slot.
    Free(u32),
    /// Sent, or about to be.
    Waiting(Waiting<W>),
    /// The caller is gone, the reply is not here yet.
    Abandoned,
    /// The deadline passed; the caller has not looked, the reply is not here yet.
    Expired(RpcError),
    /// Ended; the caller has not looked yet.
    Done(Answer),
    /// Answered with a stream that is not over; the caller has not looked yet.
    Opened(Receiver),
    /// The caller has the stream, which is not over.
    Streaming,
    /// A one-way call whose body is not sent yet.
    Sending,
}

#[derive(Debug)]
struct Slot<W> {
    generation: u16,
    state: State<W>,
    /// Among all calls of the session, from 1.
    number: u64,
    queued_at: u64,
    expires: u64,
    deadline: u64,
    /// Where its frame starts and ends in the stream of all bytes.
    start: u64,
    end: u64,
    /// Bytes of small frames before it since the buffer was last taken; for withdrawing.
    small_at: usize,
    /// What it took of the connection's credit.
    cost: u32,
    /// Its result must be a stream.
    results: bool,
    /// Its reply is being put together.
    begun: bool,
}

impl<W> Slot<W> {
    fn new(state: State<W>) -> Slot<W> {
        Slot {
            generation: 0,
            state,
            number: 0,
            queued_at: 0,
            expires: NEVER,
            deadline: NEVER,
            start: 0,
            end: 0,
            small_at: 0,
            cost: 0,
            results: false,
            begun: false,
        }
    }
}

/// What a GoAway frame says.
#[derive(Debug, Clone)]
pub struct GoAway {
    /// The last call number that was accepted.
    pub last: u64,
    /// Why.
    pub reason: RpcError,
}

/// The rows of a binding of ours that are held.
#[derive(Debug)]
pub struct OurHeldRows {
    pub(crate) id: u32,
    pub(crate) first: u16,
    pub(crate) service: Option<&'static ServiceDescriptor>,
    pub(crate) rows: Vec<u16>,
}

struct Binding {
    /// The service, if it is a stub's. Its address is what it is found by.
    service: Option<&'static ServiceDescriptor>,
    id: u32,
    first: u16,
    rows: u16,
    /// What was sent, to know the service again by what it is.
    sent: Vec<u8>,
    /// The Bound frame came.
    answered: bool,
}

/// See the module's text.
pub struct Outbound<W> {
    slots: Vec<Slot<W>>,
    free: u32,
    used: usize,
    calls: u64,
    bindings: Vec<Binding>,
    rows: usize,
    refused: Vec<Verdict>,
    /// How the replies of rows are read on which the two sides differ.
    readings: HashMap<u16, Replies>,
    /// Bindings that are not answered, and rows that are held.
    unanswered: usize,
    held: HashSet<u16>,
    /// One-way calls were made while there were such: whether they run is not decided.
    undecided: bool,
    earliest: u64,
    out: OutBuf,
    /// Bytes ever appended, ever taken for writing, ever written.
    appended: u64,
    taken: u64,
    written: u64,
    marks: VecDeque<(u64, u64)>,
    /// For bytes before this one the mark is gone.
    unmarked: u64,
    peer: PeerLimits,
    established: bool,
    /// Set once nothing more can be sent.
    closed: Option<RpcError>,
    peer_name: String,
    /// Of the connection, for Call frames: what the peer gave, and what they cost.
    credit: u64,
    spent: u64,
    /// What we give to every flow at its beginning.
    window: Totals,
    flows: Flows<W>,
}

impl<W> Outbound<W> {
    /// Nothing called yet. The limits are ours.
    pub fn new(ours: &PeerLimits) -> Outbound<W> {
        Outbound {
            slots: Vec::new(),
            free: NO_SLOT,
            used: 0,
            calls: 0,
            bindings: Vec::new(),
            rows: 0,
            refused: Vec::new(),
            readings: HashMap::new(),
            unanswered: 0,
            held: HashSet::new(),
            undecided: false,
            earliest: NEVER,
            out: OutBuf::default(),
            appended: 0,
            taken: 0,
            written: 0,
            marks: VecDeque::new(),
            unmarked: 0,
            peer: PeerLimits::BEFORE_HELLO,
            established: false,
            closed: None,
            peer_name: String::new(),
            credit: PeerLimits::BEFORE_HELLO.credit.into(),
            spent: 0,
            window: Totals { bytes: ours.stream_bytes.into(), items: ours.stream_items.into() },
            flows: Flows::default(),
        }
    }

    /// The peer's hello is here: its limits hold from now on.
    pub fn established(&mut self, limits: PeerLimits, peer_name: String) {
        self.peer = limits;
        self.credit = self.credit.max(limits.credit.into());
        self.established = true;
        self.peer_name = peer_name;
    }

    /// The first row of a service in our method table; binds it (a frame is queued) at first use.
    /// It is known again by its address, which costs no hashing; for descriptors that are freed there is
    /// [`bind_by_value`](Outbound::bind_by_value).
    #[inline]
    pub fn bind(&mut self, service: &'static ServiceDescriptor) -> Result<u16, RpcError> {
        match self.bound(service) {
            Some(b) => Ok(b.first),
            None => self.bind_new(Some(service), service),
        }
    }

    #[inline]
    fn bound(&self, service: &'static ServiceDescriptor) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.service.is_some_and(|known| std::ptr::eq(known, service)))
    }

    /// As [`bind`](Outbound::bind), for descriptors that come and go: known again by what they say.
    pub fn bind_by_value(&mut self, service: &ServiceDescriptor) -> Result<u16, RpcError> {
        let wanted = Bind::of(service).encode();
        match self.bindings.iter().find(|b| b.sent == wanted) {
            Some(b) => Ok(b.first),
            None => self.bind_new(None, service),
        }
    }

    fn bind_new(&mut self, stub: Option<&'static ServiceDescriptor>, service: &ServiceDescriptor) -> Result<u16, RpcError> {
        if let Some(error) = &self.closed {
            return Err(error.clone().with_certainty(Certainty::NotSent));
        }
        let rows = service.methods.len();
        let limit = (self.peer.bound_methods as usize).min(MAX_ROWS);
        if self.rows + rows > limit {
            let why = format!("binding {} needs {rows} rows, {} are in use of the limit `bound_methods` {limit}", service.name, self.rows);
            return Err(RpcError::not_sent(Code::ResourceExhausted, why));
        }
        let bind = Bind::of(service);
        if let Err(Violation(why)) = bind.check() {
            return Err(RpcError::not_sent(Code::InvalidArgument, format!("{} cannot be bound: {why}", service.name)));
        }
        let bind = bind.encode();
        if bind.len() > CONTROL.min(self.peer.frame as usize) || !self.has_room(bind.len()) {
            return Err(RpcError::not_sent(
                Code::ResourceExhausted,
                format!("the method table of {} is larger than a frame", service.name),
            ));
        }
        let (first, id) = (self.rows as u16, self.bindings.len() as u32 + 1);
        self.queue(Header::new(Kind::Bind, 0, first, id), &[&bind]);
        self.rows += rows;
        self.unanswered += 1;
        self.bindings.push(Binding { service: stub, id, first, rows: rows as u16, sent: bind, answered: false });
        Ok(first)
    }

    /// Whether a frame of that size may be queued: before the peer's hello it takes only so much.
    fn has_room(&self, payload: usize) -> bool {
        self.established || self.appended.saturating_add((HEADER + payload) as u64) <= BYTES_BEFORE_HELLO
    }

    /// A Bound frame: remembers which rows are refused, and returns those that are held, if rows may be (`hold`).
    pub fn on_bound(&mut self, id: u32, aux: u16, payload: &[u8], hold: bool) -> Result<Option<OurHeldRows>, Violation> {
        let Some(binding) = self.bindings.iter_mut().find(|b| b.id == id && !b.answered) else {
            return Err(Violation(format!("a Bound frame for binding {id}, which does not wait for one")));
        };
        binding.answered = true;
        self.unanswered -= 1;
        match (aux, payload) {
            (0, []) => return Ok(None),
            (1, _) => {}
            _ => return Err(Violation(format!("a Bound frame with answer {aux} and {} bytes", payload.len()))),
        }
        let verdicts: Vec<Verdict> =
            farcall_core::compact::decode(payload).map_err(|e| Violation(format!("a Bound frame that cannot be read: {e}")))?;
        let range = binding.first..binding.first.saturating_add(binding.rows);
        if verdicts.len() > binding.rows as usize || verdicts.iter().any(|v| !range.contains(&v.row)) {
            return Err(Violation(format!("a Bound frame for rows outside of binding {id}")));
        }
        let (held, refused): (Vec<Verdict>, Vec<Verdict>) = verdicts.into_iter().partition(|v| v.code == 0);
        if !held.is_empty() && !hold {
            return Err(Violation("a Bound frame with rows that wait for schemas, which was not negotiated".into()));
        }
        let (first, service) = (binding.first, binding.service);
        let mut rows: Vec<u16> = held.iter().map(|v| v.row).collect();
        rows.sort_unstable();
        rows.dedup();
        refused.into_iter().for_each(|verdict| self.refuse_row(verdict));
        self.held.extend(&rows);
        Ok((!rows.is_empty()).then_some(OurHeldRows { id, first, service, rows }))
    }

    fn refuse_row(&mut self, verdict: Verdict) {
        // Texts are kept for as long as the session: not more of them than people can use.
        self.refused.push(Verdict { message: cut(&verdict.message, VERDICT_TEXT).to_owned(), ..verdict });
    }

    /// What has been decided of a row that was held.
    pub fn settle(&mut self, row: u16, settled: Result<Replies, Verdict>) {
        self.held.remove(&row);
        match settled {
            Ok(replies) => drop(self.readings.insert(row, replies)),
            Err(verdict) => self.refuse_row(verdict),
        }
    }

    /// Whether there are one-way calls that will run only if this side says more about their rows: nobody waits for
    /// them, so the link must be kept until then.
    pub fn is_undecided(&self) -> bool {
        self.undecided && (self.unanswered > 0 || !self.held.is_empty())
    }

    /// How the replies of a method are read, if the two sides differ on it.
    pub fn replies(&self, service: &'static ServiceDescriptor, method: u16) -> Option<Replies> {
        self.readings.get(&(self.bound(service)?.first + method)).cloned()
    }

    /// Starts a two-way call: queues its frame and keeps a slot for the reply.
    #[inline]
    pub fn start(&mut self, now: u64, call: Start<'_>, waiting: Waiting<W>) -> Result<CallId, RpcError> {
        self.check(&call)?;
        let deadline = call.deadline.unwrap_or(NEVER);
        let results = call.streams.results;
        let index = self.take_slot(State::Waiting(waiting))?;
        let (start, small_at) = (self.appended, self.out.small_len());
        let id = self.id(index);
        let (cost, whole) = self.queue_call(id.0, 0, call);
        let expires = now.saturating_add(deadline);
        let end = if whole { self.appended } else { NOT_YET };
        let number = self.calls;
        let slot = &mut self.slots[index];
        (slot.number, slot.queued_at, slot.expires, slot.deadline) = (number, now, expires, deadline);
        (slot.start, slot.end, slot.small_at, slot.cost, slot.results) = (start, end, small_at, cost, results);
        self.earliest = self.earliest.min(expires);
        Ok(id)
    }

    fn id(&self, index: usize) -> CallId {
        CallId((self.slots[index].generation as u32) << 16 | index as u32)
    }

    /// A free slot, in use from now on.
    #[inline]
    fn take_slot(&mut self, state: State<W>) -> Result<usize, RpcError> {
        if self.used >= (self.peer.in_flight as usize).min(MAX_IN_FLIGHT) {
            let why = format!("{} calls in flight on this connection, the limit `in_flight`; wait for some to end", self.used);
            return Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::ClientQueue));
        }
        self.used += 1;
        let free = self.free;
        match self.slots.get_mut(free as usize) {
            Some(reused) => {
                let State::Free(next) = reused.state else { return Err(broken_free_list()) };
                self.free = next;
                reused.state = state;
                Ok(free as usize)
            }
            None => {
                self.slots.push(Slot::new(state));
                Ok(self.slots.len() - 1)
            }
        }
    }

    /// Queues a one-way call. Nothing comes back; the return says that it is queued.
    pub fn start_oneway(&mut self, call: Start<'_>) -> Result<(), RpcError> {
        self.check(&call)?;
        self.undecided |= self.unanswered > 0 || !self.held.is_empty();
        if self.fits(&call) {
            self.queue_call(0, flags::ONEWAY, call);
            return Ok(());
        }
        // Its fragments need a number to be told by.
        let index = self.take_slot(State::Sending)?;
        let id = self.id(index);
        self.queue_call(id.0, flags::ONEWAY, call);
        // A GoAway may say that nobody takes the rest of it.
        self.slots[index].number = self.calls;
        Ok(())
    }

    /// Whether a call goes in one frame.
    #[inline]
    fn fits(&self, call: &Start<'_>) -> bool {
        call.body.len() <= WHOLE && 4 + call.options.len() + call.body.len() <= self.peer.frame as usize
    }

    /// Whether there is credit for a call of this size; if not, one that waits is told by
    /// [`on_credit`](Outbound::on_credit).
    #[inline]
    pub fn has_credit(&self, call: &Start<'_>) -> bool {
        let payload = 4 + call.options.len() + call.body.len().min(WHOLE);
        self.spent + CALL_COST + payload as u64 <= self.credit
    }

    /// What our calls cost so far of the connection's credit.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    #[inline]
    fn check(&self, call: &Start<'_>) -> Result<(), RpcError> {
        if let Some(error) = &self.closed {
            return Err(error.clone().with_certainty(Certainty::NotSent));
        }
        if call.body.len() > self.peer.body as usize {
            let why = format!("the arguments are {} bytes, the provider's limit `body` is {}", call.body.len(), self.peer.body);
            return Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::Encode));
        }
        if call.options.len() > self.peer.metadata as usize {
            let why = format!("the metadata is {} bytes, the provider's limit `metadata` is {}", call.options.len(), self.peer.metadata);
            return Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::Encode));
        }
        if !self.established || call.streams != Streams::default() {
            self.check_rare(call)?;
        }
        if call.row as usize >= self.rows {
            return Err(RpcError::not_sent(Code::Internal, format!("row {} of the method table is not bound", call.row)));
        }
        match self.refused.is_empty() {
            true => Ok(()),
            false => self.check_row(call.row),
        }
    }

    /// What holds before the peer's hello, and for streams.
    #[cold]
    fn check_rare(&self, call: &Start<'_>) -> Result<(), RpcError> {
        let refuse = |why: String| Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::Encode));
        if !self.has_room(4 + call.options.len() + call.body.len()) {
            return refuse(format!("{BYTES_BEFORE_HELLO} bytes are queued, more must wait for the provider's hello"));
        }
        if call.streams == Streams::default() {
            return Ok(());
        }
        if call.streams.args && !self.fits(call) {
            let why = format!("arguments beside a stream must fit one frame, {WHOLE} bytes, and these are {}", call.body.len());
            return refuse(format!("{why}; send them as items of the stream"));
        }
        self.check_streams()
    }

    fn check_row(&self, row: u16) -> Result<(), RpcError> {
        match self.refused.iter().find(|v| v.row == row) {
            Some(verdict) => Err(verdict.to_error().with_certainty(Certainty::NotSent)),
            None => Ok(()),
        }
    }

    /// Queues the frame of a call. Returns what it cost of the connection's credit, and whether it is
    /// the whole of it.
    #[inline]
    fn queue_call(&mut self, id: u32, extra: u8, call: Start<'_>) -> (u32, bool) {
        self.calls += 1;
        let whole = self.fits(&call);
        let mut bits = extra | if call.options.is_empty() { 0 } else { flags::OPTIONS };
        bits |= if call.streams.args { flags::STREAM } else { 0 };
        // 0 means no deadline, so the shortest one that can be said is a millisecond; one beyond what
        // can be said (49 days) is kept by this side alone.
        let deadline = call.deadline.map_or(0, |ms| u32::try_from(ms.max(1)).unwrap_or(0)).to_le_bytes();
        let before = self.appended;
        let header = Header::new(Kind::Call, bits, call.row, id);
        match call.body {
            _ if !whole => self.queue_first_piece(header, &[&deadline, call.options], call.body),
            Body::Copy(body) => self.queue(header, &[&deadline, call.options, body]),
            Body::Segment(body) => self.queue_segment(header, &[&deadline, call.options], body),
        }
        let cost = CALL_COST + (self.appended - before) - HEADER as u64;
        self.spent += cost;
        (cost as u32, whole)
    }

    #[cold]
    fn queue_first_piece(&mut self, header: Header, parts: &[&[u8]], body: Body<'_>) {
        let mut body = match body {
            Body::Copy(body) => Bytes::copy_from_slice(body),
            Body::Segment(body) => body,
        };
        let room = self.peer.frame as usize - parts.iter().map(|p| p.len()).sum::<usize>().min(self.peer.frame as usize);
        let first = body.split_to(room.min(FRAGMENT).min(body.len()));
        self.queue_segment(Header { flags: header.flags | flags::MORE, ..header }, parts, first);
        self.send_body(Flow::args(header.id), body);
    }

    fn queue_segment(&mut self, header: Header, parts: &[&[u8]], body: Bytes) {
        self.appended += (HEADER + parts.iter().map(|p| p.len()).sum::<usize>() + body.len()) as u64;
        self.out.frame_with_segment(header, parts, body);
    }

    /// Queues any frame.
    #[inline]
    pub fn queue(&mut self, header: Header, parts: &[&[u8]]) {
        self.appended += (HEADER + parts.iter().map(|p| p.len()).sum::<usize>()) as u64;
        self.out.frame(header, parts);
    }

    /// The answer, if it is here; then the call is over and its number is free. Otherwise `waiting`
    /// may look at who waits, and replace it.
    #[inline]
    pub fn poll(&mut self, id: CallId, waiting: impl FnOnce(&mut Waiting<W>)) -> Option<Answer> {
        let Some(slot) = self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16) else {
            return Some(Answer::Failed(RpcError::new(Code::Internal, "this call has ended before")));
        };
        if let State::Waiting(w) = &mut slot.state {
            waiting(w);
            return None;
        }
        Some(match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Done(answer) => {
                self.release(id.slot());
                answer
            }
            State::Expired(error) => Answer::Failed(error),
            State::Opened(stream) => {
                slot.state = State::Streaming;
                Answer::Stream(stream)
            }
            other => {
                slot.state = other;
                Answer::Failed(RpcError::new(Code::Internal, "this call has ended before"))
            }
        })
    }

    fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        (slot.state, slot.begun) = (State::Free(self.free), false);
        self.free = index as u32;
        self.used -= 1;
    }

    fn slot(&mut self, id: CallId) -> Option<&mut Slot<W>> {
        self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16)
    }

    /// A reply came. Appends whom to wake.
    #[inline]
    pub fn on_reply(&mut self, header: Header, body: Bytes, wake: &mut Vec<W>) -> Result<(), Violation> {
        let id = CallId(header.id);
        match header.flags {
            0 => self.answered(id, header.aux, body, wake),
            _ => self.reply_begins(header, body, wake),
        }
    }

    /// A reply whose body goes on, or after which items follow.
    #[cold]
    fn reply_begins(&mut self, header: Header, body: Bytes, wake: &mut Vec<W>) -> Result<(), Violation> {
        let (id, taken) = (CallId(header.id), self.taken);
        let Some(slot) = self.slot(id).filter(|s| s.start < taken && !s.begun) else { return Err(unasked(id)) };
        let wanted = match slot.state {
            State::Waiting(_) => true,
            State::Abandoned | State::Expired(_) => false,
            _ => return Err(unasked(id)),
        };
        match header.flags {
            flags::MORE if header.aux <= status::APP_ERROR => {
                slot.begun = true;
                self.assemble(Flow::results(header.id), header.aux, &body, !wanted);
                if !wanted {
                    self.stop(Flow::results(header.id));
                }
                Ok(())
            }
            flags::STREAM if header.aux == status::OK && body.is_empty() && slot.results => {
                self.opened(id, wanted, wake);
                Ok(())
            }
            bits => Err(bad_reply(bits, header.aux, &body)),
        }
    }

    /// The stream of results of a call begins.
    fn opened(&mut self, id: CallId, wanted: bool, wake: &mut Vec<W>) {
        let stream = self.receive_results(id, !wanted);
        if !wanted {
            self.stop(Flow::results(id.0));
        }
        if let Some(slot) = self.slot(id)
            && let State::Waiting(waiting) = &mut slot.state
        {
            wake.extend(waiting.take());
            // The deadline was for the opening.
            (slot.state, slot.expires) = (State::Opened(stream), NEVER);
        }
    }

    /// The stream of results of a call is over.
    fn stream_over(&mut self, id: CallId) {
        let Some(slot) = self.slot(id) else { return };
        match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Streaming | State::Abandoned => self.release(id.slot()),
            State::Opened(stream) => slot.state = State::Done(Answer::Stream(stream)),
            State::Expired(error) => slot.state = State::Done(Answer::Failed(error)),
            other => slot.state = other,
        }
    }

    /// The last piece of an answer is here.
    pub(super) fn answer_whole(&mut self, id: CallId, how: u16, body: Bytes, wake: &mut Vec<W>) -> Result<(), Violation> {
        if let Some(slot) = self.slot(id) {
            slot.begun = false;
        }
        self.answered(id, how, body, wake)
    }

    /// The whole of an answer is here.
    #[inline]
    fn answered(&mut self, id: CallId, how: u16, body: Bytes, wake: &mut Vec<W>) -> Result<(), Violation> {
        let taken = self.taken;
        let Some(slot) = self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16 && !s.begun) else {
            return Err(unasked(id));
        };
        match &mut slot.state {
            State::Waiting(_) if slot.start >= taken => Err(unasked(id)),
            State::Waiting(waiting) => {
                // A reply that cannot be read ends the link, and then whoever waits must be found.
                let answer = match how {
                    status::OK if slot.results => return Err(Violation("a reply without its stream".into())),
                    status::OK => Answer::Ok(body),
                    status::APP_ERROR => Answer::AppError(body),
                    _ => Answer::Failed(failure(how, &body, &self.peer_name)?),
                };
                wake.extend(waiting.take());
                slot.state = State::Done(answer);
                self.stop_args(id, wake);
                Ok(())
            }
            State::Abandoned => {
                self.release(id.slot());
                self.stop_args(id, wake);
                Ok(())
            }
            State::Expired(error) => {
                slot.state = State::Done(Answer::Failed(error.clone()));
                self.stop_args(id, wake);
                Ok(())
            }
            // Answered already (a lost link answers for the peer), or never asked.
            State::Done(_) | State::Free(_) | State::Opened(_) | State::Streaming | State::Sending => Err(unasked(id)),
        }
    }

    /// The provider broke off a reply in fragments.
    fn broken_off(&mut self, id: CallId, error: RpcError, wake: &mut Vec<W>) {
        self.stop_args(id, wake);
        let Some(slot) = self.slot(id) else { return };
        match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Waiting(waiting) => {
                wake.extend(waiting);
                slot.state = State::Done(Answer::Failed(error));
            }
            State::Expired(error) => slot.state = State::Done(Answer::Failed(error)),
            State::Abandoned => self.release(id.slot()),
            other => slot.state = other,
        }
    }

    /// The call has its answer: what still goes to it is of no use.
    #[inline]
    fn stop_args(&mut self, id: CallId, wake: &mut Vec<W>) {
        if !self.flows_quiet() {
            self.break_off_args(id, wake);
        }
    }

    /// The last piece of a call's body is queued.
    fn call_left_whole(&mut self, id: CallId) {
        let appended = self.appended;
        let Some(slot) = self.slot(id) else { return };
        slot.end = appended;
        self.sending_over(id);
    }

    /// The number of a one-way call is free once nothing more is sent of it.
    fn sending_over(&mut self, id: CallId) {
        if self.slot(id).is_some_and(|s| matches!(s.state, State::Sending)) {
            self.release(id.slot());
        }
    }

    /// Takes the waiter of a call that still waits.
    pub fn take_waiting(&mut self, id: CallId, into: &mut Waiting<W>) {
        if let Some(slot) = self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16)
            && let State::Waiting(waiting) = &mut slot.state
        {
            *into = waiting.take();
        }
    }

    /// The caller went away. A call that is not yet being written is withdrawn and never runs;
    /// otherwise a Cancel follows it and the slot is kept for the reply. Says what is known about
    /// the call's execution.
    pub fn cancel(&mut self, id: CallId, wake: &mut Vec<W>) -> Certainty {
        let Some(slot) = self.slot(id) else { return Certainty::MaybeExecuted };
        match &slot.state {
            State::Waiting(_) => {
                // What did not leave whole is not run.
                let known = if slot.end == NOT_YET { Certainty::NotSent } else { Certainty::MaybeExecuted };
                slot.state = State::Abandoned;
                if self.withdraw(id.slot(), wake) {
                    self.release(id.slot());
                    return Certainty::NotSent;
                }
                self.queue(Header::new(Kind::Cancel, 0, 0, id.0), &[]);
                known
            }
            State::Done(answer) => {
                let (certainty, stream) = match answer {
                    Answer::Failed(error) => (error.certainty(), None),
                    Answer::Stream(stream) => (Certainty::MaybeExecuted, Some(*stream)),
                    Answer::Ok(_) | Answer::AppError(_) => (Certainty::MaybeExecuted, None),
                };
                self.release(id.slot());
                stream.into_iter().for_each(|at| self.drop_receiver(at, wake));
                certainty
            }
            State::Expired(error) => {
                let certainty = error.certainty();
                slot.state = State::Abandoned;
                certainty
            }
            State::Opened(stream) => {
                let stream = *stream;
                slot.state = State::Abandoned;
                self.drop_receiver(stream, wake);
                Certainty::MaybeExecuted
            }
            State::Free(_) | State::Abandoned | State::Streaming | State::Sending => Certainty::MaybeExecuted,
        }
    }

    /// Turns a frame that nobody took yet into a Void one, and stops what flows to the call. Says
    /// whether it was in time.
    fn withdraw(&mut self, index: usize, wake: &mut Vec<W>) -> bool {
        let id = self.id(index);
        if !self.flows_quiet() {
            self.forget_sending(Flow::args(id.0), wake);
        }
        self.discard_results(id);
        let slot = &self.slots[index];
        if slot.start < self.taken {
            return false;
        }
        self.spent -= u64::from(slot.cost);
        self.out.patch(slot.small_at + KIND_AT, Kind::Void as u8);
        true
    }

    /// When a call that still waits for its reply expires; [`NEVER`] if it does not.
    pub fn expires(&self, id: CallId) -> u64 {
        match self.slots.get(id.slot()) {
            Some(slot) if slot.generation as u32 == id.0 >> 16 && matches!(slot.state, State::Waiting(_)) => slot.expires,
            _ => NEVER,
        }
    }

    /// When to look for expired calls next; [`NEVER`] if there is nothing to expire.
    pub fn next_expiry(&self) -> u64 {
        self.earliest
    }

    /// Ends all calls whose deadline has passed; appends whom to wake.
    pub fn expire(&mut self, now: u64, wake: &mut Vec<W>) {
        if now < self.earliest {
            return;
        }
        self.earliest = NEVER;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let State::Waiting(waiting) = &mut slot.state else { continue };
            if slot.expires > now {
                self.earliest = self.earliest.min(slot.expires);
                continue;
            }
            wake.extend(waiting.take());
            let id = (slot.generation as u32) << 16 | index as u32;
            let error = self.timed_out(index, now);
            // The caller gets its error at once; the number of a sent call stays in use until the
            // reply comes.
            self.slots[index].state = match self.withdraw(index, wake) {
                true => State::Done(Answer::Failed(error)),
                false => {
                    self.queue(Header::new(Kind::Cancel, 0, 0, id), &[]);
                    State::Expired(error)
                }
            };
        }
    }

    /// Says where the time went: in our own queue, or after the request was written.
    fn timed_out(&self, index: usize, now: u64) -> RpcError {
        let slot = &self.slots[index];
        let ms = |n: u64| display_duration(Duration::from_millis(n));
        let deadline = ms(slot.deadline);
        if slot.end > self.written {
            let waited = ms(now - slot.queued_at);
            let (certainty, how) = match (slot.start >= self.taken, slot.end == NOT_YET) {
                (true, _) => (Certainty::NotSent, "withdrawn before it was written"),
                (false, true) => (Certainty::NotSent, "broken off before all of it was written"),
                (false, false) => (Certainty::MaybeExecuted, "being written"),
            };
            let why = format!("deadline {deadline}: {waited} in the client's queue to {}, {how}", self.peer_name);
            return RpcError::new(Code::DeadlineExceeded, why).with_certainty(certainty).with_stage(Stage::ClientQueue);
        }
        let written = self.marks.iter().find(|(offset, _)| *offset >= slot.end && slot.end > self.unmarked);
        let why = match written {
            Some((_, at)) => format!(
                "deadline {deadline}: {} client queue, {} no reply from {} after the request was written",
                ms(at.saturating_sub(slot.queued_at)),
                ms(now.saturating_sub(*at)),
                self.peer_name
            ),
            None => format!("deadline {deadline}: no reply from {} after the request was written", self.peer_name),
        };
        RpcError::new(Code::DeadlineExceeded, why).with_stage(Stage::AwaitingReply)
    }

    /// Moves all queued frames to `into`, which must be empty. Says whether there were any.
    #[inline]
    pub fn take(&mut self, into: &mut OutBuf) -> bool {
        if self.out.is_empty() {
            return false;
        }
        debug_assert!(into.is_empty(), "what was in it would be lost");
        std::mem::swap(&mut self.out, into);
        self.taken = self.appended;
        true
    }

    /// Whether there is something to write, as far as credit allows.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.has_turns()
    }

    /// Bytes queued and not yet taken.
    #[inline]
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Of what was taken so far, all but `unwritten` bytes have been written, at this time.
    #[inline]
    pub fn flushed(&mut self, now: u64, unwritten: usize) {
        let written = self.taken.saturating_sub(unwritten as u64);
        if written == self.written {
            return;
        }
        self.written = written;
        match self.marks.back_mut() {
            Some((offset, at)) if *at == now => *offset = written,
            _ => {
                if self.marks.len() == MARKS {
                    self.unmarked = self.marks.pop_front().map_or(0, |(offset, _)| offset);
                }
                self.marks.push_back((written, now));
            }
        }
    }

    /// Calls that wait for a reply, those of vanished callers included.
    pub fn in_flight(&self) -> usize {
        self.used
    }

    /// Calls made on this session, one-way included.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Why nothing more can be sent, if so.
    pub fn closed(&self) -> Option<&RpcError> {
        self.closed.as_ref()
    }

    /// The peer takes no further calls: those after the last it accepted were not executed. New
    /// ones are refused as not sent; accepted ones still get their replies.
    pub fn go_away(&mut self, go_away: GoAway, wake: &mut Vec<W>) {
        self.closed.get_or_insert(go_away.reason.clone());
        for index in 0..self.slots.len() {
            if self.slots[index].number <= go_away.last {
                continue;
            }
            self.forget_sending(Flow::args(self.id(index).0), wake);
            let error = go_away.reason.clone().with_certainty(Certainty::NotExecuted);
            self.fail(index, error, wake);
        }
    }

    /// The link is gone for good: every call ends now, with what is known about it; what is still queued
    /// may be [taken](Outbound::take) to be dropped. Tell
    /// [`flushed`](Outbound::flushed) first how much was written.
    pub fn lose(&mut self, reason: RpcError, wake: &mut Vec<W>) {
        self.closed = Some(reason.clone());
        self.earliest = NEVER;
        self.lose_flows(&reason, wake);
        for index in 0..self.slots.len() {
            let certainty = match self.slots[index].end > self.written {
                // A frame that did not leave whole cannot have been read whole.
                true => Certainty::NotSent,
                false => reason.certainty(),
            };
            self.fail(index, reason.clone().with_certainty(certainty), wake);
        }
    }

    fn fail(&mut self, index: usize, error: RpcError, wake: &mut Vec<W>) {
        let slot = &mut self.slots[index];
        match &mut slot.state {
            State::Waiting(waiting) => {
                wake.extend(waiting.take());
                slot.state = State::Done(Answer::Failed(error));
            }
            State::Expired(error) => slot.state = State::Done(Answer::Failed(error.clone())),
            State::Abandoned | State::Streaming | State::Sending => self.release(index),
            State::Opened(stream) => slot.state = State::Done(Answer::Stream(*stream)),
            State::Free(_) | State::Done(_) => {}
        }
    }
}

#[cold]
fn broken_free_list() -> RpcError {
    RpcError::not_sent(Code::Internal, "the list of free call slots is broken; please report this")
}

#[cold]
fn bad_reply(bits: u8, aux: u16, body: &Bytes) -> Violation {
    match bits {
        flags::MORE => Violation(format!("a reply in fragments with status {aux}")),
        flags::STREAM => Violation(format!("a reply with a stream that nobody asked for, with status {aux} or with {} bytes", body.len())),
        _ => Violation(format!("a reply with flags {bits:#04x}, which are not in this protocol version")),
    }
}

#[cold]
fn unasked(id: CallId) -> Violation {
    Violation(format!("a reply to call {:#x}, which does not wait for one", id.0))
}

#[cold]
fn failure(aux: u16, body: &Bytes, peer: &str) -> Result<RpcError, Violation> {
    if aux != status::FAILURE {
        return Err(Violation(format!("a reply with status {aux}, which is not in this protocol version")));
    }
    let failure = Failure::decode(body).map_err(|e| Violation(format!("a failure that cannot be read: {e}")))?;
    Ok(failure.into_error().with_peer(peer))
}

#[cfg(test)]
pub(crate) mod tests;
