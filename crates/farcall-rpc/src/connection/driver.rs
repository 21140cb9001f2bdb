//! The task of a connection: reads, dispatches, writes.
//!
//! One turn of it: read what is there and handle every whole frame (replies complete slots, calls
//! are run in place), poll the handlers that were woken, expire what is late, write everything that
//! was queued meanwhile in one go. The order of the last steps is what makes it fast: after waking
//! two or more callers the driver goes to the back of the run queue once before it writes, so that
//! their next requests leave in the same write. Woken by the first of them instead, it would sit in
//! tokio's LIFO slot and write one frame at a time.

use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::error::display_duration;
use farcall_core::{Code, RpcError, ServiceDescriptor};
use farcall_transport::Io;
use farcall_wire::{
    Catalogue, Delivered, Differences, Frame, Header, Inbound, Kind, OutBuf, Readings, Settled, Violation, control, get_frame,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use super::apart::{Slow, Stride};
use super::calls::{Arrived, Ended};
use super::detached::{Detached, Ending, Running};
use super::differing::WaitingRows;
use super::handshake::Handshake;
use super::parked::ParkedSet;
use super::read::ReadBuf;
use super::spin::Spin;
use super::sync::{Mutex, MutexGuard};
use super::{Clock, Connection, Inner, Orders, Room, Shared, lost};
use crate::admission::{Admission, lapsed};
use crate::auth::Identity;
use crate::context::{Current, Peer};
use crate::intercept::Chain;
use crate::keys::{Record, Seen};
use crate::meta::DescribeClient;
use crate::observer::Observer;
use crate::skeleton::{Runner, Skeleton};

/// Slices of one vectored write.
const SLICES: usize = 32;
/// Reads in one turn, before handlers, timers and writes have theirs.
const READS: usize = 16;
/// How long the calls of a turn may run in place before what they answered is written and other
/// tasks have theirs.
const SLICE_US: u64 = 500;
/// Writes in one turn, before reading has its own.
const WRITES: usize = 16;
/// Bytes of large bodies that are put up at a time: small frames wait for so much at most.
const PUMP: usize = 128 << 10;
/// How long a connection that is over waits for a peer that takes none of its last bytes.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// A heartbeat more frequent than this is taken for this.
const LEAST_BEAT_MS: u64 = 10;
/// How long a link is kept for its last words to be read.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// The services of one side of a connection.
pub(crate) struct Services {
    pub(crate) skeletons: Vec<Arc<dyn Skeleton>>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    /// Who comes in and what they may call.
    pub(crate) admission: Admission,
    /// What stands around every handler.
    pub(crate) chain: Option<Chain>,
    /// What is remembered of calls with an idempotency key.
    pub(crate) keys: Option<Arc<Record>>,
    /// How types are read that differ between the two sides of a connection.
    pub(crate) readings: Arc<Readings>,
}

impl Services {
    /// Those of a side that serves nothing.
    pub(crate) fn empty() -> Services {
        Services {
            skeletons: Vec::new(),
            observers: Vec::new(),
            admission: Admission::open(),
            chain: None,
            keys: None,
            readings: Arc::default(),
        }
    }
}

/// The services as one caller finds them.
pub(crate) struct Found<'a> {
    pub(crate) services: &'a Services,
    pub(crate) caller: Option<&'a Identity>,
}

