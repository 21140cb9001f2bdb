//! A call of another protocol while its handler runs.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farcall_core::{Certainty, Code, RpcError, Stage};
use farcall_wire::{CallKey, Failure, HEADER, status};
use tokio::runtime::Handle;
use tokio::time::Sleep;

use super::{ForeignCall, ForeignItems, ForeignReply, Held, Link, OpenStream};
use crate::connection::{Counted, Detached, Ending, Entry, observe};
use crate::context::{Aside, Context as CallContext, Current, Finish, Peer, enter};
use crate::intercept::Guarded;
use crate::keys::Keyed;
use crate::skeleton::{Incoming, ParkedHandler, Runner, panicked};

/// The number that the call has in the header of its reply, which nobody sees.
const NUMBER: u32 = 0;

/// See the module's text.
pub(super) struct Run {
    link: Arc<Link>,
    peer: Arc<Peer>,
    /// Taken when it has ended.
    entry: Option<Entry>,
    oneway: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    stream: Option<OpenStream>,
    _held: Option<Held>,
}

impl Run {
    /// Puts a call's handler up to be polled.
    pub(super) fn start(mut call: ForeignCall, link: Arc<Link>) -> Result<Run, RpcError> {
        let peer = call.peer.take().unwrap_or_else(|| Arc::clone(&link.peer));
        let ending = ending(&link, &call);
        let opened = match link.refusal(&call, &peer) {
            Some(error) => Err(error),
            None => opened(&link, &call),
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                tell(&link, &peer, &ending, Some(Finish::Failed(error.code(), error.certainty())));
                return Err(error);
            }
        };
        let traits = &link.shared.services.skeletons[call.target.service].descriptor().methods[call.target.method].traits;
        let (oneway, cancel) = (traits.oneway, traits.cancel && !traits.oneway);
        let (deadline, held) = (call.expires, call.held.take());
        let context = CallContext {
            peer: Some(Arc::clone(&peer)),
            expires: call.expires,
            metadata: call.metadata.take().map(Arc::new),
            trace: call.trace,
        };
        let handler = handler(&link, &context, call);
        let cancel = handler.may_be_dropped().unwrap_or(cancel);
        let Ending { service, method, since, streamed, .. } = ending;
        let _counted = Counted::new(&link.shared.running);
        let entry = Entry { handler, context, id: NUMBER, oneway, service, method, cancel, since, streamed, held: 0, _counted };
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Ok(Run { link, peer, entry: Some(entry), oneway, deadline, stream, _held: held })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ForeignReply> {
        let Some(entry) = &mut self.entry else { return Poll::Pending };
        let mut current = Current { context: std::mem::take(&mut entry.context), ..Current::default() };
        let polled = enter(&mut current, || catch_unwind(AssertUnwindSafe(|| entry.handler.poll(cx))));
        entry.context = std::mem::take(&mut current.context);
        match polled {
            Ok(Poll::Ready(())) => Poll::Ready(self.ended(current)),
            Err(payload) => {
                let error = panicked(&*payload);
                self.over(Some(Finish::Failed(error.code(), error.certainty())));
                Poll::Ready(ForeignReply::Failed(error))
            }
            Ok(Poll::Pending) if self.oneway => {
                self.leave();
                Poll::Ready(ForeignReply::Started)
            }
            Ok(Poll::Pending) => match self.deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(self.expired()),
                false => Poll::Pending,
            },
        }
    }

    /// The handler has answered.
    fn ended(&mut self, current: Current) -> ForeignReply {
        let Current { replies, finish, aside, .. } = current;
        let reply = match aside.map(|aside| *aside) {
            Some(Aside::Stream(outgoing)) => match (self.stream.take(), &mut self.entry) {
                (Some(open), Some(entry)) => ForeignReply::Stream(ForeignItems::new(outgoing, std::mem::take(&mut entry.context), open)),
                _ => ForeignReply::Failed(no_reply()),
            },
            Some(Aside::Large { status, head, tail }) => match head.is_empty() {
                true => with_status(status, tail),
                false => with_status(status, [&head[..], &tail].concat().into()),
            },
            None if replies.len() >= HEADER => {
                let status = u16::from_le_bytes([replies[6], replies[7]]);
                with_status(status, Bytes::from(replies).slice(HEADER..))
            }
            None => ForeignReply::Failed(no_reply()),
        };
        let started = self.oneway && matches!(reply, ForeignReply::Result(_));
        self.over(finish);
        if started { ForeignReply::Started } else { reply }
    }

    /// The caller does not wait any longer.
    fn expired(&mut self) -> ForeignReply {
        self.leave();
        let error = RpcError::new(Code::DeadlineExceeded, "the deadline passed while the handler ran").with_stage(Stage::Handler);
        ForeignReply::Failed(error)
    }

    /// Drops what is left of the handler and tells the observers.
    fn over(&mut self, finish: Option<Finish>) {
        let Some(entry) = self.entry.take() else { return };
        let ending = entry.ending();
        // What is left of it may panic, which is of no further interest.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
        tell(&self.link, &self.peer, &ending, finish);
    }

    /// Nobody waits for the handler any more: it is dropped if it may be, else it runs to its end.
    fn leave(&mut self) {
        match &self.entry {
            Some(entry) if !entry.cancel => {}
            Some(_) => {
                let late = self.deadline.as_ref().is_some_and(|d| d.deadline() <= crate::time::now().into());
                let code = if late { Code::DeadlineExceeded } else { Code::Cancelled };
                return self.over(Some(Finish::Failed(code, Certainty::MaybeExecuted)));
            }
            None => return,
        }
        match (self.entry.take(), Handle::try_current()) {
            (Some(entry), Ok(runtime)) => {
                let (services, peer) = (Arc::clone(&self.link.shared.services), Arc::clone(&self.peer));
                runtime.spawn(Detached { entry, services, peer });
            }
            // Its runtime is gone, and it with it.
            (entry, _) => drop(catch_unwind(AssertUnwindSafe(|| drop(entry)))),
        }
    }
}

