//! The provider's side of a stub: arguments decoded, the handler run, its result encoded.
//!
//! A [`Runner`] keeps one slot per service and connection in which handlers' futures are built and
//! polled; a handler that is ready at once costs no allocation and no task.

use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farcall_core::codec::Shape;
use farcall_core::reading::{decode, decode_lent};
use farcall_core::{Certainty, Code, CodecError, CodecId, Fault, Reading, Reply, RpcError, ServiceDescriptor, Stage, codec};
use farcall_wire::{Failure, HEADER, WHOLE, begin_reply, end_reply, status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::{JoinError, JoinHandle};

use crate::context::{Aside, Current, Finish, with_current};
use crate::early::Lending;
use crate::intercept::Outside;
use crate::method::{Form, Formed, ItemShapes, Method, args_shape, error_shape, result_shape};
use crate::stream::Received;

/// A service that can be served. The macro implements it for `…Server<P>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    label = "this is not the generated server of a service",
    note = "wrap the provider: for `trait Payment` write `.serve(PaymentServer::new(provider))`"
)]
pub trait Skeleton: Send + Sync + 'static {
    /// What the service is.
    fn descriptor(&self) -> &ServiceDescriptor;

    /// A place to run its handlers in, for one connection.
    #[doc(hidden)]
    fn runner(&self) -> Box<dyn Runner>;
}

/// A call on its way into a handler.
#[doc(hidden)]
pub struct Incoming {
    pub(crate) id: u32,
    pub(crate) oneway: bool,
    pub(crate) method: u16,
    pub(crate) codec: CodecId,
    /// The largest result that the caller takes.
    pub(crate) max_reply: usize,
    /// Taken when it is decoded: as a slice of what was read it would keep all of that.
    pub(crate) body: Cell<Bytes>,
    /// How the arguments are read, if caller and provider differ.
    pub(crate) reading: Option<Arc<Reading>>,
    /// Streams flow beside the call.
    pub(crate) streamed: bool,
    /// The stream of arguments, until the handler takes it.
    pub(crate) stream: Cell<Option<Box<Received>>>,
}

impl Incoming {
    /// Whether streams flow beside the call.
    pub(crate) fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Row of the method in the service's descriptor.
    #[inline]
    pub fn method(&self) -> u16 {
        self.method
    }

    /// Decodes the arguments.
    #[inline]
    pub fn args<M: Method<Args: DeserializeOwned>>(&self) -> Result<M::Args, RpcError> {
        self.args_as::<M, M::Args>()
    }

    /// The same as another type that is written alike.
    #[inline]
    pub(crate) fn args_as<M: Method, A: DeserializeOwned>(&self) -> Result<A, RpcError> {
        check_codec::<M>(self.codec)?;
        let plan = self.reading.as_ref().and_then(|reading| reading.value());
        decode(plan, self.codec, &self.body.take(), args_shape::<M>).map_err(|e| bad_args::<M>(&e))
    }

    /// What the handler of `M` borrows its arguments from.
    pub fn lender<M: Lending>(&self) -> Lender<M> {
        Lender { codec: self.codec, body: self.body.take(), reading: self.reading.clone(), method: PhantomData }
    }

    /// The stream of `M`'s arguments, in the form `F`.
    pub fn stream<M: Method, S, F: Form<S>>(&self) -> Result<S, RpcError> {
        let received = self.stream.take();
        let missing = || RpcError::not_executed(Code::Internal, "the call has no stream of arguments");
        received.and_then(|received| F::incoming(*received, ItemShapes::of_args::<M>())).ok_or_else(missing)
    }

    /// Answers with what the handler returned.
    #[inline]
    pub fn reply<M: Method>(&self, reply: Reply<M::Out, M::Err>) {
        self.answer::<M>(reply, from_handler);
    }

    /// Answers with this; `failed` makes of a failure what the caller sees of it.
    #[inline]
    pub(crate) fn answer<M: Method>(&self, reply: Reply<M::Out, M::Err>, failed: impl FnOnce(RpcError) -> RpcError) {
        match reply {
            Ok(out) if M::Form::STREAM => self.answer_stream::<M>(out),
            Ok(out) if self.answer_segment::<M>(&out) => {}
            Ok(out) => self.write(status::OK, Finish::Ok, &Formed::<M::Out, M::Form>(&out, PhantomData), result_shape::<M>),
            Err(error) => match M::Err::split(error) {
                Ok(app) => self.write(status::APP_ERROR, Finish::AppError, &app, error_shape::<M>),
                Err(e) => self.fail(&failed(e)),
            },
        }
    }

