//! The calls that the peer made, in the driver: started in place, parked if they wait, ended.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use farcall_core::{Code, RpcError, Stage};
use farcall_wire::{Delivered, Frame, Header, Kind, Request, Streams, Violation, WHOLE};

use super::apart::{Apart, Slow};
use super::detached::{Counted, Ending, observe};
use super::driver::Driver;
use super::parked::Entry;
use crate::context::{Aside, Finish, Scoped, enter};
use crate::intercept::Guarded;
use crate::keys::Keyed;
use crate::skeleton::{Incoming, ParkedHandler, Runner, panicked, write_failure};
use crate::stream::{Pump, Received};

/// Calls whose deadline is further off are not worth a look at the clock each.
const LONG_MS: u32 = 5000;

/// A call that was read and is not started.
pub(super) struct Arrived {
    pub(super) request: Request,
    /// Its stream of arguments.
    pub(super) stream: Option<Box<Received>>,
}

impl Driver {
    /// A Call frame: starts its handler, now or when there is room for its reply.
    pub(super) fn on_call(&mut self, frame: Frame) -> Result<(), Violation> {
        let Some(request) = self.inbound.on_call(frame, self.read_at, &mut self.replies)? else { return Ok(()) };
        if request.more {
            return self.hold(request);
        }
        self.arrived(request);
        Ok(())
    }

    #[inline]
    fn arrived(&mut self, request: Request) {
        let stream = match request.streams != Streams::default() {
            true => match self.serve(&request) {
                Ok(stream) => stream,
                // Nothing was opened for it: it is over like any other.
                Err(error) => return self.refuse(Request { streams: Streams::default(), ..request }, &error),
            },
            false => None,
        };
        if request.differs {
            return self.arrived_differing(Arrived { request, stream });
        }
        self.go_on(Arrived { request, stream });
    }

    #[inline]
    fn go_on(&mut self, arrived: Arrived) {
        match self.is_full() || !self.backlog.is_empty() {
            true => self.queue(arrived),
            false => self.dispatch(arrived.request, arrived.stream),
        }
    }

    #[cold]
    fn arrived_differing(&mut self, arrived: Arrived) {
        if let Some(arrived) = self.differing(arrived) {
            self.go_on(arrived);
        }
    }

    /// Keeps a call until there is room for its reply.
    #[cold]
    fn queue(&mut self, arrived: Arrived) {
        if let Some(arrived) = self.keep(arrived) {
            self.backlog.push_back(arrived);
        }
    }

    /// Makes a call one that waits to be started. If too much is held already, it is refused instead.
    pub(super) fn keep(&mut self, arrived: Arrived) -> Option<Arrived> {
        let Arrived { request, stream } = arrived;
        if self.holds_too_much(&request) {
            drop(stream);
            let error = self.too_much_held();
            self.refuse(request, &error);
            return None;
        }
        self.held += request.body.len();
        // A call with streams has its place.
        if !request.oneway && request.streams == Streams::default() {
            self.inbound.queue(request.id);
        }
        Some(Arrived { request, stream })
    }

    /// Keeps a call until its body is whole.
    #[cold]
    fn hold(&mut self, mut request: Request) -> Result<(), Violation> {
        if request.streams.args {
            return Err(Violation("a call whose arguments are in fragments and have a stream".into()));
        }
        let first = std::mem::take(&mut request.body);
        self.inner.lock().outbound.assemble_args(request.id, &first);
        self.inbound.hold(request);
        Ok(())
    }

    /// Something came whole that was in pieces.
    #[cold]
    pub(super) fn delivered(&mut self, delivered: Delivered) {
        match delivered {
            Delivered::Nothing => {}
            Delivered::Arguments(id, body) => {
                if let Some(request) = self.inbound.held(id) {
                    self.arrived(Request { body, more: false, ..request });
                }
            }
            Delivered::TooMuch(id) => {
                let error = self.too_much_held();
                self.inbound.refuse_held(id, &error, &mut self.replies);
            }
        }
    }

