//! The calls we made: a slot for each that awaits its reply, our side of the method table, and the
//! frames on their way out.
//!
//! Slots are an array and a call's number is `generation << 16 | slot`. A slot whose caller went
//! away is kept until the reply arrives: every two-way call gets exactly one, so that a late reply
//! can never be taken for another call's.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::error::display_duration;
use farcall_core::limits::MAX_IN_FLIGHT;
use farcall_core::{Certainty, Code, RpcError, ServiceDescriptor, Stage};

use crate::failure::{Failure, cut};
use crate::frame::{CONTROL, HEADER, Header, Kind, Violation, flags, status};
use crate::hello::PeerLimits;
use crate::outbuf::OutBuf;
use crate::table::{Bind, MAX_ROWS, VERDICT_TEXT, Verdict};

/// A call without a deadline expires then.
pub const NEVER: u64 = u64::MAX;
const NO_SLOT: u32 = u32::MAX;
/// The key of bindings that are not looked up by key: no address is that high.
const NO_KEY: usize = usize::MAX;
/// Offsets of `kind` in a header, from its start.
const KIND_AT: usize = 4;
/// Past flushes kept to tell how long a call waited in our own queue.
const MARKS: usize = 128;
/// Bytes that may be sent before the peer's hello.
const BYTES_BEFORE_HELLO: u64 = 1 << 20;

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
}

/// What a GoAway frame says.
#[derive(Debug, Clone)]
pub struct GoAway {
    /// The last call number that was accepted.
    pub last: u64,
    /// Why.
    pub reason: RpcError,
}

struct Binding {
    key: usize,
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
}

impl<W> Outbound<W> {
    /// Nothing called yet.
    pub fn new() -> Outbound<W> {
        Outbound {
            slots: Vec::new(),
            free: NO_SLOT,
            used: 0,
            calls: 0,
            bindings: Vec::new(),
            rows: 0,
            refused: Vec::new(),
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
        }
    }

    /// The peer's hello is here: its limits hold from now on.
    pub fn established(&mut self, limits: PeerLimits, peer_name: String) {
        self.peer = limits;
        self.established = true;
        self.peer_name = peer_name;
    }

    /// The first row of a service in our method table; binds it (a frame is queued) at first use.
    /// `key` names the descriptor, so that the lookup costs no hashing: it must not be used for
    /// another one while this session lives, or methods would be mixed up. An address does if the
    /// descriptor is never freed; for others there is [`bind_by_value`](Outbound::bind_by_value).
    #[inline]
    pub fn bind(&mut self, key: usize, service: &ServiceDescriptor) -> Result<u16, RpcError> {
        match self.bindings.iter().find(|b| b.key == key) {
            Some(b) => Ok(b.first),
            None => self.bind_new(key, service),
        }
    }

    /// As [`bind`](Outbound::bind), for descriptors that come and go: known again by what they say.
    pub fn bind_by_value(&mut self, service: &ServiceDescriptor) -> Result<u16, RpcError> {
        let wanted = Bind::of(service).encode();
        match self.bindings.iter().find(|b| b.sent == wanted) {
            Some(b) => Ok(b.first),
            None => self.bind_new(NO_KEY, service),
        }
    }

    fn bind_new(&mut self, key: usize, service: &ServiceDescriptor) -> Result<u16, RpcError> {
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
        self.bindings.push(Binding { key, id, first, rows: rows as u16, sent: bind, answered: false });
        Ok(first)
    }

    /// Whether a frame of that size may be queued: before the peer's hello it takes only so much.
    fn has_room(&self, payload: usize) -> bool {
        self.established || self.appended.saturating_add((HEADER + payload) as u64) <= BYTES_BEFORE_HELLO
    }