impl Catalogue for Found<'_> {
    fn get(&self, place: usize) -> Option<&ServiceDescriptor> {
        self.services.skeletons.get(place).map(|skeleton| skeleton.descriptor())
    }

    fn may_know(&self, place: usize, method: usize) -> Result<(), RpcError> {
        match self.get(place) {
            Some(service) => self.services.admission.admit(service, method, self.caller),
            None => Ok(()),
        }
    }

    fn find(&self, service: &str, group: &str, version: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        let all = || self.services.skeletons.iter().map(|s| s.descriptor()).enumerate();
        let exact = all().find(|(_, d)| d.name == service && d.group == group && d.version == version);
        exact.ok_or_else(|| {
            let shown = |d: &ServiceDescriptor| match (d.group.as_str(), d.version.as_str()) {
                ("", "") => d.name.clone(),
                (group, version) => format!("{} (group {group:?}, version {version:?})", d.name),
            };
            let admission = &self.services.admission;
            let may_know = admission.may(DescribeClient::descriptor(), 0, self.caller);
            let callable = |d: &ServiceDescriptor| may_know && (0..d.methods.len()).any(|m| admission.may(d, m, self.caller));
            let known: Vec<String> = all().filter(|(_, d)| callable(d)).map(|(_, d)| shown(d)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let wanted = match (group, version) {
                ("", "") => format!("{service:?}"),
                _ => format!("{service:?} in group {group:?}, version {version:?}"),
            };
            RpcError::not_executed(Code::Unimplemented, format!("there is no service {wanted} here; services: {known}"))
        })
    }
}

/// Why the driver stops.
enum End {
    /// We were told to, or the peer closed with nothing in flight.
    Done,
    /// We were told to at once, or could not write the last of it in time.
    Aborted,
    /// The link broke.
    Lost(RpcError),
    /// The peer broke the protocol and was told so.
    HungUp(RpcError),
}

/// How far writing came in a turn.
enum Flushed {
    All,
    /// The socket is full.
    Blocked,
    /// It is time to end.
    End(End),
}

/// See the module's text.
pub(crate) struct Driver {
    pub(super) link: Io,
    pub(super) inner: Arc<Inner>,
    pub(super) services: Arc<Services>,
    pub(super) inbound: Inbound,
    /// Rows on which the two sides differ, and what was decided of them since the driver last looked.
    pub(super) differences: Differences,
    pub(super) settled: Vec<Settled>,
    /// Calls on such rows that wait until both sides can read each other.
    pub(super) waiting: WaitingRows,
    pub(super) runners: Vec<Option<Box<dyn Runner>>>,
    /// By service and method, once a call of the service came.
    pub(super) slow: Vec<Vec<Slow>>,
    pub(super) parked: ParkedSet,
    pub(super) current: Current,
    pub(super) read: ReadBuf,
    /// Replies and control frames, ours alone; then what callers queued, taken from the session.
    pub(super) replies: OutBuf,
    pub(super) requests: OutBuf,
    pub(super) wake: Vec<Waker>,
    /// Callers woken in this turn.
    pub(super) woken: usize,
    pub(super) yielded: bool,
    pub(super) handlers_first: bool,
    /// The link may hold back what was written to it.
    pub(super) unflushed: bool,
    /// When to end although not all is written; set once it is over.
    pub(super) last_write_by: u64,
    /// Where the handlers that wait are counted, with those of the server's other connections.
    pub(super) running: Arc<Running>,
    /// Calls that ended in this turn; kept for its allocation.
    pub(super) over: Vec<(Ending, Ended)>,
    /// Calls that wait until there is room for their replies.
    pub(super) backlog: VecDeque<Arrived>,
    /// Numbers of calls in the backlog whose callers are gone.
    pub(super) gone: HashSet<u32>,
    /// Bytes of arguments of parked handlers, and of calls in the backlog.
    pub(super) held: usize,
    /// Bytes of large replies that wait for their turn, as far as is known.
    pub(super) resting: usize,
    /// Bytes that will not be sent, to be dropped without the lock.
    pub(super) unsent: Vec<Bytes>,
    /// Numbers of calls with streams that are over.
    pub(super) free_numbers: Vec<u32>,
    /// The last Ping that is not answered yet, because too much waits to be written.
    pub(super) ping: Option<u32>,
    /// When something was read last, and whether the peer was asked since.
    pub(super) heard_at: u64,
    pub(super) pinged_at: Option<u64>,
    /// When the first parked handler that may be dropped expires.
    pub(super) parked_expiry: u64,
    /// A call was served in this turn.
    pub(super) served: bool,
    /// Calls of ours wait for their replies.
    pub(super) asked: bool,
    pub(super) spin: Spin,
    /// The clock was looked at in this turn.
    pub(super) clocked: bool,
    pub(super) stride: Stride,
    /// Service and method of the call that ran last.
    pub(super) ran_last: (u32, u16),
    /// The time in microseconds as it was read last, and when this turn's share of it is over.
    pub(super) now_us: u64,
    pub(super) slice_end_us: u64,
    pub(super) timer: Pin<Box<Sleep>>,
    pub(super) timer_at: u64,
    pub(super) now: u64,
    /// When the bytes being handled were read.
    pub(super) read_at: u64,
    pub(super) max_frame: usize,
    pub(super) max_reply: usize,
    pub(super) draining: bool,
    pub(super) ended: bool,
    /// Each call is looked at, whether its caller may make it.
    pub(super) guarded: bool,
    /// When what proves who the peer is ends.
    pub(super) proof_ends: u64,
}