    /// Opens what flows beside a call.
    #[cold]
    fn serve(&mut self, request: &Request) -> Result<Option<Box<Received>>, RpcError> {
        let mut shared = self.inner.lock();
        let limit = self.inner.limits.streams;
        if shared.outbound.serving() >= limit {
            let why = format!("{limit} calls with streams are open on this connection, the limit `streams`");
            return Err(RpcError::not_executed(Code::ResourceExhausted, why));
        }
        let at = shared.outbound.serve(request.id, request.streams.args);
        drop(shared);
        self.inbound.occupy(request.id);
        let descriptor = self.services.skeletons[request.service as usize].descriptor();
        let (codec, method) = (request.options.codec, descriptor.full_name(request.method as usize));
        let inner = Arc::clone(&self.inner);
        let received =
            |at| Box::new(Received { inner, connection: None, at, taken: VecDeque::new(), codec, method, ends: None, reading: None });
        Ok(at.map(received))
    }

    /// Starts calls that had to wait, as far as there is room for their replies.
    pub(super) fn run_backlog(&mut self) {
        while !self.is_full() && self.now_us <= self.slice_end_us {
            let Some(Arrived { request, stream }) = self.backlog.pop_front() else { return };
            self.held -= request.body.len();
            if !self.gone.is_empty() && !request.oneway && self.gone.remove(&request.id) {
                drop(stream);
                self.refuse_gone(request);
                continue;
            }
            self.dispatch(request, stream);
        }
    }

    /// Runs a call's handler in place; parks it if it has to wait.
    #[inline]
    pub(super) fn dispatch(&mut self, request: Request, mut stream: Option<Box<Received>>) {
        if let Some(error) = self.refusal(&request) {
            drop(stream);
            return self.refuse(request, &error);
        }
        self.inbound.taken(request.cost);
        let ending = self.ending(&request);
        let reading = if request.differs { self.reading(&request) } else { None };
        if let Some(stream) = &mut stream {
            stream.reading.clone_from(&reading);
        }
        let Request { id, oneway, service, method, deadline, options, body, read_at, .. } = request;
        let (bytes, expires) = (body.len(), deadline.map(|ms| read_at + u64::from(ms)));
        let skeleton = &self.services.skeletons[service as usize];
        let context = &mut self.current.context;
        context.expires = expires.map(|at| self.inner.clock.instant(at));
        context.metadata = options.metadata.map(Arc::new);
        context.trace = options.trace;
        let incoming = Incoming {
            id,
            oneway,
            method,
            codec: options.codec,
            max_reply: self.max_reply,
            body: Cell::new(body),
            reading,
            streamed: ending.streamed,
            stream: Cell::new(stream),
        };
        let runner = &mut **self.runners[service as usize].get_or_insert_with(|| {
            self.slow[service as usize] = vec![Slow::default(); skeleton.descriptor().methods.len()];
            skeleton.runner()
        });
        let mut guarded;
        let runner: &mut dyn Runner = match &self.services.chain {
            None => runner,
            Some(chain) => {
                let came = self.inner.clock.instant(self.now);
                guarded = Guarded::new(runner, chain, skeleton, &self.current.context, Some(came));
                &mut guarded
            }
        };
        let mut keyed;
        let runner: &mut dyn Runner = match options.key {
            None => runner,
            Some(key) => {
                let caller = self.inner.peer.identity.as_ref().map(|caller| caller.name());
                keyed = Keyed::new(runner, self.services.keys.as_ref(), service, caller, *key);
                &mut keyed
            }
        };
        self.served = true;
        let slow = &mut self.slow[service as usize][method as usize];
        let waker = self.parked.next_waker();
        if slow.begin() {
            let waker = waker.clone();
            runner.start(incoming);
            let handler = runner.park();
            return self.run_apart(handler, ending, bytes, expires, &waker);
        }
        let written = self.replies.small().len();
        std::mem::swap(&mut self.current.replies, self.replies.small());
        let polled = enter(&mut self.current, || {
            catch_unwind(AssertUnwindSafe(|| {
                runner.start(incoming);
                runner.poll(&mut Context::from_waker(waker))
            }))
        });
        std::mem::swap(&mut self.current.replies, self.replies.small());
        let polled = polled.map(|polled| polled.is_pending().then(|| runner.park())).map_err(|payload| {
            // Dropping what is left of it may panic again, which is of no further interest.
            let _ = catch_unwind(AssertUnwindSafe(|| runner.clear()));
            panicked(&*payload)
        });
        self.ran_last = (service, method);
        if self.stride.ends() {
            self.measure();
        }
        match polled {
            Ok(None) => self.ended_call(ending),
            Ok(Some(handler)) => self.park(handler, ending, bytes, expires),
            Err(error) => {
                self.replies.small().truncate(written);
                self.failed_call(ending, &error);
            }
        }
    }