    #[inline]
    fn write<T: Serialize>(&self, status: u16, finish: Finish, value: &T, shape: fn() -> Option<Shape<'static>>) {
        if self.oneway {
            return with_current(|c| c.finish = Some(finish));
        }
        // Serializing may run the user's code: the buffer is out of the thread's cell meanwhile.
        let mut lent = Lent::take();
        let start = begin_reply(&mut lent.replies, self.id, status);
        let body = lent.replies.len();
        let encoded = codec::encode_into(self.codec, value, shape, &mut lent.replies);
        let len = lent.replies.len() - body;
        let failed = match encoded {
            Ok(()) if len <= self.max_reply => None,
            Ok(()) => Some(result_too_large(len, self.max_reply)),
            Err(e) => Some(RpcError::new(Code::Internal, format!("the result cannot be encoded: {e}"))),
        };
        let mut large = None;
        if failed.is_none() && len > WHOLE {
            large = Some(Bytes::from(lent.replies.split_off(start + HEADER)));
        } else if failed.is_none() {
            end_reply(&mut lent.replies, start);
            lent.keep = lent.replies.len();
        }
        drop(lent);
        if let Some(tail) = large {
            with_current(|c| c.aside = Some(Box::new(Aside::Large { status, head: Bytes::new(), tail })));
        }
        match failed {
            None => with_current(|c| c.finish = Some(finish)),
            Some(error) => self.fail(&error),
        }
    }

    /// Answers with bytes that are large, without copying them. Says whether they were.
    #[inline]
    fn answer_segment<M: Method>(&self, out: &M::Out) -> bool {
        let mut head = Vec::new();
        if self.codec != CodecId::Compact || self.oneway {
            return false;
        }
        let Some(tail) = M::Form::segment(out, &mut head) else { return false };
        let len = head.len() + tail.len();
        if len > self.max_reply {
            self.fail(&result_too_large(len, self.max_reply));
            return true;
        }
        let large = Aside::Large { status: status::OK, head: head.into(), tail };
        with_current(|c| (c.aside, c.finish) = (Some(Box::new(large)), Some(Finish::Ok)));
        true
    }

    #[cold]
    fn answer_stream<M: Method>(&self, out: M::Out) {
        let Some(stream) = M::Form::outgoing(out, self.codec, ItemShapes::of_result::<M>()) else { return };
        with_current(|c| (c.aside, c.finish) = (Some(Box::new(Aside::Stream(stream))), Some(Finish::Ok)));
    }

    /// Answers with a system error.
    #[cold]
    pub fn fail(&self, error: &RpcError) {
        with_current(|c| {
            if !self.oneway {
                write_failure(&mut c.replies, self.id, error);
            }
            c.finish = Some(Finish::Failed(error.code(), error.certainty()));
        });
    }

    /// The method table says a row that the skeleton does not have.
    #[cold]
    pub fn no_such_row(&self) {
        self.fail(&RpcError::not_executed(Code::Internal, format!("the skeleton has no row {}", self.method)));
    }

    /// Runs a plain `fn` handler on the blocking pool, inside the call's context.
    pub async fn blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Result<R, RpcError> {
        run_blocking_handler(f).await
    }
}

/// A message that a handler borrows its arguments from.
#[doc(hidden)]
pub struct Lender<M> {
    codec: CodecId,
    body: Bytes,
    reading: Option<Arc<Reading>>,
    method: PhantomData<fn() -> M>,
}

impl<M: Lending> Lender<M> {
    /// Decodes the arguments.
    pub fn args(&self) -> Result<M::Lent<'_>, RpcError> {
        check_codec::<M>(self.codec)?;
        let plan = self.reading.as_ref().and_then(|reading| reading.value());
        decode_lent(plan, self.codec, &self.body, args_shape::<M>).map_err(|e| bad_args::<M>(&e))
    }
}

/// Refuses a codec that a type of the method cannot travel in.
#[inline]
fn check_codec<M: Method>(codec: CodecId) -> Result<(), RpcError> {
    match M::JSON && codec != CodecId::Json {
        true => Err(json_only::<M>(codec, RpcError::not_executed)),
        false => Ok(()),
    }
}

/// The method has a type without a schema.
#[cold]
pub(crate) fn json_only<M: Method>(codec: CodecId, error: fn(Code, String) -> RpcError) -> RpcError {
    let name = M::service().full_name(M::INDEX as usize);
    let why = format!("{name} has a type without a schema, so it travels as JSON and not as {codec}: put #[farcall::data] on the type");
    error(Code::InvalidArgument, why).with_method(name)
}

/// Runs a plain `fn` handler on the blocking pool. One that waits there for a thread until its
/// deadline has passed, or its caller is gone, is not started.
pub(crate) async fn run_blocking_handler<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Result<R, RpcError> {
    let mut current = Current { context: crate::context(), ..Current::default() };
    let run = move || match current.context.expires {
        Some(at) if at <= crate::time::now() => {
            Err(RpcError::not_executed(Code::DeadlineExceeded, "the deadline passed before a thread of the blocking pool was free")
                .with_stage(Stage::ServerQueue))
        }
        _ => Ok(crate::context::enter(&mut current, f)),
    };
    match AbortOnDrop(crate::runtime::run_blocking(run)).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => Err(panicked(&*e.into_panic())),
        Err(_) => Err(RpcError::new(Code::Cancelled, "the provider's runtime is shutting down")),
    }
}

/// A blocking task that is taken back if it has not started when nobody waits for it any more.
struct AbortOnDrop<R>(JoinHandle<R>);

