//! One call, from its arguments to its reply, in four styles.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::error::display_duration;
use farcall_core::reading::decode;
use farcall_core::{Certainty, Code, CodecId, Fault, Metadata, Reading, Reply, RpcError, Stage, Trace};
use farcall_wire::{Answer, Body, CallId, CallOptions, Receiver, Replies, Sender, Start, Streams};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::channel::{Channel, Place, Wish};
use crate::connection::{Bound, Connection, RoomPlace, Started};
use crate::context::{Peer, Scoped, inherited};
use crate::early::Arguments;
use crate::intercept::{Around, Chain, Changed, Ends, Service};
use crate::keys::{Attempt, Key};
use crate::method::{BoxFuture, Form, ItemShapes, Method, Unformed, Upload, error_shape, result_shape};
use crate::observer::{Ended, Outcome, Side};
use crate::skeleton::json_only;
use crate::stream::{Pump, Received};
use crate::{runtime, scratch};

/// Arguments above this many bytes are written from where they are instead of being copied into the
/// connection's buffer.
const SEGMENT: usize = 16 << 10;

/// How long past its deadline a blocking caller leaves it to the driver to end a call.
pub(crate) const GRACE: Duration = Duration::from_millis(25);

/// A call that a stub's method returned. Nothing is encoded or sent until it is started in one of
/// four styles:
///
/// - asynchronous: `.await` it (it is a [`Future`], so `try_join!` and `select!` take it);
/// - synchronous: [`wait`](Call::wait);
/// - callback: [`then`](Call::then);
/// - started now and awaited later: [`send`](Call::send).
///
/// Dropping a started call withdraws it: a request that was not written never runs; otherwise the
/// provider is told and drops the handler if the method is idempotent or marked `cancel`.
#[must_use = "a call does nothing until it is awaited, waited for, sent or given a callback"]
pub struct Call<M: Method> {
    channel: Channel,
    args: Option<M::Args>,
    /// The stream behind them, until the call is on its way.
    up: Option<M::Up>,
    deadline: Deadline,
    extra: Option<Box<Extra>>,
    started: Option<Instant>,
    /// The interceptors that it is inside of.
    inside: Inside,
    state: State<M>,
}

/// How far in a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Inside {
    Nothing,
    /// Of those around calls: it is an attempt.
    Calls,
    /// Of all.
    All,
}

#[derive(Clone, Copy)]
enum Deadline {
    Default,
    In(Duration),
    Never,
}

/// Options that few calls have.
#[derive(Default)]
struct Extra {
    metadata: Metadata,
    trace: Option<Trace>,
    codec: Option<CodecId>,
    key: Option<Key>,
    /// With the key, on its way.
    attempt: Option<Attempt>,
    invalid: Option<RpcError>,
    /// Chosen beforehand.
    connection: Option<Arc<Connection>>,
    /// Whom the end of its stream of results is told.
    ends: Option<Box<Ends>>,
}

impl Extra {
    fn options(&self, codec: CodecId) -> CallOptions {
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        CallOptions { metadata, trace: self.trace, codec, ..CallOptions::default() }
    }
}

enum State<M: Method> {
    New,
    /// Encoded; no connection yet, or no room in its out-buffer.
    Waiting(Box<Waiting>),
    Flying(Arc<Connection>, CallId),
    Local(Pin<Box<Local<M>>>),
    /// Inside of interceptors.
    Around(Intercepted<M>),
    Over,
}

struct Waiting {
    body: Bytes,
    options: Vec<u8>,
    place: Option<Place>,
    room: Option<RoomPlace>,
    /// The connection that the place is one of.
    full: Option<Arc<Connection>>,
    /// The address of a connection that it would rather not take.
    but: Option<usize>,
    since: Instant,
    deadline: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    /// Read back from what will be sent.
    fn options(&self) -> Result<CallOptions, RpcError> {
        match self.options.is_empty() {
            true => Ok(CallOptions::default()),
            false => CallOptions::take(&mut Bytes::copy_from_slice(&self.options), usize::MAX),
        }
    }
}

// Nothing in it is ever pinned in place.
impl<M: Method> Unpin for Call<M> {}

impl<M: Method> Call<M> {
    /// A call of `M` with these arguments: called by generated stubs.
    #[doc(hidden)]
    #[inline]
    pub fn new(channel: Channel, args: M::Args, up: M::Up) -> Call<M> {
        let inside = Inside::Nothing;
        Call { channel, args: Some(args), up: Some(up), deadline: Deadline::Default, extra: None, started: None, inside, state: State::New }
    }

