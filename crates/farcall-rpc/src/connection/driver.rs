//! The task of a connection: reads, dispatches, writes.
//!
//! One turn of it: read what is there and handle every whole frame (replies complete slots, calls
//! are run in place), poll the handlers that were woken, expire what is late, write everything that
//! was queued meanwhile in one go. The order of the last steps is what makes it fast: after waking
//! two or more callers the driver goes to the back of the run queue once before it writes, so that
//! their next requests leave in the same write. Woken by the first of them instead, it would sit in
//! tokio's LIFO slot and write one frame at a time.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use farcall_core::{Certainty, Code, RpcError, ServiceDescriptor};
use farcall_transport::Io;
use farcall_wire::{Catalogue, Frame, Inbound, Kind, OutBuf, Request, Violation, control, get_frame};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use super::handshake::Handshake;
use super::parked::{Entry, ParkedSet};
use super::read::ReadBuf;
use super::{Clock, Connection, Inner, Orders, Room, Shared, lost};
use crate::context::{Current, Finish, Peer, enter};
use crate::keys::{Keyed, Record, Seen};
use crate::observer::{Ended, Observer, Outcome, Side};
use crate::skeleton::{Incoming, Runner, Skeleton, panicked, write_failure};

/// Slices of one vectored write.
const SLICES: usize = 32;
/// Reads in one turn, before handlers, timers and writes have theirs.
const READS: usize = 16;
/// How long the last bytes of a connection that is over may take to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// How long a link is kept for its last words to be read.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// The services of one side of a connection.
pub(crate) struct Services {
    pub(crate) skeletons: Vec<Arc<dyn Skeleton>>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    /// What is remembered of calls with an idempotency key.
    pub(crate) keys: Option<Arc<Record>>,
}

