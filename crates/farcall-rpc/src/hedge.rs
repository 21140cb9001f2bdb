//! A second attempt for a call that takes long: for idempotent methods only, because both may run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farcall_core::{Code, Fault, Reply, RpcError};
use tokio::time::Sleep;

use crate::call::{Call, Changeable, Intercepted, around_call, sleep};
use crate::connection::Connection;
use crate::intercept::Changed;
use crate::method::{Idempotent, Method};
use crate::runtime;

impl<M: Method> Call<M> {
    /// Makes the call a second time if there is no reply `after` this long; the first good reply
    /// counts and the other attempt is cancelled. The deadline covers both. Useful when a few calls
    /// take much longer than most: choose a time that 95 % of them stay under.
    ///
    /// It exists for `#[farcall(idempotent)]` methods only. A provider in this process is called
    /// once. The second attempt takes another connection if the channel has [one](crate::Connect::connections);
    /// while it has not, both go to the same provider over the same.
    pub fn hedge(self, after: Duration) -> Hedged<M>
    where
        M: Idempotent,
    {
        Hedged { first: Some(self), second: None, after, timer: None, failed: None, around: None }
    }
}

/// A call with a second attempt, from [`Call::hedge`].
#[must_use = "a call does nothing until it is awaited or waited for"]
pub struct Hedged<M: Method> {
    first: Option<Call<M>>,
    /// Ready to be made, or on its way once the timer has rung.
    second: Option<Call<M>>,
    after: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The system error of an attempt, while the other may still do better.
    failed: Option<RpcError>,
    /// Inside of interceptors; then there is nothing else here.
    around: Option<Intercepted<M>>,
}

// Nothing in it is ever pinned in place.
impl<M: Method> Unpin for Hedged<M> {}

impl<M: Method> Hedged<M> {
    /// Blocks until it has ended; see [`Call::wait`].
    pub fn wait(self) -> Reply<M::Out, M::Err> {
        runtime::wait(self).unwrap_or_else(|e| Err(e.into()))
    }

    /// Goes inside of the interceptors around calls: to them it is one call.
    #[cold]
    fn go_inside(&mut self) {
        let Some(mut first) = self.first.take() else { return };
        first.is_inside_calls();
        let (channel, context) = (first.channel().clone(), first.as_intercepted());
        let inner = Hedged { first: Some(first), second: None, after: self.after, timer: None, failed: None, around: None };
        match context {
            Ok(context) => self.around = Some(around_call::<M, _>(&channel, context, inner)),
            // What is wrong with it is found out again, without them.
            Err(_) => *self = inner,
        }
    }

    /// Polls one attempt: `Some` is a reply that counts.
    fn attempt(call: &mut Option<Call<M>>, failed: &mut Option<RpcError>, cx: &mut Context<'_>) -> Option<Reply<M::Out, M::Err>> {
        let Poll::Ready(reply) = Pin::new(call.as_mut()?).poll(cx) else { return None };
        *call = None;
        match reply {
            Ok(out) => Some(Ok(out)),
            Err(error) => match M::Err::split(error) {
                Ok(app) => Some(Err(app.lift())),
                Err(e) => {
                    *failed = Some(e);
                    None
                }
            },
        }
    }
}

impl<M: Method> Changeable<M> for Hedged<M> {
    fn change(&mut self, changed: Changed, connection: Option<Arc<Connection>>) -> Result<(), RpcError> {
        match &mut self.first {
            Some(first) => Changeable::change(first, changed, connection),
            None => Ok(()),
        }
    }
}

impl<M: Method> Future for Hedged<M> {
    type Output = Reply<M::Out, M::Err>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        if me.first.as_ref().is_some_and(Call::is_outside) {
            me.go_inside();
        }
        if let Some(around) = &mut me.around {
            let reply = std::task::ready!(around.as_mut().poll(cx));
            return Poll::Ready(reply.unwrap_or_else(|e| Err(e.into())));
        }
        if me.timer.is_none() {
            if let Some(first) = &mut me.first {
                match first.twin() {
                    Ok(twin) => me.second = twin,
                    Err(e) => {
                        me.first = None;
                        return Poll::Ready(Err(e.into()));
                    }
                }
            }
            me.timer = Some(sleep(me.after));
        }
        if let Some(reply) = Self::attempt(&mut me.first, &mut me.failed, cx) {
            return Poll::Ready(reply);
        }
        let late = me.timer.as_mut().is_some_and(|t| t.as_mut().poll(cx).is_ready());
        // A failed first attempt is not repeated: that is a retry, and another decision.
        if !late && me.first.is_none() {
            me.second = None;
        }
        if late && let (Some(first), Some(second)) = (&me.first, &mut me.second) {
            second.part_from(first);
        }
        if late && let Some(reply) = Self::attempt(&mut me.second, &mut me.failed, cx) {
            return Poll::Ready(reply);
        }
        if me.first.is_some() || me.second.is_some() {
            return Poll::Pending;
        }
        let over = || RpcError::new(Code::Internal, "this call has ended before");
        Poll::Ready(Err(me.failed.take().unwrap_or_else(over).into()))
    }
}