    /// Gives up after `time`. The default is the channel's, 10 s; a call made by a handler never
    /// outlives the handler's own deadline. If the result is a stream it covers the opening only; a call
    /// that takes a stream has none unless it is set, and must then end within it.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Deadline::In(time);
        self
    }

    /// Never gives up of its own accord.
    pub fn no_deadline(mut self) -> Self {
        self.deadline = Deadline::Never;
        self
    }

    /// Sends `value` beside the arguments. Keys are lower-case ASCII.
    pub fn metadata(mut self, key: &str, value: impl Into<String>) -> Self {
        let extra = self.extra.get_or_insert_default();
        if let Err(e) = extra.metadata.set(key, value) {
            extra.invalid = Some(e);
        }
        self
    }

    /// Sends this trace instead of the one of the call being handled.
    pub fn trace(mut self, trace: Trace) -> Self {
        self.extra.get_or_insert_default().trace = Some(trace);
        self
    }

    /// Encodes arguments and result in this codec instead of the client's, which is the compact one unless it was
    /// connected with another.
    pub fn codec(mut self, codec: CodecId) -> Self {
        self.extra.get_or_insert_default().codec = Some(codec);
        self
    }

    /// Sends an idempotency key: if the call ends with [`Certainty::MaybeExecuted`], it can be made again
    /// with the same key and the same arguments without running twice. See [`Key`].
    ///
    /// On an idempotent method it does nothing, because none is needed; a one-way call refuses it. A
    /// provider in this process is called once per key.
    pub fn key(mut self, key: &Key) -> Self {
        let extra = self.extra.get_or_insert_default();
        match M::service().methods.get(M::INDEX as usize).map(Key::serves) {
            Some(Ok(true)) => extra.key = Some(key.clone()),
            Some(Err(e)) => extra.invalid = Some(e),
            Some(Ok(false)) | None => {}
        }
        self
    }

    /// Makes the call and blocks until it has ended. For programs and threads without a runtime and
    /// for blocking handlers; inside an async runtime it is an error
    /// ([`Code::FailedPrecondition`], not sent), because it would block the thread it needs.
    pub fn wait(mut self) -> Reply<M::Out, M::Err> {
        match self.block() {
            Ok(reply) => reply,
            Err(e) => {
                let key = self.extra.as_ref().and_then(|extra| extra.key.as_ref());
                let e = key.map_or(e.clone(), |key| key.settle(e));
                Err(e.with_method(name::<M>()).into())
            }
        }
    }

    /// Blocks until it has ended. Its deadline holds even if the runtime that drives its connection
    /// stands still.
    fn block(&mut self) -> Result<Reply<M::Out, M::Err>, RpcError> {
        runtime::wait_polling(|cx| {
            if let Poll::Ready(reply) = Pin::new(&mut *self).poll(cx) {
                return (Poll::Ready(reply), None);
            }
            let State::Flying(connection, id) = &self.state else { return (Poll::Pending, None) };
            let Some(overdue) = connection.expires(*id).map(|at| at + GRACE) else { return (Poll::Pending, None) };
            if crate::time::now() < overdue {
                return (Poll::Pending, Some(overdue));
            }
            connection.expire();
            (Pin::new(&mut *self).poll(cx), Some(crate::time::now() + GRACE))
        })
    }

    /// Makes the call and gives its reply to `f`, exactly once: also when the connection is lost,
    /// the client is dropped or the runtime is shut down. `f` runs on a task of its own, never in the
    /// connection's.
    pub fn then(self, f: impl FnOnce(Reply<M::Out, M::Err>) + Send + 'static) {
        let callback = Callback::<M, _>(Some(f), std::marker::PhantomData);
        let mut call = self;
        // On its way before this returns, like `send`.
        let first = call.poll_once();
        runtime::handle().spawn(async move {
            let reply = match first {
                Some(reply) => reply,
                None => call.await,
            };
            callback.run(reply);
        });
    }

    /// Starts the call now; await the result later. Dropping it cancels the call.
    pub fn send(mut self) -> Pending<M> {
        if let Some(reply) = self.poll_once() {
            return Pending(Sent::Over(Some(reply)));
        }
        match self.state {
            State::Flying(..) => Pending(Sent::Call(self)),
            // It needs somebody to go on with it when there is a connection.
            _ => Pending(Sent::Task(runtime::handle().spawn(self))),
        }
    }

    fn poll_once(&mut self) -> Option<Reply<M::Out, M::Err>> {
        let handle = runtime::handle();
        let _inside = handle.enter();
        match Pin::new(self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        }
    }

    /// Whether interceptors around calls are still to come.
    pub(crate) fn is_outside(&self) -> bool {
        self.inside == Inside::Nothing && matches!(self.state, State::New) && self.channel.around_calls().is_some()
    }

    /// They stand around what holds it.
    pub(crate) fn is_inside_calls(&mut self) {
        self.inside = Inside::Calls;
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Takes this connection of its channel, as others do that are made together with it.
    pub(crate) fn take(&mut self, connection: Arc<Connection>) {
        self.extra.get_or_insert_default().connection = Some(connection);
    }

    /// Goes another way than `first` if there is one.
    pub(crate) fn part_from(&mut self, first: &Call<M>) {
        if let (State::Waiting(waiting), State::Flying(connection, _)) = (&mut self.state, &first.state) {
            waiting.but = Some(Arc::as_ptr(connection).addr());
        }
    }

    /// A second call with the same arguments and the same deadline, before the first is started.
    /// `None` for a provider in this process.
    pub(crate) fn twin(&mut self) -> Result<Option<Call<M>>, RpcError> {
        if !matches!(self.state, State::New) || self.channel.local_target().is_some() {
            return Ok(None);
        }
        let (expires, trace) = inherited();
        let deadline = self.time_left(expires)?;
        let (codec, options) = self.options(trace)?;
        let mut body = Vec::new();
        let whole = self.args.take().map(|args| args.encode(codec, &mut body)).transpose().map_err(unencodable)?;
        let body = whole.flatten().unwrap_or_else(|| Bytes::from(body));
        let since = crate::time::now();
        let waiting = || {
            State::Waiting(Box::new(Waiting {
                body: body.clone(),
                options: options.clone(),
                place: None,
                room: None,
                full: None,
                but: None,
                since,
                deadline,
                timer: None,
            }))
        };
        self.state = waiting();
        let extra = (codec != self.channel.default_codec()).then(|| Box::new(Extra { codec: Some(codec), ..Extra::default() }));
        Ok(Some(Call {
            channel: self.channel.clone(),
            args: None,
            up: None,
            deadline: self.deadline,
            extra,
            started: None,
            inside: self.inside,
            state: waiting(),
        }))
    }

    #[inline]
    fn codec_id(&self) -> CodecId {
        match self.extra.as_ref().and_then(|e| e.codec).unwrap_or_else(|| self.channel.default_codec()) {
            // Nobody chose the compact codec by name, or meant it for types that have no schema.
            CodecId::Compact if M::JSON => CodecId::Json,
            codec => codec,
        }
    }

    /// The unit of a one-way call does not come from the provider: it is nothing, as in the compact codec.
    #[inline]
    fn answer_codec(&self) -> CodecId {
        if M::ONEWAY { CodecId::Compact } else { self.codec_id() }
    }

    /// Time for the call, what it inherits included.
    fn time_left(&self, inherited: Option<Instant>) -> Result<Option<Duration>, RpcError> {
        let own = match self.deadline {
            // A stream of arguments may take any time.
            Deadline::Default if M::Up::STREAM => None,
            Deadline::Default => self.channel.default_deadline(),
            Deadline::In(time) => Some(time),
            Deadline::Never => None,
        };
        if own.is_some_and(|own| own.is_zero()) {
            return Err(
                RpcError::not_sent(Code::DeadlineExceeded, "the deadline is zero: no time to make the call").with_stage(Stage::ClientQueue)
            );
        }
        let Some(at) = inherited else { return Ok(own) };
        let left = at.saturating_duration_since(crate::time::now());
        if left.is_zero() {
            let why = "the deadline of the call being handled passed before this call was made";
            return Err(RpcError::not_sent(Code::DeadlineExceeded, why).with_stage(Stage::ClientQueue));
        }
        Ok(Some(own.map_or(left, |own| own.min(left))))
    }

    /// Encodes the arguments and queues the request, or finds out what to wait for.
    #[inline]
    fn start(&mut self, cx: &mut Context<'_>) -> Result<Option<Answer>, RpcError> {
        let Some(args) = self.args.take() else {
            return Err(RpcError::not_sent(Code::Internal, "this call has been made before"));
        };
        if !self.channel.observers().is_empty() {
            self.started = Some(crate::time::now());
        }
        let (expires, trace) = inherited();
        let deadline = self.time_left(expires)?;
        if self.channel.local_target().is_some() {
            return self.start_local(args, deadline, trace).map(|()| None);
        }
        let (codec, options) = self.options(trace)?;
        let mut buffer = scratch::take();
        let mut whole = match args.encode(codec, &mut buffer) {
            Ok(whole) => whole,
            Err(e) => {
                scratch::give(buffer);
                return Err(unencodable(e));
            }
        };
        if buffer.len() > SEGMENT {
            whole = Some(scratch::lend(std::mem::take(&mut buffer)));
        }
        let mut room = None;
        let chosen = self.extra.as_mut().and_then(|extra| extra.connection.take());
        let started = match chosen.or_else(|| self.channel.connection()) {
            Some(connection) => {
                let body = match &whole {
                    Some(body) if body.len() > SEGMENT => Body::Segment(body.clone()),
                    Some(body) => Body::Copy(body),
                    None => Body::Copy(&buffer),
                };
                self.queue(connection, start::<M>(deadline.map(to_ms), &options, body), cx.waker(), &mut room)
            }
            None => Ok(Queued::NotYet),
        };
        if let Ok(Queued::NotYet | Queued::Gone) = started {
            let body = whole.unwrap_or_else(|| Bytes::copy_from_slice(&buffer));
            let (place, full, but, timer) = (None, None, None, None);
            self.state = State::Waiting(Box::new(Waiting {
                body,
                options,
                place,
                room: None,
                full,
                but,
                since: crate::time::now(),
                deadline,
                timer,
            }));
        }
        scratch::give(buffer);
        match started? {
            Queued::NotYet | Queued::Gone => self.go_on(cx),
            Queued::Yes(answer) => Ok(answer),
        }
    }

    fn options(&mut self, inherited: Option<Trace>) -> Result<(CodecId, Vec<u8>), RpcError> {
        let codec = self.codec_id();
        if M::JSON && codec != CodecId::Json {
            return Err(json_only::<M>(codec, RpcError::not_sent));
        }
        let Some(extra) = &mut self.extra else {
            return match (inherited, codec) {
                (None, CodecId::Compact) => Ok((codec, Vec::new())),
                (trace, codec) => Ok((codec, CallOptions { trace, codec, ..CallOptions::default() }.encode())),
            };
        };
        if let Some(e) = extra.invalid.take() {
            return Err(e);
        }
        extra.trace = extra.trace.or(inherited);
        Ok((codec, extra.options(codec).encode()))
    }

    /// Gives the request to a connection.
    #[inline]
    fn queue(
        &mut self,
        connection: Arc<Connection>,
        start: Start<'_>,
        waker: &Waker,
        room: &mut Option<RoomPlace>,
    ) -> Result<Queued, RpcError> {
        match self.extra.as_ref().and_then(|extra| extra.key.clone()) {
            None => self.hand_over(connection, start, waker, room),
            Some(key) => self.queue_keyed(&key, connection, start, waker, room),
        }
    }

    /// The same with a key: what is known of earlier attempts goes with it, so its options are
    /// encoded only now.
    #[cold]
    fn queue_keyed(
        &mut self,
        key: &Key,
        connection: Arc<Connection>,
        start: Start<'_>,
        waker: &Waker,
        room: &mut Option<RoomPlace>,
    ) -> Result<Queued, RpcError> {
        let (attempt, key) = key.attempt(Some(&connection.inner.peer))?;
        let base = self.extra.as_ref().map(|extra| extra.options(self.codec_id())).unwrap_or_default();
        let options = CallOptions { key: Some(key), ..base }.encode();
        let queued = self.hand_over(connection, Start { options: &options, ..start }, waker, room);
        match (&queued, &mut self.extra) {
            (Ok(Queued::Yes(_)), Some(extra)) => extra.attempt = Some(attempt),
            (Err(e), _) => attempt.ended(e.certainty()),
            (Ok(_), _) => attempt.ended(Certainty::NotSent),
        }
        queued
    }

    #[inline]
    fn hand_over(
        &mut self,
        connection: Arc<Connection>,
        start: Start<'_>,
        waker: &Waker,
        room: &mut Option<RoomPlace>,
    ) -> Result<Queued, RpcError> {
        let service = Bound::Stub(M::service());
        if M::ONEWAY {
            return Ok(match connection.start_oneway(service, M::INDEX, start, waker, room)? {
                // Its result is a unit, which is encoded as nothing.
                None => Queued::Yes(Some(Answer::Ok(Bytes::new()))),
                Some(Started::Closed) => Queued::Gone,
                Some(_) => Queued::NotYet,
            });
        }
        Ok(match connection.start(service, M::INDEX, start, waker, room)? {
            Started::Sent(id, sender) => {
                if let Some(sender) = sender {
                    self.send_stream(&connection, sender);
                }
                self.state = State::Flying(connection, id);
                Queued::Yes(None)
            }
            Started::Full => Queued::NotYet,
            Started::Closed => Queued::Gone,
        })
    }

    /// Starts sending the stream of arguments.
    #[cold]
    fn send_stream(&mut self, connection: &Connection, to: Sender) {
        if let Some(stream) = self.up.take().and_then(|up| up.outgoing(self.codec_id(), ItemShapes::of_args::<M>())) {
            let pump = Pump::new(Arc::clone(&connection.inner), to, stream.0);
            let context = crate::Context { expires: None, ..crate::context() };
            runtime::handle().spawn(Scoped { context, future: Box::pin(pump) });
        }
    }

    /// Waits for a connection with room, and no longer than the deadline.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<Option<Answer>, RpcError> {
        let State::Waiting(mut waiting) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(RpcError::new(Code::Internal, "this call has ended before"));
        };
        if self.started.is_none() && !self.channel.observers().is_empty() {
            self.started = Some(crate::time::now());
        }
        let within = waiting.deadline.map(|d| d.saturating_sub(crate::time::since(waiting.since)));
        let connection = self.channel.poll_connection(Wish { within, but: waiting.but }, &mut waiting.place, cx);
        if let Some(deadline) = waiting.deadline {
            let left = deadline.saturating_sub(crate::time::since(waiting.since));
            let timer = waiting.timer.get_or_insert_with(|| sleep(left));
            if timer.as_mut().poll(cx).is_ready() {
                let (stage, what) = match connection {
                    Poll::Ready(Ok(_)) => (Stage::ClientQueue, "the out-buffer to the provider stayed full"),
                    _ => (Stage::Connect, "no connection to the provider yet"),
                };
                let why = format!("deadline {}: {what}", display_duration(deadline));
                return Err(RpcError::not_sent(Code::DeadlineExceeded, why).with_stage(stage));
            }
        }
        let connection = match connection {
            Poll::Ready(connection) => connection?,
            Poll::Pending => {
                self.state = State::Waiting(waiting);
                return Ok(None);
            }
        };
        let left = waiting.deadline.map(|d| to_ms(d.saturating_sub(crate::time::since(waiting.since))));
        let start = start::<M>(left, &waiting.options, Body::Segment(waiting.body.clone()));
        let mut room = waiting.room.filter(|_| waiting.full.as_ref().is_some_and(|full| Arc::ptr_eq(full, &connection)));
        waiting.full = Some(Arc::clone(&connection));
        match self.queue(connection, start, cx.waker(), &mut room)? {
            Queued::Yes(answer) => return Ok(answer),
            Queued::NotYet => {}
            // The channel has not seen it yet, or has: either way it is asked again.
            Queued::Gone => cx.waker().wake_by_ref(),
        }
        waiting.room = room;
        self.state = State::Waiting(waiting);
        Ok(None)
    }

    fn start_local(&mut self, args: M::Args, deadline: Option<Duration>, inherited: Option<Trace>) -> Result<(), RpcError> {
        let Some(target) = self.channel.local_target() else {
            return Err(RpcError::not_sent(Code::Internal, "not a local channel"));
        };
        let mut context =
            crate::Context { expires: deadline.and_then(|d| crate::time::now().checked_add(d)), trace: inherited, ..Default::default() };
        if let Some(extra) = &mut self.extra {
            if let Some(e) = extra.invalid.take() {
                return Err(e);
            }
            context.trace = extra.trace.or(inherited);
            context.metadata = (!extra.metadata.is_empty()).then(|| Arc::new(extra.metadata.clone()));
            extra.attempt = extra.key.as_ref().map(|key| key.attempt(None)).transpose()?.map(|(attempt, _)| attempt);
        }
        let Some(up) = self.up.take() else {
            return Err(RpcError::not_sent(Code::Internal, "this call has been made before"));
        };
        let up = up.local(&crate::context());
        let handler = context.clone();
        let local = M::local(target, args, up);
        let future = Box::pin(async move { local.await.map(|out| M::Form::local(out, &handler)) });
        let task = runtime::handle().spawn(Scoped { context, future });
        let timer = deadline.map(|d| (d, sleep(d)));
        let cancel = M::service().methods.get(M::INDEX as usize).is_some_and(|m| m.traits.cancel);
        self.state = State::Local(Box::pin(Local { task, timer, cancel }));
        Ok(())
    }

    fn decode(&mut self, answer: Answer, connection: Option<Arc<Connection>>) -> Reply<M::Out, M::Err> {
        let replies = connection.as_ref().and_then(|connection| connection.inner.replies(M::service(), M::INDEX));
        let plan = |of: fn(&Replies) -> &Reading| replies.as_ref().and_then(|replies| of(replies).value());
        let codec = self.answer_codec();
        let undecodable = |what: &str, e| {
            let why = format!("the {what} cannot be decoded: {e}");
            Err(RpcError::new(Code::Internal, why).with_stage(Stage::Result).with_method(name::<M>()).into())
        };
        match answer {
            Answer::Ok(body) => match decode::<Unformed<M::Out, M::Form>>(plan(|r| &r.result), codec, &body, result_shape::<M>) {
                Ok(out) => Ok(out.0),
                Err(e) if M::ONEWAY => undecodable("unit of a one-way call", e),
                Err(e) => undecodable("result", e),
            },
            Answer::AppError(body) => match decode::<M::Err>(plan(|r| &r.error), codec, &body, error_shape::<M>) {
                Ok(error) => Err(error.lift()),
                Err(e) => undecodable("error", e),
            },
            Answer::Stream(at) => self.receive(at, connection, replies.map(|replies| replies.result)),
            Answer::Failed(e) => Err(e.with_method(name::<M>()).into()),
        }
    }

    /// The result is a stream.
    #[cold]
    fn receive(&mut self, at: Receiver, connection: Option<Arc<Connection>>, reading: Option<Arc<Reading>>) -> Reply<M::Out, M::Err> {
        let ends = self.extra.as_mut().and_then(|extra| extra.ends.take()).map(Ends::begin);
        let stream = connection.and_then(|connection| {
            let (inner, codec) = (Arc::clone(&connection.inner), self.codec_id());
            let (connection, method) = (Some(connection), name::<M>());
            let received = Received { inner, connection, at, taken: VecDeque::new(), codec, method, ends, reading };
            M::Form::incoming(received, ItemShapes::of_result::<M>())
        });
        stream.ok_or_else(|| RpcError::new(Code::Internal, "a stream came back for a method that has none").with_method(name::<M>()).into())
    }

    #[cold]
    fn observe(&self, ended: Ended, peer: &str) {
        let Some(started) = self.started else { return };
        let service = M::service();
        let outcome = Outcome {
            side: Side::Client,
            service: &service.name,
            method: service.methods.get(M::INDEX as usize).map_or("", |m| &m.name),
            peer,
            elapsed: crate::time::since(started),
            ended,
        };
        self.channel.observers().iter().for_each(|o| o.ended(&outcome));
    }

    /// An attempt with a key has ended: what the caller learns covers earlier ones too.
    #[cold]
    fn settle(&mut self, answer: Answer) -> Answer {
        let Some(Extra { key: Some(key), attempt, .. }) = self.extra.as_deref_mut() else { return answer };
        if let Some(attempt) = attempt.take() {
            attempt.ended(match &answer {
                Answer::Failed(e) => e.certainty(),
                Answer::Ok(_) | Answer::AppError(_) | Answer::Stream(_) => Certainty::MaybeExecuted,
            });
        }
        match answer {
            Answer::Failed(e) => Answer::Failed(key.settle(e)),
            answered => answered,
        }
    }

    /// Goes inside of the next interceptors, if there are some around it.
    #[inline]
    fn go_inside(&mut self) {
        let (calls, attempts) = (self.channel.around_calls().is_some(), self.channel.around_attempts().is_some());
        match self.inside {
            Inside::Nothing if calls => self.enter_chain(Inside::Calls),
            Inside::Nothing | Inside::Calls if attempts => self.enter_chain(Inside::All),
            _ => self.inside = Inside::All,
        }
    }

    #[cold]
    fn enter_chain(&mut self, inside: Inside) {
        self.inside = Inside::All;
        // What is wrong with it already is found out again, without them.
        let Ok(context) = self.as_intercepted() else { return };
        if !self.channel.observers().is_empty() {
            self.started = Some(crate::time::now());
        }
        let state = std::mem::replace(&mut self.state, State::Over);
        let (args, up, extra) = (self.args.take(), self.up.take(), self.extra.take());
        let call = Call { channel: self.channel.clone(), args, up, deadline: self.deadline, extra, started: None, inside, state };
        self.state = State::Around(match inside {
            Inside::Calls => around_call::<M, _>(&self.channel, context, call),
            _ => Box::pin(around_attempt(self.channel.clone(), context, call)),
        });
    }

    /// What interceptors see of it.
    pub(crate) fn as_intercepted(&self) -> Result<crate::Context, RpcError> {
        let (expires, trace) = inherited();
        let (metadata, trace, time) = match (&self.state, &self.extra) {
            (State::Waiting(waiting), _) => {
                let options = waiting.options()?;
                let time = waiting.deadline.map(|d| d.saturating_sub(crate::time::since(waiting.since)));
                (options.metadata, options.trace, time)
            }
            (_, Some(extra)) => (Some(extra.metadata.clone()), extra.trace.or(trace), self.time_left(expires)?),
            (_, None) => (None, trace, self.time_left(expires)?),
        };
        let metadata = metadata.filter(|m| !m.is_empty()).map(Arc::new);
        Ok(crate::Context { peer: None, expires: time.and_then(|time| crate::time::now().checked_add(time)), metadata, trace })
    }

    fn change(&mut self, changed: Changed, connection: Option<Arc<Connection>>) -> Result<(), RpcError> {
        let Changed { context, ends } = changed;
        let left = context.expires.map(|at| at.saturating_duration_since(crate::time::now()));
        let metadata = context.metadata.map(|m| Metadata::clone(&m)).unwrap_or_default();
        let extra = self.extra.get_or_insert_default();
        (extra.ends, extra.trace) = (Ends::both(extra.ends.take(), ends), context.trace);
        if let State::Waiting(waiting) = &mut self.state {
            let metadata = (!metadata.is_empty()).then_some(metadata);
            waiting.options = CallOptions { metadata, trace: context.trace, ..waiting.options()? }.encode();
            waiting.deadline = left.map(|left| left + crate::time::since(waiting.since));
            return Ok(());
        }
        extra.metadata = metadata;
        if connection.is_some() {
            extra.connection = connection;
        }
        self.deadline = left.map_or(Deadline::Never, Deadline::In);
        Ok(())
    }

    /// The chain around it has ended.
    fn end_around(&mut self, ended: Result<Reply<M::Out, M::Err>, RpcError>) -> Reply<M::Out, M::Err> {
        self.state = State::Over;
        if let Err(e) = &ended
            && e.certainty() == Certainty::NotSent
        {
            // No call inside of it has told.
            self.observe(Ended::Failed(e.code(), Certainty::NotSent), "");
        }
        ended.unwrap_or_else(|e| Err(e.with_method(name::<M>()).into()))
    }

    #[inline]
    fn end(&mut self, answer: Answer) -> Poll<Reply<M::Out, M::Err>> {
        let before = std::mem::replace(&mut self.state, State::Over);
        if self.started.is_some() {
            let ended = match &answer {
                Answer::Ok(_) | Answer::Stream(_) => Ended::Ok,
                Answer::AppError(_) => Ended::AppError,
                Answer::Failed(e) => Ended::Failed(e.code(), e.certainty()),
            };
            let peer = match &before {
                State::Flying(connection, _) => connection.inner.peer.address.as_str(),
                _ => "",
            };
            self.observe(ended, peer);
        }
        let connection = match before {
            State::Flying(connection, _) => Some(connection),
            _ => None,
        };
        let answer = if self.extra.is_some() { self.settle(answer) } else { answer };
        Poll::Ready(self.decode(answer, connection))
    }
}