impl Driver {
    /// Puts a driver on a link that has shaken hands. Run it as a task; it ends with the link.
    pub(crate) fn new(handshake: Handshake, services: Arc<Services>, running: Arc<Running>, address: String) -> (Connection, Box<Driver>) {
        let Handshake { link, rest, theirs, mut session, identity } = handshake;
        session.established(&theirs, address.clone());
        let keys = theirs.keys.map(|moment| Seen { moment, at: crate::time::now() });
        let (software, incarnation, facts) = (theirs.software, theirs.incarnation, link.facts());
        let guarded = services.admission.is_guarded();
        let expires = identity.as_ref().and_then(|identity| identity.expires());
        let peer = Arc::new(Peer { address, software, incarnation, facts, identity, keys, ..Peer::default() });
        let max_frame = session.hello.limits.frame as usize;
        let (outbound, inbound, mut differences) = (session.outbound, session.inbound, session.differences);
        differences.share(Arc::clone(&services.readings));
        let limits = inbound.limits().clone();
        let clock = Clock::start();
        let proof_ends = expires.map_or(farcall_wire::NEVER, |end| clock.ms_of(end));
        // Under a clock that a test has stopped, and that goes on only when nothing is to be done, a driver that
        // looks on would look for ever; to look at a link in memory is of no use anyway.
        let in_memory = matches!(link, Io::Memory(_) | Io::Boxed(_));
        let spin = Spin::new(if cfg!(feature = "testing") && in_memory { Duration::ZERO } else { limits.spin });
        let shared =
            Shared { outbound, driver: None, now: 0, gone_by: 0, corks: 0, waiting_for_room: Room::default(), orders: Orders::default() };
        let inner = Arc::new(Inner {
            shared: Mutex::new(shared),
            clock,
            limits,
            peer: Arc::clone(&peer),
            closed: false.into(),
            differs: false.into(),
        });
        let driver = Driver {
            link,
            inner: Arc::clone(&inner),
            runners: services.skeletons.iter().map(|_| None).collect(),
            slow: services.skeletons.iter().map(|_| Vec::new()).collect(),
            spin,
            served: false,
            asked: false,
            now_us: 0,
            clocked: false,
            stride: Stride::default(),
            ran_last: (0, 0),
            slice_end_us: 0,
            services,
            inbound,
            differences,
            settled: Vec::new(),
            waiting: WaitingRows::default(),
            parked: ParkedSet::default(),
            current: Current { context: crate::Context { peer: Some(peer), ..Default::default() }, ..Current::default() },
            read: ReadBuf::new(rest),
            replies: OutBuf::default(),
            requests: OutBuf::default(),
            wake: Vec::new(),
            woken: 0,
            yielded: false,
            handlers_first: false,
            unflushed: false,
            last_write_by: farcall_wire::NEVER,
            running,
            over: Vec::new(),
            backlog: VecDeque::new(),
            gone: HashSet::new(),
            held: 0,
            resting: 0,
            unsent: Vec::new(),
            free_numbers: Vec::new(),
            ping: None,
            heard_at: 0,
            pinged_at: None,
            parked_expiry: farcall_wire::NEVER,
            timer: Box::pin(tokio::time::sleep(Duration::MAX)),
            timer_at: farcall_wire::NEVER,
            now: 0,
            read_at: 0,
            max_frame,
            max_reply: theirs.limits.body as usize,
            draining: false,
            ended: false,
            guarded,
            proof_ends,
        };
        (Connection { inner }, Box::new(driver))
    }