impl Catalogue for Services {
    fn find(&self, service: &str, group: &str, version: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        let all = || self.skeletons.iter().map(|s| s.descriptor()).enumerate();
        let exact = all().find(|(_, d)| d.name == service && d.group == group && d.version == version);
        exact.ok_or_else(|| {
            let shown = |d: &ServiceDescriptor| match (d.group.as_str(), d.version.as_str()) {
                ("", "") => d.name.clone(),
                (group, version) => format!("{} (group {group:?}, version {version:?})", d.name),
            };
            let known: Vec<String> = all().map(|(_, d)| shown(d)).collect();
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

/// How far reading came in a turn.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    /// All there was, or the turn's share.
    All,
    /// Dispatch had to stop: too much waits to be written.
    Stopped,
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
    link: Io,
    inner: Arc<Inner>,
    services: Arc<Services>,
    inbound: Inbound,
    runners: Vec<Option<Box<dyn Runner>>>,
    parked: ParkedSet,
    current: Current,
    read: ReadBuf,
    /// Replies and control frames, ours alone; then what callers queued, taken from the session.
    replies: OutBuf,
    requests: OutBuf,
    wake: Vec<Waker>,
    /// Callers woken in this turn.
    woken: usize,
    yielded: bool,
    handlers_first: bool,
    /// The link may hold back what was written to it.
    unflushed: bool,
    /// When to end although not all is written; set once it is over.
    last_write_by: u64,
    /// Handlers that outlive their connection are counted here.
    running: Arc<Running>,
    /// Calls that ended in this turn; kept for its allocation.
    over: Vec<(Ending, Option<Finish>, Option<RpcError>)>,
    /// When the first parked handler that may be dropped expires.
    parked_expiry: u64,
    timer: Pin<Box<Sleep>>,
    timer_at: u64,
    now: u64,
    /// When the bytes being handled were read.
    read_at: u64,
    max_frame: usize,
    max_reply: usize,
    draining: bool,
    ended: bool,
}

impl Driver {
    /// Puts a driver on a link that has shaken hands. Run it as a task; it ends with the link.
    pub(crate) fn new(handshake: Handshake, services: Arc<Services>, running: Arc<Running>, address: String) -> (Connection, Driver) {
        let Handshake { link, rest, theirs, session } = handshake;
        let keys = theirs.keys.map(|moment| Seen { moment, at: Instant::now() });
        let peer = Arc::new(Peer { address: address.clone(), software: theirs.software, incarnation: theirs.incarnation, keys });
        let max_frame = session.hello.limits.frame as usize;
        let (mut outbound, inbound) = (session.outbound, session.inbound);
        outbound.established(theirs.limits, address);
        let limits = inbound.limits().clone();
        let clock = Clock::start();
        let shared = Shared { outbound, driver: None, now: 0, corks: 0, waiting_for_room: Room::default(), orders: Orders::default() };
        let inner = Arc::new(Inner { shared: Mutex::new(shared), clock, limits, peer: Arc::clone(&peer), closed: false.into() });
        let driver = Driver {
            link,
            inner: Arc::clone(&inner),
            runners: services.skeletons.iter().map(|_| None).collect(),
            services,
            inbound,
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
            parked_expiry: farcall_wire::NEVER,
            timer: Box::pin(tokio::time::sleep(Duration::MAX)),
            timer_at: farcall_wire::NEVER,
            now: 0,
            read_at: 0,
            max_frame,
            max_reply: theirs.limits.body as usize,
            draining: false,
            ended: false,
        };
        (Connection { inner }, driver)
    }

    /// Runs the connection to its end.
    pub(crate) async fn run(mut self) {
        let end = poll_fn(|cx| self.turn(cx)).await;
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
    }

    /// One turn. Pending when there is nothing left to do but wait.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.now = self.inner.clock.now();
        self.parked.register(cx.waker());
        loop {
            // By turns, because both draw on the task's budget: a flood of calls must not starve the
            // handlers that wait, nor they the calls.
            self.handlers_first = !self.handlers_first;
            let mut held_back = false;
            if self.handlers_first {
                held_back |= self.run_woken(cx);
            }
            let read = match self.read_all(cx) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(end),
            };
            if !self.handlers_first {
                held_back |= self.run_woken(cx);
            }
            held_back |= read == Read::Stopped;
            if self.now >= self.timer_at {
                self.expire();
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
                Ok(Flushed::Blocked) => return Poll::Pending,
                // Too much was waiting to be written; now it is not.
                Ok(Flushed::All) if held_back => continue,
                Ok(Flushed::All) => return Poll::Pending,
            }
        }
    }

    /// Reads and handles frames until there is nothing more to read, for a turn's share.
    fn read_all(&mut self, cx: &mut Context<'_>) -> Result<Read, End> {
        for _ in 0..READS {
            if let Err(violation) = self.handle_frames() {
                return Err(self.violated(&violation, cx));
            }
            if self.is_full() {
                return Ok(Read::Stopped);
            }
            self.read.make_room(self.max_frame);
            let read = {
                // Cancel safe: dropped while pending, it has read nothing. Not held back by the
                // task's budget, which is for handlers; the turn's share bounds it.
                let reading = pin!(unconstrained(self.link.read_buf(&mut self.read.buf)));
                reading.poll(cx)
            };
            match read {
                Poll::Pending => return Ok(Read::All),
                Poll::Ready(Ok(0)) => return Err(self.end_of_stream(cx)),
                Poll::Ready(Ok(_)) => {
                    self.now = self.inner.clock.now();
                    self.read_at = self.now;
                }
                Poll::Ready(Err(e)) => return Err(End::Lost(lost(&self.inner.peer, e))),
            }
        }
        cx.waker().wake_by_ref();
        Ok(Read::All)
    }

    /// So much waits to be written that no handler may add to it.
    #[inline]
    fn is_full(&self) -> bool {
        self.replies.len() > self.inner.limits.out_buffer
    }

    /// Handles every whole frame in the read buffer.
    fn handle_frames(&mut self) -> Result<(), Violation> {
        let inner = Arc::clone(&self.inner);
        // The lock is taken once for a run of replies and is never held while user code runs.
        let mut shared: Option<MutexGuard<'_, Shared>> = None;
        let mut frames = 0;
        let result = loop {
            if self.is_full() {
                break Ok(());
            }
            let frame = match get_frame(&mut self.read.buf, self.max_frame) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            };
            if frame.header.kind == Kind::Reply {
                let shared = shared.get_or_insert_with(|| inner.lock());
                match shared.outbound.on_reply(frame.header, frame.payload) {
                    Ok(waiting) => self.wake.extend(waiting),
                    Err(violation) => break Err(violation),
                }
                continue;
            }
            shared = None;
            // The handlers before it in the batch may have taken long: what expired meanwhile must not start.
            if frames > 0 && frame.header.kind == Kind::Call {
                self.now = self.inner.clock.now();
            }
            frames += 1;
            if let Err(violation) = self.handle_frame(frame) {
                break Err(violation);
            }
        };
        drop(shared);
        self.wake_callers();
        result
    }