/// A call inside of interceptors, to its end.
pub(crate) type Intercepted<M> = BoxFuture<'static, Result<Reply<<M as Method>::Out, <M as Method>::Err>, RpcError>>;

/// What interceptors stand around: a call, or one with a hedge.
pub(crate) trait Changeable<M: Method>: Future<Output = Reply<M::Out, M::Err>> + Send + 'static {
    /// As they left it.
    fn change(&mut self, changed: Changed, connection: Option<Arc<Connection>>) -> Result<(), RpcError>;
}

impl<M: Method> Changeable<M> for Call<M> {
    fn change(&mut self, changed: Changed, connection: Option<Arc<Connection>>) -> Result<(), RpcError> {
        Call::change(self, changed, connection)
    }
}

/// The interceptors around calls, and `call` inside of them.
pub(crate) fn around_call<M: Method, C: Changeable<M>>(channel: &Channel, context: crate::Context, call: C) -> Intercepted<M> {
    match channel.around_calls() {
        Some(chain) => Box::pin(around::<M, C>(chain, None, context, call, None).run()),
        // Nobody asks for it then.
        None => Box::pin(async move { Ok(call.await) }),
    }
}

/// The interceptors around attempts, once there is a connection.
async fn around_attempt<M: Method>(
    channel: Channel,
    context: crate::Context,
    mut call: Call<M>,
) -> Result<Reply<M::Out, M::Err>, RpcError> {
    let Some(chain) = channel.around_attempts() else { return Ok(call.await) };
    let connection = match (channel.local_target(), call.extra.as_mut().and_then(|extra| extra.connection.take())) {
        (Some(_), _) => None,
        (None, Some(chosen)) => Some(chosen),
        (None, None) => {
            let left = context.expires.map(|at| at.saturating_duration_since(crate::time::now()));
            Some(channel.connection_within(left).await?)
        }
    };
    let peer = connection.as_ref().map(|connection| Arc::clone(&connection.inner.peer));
    around::<M, _>(chain, peer, context, call, connection).run().await
}