    /// Looks at the clock: how long did the last calls take?
    pub(super) fn measure(&mut self) {
        let before = self.now_us;
        self.look_at_clock();
        if let Some(us) = self.stride.took(self.now_us - before) {
            let (service, method) = self.ran_last;
            self.slow[service as usize][method as usize].took(us);
        }
    }

    /// Keeps a handler that was polled with [`next_waker`](super::parked::ParkedSet::next_waker).
    fn park(&mut self, handler: Box<dyn ParkedHandler>, ending: Ending, bytes: usize, expires: Option<u64>) {
        let Ending { id, oneway, service, method, since, streamed, .. } = ending;
        let cancel = handler.may_be_dropped().unwrap_or_else(|| self.may_cancel(&ending));
        let context = self.current.context.clone();
        if cancel && let Some(at) = expires {
            self.parked_expiry = self.parked_expiry.min(at);
        }
        self.held += bytes;
        let _counted = Counted::new(&self.running);
        let entry = Entry { handler, context, id, oneway, service, method, cancel, since, streamed, held: bytes, _counted };
        let token = self.parked.insert(entry);
        if !oneway {
            self.inbound.park(id, token);
        }
    }

    fn may_cancel(&self, ending: &Ending) -> bool {
        let descriptor = self.services.skeletons[ending.service as usize].descriptor();
        !ending.oneway && descriptor.methods[ending.method as usize].traits.cancel
    }

    /// Runs a handler that would hold up others in a task of its own.
    #[cold]
    fn run_apart(&mut self, handler: Box<dyn ParkedHandler>, ending: Ending, bytes: usize, expires: Option<u64>, waker: &Waker) {
        let cancel = handler.may_be_dropped().unwrap_or_else(|| self.may_cancel(&ending));
        let mut apart = Apart::spawn(handler, self.current.context.clone(), self.running.workers(), cancel);
        // It may have ended on another thread meanwhile.
        std::mem::swap(&mut self.current.replies, self.replies.small());
        let polled = enter(&mut self.current, || catch_unwind(AssertUnwindSafe(|| apart.poll(&mut Context::from_waker(waker)))));
        std::mem::swap(&mut self.current.replies, self.replies.small());
        match polled {
            Ok(Poll::Pending) => self.park(Box::new(apart), ending, bytes, expires),
            Ok(Poll::Ready(())) => self.ended_call(ending),
            Err(payload) => self.failed_call(ending, &panicked(&*payload)),
        }
    }

    fn ending(&self, request: &Request) -> Ending {
        let since = (!self.services.observers.is_empty()).then(crate::time::now);
        let Request { id, oneway, service, method, streams, .. } = *request;
        Ending { id, oneway, service, method, since, streamed: streams != Streams::default(), held: 0 }
    }

    /// Why a call is not started, if so.
    #[inline]
    fn refusal(&mut self, request: &Request) -> Option<RpcError> {
        if self.guarded
            && let Err(error) = self.admit(request)
        {
            return Some(error);
        }
        if let Some(ms) = request.deadline {
            // The handlers before it may have taken long, since the clock was looked at last.
            if ms < LONG_MS && !self.stride.is_fresh() {
                self.measure();
            }
            if request.read_at + u64::from(ms) < self.now {
                return Some(too_late());
            }
        }
        let limits = &self.inner.limits;
        if self.running.handlers() >= limits.server_in_flight {
            return Some(crowded(limits.server_in_flight));
        }
        if self.holds_too_much(request) {
            return Some(self.too_much_held());
        }
        None
    }