impl<R> Future for AbortOnDrop<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<R> Drop for AbortOnDrop<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reply buffer while a result is serialized into it. It goes back whatever happens, and without
/// what is not whole: the replies of other calls are in it too.
struct Lent {
    replies: Vec<u8>,
    keep: usize,
}

impl Lent {
    #[inline]
    fn take() -> Lent {
        let replies = with_current(|c| std::mem::take(&mut c.replies));
        Lent { keep: replies.len(), replies }
    }
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        self.replies.truncate(self.keep);
        with_current(|c| c.replies = std::mem::take(&mut self.replies));
    }
}

/// An error that a handler returned. What it says of the handler's own calls does not hold for the
/// call that it handles: that one ran.
#[cold]
fn from_handler(e: RpcError) -> RpcError {
    let e = if e.method().is_some() || e.peer().is_some() { e.upstream() } else { e };
    e.with_certainty(Certainty::MaybeExecuted).with_stage(Stage::Handler)
}

pub(crate) fn write_failure(replies: &mut Vec<u8>, id: u32, error: &RpcError) {
    let start = begin_reply(replies, id, status::FAILURE);
    replies.extend_from_slice(&Failure::from_error(error).encode());
    end_reply(replies, start);
}

#[cold]
pub(crate) fn result_too_large(len: usize, max: usize) -> RpcError {
    RpcError::new(Code::ResourceExhausted, format!("the result is {len} bytes, the caller's limit `body` is {max}"))
}

#[cold]
fn bad_args<M: Method>(e: &CodecError) -> RpcError {
    let service = M::service();
    let method = service.methods.get(M::INDEX as usize);
    let (signature, e) = match method {
        Some(m) => (m.signature.as_str(), m.name_args_steps(e.clone())),
        None => ("", e.clone()),
    };
    RpcError::not_executed(Code::InvalidArgument, format!("the arguments do not fit `{signature}`: {e}"))
        .with_stage(Stage::Decode)
        .with_method(service.full_name(M::INDEX as usize))
}

/// The error of a handler that panicked.
#[cold]
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> RpcError {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    RpcError::new(Code::Internal, format!("the handler panicked: {}", text.unwrap_or("(no text)"))).with_stage(Stage::Handler)
}

/// Runs the handlers of one service for one connection.
#[doc(hidden)]
pub trait Runner: Send {
    /// Puts a handler into the slot.
    fn start(&mut self, call: Incoming);
    /// Polls what is in the slot.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Empties the slot.
    fn clear(&mut self);
    /// Takes a pending handler out of the slot.
    fn park(&mut self) -> Box<dyn ParkedHandler>;
    /// A handler that is not put into the slot at all, for interceptors to go around it. Nothing of it runs before it
    /// is polled.
    fn start_outside(&mut self, call: Incoming) -> Outside {
        self.start(call);
        let mut handler = self.park();
        Outside::new(std::future::poll_fn(move |cx| handler.poll(cx)))
    }
}

/// A handler that was not ready at once.
#[doc(hidden)]
pub trait ParkedHandler: Send {
    /// Polls it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether it may be dropped when its caller goes away; `None`: as the method says.
    fn may_be_dropped(&self) -> Option<bool> {
        None
    }
}

struct Slot<P, F, Fut> {
    provider: Arc<P>,
    handle: F,
    future: Pin<Box<Option<Fut>>>,
}

/// A runner that builds a future per call with `handle`. The future's slot is reused.
#[doc(hidden)]
pub fn runner<P, F, Fut>(provider: Arc<P>, handle: F) -> Box<dyn Runner>
where
    P: Send + Sync + 'static,
    F: Fn(Arc<P>, Incoming) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Box::new(Slot { provider, handle, future: Box::pin(None) })
}

impl<P, F, Fut> Runner for Slot<P, F, Fut>
where
    P: Send + Sync + 'static,
    F: Fn(Arc<P>, Incoming) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    #[inline]
    fn start(&mut self, call: Incoming) {
        self.future.set(Some((self.handle)(Arc::clone(&self.provider), call)));
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_option(&mut self.future, cx)
    }

    #[inline]
    fn clear(&mut self) {
        self.future.set(None);
    }

    fn park(&mut self) -> Box<dyn ParkedHandler> {
        Box::new(Parked(std::mem::replace(&mut self.future, Box::pin(None))))
    }

    fn start_outside(&mut self, call: Incoming) -> Outside {
        Outside::new((self.handle)(Arc::clone(&self.provider), call))
    }
}

struct Parked<Fut>(Pin<Box<Option<Fut>>>);

impl<Fut: Future<Output = ()> + Send> ParkedHandler for Parked<Fut> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_option(&mut self.0, cx)
    }
}

#[inline]
fn poll_option<Fut: Future<Output = ()>>(future: &mut Pin<Box<Option<Fut>>>, cx: &mut Context<'_>) -> Poll<()> {
    match future.as_mut().as_pin_mut() {
        Some(future) => future.poll(cx),
        None => Poll::Ready(()),
    }
}