fn around<M: Method, C: Changeable<M>>(
    chain: &Chain,
    peer: Option<Arc<Peer>>,
    context: crate::Context,
    mut call: C,
    connection: Option<Arc<Connection>>,
) -> Around<Reply<M::Out, M::Err>> {
    Around::new(chain, Service::Static(M::service()), M::INDEX as usize, peer, context, move |changed| async move {
        ended::<M>(match call.change(changed, connection) {
            Ok(()) => call.await,
            Err(e) => Err(e.into()),
        })
    })
}

/// A reply, and how it ended.
fn ended<M: Method>(reply: Reply<M::Out, M::Err>) -> (Reply<M::Out, M::Err>, Ended) {
    match reply {
        Ok(out) => (Ok(out), Ended::Ok),
        Err(error) => match M::Err::split(error) {
            Ok(app) => (Err(app.lift()), Ended::AppError),
            Err(e) => {
                let ended = Ended::Failed(e.code(), e.certainty());
                (Err(e.into()), ended)
            }
        },
    }
}

/// A timer, also for tasks of executors that know nothing of tokio.
pub(crate) fn sleep(time: Duration) -> Pin<Box<Sleep>> {
    let handle = runtime::handle();
    let _inside = handle.enter();
    Box::pin(tokio::time::sleep(time))
}