    /// Whether its caller may make this call.
    fn admit(&self, request: &Request) -> Result<(), RpcError> {
        let service = self.services.skeletons[request.service as usize].descriptor();
        self.services.admission.admit(service, request.method as usize, self.inner.peer.identity.as_deref())
    }

    #[inline]
    fn holds_too_much(&self, request: &Request) -> bool {
        let limits = &self.inner.limits;
        self.held > 0 && self.held + request.body.len() > limits.held.max(limits.body)
    }

    /// The caller of a call that was not started is gone.
    #[cold]
    pub(super) fn refuse_gone(&mut self, request: Request) {
        let (id, streamed) = (request.id, request.streams != Streams::default());
        self.refuse(request, &RpcError::not_executed(Code::Cancelled, "the caller went away before the handler was started"));
        if streamed {
            self.cancelled_in_flow(id);
        }
    }

    #[cold]
    fn too_much_held(&self) -> RpcError {
        let limit = self.inner.limits.held.max(self.inner.limits.body);
        let why = format!("the arguments of this connection's unfinished calls would take more than {limit} bytes, the limit `held`");
        RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
    }

    #[cold]
    pub(super) fn refuse(&mut self, request: Request, error: &RpcError) {
        self.inbound.taken(request.cost);
        let ending = self.ending(&request);
        self.failed_call(ending, error);
    }

    /// A call whose reply, if it has one, is queued or put aside.
    #[inline]
    fn ended_call(&mut self, ending: Ending) {
        self.held -= ending.held;
        match self.current.aside.take() {
            None if !ending.streamed => self.inbound.finished(ending.id, ending.oneway),
            aside => self.ended_rarely(&ending, aside),
        }
        let finish = self.current.finish.take();
        if ending.since.is_some() {
            observe(&self.services, &self.inner.peer, &ending, finish);
        }
    }

    /// A call with a stream, or whose reply is large.
    #[cold]
    fn ended_rarely(&mut self, ending: &Ending, aside: Option<Box<Aside>>) {
        let Ending { id, oneway, streamed, .. } = *ending;
        let inner = Arc::clone(&self.inner);
        let mut shared = inner.lock();
        match aside.map(|aside| *aside) {
            Some(Aside::Stream(stream)) if streamed => {
                let to = shared.outbound.open_results(id);
                // The deadline was for the opening.
                let context = crate::Context { expires: None, ..self.current.context.clone() };
                let pump = Pump::new(Arc::clone(&inner), to, stream.0);
                // A runtime that is shut down drops it at once, and it takes the lock then.
                drop(shared);
                tokio::spawn(Scoped { context, future: Box::pin(pump) });
                shared = inner.lock();
            }
            Some(Aside::Large { status, head, tail }) if !oneway => {
                match head.len() + tail.len() <= WHOLE {
                    true => self.replies.frame_with_segment(Header::new(Kind::Reply, 0, status, id), &[&head], tail),
                    false => shared.outbound.reply_in_fragments(id, status, &head, tail),
                }
                self.resting = shared.outbound.resting();
                shared.outbound.served(id);
            }
            Some(_) | None => shared.outbound.served(id),
        }
        match streamed {
            true => {
                // Its place among the parked is another's from now on.
                self.inbound.occupy(id);
                shared.outbound.take_over(&mut self.free_numbers);
            }
            false => self.inbound.finished(id, oneway),
        }
        drop(shared);
        self.reap();
    }

    /// The numbers of served calls with streams that are over may be used again.
    #[inline]
    pub(super) fn reap(&mut self) {
        for id in self.free_numbers.drain(..) {
            self.inbound.finished(id, false);
        }
    }

    #[cold]
    pub(super) fn failed_call(&mut self, ending: Ending, error: &RpcError) {
        if !ending.oneway {
            write_failure(self.replies.small(), ending.id, error);
        }
        (self.current.finish, self.current.aside) = (Some(Finish::Failed(error.code(), error.certainty())), None);
        self.ended_call(ending);
    }