    fn wake_callers(&mut self) {
        self.woken += self.wake.len();
        for waker in self.wake.drain(..) {
            // Another executor's waker is foreign code: if it panics, that is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), Violation> {
        match frame.header.kind {
            Kind::Call => {
                if let Some(request) = self.inbound.on_call(frame, &mut self.replies)? {
                    self.dispatch(request);
                }
            }
            Kind::Void => self.inbound.on_void(),
            Kind::Bind => self.inbound.on_bind(&frame, &*self.services, &mut self.replies)?,
            Kind::Bound => self.inner.lock().outbound.on_bound(frame.header.id, frame.header.aux, &frame.payload)?,
            Kind::Cancel => self.cancelled(frame.header.id),
            Kind::Ping => control::pong(&frame, &mut self.replies),
            Kind::Pong => {}
            Kind::GoAway => {
                let go_away = control::on_go_away(&frame.payload)?;
                self.inner.closed.store(true, Ordering::Release);
                self.inner.lock().outbound.go_away(go_away, &mut self.wake);
                self.wake_callers();
            }
            other => return Err(control::not_built(other)),
        }
        Ok(())
    }

    /// Runs a call's handler in place; parks it if it has to wait.
    fn dispatch(&mut self, request: Request) {
        let Request { id, oneway, service, method, deadline, options, body } = request;
        let skeleton = &self.services.skeletons[service as usize];
        let expires = deadline.map(|ms| self.read_at + ms as u64);
        let since = (!self.services.observers.is_empty()).then(Instant::now);
        let ending = Ending { id, oneway, service, method, since };
        if expires.is_some_and(|at| at < self.now) {
            return self.refuse_expired(ending);
        }
        if self.running.detached() >= self.inner.limits.in_flight {
            return self.refuse_crowded(ending);
        }
        let context = &mut self.current.context;
        context.expires = expires.map(|at| self.inner.clock.instant(at));
        context.metadata = options.metadata.map(Arc::new);
        context.trace = options.trace;
        let incoming = Incoming { id, oneway, method, codec: options.codec, max_reply: self.max_reply, body };
        let runner = &mut **self.runners[service as usize].get_or_insert_with(|| skeleton.runner());
        let mut keyed;
        let runner: &mut dyn Runner = match options.key {
            None => runner,
            Some(key) => {
                keyed = Keyed::new(runner, self.services.keys.as_ref(), service, *key);
                &mut keyed
            }
        };
        let waker = self.parked.next_waker();
        let written = self.replies.small().len();
        std::mem::swap(&mut self.current.replies, self.replies.small());
        let polled = enter(&mut self.current, || {
            catch_unwind(AssertUnwindSafe(|| {
                runner.start(incoming);
                runner.poll(&mut Context::from_waker(waker))
            }))
        });
        std::mem::swap(&mut self.current.replies, self.replies.small());
        match polled {
            Ok(Poll::Ready(())) => self.ended_call(ending),
            Ok(Poll::Pending) => {
                let traits = skeleton.descriptor().methods[method as usize].traits;
                let handler = runner.park();
                let cancel = handler.may_be_dropped().unwrap_or(traits.cancel && !oneway);
                let entry = Entry { handler, context: self.current.context.clone(), id, oneway, service, method, cancel, since };
                if cancel && let Some(at) = expires {
                    self.parked_expiry = self.parked_expiry.min(at);
                }
                let token = self.parked.insert(entry);
                if !oneway {
                    self.inbound.park(id, token);
                }
            }
            Err(payload) => {
                // Dropping what is left of it may panic again, which is of no further interest.
                let _ = catch_unwind(AssertUnwindSafe(|| runner.clear()));
                self.replies.small().truncate(written);
                self.failed_call(ending, &panicked(&*payload));
            }
        }
    }

    #[cold]
    fn refuse_expired(&mut self, ending: Ending) {
        let error = RpcError::not_executed(Code::DeadlineExceeded, "the deadline passed before the handler was started");
        self.failed_call(ending, &error.with_stage(farcall_core::Stage::ServerQueue));
    }

    #[cold]
    fn refuse_crowded(&mut self, ending: Ending) {
        let limit = self.inner.limits.in_flight;
        let why = format!("{limit} handlers are running here whose callers have gone, the limit `in_flight`");
        self.failed_call(ending, &RpcError::not_executed(Code::ResourceExhausted, why));
    }

    /// A call whose reply, if it has one, is queued.
    #[inline]
    fn ended_call(&mut self, ending: Ending) {
        self.inbound.finished(ending.id, ending.oneway);
        let finish = self.current.finish.take();
        if ending.since.is_some() {
            observe(&self.services, &self.inner.peer, &ending, finish);
        }
    }

    #[cold]
    fn failed_call(&mut self, ending: Ending, error: &RpcError) {
        if !ending.oneway {
            write_failure(self.replies.small(), ending.id, error);
        }
        self.current.finish = Some(Finish::Failed(error.code(), error.certainty()));
        self.ended_call(ending);
    }

    /// Polls the parked handlers that were woken. Says whether some are held back because too much
    /// waits to be written.
    fn run_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.inner.limits.out_buffer;
        let (current, replies, mut over) = (&mut self.current, &mut self.replies, std::mem::take(&mut self.over));
        let left = self.parked.poll_woken(
            |entry, cx| {
                if replies.len() > limit {
                    return None;
                }
                let written = replies.small().len();
                std::mem::swap(&mut current.context, &mut entry.context);
                std::mem::swap(&mut current.replies, replies.small());
                current.finish = None;
                let polled = enter(current, || catch_unwind(AssertUnwindSafe(|| entry.handler.poll(cx))));
                std::mem::swap(&mut current.replies, replies.small());
                std::mem::swap(&mut current.context, &mut entry.context);
                Some(match polled {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(())) => Poll::Ready((current.finish.take(), None)),
                    Err(payload) => {
                        // It may have written its reply before it panicked.
                        replies.small().truncate(written);
                        Poll::Ready((None, Some(panicked(&*payload))))
                    }
                })
            },
            |entry, (finish, panic)| {
                let ending = entry.ending();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
                over.push((ending, finish, panic));
            },
        );
        for (ending, finish, panic) in over.drain(..) {
            match panic {
                Some(error) => self.failed_call(ending, &error),
                None => {
                    self.current.finish = finish;
                    self.ended_call(ending);
                }
            }
        }
        self.over = over;
        let full = self.is_full();
        if left && !full {
            cx.waker().wake_by_ref();
        }
        left && full
    }

    /// The caller of a running call is gone: its handler is dropped if the method allows it.
    fn cancelled(&mut self, id: u32) {
        let Some(token) = self.inbound.on_cancel(id) else { return };
        if self.parked.get(token).is_some_and(|e| e.cancel) {
            self.drop_parked(token, &RpcError::new(Code::Cancelled, "the caller went away"));
        }
    }

    fn drop_parked(&mut self, token: usize, error: &RpcError) {
        let Some(entry) = self.parked.remove(token) else { return };
        let ending = entry.ending();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
        self.failed_call(ending, error);
    }

    /// Ends what is past its deadline: our calls, and handlers that may be dropped.
    fn expire(&mut self) {
        {
            let mut shared = self.inner.lock();
            shared.outbound.flushed(self.now, self.requests.len());
            shared.outbound.expire(self.now, &mut self.wake);
        }
        self.wake_callers();
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
    }

    /// Writes everything that is queued, as far as the socket takes it; then leaves the waker and sets
    /// the timer.
    fn flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<Flushed> {
        let inner = Arc::clone(&self.inner);
        loop {
            let blocked = match self.write_queued(cx) {
                Poll::Ready(result) => {
                    result?;
                    false
                }
                Poll::Pending => true,
            };
            let mut shared = inner.lock();
            shared.now = self.now;
            shared.outbound.flushed(self.now, self.requests.len());
            if !blocked && shared.corks == 0 && shared.outbound.take(&mut self.requests) {
                self.wake.append(&mut shared.waiting_for_room.clear());
                drop(shared);
                self.wake_callers();
                continue;
            }
            let Orders { close, drain, abort } = shared.orders;
            if drain && !self.draining {
                self.draining = true;
                drop(shared);
                inner.closed.store(true, Ordering::Release);
                let reason = RpcError::not_executed(Code::Unavailable, "the provider is shutting down and takes no new calls");
                self.inbound.drain(&reason, &mut self.replies);
                continue;
            }
            let quiet = self.inbound.running() == 0 && shared.outbound.in_flight() == 0;
            let over = close || quiet && (self.draining || shared.outbound.closed().is_some());
            if over && blocked && self.last_write_by == farcall_wire::NEVER {
                self.last_write_by = self.now + LAST_WRITES.as_millis() as u64;
            }
            if abort || over && (!blocked || self.now >= self.last_write_by) {
                return Ok(Flushed::End(if abort || blocked { End::Aborted } else { End::Done }));
            }
            let expiry = shared.outbound.next_expiry().min(self.parked_expiry).min(self.last_write_by);
            shared.driver = Some(cx.waker().clone());
            drop(shared);
            self.wake_callers();
            self.woken = 0;
            self.set_timer(expiry, cx);
            return Ok(if blocked { Flushed::Blocked } else { Flushed::All });
        }
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
        {
            let mut shared = self.inner.lock();
            shared.outbound.flushed(self.now, self.requests.len());
            shared.outbound.lose(reason, &mut self.wake);
            self.wake.append(&mut shared.waiting_for_room.clear());
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
                    let running = RunningGuard::new(&self.running);
                    runtime.spawn(Detached { entry, services, peer, _running: running });
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
                let mut sink = [0; 4096];
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

/// Counts handlers whose connection is gone: a server that drains waits for them.
#[derive(Default)]
pub(crate) struct Running {
    /// Looked at for every call, so it is no more than an atomic.
    detached: AtomicUsize,
    none_left: Notify,
}

impl Running {
    #[inline]
    fn detached(&self) -> usize {
        self.detached.load(Ordering::Relaxed)
    }

    /// Until there are none.
    pub(crate) async fn none(&self) {
        loop {
            let mut left = pin!(self.none_left.notified());
            // Registered before the count is looked at, or the last one could end in between.
            left.as_mut().enable();
            if self.detached.load(Ordering::Acquire) == 0 {
                return;
            }
            left.await;
        }
    }
}

struct RunningGuard(Arc<Running>);

impl RunningGuard {
    fn new(running: &Arc<Running>) -> RunningGuard {
        running.detached.fetch_add(1, Ordering::AcqRel);
        RunningGuard(Arc::clone(running))
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        if self.0.detached.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

/// What is needed to end a call.
struct Ending {
    id: u32,
    oneway: bool,
    service: u32,
    method: u16,
    since: Option<Instant>,
}

impl Entry {
    fn ending(&self) -> Ending {
        Ending { id: self.id, oneway: self.oneway, service: self.service, method: self.method, since: self.since }
    }
}

/// Tells the observers of a call's end.
#[cold]
fn observe(services: &Services, peer: &Peer, ending: &Ending, finish: Option<Finish>) {
    let descriptor = services.skeletons[ending.service as usize].descriptor();
    let outcome = Outcome {
        side: Side::Server,
        service: &descriptor.name,
        method: &descriptor.methods[ending.method as usize].name,
        peer: &peer.address,
        elapsed: ending.since.map_or(Duration::ZERO, |since| since.elapsed()),
        ended: match finish.unwrap_or(Finish::Ok) {
            Finish::Ok => Ended::Ok,
            Finish::AppError => Ended::AppError,
            Finish::Failed(code, certainty) => Ended::Failed(code, certainty),
            Finish::Replayed => Ended::Replayed,
        },
    };
    for observer in &services.observers {
        // A call does not fail because somebody could not count it.
        let _ = catch_unwind(AssertUnwindSafe(|| observer.ended(&outcome)));
    }
}

/// A handler whose connection is gone and that runs to its end all the same.
struct Detached {
    entry: Entry,
    services: Arc<Services>,
    peer: Arc<Peer>,
    _running: RunningGuard,
}

impl Future for Detached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Detached { entry, services, peer, .. } = &mut *self;
        let mut current = Current { context: std::mem::take(&mut entry.context), ..Current::default() };
        let polled = enter(&mut current, || catch_unwind(AssertUnwindSafe(|| entry.handler.poll(cx))));
        entry.context = current.context;
        let finish = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => current.finish,
            Err(_) => Some(Finish::Failed(Code::Internal, Certainty::MaybeExecuted)),
        };
        if entry.since.is_some() {
            observe(services, peer, &entry.ending(), finish);
        }
        Poll::Ready(())
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