#[cold]
fn unencodable(e: farcall_core::CodecError) -> RpcError {
    RpcError::not_sent(Code::InvalidArgument, format!("the arguments cannot be encoded: {e}")).with_stage(Stage::Encode)
}

#[inline]
fn start<'a, M: Method>(deadline: Option<u64>, options: &'a [u8], body: Body<'a>) -> Start<'a> {
    let streams = Streams { args: M::Up::STREAM, results: M::Form::STREAM };
    Start { row: 0, deadline, options, body, streams }
}

enum Queued {
    Yes(Option<Answer>),
    /// No connection, or no room in its buffer: wait.
    NotYet,
    /// The connection closed meanwhile: look for another.
    Gone,
}

/// Milliseconds, rounded up: a deadline is never shortened by rounding.
#[inline]
pub(crate) fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn name<M: Method>() -> String {
    M::service().full_name(M::INDEX as usize)
}

impl<M: Method> Future for Call<M> {
    type Output = Reply<M::Out, M::Err>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        if me.inside < Inside::All && matches!(me.state, State::New | State::Waiting(_)) {
            me.go_inside();
        }
        let progress = match &mut me.state {
            State::Around(around) => {
                let ended = std::task::ready!(around.as_mut().poll(cx));
                return Poll::Ready(me.end_around(ended));
            }
            State::Flying(connection, id) => match connection.poll(*id, cx.waker()) {
                Some(answer) => return me.end(answer),
                None => return Poll::Pending,
            },
            State::New => me.start(cx),
            State::Waiting(_) => me.go_on(cx),
            State::Local(local) => {
                let reply = std::task::ready!(local.as_mut().poll(cx));
                return me.end_local(reply);
            }
            State::Over => Err(RpcError::new(Code::Internal, "this call has ended before")),
        };
        match progress {
            Ok(Some(answer)) => me.end(answer),
            Err(e) => me.end(Answer::Failed(e)),
            Ok(None) => match &mut me.state {
                // A task was just made of it: it has to learn whom to wake.
                State::Local(_) => Pin::new(me).poll(cx),
                _ => Poll::Pending,
            },
        }
    }
}

