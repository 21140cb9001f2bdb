//! Calls without a stub over a channel.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use farcall_core::error::display_duration;
use farcall_core::{Code, Metadata, RpcError, Stage, Trace};
use farcall_wire::{Answer, Body, Start, Streams};

use super::Channel;
use crate::call::{GRACE, to_ms};
use crate::connection::{Bound, Connection, Started};
use crate::context::{Context, inherited};
use crate::intercept::{Around, Changed, Ends, Service};
use crate::invoke::{Invoke, RawCall, RawReply, RawStream};
use crate::keys::Key;
use crate::method::BoxFuture;
use crate::observer::Ended;
use crate::stream::Received;

impl Invoke for Channel {
    fn invoke(&self, call: RawCall) -> BoxFuture<'_, Result<RawReply, RpcError>> {
        match self.around_calls() {
            None => Box::pin(self.clone().attempt_raw(call, inherited().1, None)),
            Some(chain) => {
                let (channel, again) = (self.clone(), call.clone());
                let make = move |changed: Changed| async move {
                    let Changed { context, ends } = changed;
                    let trace = context.trace;
                    ended(channel.attempt_raw(changed_call(again, context), trace, ends).await)
                };
                let service = Service::Shared(Arc::clone(&call.service));
                let around = Around::new(chain, service, call.method, None, seen(&call, inherited().1, self.default_deadline()), make);
                Box::pin(async move { around.run().await.and_then(|reply| reply) })
            }
        }
    }
}

/// What interceptors see of a call.
fn seen(call: &RawCall, trace: Option<Trace>, default: Option<Duration>) -> Context {
    let expires = call.deadline.or(default).and_then(|time| crate::time::now().checked_add(time));
    let metadata = (!call.metadata.is_empty()).then(|| Arc::new(call.metadata.clone()));
    Context { expires, metadata, trace, ..Context::default() }
}

/// A call as interceptors left it.
fn changed_call(call: RawCall, context: Context) -> RawCall {
    let deadline = context.expires.map(|at| at.saturating_duration_since(crate::time::now()));
    let metadata = context.metadata.map(|metadata| Metadata::clone(&metadata)).unwrap_or_default();
    RawCall { metadata, deadline, ..call }
}

/// A reply, and how it ended.
fn ended(reply: Result<RawReply, RpcError>) -> (Result<RawReply, RpcError>, Ended) {
    let ended = match &reply {
        Ok(RawReply::Ok(_) | RawReply::Stream(_)) => Ended::Ok,
        Ok(RawReply::AppError(_)) => Ended::AppError,
        Err(e) => Ended::Failed(e.code(), e.certainty()),
    };
    (reply, ended)
}

impl Channel {
    /// Inside of the interceptors around attempts, if there are some.
    async fn attempt_raw(self, call: RawCall, trace: Option<Trace>, ends: Option<Box<Ends>>) -> Result<RawReply, RpcError> {
        let Some(chain) = self.around_attempts() else { return self.invoke_plain(call, trace, ends).await };
        let time = call.deadline.or(self.default_deadline());
        let connection = self.connection_within(time).await.map_err(|e| e.with_method(call.service.full_name(call.method)))?;
        let peer = Some(Arc::clone(&connection.inner.peer));
        let (channel, again, mut outer) = (self.clone(), call.clone(), ends);
        let make = move |changed: Changed| async move {
            let Changed { context, ends } = changed;
            let (ends, trace) = (Ends::both(outer.take(), ends), context.trace);
            ended(channel.invoke_plain(changed_call(again, context), trace, ends).await)
        };
        let service = Service::Shared(Arc::clone(&call.service));
        Around::new(chain, service, call.method, peer, seen(&call, trace, time), make).run().await?
    }