    /// A Bound frame: remembers which rows are refused.
    pub fn on_bound(&mut self, id: u32, aux: u16, payload: &[u8]) -> Result<(), Violation> {
        let Some(binding) = self.bindings.iter_mut().find(|b| b.id == id && !b.answered) else {
            return Err(Violation(format!("a Bound frame for binding {id}, which does not wait for one")));
        };
        binding.answered = true;
        match (aux, payload) {
            (0, []) => return Ok(()),
            (1, _) => {}
            _ => return Err(Violation(format!("a Bound frame with answer {aux} and {} bytes", payload.len()))),
        }
        let verdicts: Vec<Verdict> =
            farcall_core::compact::decode(payload).map_err(|e| Violation(format!("a Bound frame that cannot be read: {e}")))?;
        let range = binding.first..binding.first.saturating_add(binding.rows);
        if verdicts.len() > binding.rows as usize || verdicts.iter().any(|v| !range.contains(&v.row)) {
            return Err(Violation(format!("a Bound frame for rows outside of binding {id}")));
        }
        if verdicts.iter().any(|v| v.code == 0) {
            return Err(Violation("a Bound frame with rows that wait for schemas, which was not negotiated".into()));
        }
        // Texts are kept for as long as the session: not more of them than people can use.
        self.refused.extend(verdicts.into_iter().map(|v| Verdict { message: cut(&v.message, VERDICT_TEXT).to_owned(), ..v }));
        Ok(())
    }

