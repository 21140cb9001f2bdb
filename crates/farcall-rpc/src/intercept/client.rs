//! Interceptors around a call of this process, and around its attempts.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use farcall_core::{Certainty, RpcError, ServiceDescriptor};

use super::{CallInfo, Called, Chain, Ends, Info, neither, start};
use crate::context::{Context as CallContext, Peer};
use crate::method::BoxFuture;
use crate::observer::{Ended, Side};

/// A call inside of its interceptors; `R` is what comes of it.
pub(crate) struct Around<R> {
    chain: BoxFuture<'static, Result<Ended, RpcError>>,
    shared: Arc<Mutex<Inside<R>>>,
}

/// What is known of the call inside.
struct Inside<R> {
    began: bool,
    /// With what is known of its execution, if it did not go well.
    reply: Option<(R, Certainty)>,
}

/// What an interceptor may have changed of a call.
pub(crate) struct Changed {
    pub(crate) context: CallContext,
    pub(crate) ends: Option<Box<Ends>>,
}

/// Of a stub, or of a call without one.
pub(crate) enum Service {
    Static(&'static ServiceDescriptor),
    Shared(Arc<ServiceDescriptor>),
}

impl<R: Send + 'static> Around<R> {
    /// Goes into the chain; `make` makes the call itself, as the interceptors left it, and says how it ended.
    pub(crate) fn new<F, Fut>(
        chain: &Chain,
        service: Service,
        method: usize,
        peer: Option<Arc<Peer>>,
        context: CallContext,
        make: F,
    ) -> Around<R>
    where
        F: FnOnce(Changed) -> Fut + Send + 'static,
        Fut: Future<Output = (R, Ended)> + Send + 'static,
    {
        let called = match service {
            Service::Static(service) => Called::Static(service),
            Service::Shared(service) => Called::Shared(service),
        };
        let call = CallInfo::new(Side::Client, called, method, CallContext { peer, ..context }, None);
        let shared = Arc::new(Mutex::new(Inside { began: false, reply: None }));
        let inside = Arc::clone(&shared);
        let last = Box::new(move |call: CallInfo| {
            lock(&inside).began = true;
            let Info { context, ends, place, .. } = *call.0;
            let making = make(Changed { context, ends: ends.wanted() });
            Box::pin(async move {
                let (reply, ended) = making.await;
                drop(place);
                let certainty = match ended {
                    Ended::Failed(_, certainty) => certainty,
                    Ended::Ok | Ended::AppError | Ended::Replayed => Certainty::MaybeExecuted,
                };
                lock(&inside).reply = Some((reply, certainty));
                Ok(ended)
            }) as BoxFuture<'static, Result<Ended, RpcError>>
        });
        Around { chain: start(chain, call, last), shared }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, RpcError>> {
        let ended = std::task::ready!(Pin::new(&mut self.chain).poll(cx));
        let mut inside = lock(&self.shared);
        Poll::Ready(match (ended, inside.reply.take()) {
            (Ok(_), Some((reply, _))) => Ok(reply),
            (Ok(_), None) => Err(neither().with_certainty(if inside.began { Certainty::MaybeExecuted } else { Certainty::NotSent })),
            (Err(error), Some((_, certainty))) => Err(error.with_certainty(certainty)),
            // It was given up on its way.
            (Err(error), None) if inside.began => Err(error.with_certainty(Certainty::MaybeExecuted)),
            (Err(error), None) => Err(error.with_certainty(Certainty::NotSent)),
        })
    }

    /// To its end.
    pub(crate) async fn run(mut self) -> Result<R, RpcError> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

fn lock<R>(shared: &Mutex<Inside<R>>) -> std::sync::MutexGuard<'_, Inside<R>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