impl<M: Method> Drop for Call<M> {
    fn drop(&mut self) {
        let certainty = match &self.state {
            State::Flying(connection, id) => connection.cancel(*id),
            // What is inside of interceptors is dropped with them, as a call of its own.
            State::New | State::Over | State::Around(_) => return,
            State::Waiting(_) => Certainty::NotSent,
            State::Local(_) => Certainty::MaybeExecuted,
        };
        if let Some(attempt) = self.extra.as_mut().and_then(|extra| extra.attempt.take()) {
            attempt.ended(certainty);
        }
        self.observe(Ended::Failed(Code::Cancelled, certainty), "");
    }
}

/// A call to a provider in this process, as a task: a handler that must not be cut off goes on when
/// its caller is gone.
struct Local<M: Method> {
    task: JoinHandle<Reply<M::Out, M::Err>>,
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
    cancel: bool,
}

impl<M: Method> Future for Local<M> {
    type Output = Result<Reply<M::Out, M::Err>, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(joined) = Pin::new(&mut self.task).poll(cx) {
            return Poll::Ready(joined.map_err(|e| match e.try_into_panic() {
                Ok(payload) => crate::skeleton::panicked(&*payload),
                Err(_) => RpcError::new(Code::Cancelled, "the runtime is shutting down"),
            }));
        }
        if let Some((deadline, timer)) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            let why = format!("deadline {}: still in the handler, in this process", display_duration(*deadline));
            return Poll::Ready(Err(RpcError::new(Code::DeadlineExceeded, why).with_stage(Stage::Handler)));
        }
        Poll::Pending
    }
}