    fn invoke_plain(&self, call: RawCall, trace: Option<Trace>, ends: Option<Box<Ends>>) -> BoxFuture<'_, Result<RawReply, RpcError>> {
        let settle = call.key.clone();
        let made = async move {
            let Some(method) = call.service.methods.get(call.method) else {
                return Err(RpcError::not_sent(Code::InvalidArgument, format!("{} has no method {}", call.service.name, call.method)));
            };
            let oneway = method.traits.oneway;
            if method.traits.args_stream {
                let why = "a method that takes a stream needs its generated client";
                return Err(RpcError::not_sent(Code::Unimplemented, why).with_method(call.service.full_name(call.method)));
            }
            let key = match &call.key {
                Some(key) => Key::serves(method)?.then_some(key),
                None => None,
            };
            let name = call.service.full_name(call.method);
            let streams = Streams { args: false, results: method.traits.result_stream };
            let since = crate::time::now();
            let time = call.deadline.or(self.default_deadline());
            let connection = self.connection_within(time).await.map_err(|e| e.with_method(&name))?;
            let metadata = (!call.metadata.is_empty()).then(|| call.metadata.clone());
            let mut options = farcall_wire::CallOptions { metadata, trace, codec: call.codec, ..Default::default() };
            let attempt = key.map(|key| key.attempt(Some(&connection.inner.peer))).transpose().map_err(|e| e.with_method(&name))?;
            let attempt = attempt.map(|(attempt, key)| {
                options.key = Some(key);
                attempt
            });
            let options = options.encode();
            let left = || time.map(|time| to_ms(time.saturating_sub(crate::time::since(since))).max(1));
            let mut flight = Flight { connection, id: None };
            let mut room = None;
            let making = std::future::poll_fn(|cx| {
                if let Some(id) = flight.id {
                    let answer = flight.connection.poll(id, cx.waker());
                    return answer.map_or(Poll::Pending, |a| Poll::Ready(Ok(Some(a))));
                }
                let body = Body::Segment(call.args.clone());
                let start = Start { row: 0, deadline: left(), options: &options, body, streams };
                let (service, method) = (Bound::Raw(&call.service), call.method as u16);
                let started = match oneway {
                    true => flight.connection.start_oneway(service, method, start, cx.waker(), &mut room),
                    false => flight.connection.start(service, method, start, cx.waker(), &mut room).map(Some),
                };
                match started {
                    Ok(None) => Poll::Ready(Ok(None)),
                    Ok(Some(Started::Sent(id, _))) => {
                        flight.id = Some(id);
                        Poll::Pending
                    }
                    Ok(Some(Started::Full)) => Poll::Pending,
                    Ok(Some(Started::Closed)) => {
                        let why = "the connection ended before the call was sent";
                        Poll::Ready(Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::ClientQueue)))
                    }
                    Err(e) => Poll::Ready(Err(e)),
                }
            });
            // The driver ends a call that was sent; this is for one that finds no room.
            let patience = time.map_or(Duration::MAX, |time| time.saturating_sub(crate::time::since(since)).saturating_add(GRACE));
            let answer = tokio::time::timeout(patience, making).await.unwrap_or_else(|_| {
                let why = format!("deadline {}: the out-buffer to the provider stayed full", display_duration(time.unwrap_or_default()));
                Err(RpcError::new(Code::DeadlineExceeded, why).with_stage(Stage::ClientQueue))
            });
            let answer = answer.map_err(|e| if flight.id.is_none() { e.with_certainty(farcall_core::Certainty::NotSent) } else { e });
            if answer.is_ok() {
                flight.id = None;
            }
            if let Some(attempt) = attempt {
                attempt.ended(match &answer {
                    Ok(Some(Answer::Failed(e))) | Err(e) => e.certainty(),
                    Ok(_) => farcall_core::Certainty::MaybeExecuted,
                });
            }
            match answer.map_err(|e| e.with_method(&name))? {
                None => Ok(RawReply::Ok(bytes::Bytes::new())),
                Some(Answer::Ok(body)) => Ok(RawReply::Ok(body)),
                Some(Answer::AppError(body)) => Ok(RawReply::AppError(body)),
                Some(Answer::Stream(at)) => {
                    let connection = Some(Arc::clone(&flight.connection));
                    let inner = Arc::clone(&flight.connection.inner);
                    Ok(RawReply::Stream(RawStream(Received {
                        inner,
                        connection,
                        at,
                        taken: Default::default(),
                        codec: call.codec,
                        method: name,
                        ends: ends.map(Ends::begin),
                        reading: None,
                    })))
                }
                Some(Answer::Failed(e)) => Err(e.with_method(name)),
            }
        };
        Box::pin(async move { made.await.map_err(|e| settle.map_or(e.clone(), |key| key.settle(e))) })
    }
}

/// Cancels its call when dropped.
struct Flight {
    connection: Arc<Connection>,
    id: Option<farcall_wire::CallId>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _ = self.connection.cancel(id);
        }
    }
}