    /// Polls the parked handlers that were woken. Says whether some are held back because too much
    /// waits to be written.
    pub(super) fn run_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let (limit, resting) = (self.inner.limits.out_buffer, self.is_full());
        let (current, replies, mut over) = (&mut self.current, &mut self.replies, std::mem::take(&mut self.over));
        let left = self.parked.poll_woken(
            |entry, cx| {
                if resting || replies.len() > limit {
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
                    Ok(Poll::Ready(())) => Poll::Ready(Ok((current.finish.take(), current.aside.take()))),
                    Err(payload) => {
                        // It may have written its reply before it panicked, or put it aside.
                        replies.small().truncate(written);
                        current.aside = None;
                        Poll::Ready(Err(panicked(&*payload)))
                    }
                })
            },
            |entry, result| {
                let ending = entry.ending();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
                over.push((ending, result));
            },
        );
        for (ending, result) in over.drain(..) {
            match result {
                Err(error) => self.failed_call(ending, &error),
                Ok((finish, aside)) => {
                    (self.current.finish, self.current.aside) = (finish, aside);
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

    /// The caller of a call is gone: its handler is dropped if the method allows it, and not started
    /// if it was not yet.
    pub(super) fn cancelled(&mut self, id: u32) {
        if self.cancel_waiting(id) {
            return;
        }
        if let Some(token) = self.inbound.on_cancel(id) {
            let Some(&Entry { cancel, streamed, .. }) = self.parked.get(token) else { return };
            if cancel {
                self.drop_parked(token, &RpcError::new(Code::Cancelled, "the caller went away"));
            }
            // Its stream of arguments has ended, too, whatever becomes of the handler.
            if streamed {
                self.cancelled_in_flow(id);
            }
        } else if self.inbound.is_queued(id) {
            self.gone.insert(id);
        } else if let Some(at) = self.streamed_in_backlog(id) {
            if let Some(Arrived { request, stream }) = self.backlog.remove(at) {
                drop(stream);
                self.held -= request.body.len();
                self.refuse_gone(request);
            }
        } else {
            self.cancelled_in_flow(id);
        }
    }

    /// Where a call with streams waits to be started; there are at most as many as the limit `streams`.
    fn streamed_in_backlog(&self, id: u32) -> Option<usize> {
        if self.backlog.is_empty() || !self.inner.lock().outbound.serves(id) {
            return None;
        }
        self.backlog.iter().position(|a| a.request.id == id && a.request.streams != Streams::default())
    }

    /// Cancels what is under way beside a call.
    #[cold]
    fn cancelled_in_flow(&mut self, id: u32) {
        let unstarted = RpcError::not_executed(Code::Cancelled, "the caller went away before its call was whole");
        let held = self.inbound.refuse_held(id, &unstarted, &mut self.replies);
        let mut shared = self.inner.lock();
        if held {
            shared.outbound.forget_args(id);
        }
        shared.outbound.caller_gone(id, &mut self.wake);
        shared.outbound.take_over(&mut self.free_numbers);
        drop(shared);
        self.reap();
        self.wake_callers();
    }

    pub(super) fn drop_parked(&mut self, token: usize, error: &RpcError) {
        let Some(entry) = self.parked.remove(token) else { return };
        let ending = entry.ending();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
        self.failed_call(ending, error);
    }
}

/// What became of a parked handler: how it ended, or that it panicked.
pub(super) type Ended = Result<(Option<Finish>, Option<Box<Aside>>), RpcError>;

#[cold]
pub(super) fn too_late() -> RpcError {
    RpcError::not_executed(Code::DeadlineExceeded, "the deadline passed before the handler was started").with_stage(Stage::ServerQueue)
}

#[cold]
pub(crate) fn crowded(limit: usize) -> RpcError {
    let why = format!("{limit} calls are in flight on this server, its limit `server_in_flight`: call another, or later");
    RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
}