impl<M: Method> Drop for Local<M> {
    fn drop(&mut self) {
        if self.cancel {
            self.task.abort();
        }
    }
}

impl<M: Method> Call<M> {
    fn end_local(&mut self, reply: Result<Reply<M::Out, M::Err>, RpcError>) -> Poll<Reply<M::Out, M::Err>> {
        self.state = State::Over;
        match reply {
            Err(e) => self.end(Answer::Failed(e)),
            Ok(Ok(out)) => {
                self.observe(Ended::Ok, "");
                Poll::Ready(Ok(out))
            }
            Ok(Err(error)) => match M::Err::split(error) {
                Ok(app) => {
                    self.observe(Ended::AppError, "");
                    Poll::Ready(Err(app.lift()))
                }
                Err(e) => self.end(Answer::Failed(e.with_certainty(Certainty::MaybeExecuted))),
            },
        }
    }
}

/// A call on its way, from [`Call::send`]. Await it for the reply; drop it to cancel the call.
#[must_use = "dropping it cancels the call"]
pub struct Pending<M: Method>(Sent<M>);

enum Sent<M: Method> {
    Call(Call<M>),
    Task(JoinHandle<Reply<M::Out, M::Err>>),
    Over(Option<Reply<M::Out, M::Err>>),
}

impl<M: Method> Unpin for Pending<M> {}