impl Drop for Run {
    /// The caller is gone.
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the observers are told of, before anything else is known.
fn ending(link: &Link, call: &ForeignCall) -> Ending {
    let since = (!link.shared.services.observers.is_empty()).then(crate::time::now);
    let (service, method) = (call.target.service as u32, call.target.method as u16);
    Ending { id: NUMBER, oneway: false, service, method, since, streamed: false, held: 0 }
}

/// A place among the open streams, for a method that answers with one.
fn opened(link: &Arc<Link>, call: &ForeignCall) -> Result<Option<OpenStream>, RpcError> {
    let traits = &link.shared.services.skeletons[call.target.service].descriptor().methods[call.target.method].traits;
    match (traits.result_stream, &call.key) {
        (false, _) => Ok(None),
        (true, None) => link.open_stream().map(Some),
        (true, Some(_)) => {
            let why = "a stream cannot be kept and sent again: a method with one takes no idempotency key";
            Err(RpcError::not_executed(Code::InvalidArgument, why))
        }
    }
}

fn handler(link: &Link, context: &CallContext, call: ForeignCall) -> Box<dyn ParkedHandler> {
    let ForeignCall { target, codec, args, key, max_reply, .. } = call;
    let incoming = Incoming {
        id: NUMBER,
        // Also of a one-way call it is of interest how it went.
        oneway: false,
        method: target.method as u16,
        codec,
        max_reply: max_reply.min(link.shared.limits.body),
        reading: None,
        body: Cell::new(args),
        streamed: false,
        stream: Cell::new(None),
    };
    let services = &link.shared.services;
    let skeleton = &services.skeletons[target.service];
    let mut runner = skeleton.runner();
    let mut guarded;
    let runner: &mut dyn Runner = match &services.chain {
        None => &mut *runner,
        Some(chain) => {
            guarded = Guarded::new(&mut *runner, chain, skeleton, context, None);
            &mut guarded
        }
    };
    let Some(bytes) = key else {
        runner.start(incoming);
        return runner.park();
    };
    let (caller, key) = (context.identity().map(|caller| caller.name()), CallKey { bytes, attempted: None });
    let mut keyed = Keyed::new(runner, services.keys.as_ref(), target.service as u32, caller, key);
    keyed.start(incoming);
    keyed.park()
}

fn tell(link: &Link, peer: &Peer, ending: &Ending, finish: Option<Finish>) {
    let known = link.shared.services.skeletons.get(ending.service as usize).map(|s| s.descriptor().methods.len());
    if ending.since.is_some() && known.is_some_and(|methods| (ending.method as usize) < methods) {
        observe(&link.shared.services, peer, ending, finish);
    }
}

fn with_status(status: u16, body: Bytes) -> ForeignReply {
    match status {
        status::OK => ForeignReply::Result(body),
        status::APP_ERROR => ForeignReply::AppError(body),
        _ => ForeignReply::Failed(Failure::decode(&body).map_or_else(|_| no_reply(), Failure::into_error)),
    }
}

fn no_reply() -> RpcError {
    RpcError::new(Code::Internal, "the handler ended without a reply").with_stage(Stage::Handler)
}