    /// Starts a two-way call: queues its frame and keeps a slot for the reply.
    #[inline]
    pub fn start(&mut self, now: u64, call: Start<'_>, waiting: Waiting<W>) -> Result<CallId, RpcError> {
        self.check(&call)?;
        if self.used >= (self.peer.in_flight as usize).min(MAX_IN_FLIGHT) {
            let why = format!("{} calls in flight on this connection, the limit `in_flight`; wait for some to end", self.used);
            return Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::ClientQueue));
        }
        let deadline = call.deadline.unwrap_or(NEVER);
        let expires = now.saturating_add(deadline);
        let (start, small_at) = (self.appended, self.out.small_len());
        self.calls += 1;
        let (number, free) = (self.calls, self.free);
        let slot =
            Slot { generation: 0, state: State::Waiting(waiting), number, queued_at: now, expires, deadline, start, end: 0, small_at };
        let index = match self.slots.get_mut(free as usize) {
            Some(reused) => {
                let State::Free(next) = reused.state else { return Err(broken_free_list()) };
                self.free = next;
                *reused = Slot { generation: reused.generation, ..slot };
                free as usize
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.used += 1;
        self.earliest = self.earliest.min(expires);
        let id = CallId((self.slots[index].generation as u32) << 16 | index as u32);
        self.queue_call(id.0, 0, call);
        self.slots[index].end = self.appended;
        Ok(id)
    }

    /// Queues a one-way call. Nothing comes back; the return says that it is queued.
    pub fn start_oneway(&mut self, call: Start<'_>) -> Result<(), RpcError> {
        self.check(&call)?;
        self.calls += 1;
        self.queue_call(0, flags::ONEWAY, call);
        Ok(())
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
        let payload = 4 + call.options.len() + call.body.len();
        if payload > self.peer.frame as usize || !self.has_room(payload) {
            return Err(self.no_room(payload));
        }
        if call.row as usize >= self.rows {
            return Err(RpcError::not_sent(Code::Internal, format!("row {} of the method table is not bound", call.row)));
        }
        match self.refused.is_empty() {
            true => Ok(()),
            false => self.check_row(call.row),
        }
    }

    #[cold]
    fn no_room(&self, payload: usize) -> RpcError {
        let why = match payload > self.peer.frame as usize {
            true => format!("the call's frame has {payload} bytes, the provider's limit for frames is {}", self.peer.frame),
            false => format!("{BYTES_BEFORE_HELLO} bytes are queued, more must wait for the provider's hello"),
        };
        RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::Encode)
    }

    fn check_row(&self, row: u16) -> Result<(), RpcError> {
        match self.refused.iter().find(|v| v.row == row) {
            Some(verdict) => Err(verdict.to_error().with_certainty(Certainty::NotSent)),
            None => Ok(()),
        }
    }

    #[inline]
    fn queue_call(&mut self, id: u32, extra: u8, call: Start<'_>) {
        let bits = extra | if call.options.is_empty() { 0 } else { flags::OPTIONS };
        let header = Header::new(Kind::Call, bits, call.row, id);
        // 0 means no deadline, so the shortest one that can be said is a millisecond; one beyond what
        // can be said (49 days) is kept by this side alone.
        let deadline = call.deadline.map_or(0, |ms| u32::try_from(ms.max(1)).unwrap_or(0)).to_le_bytes();
        match call.body {
            Body::Copy(body) => self.queue(header, &[&deadline, call.options, body]),
            Body::Segment(body) => {
                self.appended += (HEADER + deadline.len() + call.options.len() + body.len()) as u64;
                self.out.frame_with_segment(header, &[&deadline, call.options], body);
            }
        }
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
            other => {
                slot.state = other;
                Answer::Failed(RpcError::new(Code::Internal, "this call has ended before"))
            }
        })
    }

    fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Free(self.free);
        self.free = index as u32;
        self.used -= 1;
    }

    /// A reply came. Returns whom to wake.
    #[inline]
    pub fn on_reply(&mut self, header: Header, body: Bytes) -> Result<Waiting<W>, Violation> {
        let id = CallId(header.id);
        if header.flags != 0 {
            return Err(bad_reply_flags(header.flags));
        }
        let Some(slot) = self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16) else {
            return Err(unasked(id));
        };
        match &mut slot.state {
            State::Waiting(_) if slot.start >= self.taken => Err(unasked(id)),
            State::Waiting(waiting) => {
                // A reply that cannot be read ends the link, and then whoever waits must be found.
                let answer = match header.aux {
                    status::OK => Answer::Ok(body),
                    status::APP_ERROR => Answer::AppError(body),
                    _ => Answer::Failed(failure(header.aux, &body, &self.peer_name)?),
                };
                let waiting = waiting.take();
                slot.state = State::Done(answer);
                Ok(waiting)
            }
            State::Abandoned => {
                self.release(id.slot());
                Ok(None)
            }
            State::Expired(error) => {
                slot.state = State::Done(Answer::Failed(error.clone()));
                Ok(None)
            }
            // Answered already (a lost link answers for the peer), or never asked.
            State::Done(_) | State::Free(_) => Err(unasked(id)),
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
    pub fn cancel(&mut self, id: CallId) -> Certainty {
        let Some(slot) = self.slots.get_mut(id.slot()).filter(|s| (s.generation as u32) == id.0 >> 16) else {
            return Certainty::MaybeExecuted;
        };
        match &slot.state {
            State::Waiting(_) => {
                slot.state = State::Abandoned;
                if self.withdraw(id.slot()) {
                    self.release(id.slot());
                    return Certainty::NotSent;
                }
                self.queue(Header::new(Kind::Cancel, 0, 0, id.0), &[]);
                Certainty::MaybeExecuted
            }
            State::Done(answer) => {
                let certainty = match answer {
                    Answer::Failed(error) => error.certainty(),
                    Answer::Ok(_) | Answer::AppError(_) => Certainty::MaybeExecuted,
                };
                self.release(id.slot());
                certainty
            }
            State::Expired(error) => {
                let certainty = error.certainty();
                slot.state = State::Abandoned;
                certainty
            }
            State::Free(_) | State::Abandoned => Certainty::MaybeExecuted,
        }
    }

    /// Turns a frame that nobody took yet into a Void one. Says whether it was in time.
    fn withdraw(&mut self, index: usize) -> bool {
        let slot = &self.slots[index];
        if slot.start < self.taken {
            return false;
        }
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
            self.slots[index].state = match self.withdraw(index) {
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
            let (certainty, how) = match slot.start >= self.taken {
                true => (Certainty::NotSent, "withdrawn before it was written"),
                false => (Certainty::MaybeExecuted, "being written"),
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
            let error = go_away.reason.clone().with_certainty(Certainty::NotExecuted);
            self.fail(index, error, wake);
        }
    }

    /// The link is gone for good: every call ends now, with what is known about it. Tell
    /// [`flushed`](Outbound::flushed) first how much was written.
    pub fn lose(&mut self, reason: RpcError, wake: &mut Vec<W>) {
        self.closed = Some(reason.clone());
        self.earliest = NEVER;
        self.out = OutBuf::default();
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
            State::Abandoned => self.release(index),
            State::Free(_) | State::Done(_) => {}
        }
    }
}

impl<W> Default for Outbound<W> {
    fn default() -> Self {
        Outbound::new()
    }
}

#[cold]
fn broken_free_list() -> RpcError {
    RpcError::not_sent(Code::Internal, "the list of free call slots is broken; please report this")
}

#[cold]
fn bad_reply_flags(bits: u8) -> Violation {
    match bits & !(flags::OPTIONS | flags::MORE | flags::STREAM) {
        0 => Violation("a reply with options, fragments or a stream, which are not built in this version and were not negotiated".into()),
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