impl<M: Method> Pending<M> {
    /// Blocks until the reply is here; see [`Call::wait`].
    pub fn wait(mut self) -> Reply<M::Out, M::Err> {
        let waited = match &mut self.0 {
            Sent::Call(call) => call.block(),
            Sent::Task(_) | Sent::Over(_) => runtime::wait(self),
        };
        match waited {
            Ok(reply) => reply,
            // Unlike a call that was never started, this one is under way.
            Err(e) => Err(e.with_certainty(Certainty::MaybeExecuted).with_method(name::<M>()).into()),
        }
    }
}

impl<M: Method> Future for Pending<M> {
    type Output = Reply<M::Out, M::Err>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Sent::Call(call) => Pin::new(call).poll(cx),
            Sent::Task(task) => Pin::new(task).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(aborted::<M>(e).into()))),
            Sent::Over(reply) => match reply.take() {
                Some(reply) => Poll::Ready(reply),
                None => Poll::Ready(Err(RpcError::new(Code::Internal, "this call has ended before").into())),
            },
        }
    }
}

fn aborted<M: Method>(e: tokio::task::JoinError) -> RpcError {
    RpcError::new(Code::Cancelled, format!("the task of the call ended: {e}")).with_method(name::<M>())
}

impl<M: Method> Drop for Pending<M> {
    fn drop(&mut self) {
        if let Sent::Task(task) = &self.0 {
            task.abort();
        }
    }
}

/// A callback that is run exactly once, at the latest when it is dropped.
struct Callback<M: Method, F: FnOnce(Reply<M::Out, M::Err>)>(Option<F>, std::marker::PhantomData<fn() -> M>);

impl<M: Method, F: FnOnce(Reply<M::Out, M::Err>)> Callback<M, F> {
    fn run(mut self, reply: Reply<M::Out, M::Err>) {
        if let Some(f) = self.0.take() {
            f(reply);
        }
    }
}

impl<M: Method, F: FnOnce(Reply<M::Out, M::Err>)> Drop for Callback<M, F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            let why = "the runtime was shut down before the reply";
            let reply = Err(RpcError::new(Code::Cancelled, why).with_method(name::<M>()).into());
            // This may be during a panic already, and a second one would end the process.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(reply)));
        }
    }
}