    /// Runs the connection to its end. Whether it ended although neither side had said that it would.
    ///
    /// In a box: a task keeps what it is given twice, once as given and once while it runs.
    pub(crate) async fn run(mut self: Box<Self>) -> bool {
        let end = poll_fn(|cx| self.turn(cx)).await;
        let lost = !self.inner.is_to_end();
        // After a GoAway the peer may still be sending: to close with bytes unread would reset the
        // connection, and the peer might never read why.
        let linger = match &end {
            End::HungUp(_) => LINGER,
            End::Done if self.draining => LINGER,
            // One-way calls may still be on their way through the peer's buffers.
            End::Done => LAST_WRITES,
            End::Lost(_) | End::Aborted => Duration::ZERO,
        };
        self.finish(end);
        self.hang_up(linger).await;
        lost
    }

    /// One turn. Pending when there is nothing left to do but wait.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        (self.clocked, self.served) = (false, false);
        self.parked.register(cx.waker());
        if self.spin.is_looking() {
            self.look();
        }
        loop {
            // By turns, because both draw on the task's budget: a flood of calls must not starve the
            // handlers that wait, nor they the calls.
            self.handlers_first = !self.handlers_first;
            let mut held_back = false;
            if self.handlers_first {
                held_back |= self.run_woken(cx);
            }
            if !self.backlog.is_empty() {
                self.look_at_clock();
                self.run_backlog();
            }
            let enough = match self.read_all(cx) {
                Ok(enough) => enough,
                Err(end) => return Poll::Ready(end),
            };
            if !self.handlers_first {
                held_back |= self.run_woken(cx);
            }
            held_back |= !self.backlog.is_empty();
            if !self.clocked || !self.stride.is_fresh() {
                self.measure();
            }
            if self.now >= self.timer_at
                && let Some(end) = self.expire(!enough)
            {
                return Poll::Ready(end);
            }
            if self.woken >= 2 && !self.yielded {
                self.yielded = true;
                self.woken = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.yielded = false;
            self.woken = 0;
            match self.flush(cx) {
                Err(e) => {
                    // The peer may have said why it hung up.
                    let _ = self.read_all(cx);
                    return Poll::Ready(End::Lost(lost(&self.inner.peer, e)));
                }
                Ok(Flushed::End(end)) => return Poll::Ready(end),
                // Frames are left to be handled in the next turn.
                Ok(_) if enough => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Flushed::Blocked) => {
                    self.spin.stop();
                    return Poll::Pending;
                }
                // Too much was waiting to be written; now it is not.
                Ok(Flushed::All) if held_back && !self.is_full() => continue,
                Ok(Flushed::All) => {
                    let expecting = self.served || self.asked;
                    // Not by the time of the turn's beginning: it may have taken long to write.
                    if self.spin.is_possible(expecting) && self.spin.look_on(self.inner.clock.us(), expecting) {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads and handles frames until there is nothing more to read, for a turn's share. It never stops
    /// reading for want of room: what the peer may have under way is bounded by its credit, and what
    /// lets us go on (credit, replies, cancels) comes the same way. Says whether it left frames for the next turn.
    fn read_all(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for _ in 0..READS {
            match self.handle_frames() {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(violation) => return Err(self.violated(&violation, cx)),
            }
            self.read.make_room(self.max_frame);
            let read = {
                // Cancel safe: dropped while pending, it has read nothing. Not held back by the
                // task's budget, which is for handlers; the turn's share bounds it.
                let reading = pin!(unconstrained(self.link.read_buf(&mut self.read.buf)));
                reading.poll(cx)
            };
            match read {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(self.end_of_stream(cx)),
                Poll::Ready(Ok(_)) => self.heard(),
                Poll::Ready(Err(e)) => return Err(End::Lost(lost(&self.inner.peer, e))),
            }
        }
        Ok(true)
    }

    #[inline]
    pub(super) fn look_at_clock(&mut self) {
        self.now_us = self.inner.clock.us();
        self.now = self.now_us / 1000;
        if !std::mem::replace(&mut self.clocked, true) {
            self.slice_end_us = self.now_us + SLICE_US;
        }
    }

    /// Something was read.
    #[inline]
    fn heard(&mut self) {
        self.look_at_clock();
        (self.read_at, self.heard_at, self.pinged_at) = (self.now, self.now, None);
        self.spin.found(self.now_us);
    }

    /// Looks whether something came, without waiting for the system to say so.
    fn look(&mut self) {
        self.read.make_room(self.max_frame);
        // What ends the link is told again by the reading that follows.
        if self.link.read_now(&mut self.read.buf) > 0 {
            self.heard();
        }
    }

    /// So much waits to be written that no handler may add to it.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let limits = &self.inner.limits;
        self.replies.len() > limits.out_buffer || self.resting > limits.held.max(limits.body)
    }

    /// Handles every whole frame in the read buffer, for the turn's share of time. Says whether some
    /// are left.
    fn handle_frames(&mut self) -> Result<bool, Violation> {
        let inner = Arc::clone(&self.inner);
        // The lock is taken once for a run of replies and is never held while user code runs.
        let mut shared: Option<MutexGuard<'_, Shared>> = None;
        let result = loop {
            if self.clocked && self.now_us > self.slice_end_us {
                break Ok(true);
            }
            let frame = match get_frame(&mut self.read.buf, self.max_frame) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(false),
                Err(violation) => break Err(violation),
            };
            let handled = match frame.header.kind {
                Kind::Reply => {
                    let shared = shared.get_or_insert_with(|| inner.lock());
                    shared.outbound.on_reply(frame.header, frame.payload, &mut self.wake)
                }
                Kind::Data => {
                    let locked = shared.get_or_insert_with(|| inner.lock());
                    match locked.outbound.on_data(frame, &inner.limits, &mut self.wake) {
                        Ok(Delivered::Nothing) => Ok(()),
                        Ok(delivered) => {
                            shared = None;
                            self.delivered(delivered);
                            Ok(())
                        }
                        Err(violation) => Err(violation),
                    }
                }
                _ => {
                    shared = None;
                    self.handle_frame(frame)
                }
            };
            if let Err(violation) = handled {
                break Err(violation);
            }
        };
        drop(shared);
        self.wake_callers();
        result
    }

    pub(super) fn wake_callers(&mut self) {
        self.woken += self.wake.len();
        for waker in self.wake.drain(..) {
            // Another executor's waker is foreign code: if it panics, that is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), Violation> {
        match frame.header.kind {
            Kind::Call => self.on_call(frame)?,
            Kind::Void => self.inbound.on_void(),
            Kind::Bind | Kind::Bound | Kind::Schema | Kind::Ready => self.on_table(&frame)?,
            Kind::Cancel => self.cancelled(frame.header.id),
            Kind::Credit | Kind::End | Kind::Reset => self.on_flow(frame)?,
            Kind::Ping => self.ping = Some(frame.header.id),
            Kind::Pong => {}
            Kind::GoAway => {
                let go_away = control::on_go_away(&frame.payload)?;
                self.inner.closed.store(true, Ordering::Release);
                let mut shared = self.inner.lock();
                shared.outbound.go_away(go_away, &mut self.wake);
                self.wake.append(&mut shared.waiting_for_room.clear());
                drop(shared);
                self.wake_callers();
            }
            other => return Err(control::not_built(other)),
        }
        Ok(())
    }

    fn on_flow(&mut self, frame: Frame) -> Result<(), Violation> {
        let inner = Arc::clone(&self.inner);
        let mut shared = inner.lock();
        match frame.header.kind {
            Kind::Credit => {
                if shared.outbound.on_credit(&frame, &mut self.wake)? {
                    self.wake.append(&mut shared.waiting_for_room.clear());
                }
            }
            Kind::End => shared.outbound.on_end(frame, &mut self.wake)?,
            _ => shared.outbound.on_reset(&frame, &mut self.wake)?,
        }
        shared.outbound.take_over(&mut self.free_numbers);
        drop(shared);
        self.reap();
        Ok(())
    }

    /// Ends what is past its deadline: our calls, handlers that may be dropped, and the link if the
    /// peer is not heard of any more.
    fn expire(&mut self, looked: bool) -> Option<End> {
        {
            let mut shared = self.inner.lock();
            shared.outbound.flushed(self.now, self.requests.len());
            shared.outbound.expire(self.now, &mut self.wake);
        }
        self.wake_callers();
        self.expire_waiting();
        if self.now >= self.parked_expiry {
            let now = self.inner.clock.instant(self.now);
            for token in self.parked.expired(now) {
                let error =
                    RpcError::new(Code::DeadlineExceeded, "the deadline passed in the handler").with_stage(farcall_core::Stage::Handler);
                self.drop_parked(token, &error);
            }
            let next = self.parked.next_expiry();
            self.parked_expiry = next.map_or(farcall_wire::NEVER, |at| self.inner.clock.ms(at));
        }
        self.timer_at = farcall_wire::NEVER;
        // What the peer said may be waiting to be read.
        if looked { self.listen_for_life() } else { None }
    }

    /// When the peer must have been heard of, or is asked whether it lives.
    fn next_beat(&self) -> u64 {
        match self.inner.limits.heartbeat {
            // Less than the clock can tell would be no time to answer at all.
            Some(every) => self.pinged_at.unwrap_or(self.heard_at).saturating_add((every.as_millis() as u64).max(LEAST_BEAT_MS)),
            None => farcall_wire::NEVER,
        }
    }

    /// Asks a silent peer whether it lives; gives the link up if it does not answer. A link that was
    /// cut without a word looks like one on which nobody has anything to say.
    fn listen_for_life(&mut self) -> Option<End> {
        if self.now < self.next_beat() {
            return None;
        }
        if let Some(asked) = self.pinged_at {
            let silent = Duration::from_millis(self.now - self.heard_at);
            let (silent, asked) = (display_duration(silent), display_duration(Duration::from_millis(self.now - asked)));
            let why = format!("nothing came for {silent}, and no answer to a heartbeat of {asked} ago");
            return Some(End::Lost(lost(&self.inner.peer, why)));
        }
        self.pinged_at = Some(self.now);
        self.replies.frame(Header::new(Kind::Ping, 0, 0, 0), &[]);
        None
    }

    /// Puts up what lets the peer go on: credit, and the answer to its last Ping. Not while too much
    /// waits to be written: a peer that does not read is not to be answered without bound.
    fn put_up_control(&mut self) -> bool {
        if self.replies.len() > self.inner.limits.out_buffer {
            return false;
        }
        self.inbound.return_credit(&mut self.replies);
        if let Some(token) = self.ping.take() {
            self.replies.frame(Header::new(Kind::Pong, 0, 0, token), &[]);
        }
        !self.replies.is_empty()
    }

    /// Takes over what callers and streams have queued, to be written next; of what is large, a
    /// piece of each.
    fn take_queued(&mut self, shared: &mut Shared) -> bool {
        if shared.corks > 0 {
            return false;
        }
        self.unsent.append(&mut shared.outbound.take_unsent());
        let taken = shared.outbound.take(&mut self.requests);
        let pumped = shared.outbound.pump(&mut self.requests, PUMP, &mut self.wake);
        if taken || pumped {
            self.wake.append(&mut shared.waiting_for_room.clear());
            self.resting = shared.outbound.resting();
            // Before what is taken is written: the peer may use the numbers again as soon as it reads it.
            shared.outbound.take_over(&mut self.free_numbers);
        }
        taken || pumped
    }

    /// Writes everything that is queued, as far as the socket takes it; then leaves the waker and sets
    /// the timer.
    fn flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<Flushed> {
        let inner = Arc::clone(&self.inner);
        for _ in 0..WRITES {
            let unwritten = self.requests.len() + self.replies.len();
            let blocked = match self.write_queued(cx) {
                Poll::Ready(result) => {
                    result?;
                    false
                }
                Poll::Pending => true,
            };
            if self.requests.len() + self.replies.len() < unwritten {
                // The peer reads: its time begins anew.
                self.last_write_by = farcall_wire::NEVER;
            }
            if !blocked && self.put_up_control() {
                continue;
            }
            self.unsent.clear();
            let mut shared = inner.lock();
            (shared.now, shared.gone_by) = (self.now, 0);
            shared.outbound.flushed(self.now, self.requests.len());
            if !blocked && self.take_queued(&mut shared) {
                drop(shared);
                self.reap();
                self.wake_callers();
                continue;
            }
            let Orders { close, drain, abort } = shared.orders;
            let proof_over = self.now >= self.proof_ends;
            if (drain || proof_over) && !self.draining {
                self.draining = true;
                drop(shared);
                inner.closed.store(true, Ordering::Release);
                let reason = match drain {
                    true => RpcError::not_executed(Code::Unavailable, "the provider is shutting down and takes no new calls"),
                    // Who has fresh credentials comes back with them.
                    false => lapsed(),
                };
                self.inbound.drain(&reason, &mut self.replies);
                continue;
            }
            let quiet = self.inbound.running() == 0 && shared.outbound.in_flight() == 0;
            let over = close || quiet && (self.draining || shared.outbound.closed().is_some());
            // What is large may wait for credit, as long as the last writes may take.
            let unwritten = blocked || !shared.outbound.flows_quiet() || shared.outbound.is_undecided();
            if over && unwritten && self.last_write_by == farcall_wire::NEVER {
                self.last_write_by = self.now + LAST_WRITES.as_millis() as u64;
            }
            if abort || over && (!unwritten || self.now >= self.last_write_by) {
                return Ok(Flushed::End(if abort || unwritten { End::Aborted } else { End::Done }));
            }
            self.asked = shared.outbound.in_flight() > 0;
            let expiry = shared.outbound.next_expiry().min(self.parked_expiry).min(self.waiting.expiry());
            let expiry = expiry.min(self.last_write_by).min(self.next_beat());
            let expiry = if self.draining { expiry } else { expiry.min(self.proof_ends) };
            shared.driver = Some(cx.waker().clone());
            drop(shared);
            self.wake_callers();
            self.woken = 0;
            self.set_timer(expiry, cx);
            return Ok(if blocked { Flushed::Blocked } else { Flushed::All });
        }
        // There is more to write, but the peer's frames must be read too.
        cx.waker().wake_by_ref();
        Ok(Flushed::All)
    }

    /// Writes and flushes. Requests are taken only when all replies are written, so what is left of
    /// them here is a frame cut in half by a full socket: nothing may come between.
    fn write_queued(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.unflushed |= !self.requests.is_empty() || !self.replies.is_empty();
        ready!(poll_write_all(&mut self.link, &mut self.requests, cx))?;
        ready!(poll_write_all(&mut self.link, &mut self.replies, cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.link).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn set_timer(&mut self, expiry: u64, cx: &mut Context<'_>) {
        if expiry >= self.timer_at {
            return;
        }
        self.timer_at = expiry;
        self.timer.as_mut().reset(self.inner.clock.instant(expiry).into());
        // Held back by a spent budget it would not be registered, and nobody would poll it again.
        let timer = self.timer.as_mut();
        if pin!(unconstrained(timer)).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn end_of_stream(&mut self, cx: &mut Context<'_>) -> End {
        // A peer that has only stopped sending still gets its last replies.
        let _ = self.write_queued(cx);
        let shared = self.inner.lock();
        if shared.outbound.in_flight() == 0 {
            return End::Done;
        }
        let why = match shared.outbound.closed() {
            Some(reason) => format!("the peer hung up: {}", reason.message()),
            None => "the peer closed the connection".to_owned(),
        };
        End::Lost(lost(&self.inner.peer, why))
    }

    /// The peer broke the protocol: it is told how, as far as that can be written at once.
    #[cold]
    fn violated(&mut self, violation: &Violation, cx: &mut Context<'_>) -> End {
        control::hang_up(self.inbound.accepted(), violation, &mut self.replies);
        let _ = self.write_queued(cx);
        End::HungUp(lost(&self.inner.peer, format!("the peer broke the protocol: {violation}")))
    }

    /// Ends every call with what is known about it. Handlers that must not be cut off go on without
    /// a connection.
    fn finish(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let reason = match end {
            End::Lost(reason) | End::HungUp(reason) => reason,
            End::Done | End::Aborted => lost(&self.inner.peer, "it was closed"),
        };
        self.inner.closed.store(true, Ordering::Release);
        // To drop bytes may run their owner's code: not under the lock.
        let unwritten = std::mem::take(&mut self.requests).len();
        {
            let mut shared = self.inner.lock();
            shared.outbound.flushed(self.now, unwritten);
            shared.outbound.lose(reason, &mut self.wake);
            self.wake.append(&mut shared.waiting_for_room.clear());
            self.unsent = shared.outbound.take_unsent();
            shared.outbound.take(&mut self.requests);
        }
        self.wake_callers();
        if self.parked.is_empty() {
            return;
        }
        let runtime = tokio::runtime::Handle::try_current();
        for entry in self.parked.drain() {
            match &runtime {
                Ok(runtime) if !entry.cancel => {
                    let (services, peer) = (Arc::clone(&self.services), Arc::clone(&self.inner.peer));
                    runtime.spawn(Detached { entry, services, peer });
                }
                _ => drop(catch_unwind(AssertUnwindSafe(|| drop(entry)))),
            }
        }
    }

    /// Closes the link, after reading on until the peer closes it too, for at most this long. To
    /// close a socket with unread bytes resets it, which would throw away what the peer has not read
    /// yet: a GoAway that says why, or one-way calls.
    async fn hang_up(&mut self, linger: Duration) {
        let link = &mut self.link;
        let closing = async {
            if link.shutdown().await.is_ok() {
                // On the heap: an array would be a part of every connection, whether it ends or not.
                let mut sink = vec![0; 4096];
                while link.read(&mut sink).await.is_ok_and(|n| n > 0) {}
            }
        };
        let _ = tokio::time::timeout(linger, closing).await;
    }
}

impl Drop for Driver {
    /// The task was dropped with its runtime: nobody waits for ever.
    fn drop(&mut self) {
        self.finish(End::Lost(lost(&self.inner.peer, "the runtime that drove it was shut down")));
    }
}

/// Writes all of `out`. Not held back by the task's budget: what handlers have spent of it must not
/// keep their replies from being written.
fn poll_write_all(link: &mut Io, out: &mut OutBuf, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    if out.is_empty() {
        return Poll::Ready(Ok(()));
    }
    let writing = pin!(unconstrained(poll_fn(|cx| poll_write_some(link, out, cx))));
    writing.poll(cx)
}

fn poll_write_some(link: &mut Io, out: &mut OutBuf, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    while !out.is_empty() {
        let written = match out.contiguous() {
            Some(bytes) => ready!(Pin::new(&mut *link).poll_write(cx, bytes))?,
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let n = out.slices(&mut slices);
                ready!(Pin::new(&mut *link).poll_write_vectored(cx, &slices[..n]))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        out.advance(written);
    }
    Poll::Ready(Ok(()))
}
