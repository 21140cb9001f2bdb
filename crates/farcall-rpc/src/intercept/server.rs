//! Interceptors around a handler.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use bytes::Bytes;
use farcall_core::{Certainty, Code, RpcError, Stage};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::{CallInfo, Called, Chain, Ends, Inmost, Last, neither, start};
use crate::context::{Aside, Context, Current, Finish, with_current};
use crate::method::{BoxFuture, Outgoing};
use crate::observer::{Ended, Side};
use crate::skeleton::{Incoming, ParkedHandler, Runner, Skeleton, write_failure};
use crate::stream::{Items, Produced};

/// A runner for one call with interceptors around it, over the runner of its service.
pub(crate) struct Guarded<'a> {
    inner: &'a mut dyn Runner,
    chain: &'a Chain,
    /// Until it is started.
    call: Option<CallInfo>,
    guard: Option<Guard>,
}

/// A call inside of its interceptors.
struct Guard {
    id: u32,
    oneway: bool,
    chain: BoxFuture<'static, Result<Ended, RpcError>>,
    /// The handler was polled.
    began: bool,
    /// What it answered, while an interceptor still has something to do.
    answered: Option<Answered>,
}

/// An answer that is not let out yet.
struct Answered {
    written: Vec<u8>,
    finish: Option<Finish>,
    aside: Option<Box<Aside>>,
}

impl<'a> Guarded<'a> {
    /// `came`: when the call did, if that is known without a look at the clock.
    pub(crate) fn new(
        inner: &'a mut dyn Runner,
        chain: &'a Chain,
        skeleton: &Arc<dyn Skeleton>,
        context: &Context,
        came: Option<Instant>,
    ) -> Guarded<'a> {
        // The row is the incoming call's, set when it is started.
        let call = CallInfo::new(Side::Server, Called::Served(Arc::clone(skeleton)), 0, context.clone(), came);
        Guarded { inner, chain, call: Some(call), guard: None }
    }
}

impl Runner for Guarded<'_> {
    fn start(&mut self, incoming: Incoming) {
        let Some(mut call) = self.call.take() else { return };
        let (id, oneway) = (incoming.id, incoming.oneway);
        call.0.method = incoming.method as usize;
        let Outside(last) = self.inner.start_outside(incoming);
        let chain = start(self.chain, call, last);
        self.guard = Some(Guard { id, oneway, chain, began: false, answered: None });
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match &mut self.guard {
            Some(guard) => guard.poll(cx),
            None => Poll::Ready(()),
        }
    }

    fn clear(&mut self) {
        self.guard = None;
        self.inner.clear();
    }

    fn park(&mut self) -> Box<dyn ParkedHandler> {
        match self.guard.take() {
            Some(guard) => Box::new(guard),
            None => self.inner.park(),
        }
    }
}

impl ParkedHandler for Guard {
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let start = with_current(|c| {
            c.began = false;
            c.replies.len()
        });
        let polled = self.chain.as_mut().poll(cx);
        self.began |= with_current(|c| c.began);
        match polled {
            Poll::Pending => {
                self.hold_back(start);
                return Poll::Pending;
            }
            // What was answered in this poll is where it belongs.
            Poll::Ready(Ok(_)) if with_current(|c| has_answered(c, start)) => {}
            Poll::Ready(Ok(_)) => match self.answered.take() {
                Some(answered) => let_out(answered),
                None => self.fail(neither()),
            },
            Poll::Ready(Err(error)) => {
                self.hold_back(start);
                self.answered = None;
                self.fail(error);
            }
        }
        Poll::Ready(())
    }
}

/// Whether the call was answered, since the replies were so long.
fn has_answered(current: &Current, start: usize) -> bool {
    current.replies.len() > start || current.finish.is_some() || current.aside.is_some()
}

impl Guard {
    /// Takes back what was answered in this poll: the call is not over before its interceptors are.
    fn hold_back(&mut self, start: usize) {
        let answered = with_current(|c| {
            let taken = |c: &mut Current| Answered { written: c.replies.split_off(start), finish: c.finish.take(), aside: c.aside.take() };
            has_answered(c, start).then(|| taken(c))
        });
        self.answered = answered.or(self.answered.take());
    }

    fn fail(&self, error: RpcError) {
        let error = match self.began {
            true => error.with_certainty(Certainty::MaybeExecuted),
            false => error.with_certainty(Certainty::NotExecuted),
        };
        with_current(|c| {
            if !self.oneway {
                write_failure(&mut c.replies, self.id, &error);
            }
            c.finish = Some(Finish::Failed(error.code(), error.certainty()));
        });
    }
}

fn let_out(answered: Answered) {
    with_current(|c| {
        c.replies.extend_from_slice(&answered.written);
        (c.finish, c.aside) = (answered.finish, answered.aside);
    });
}

/// The handler of a call, before its interceptors.
#[doc(hidden)]
pub struct Outside(Last);

impl Outside {
    pub(crate) fn new(handler: impl Future<Output = ()> + Send + 'static) -> Outside {
        Outside(Box::new(Handled { call: None, deadline: None, handler }))
    }
}

pin_project! {
    /// The handler itself, inside of its context as the interceptors left it.
    struct Handled<F> {
        // Once the interceptors have let it go on.
        call: Option<CallInfo>,
        // If they shortened it, and the handler may be dropped.
        deadline: Option<Pin<Box<Sleep>>>,
        #[pin]
        handler: F,
    }
}

impl<F: Future<Output = ()> + Send + 'static> Inmost for Handled<F> {
    fn run(mut self: Box<Self>, call: CallInfo) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let cut = call.cut().filter(|_| call.method().is_some_and(|m| m.traits.cancel));
        self.deadline = cut.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        self.call = Some(call);
        Box::into_pin(self)
    }
}

impl<F: Future<Output = ()>> Future for Handled<F> {
    type Output = Result<Ended, RpcError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let me = self.project();
        if me.deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready()) {
            let why = "the deadline that an interceptor set passed in the handler";
            return Poll::Ready(Err(RpcError::new(Code::DeadlineExceeded, why).with_stage(Stage::Handler)));
        }
        let Some(CallInfo(call)) = me.call else { return Poll::Pending };
        with_current(|c| {
            c.began = true;
            std::mem::swap(&mut c.context, &mut call.context);
        });
        // Its context goes back also if it panics.
        let polled = catch_unwind(AssertUnwindSafe(|| me.handler.poll(cx)));
        with_current(|c| std::mem::swap(&mut c.context, &mut call.context));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(handled(me.call))),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// How the handler ended.
fn handled(call: &mut Option<CallInfo>) -> Ended {
    let (finish, stream) = with_current(|c| (c.finish, matches!(c.aside.as_deref(), Some(Aside::Stream(_)))));
    if stream && let Some(ends) = call.take().and_then(|call| call.0.ends.wanted()) {
        watch_stream(ends);
    }
    ended(finish)
}

/// Puts those who want to know of the stream's end between it and whoever sends it.
fn watch_stream(ends: Box<Ends>) {
    with_current(|c| {
        if let Some(Aside::Stream(outgoing)) = c.aside.take().map(|aside| *aside) {
            c.aside = Some(Box::new(Aside::Stream(Outgoing(Box::new(Watched { items: outgoing.0, ends: ends.begin() })))));
        }
    });
}

fn ended(finish: Option<Finish>) -> Ended {
    match finish {
        Some(Finish::Ok) | None => Ended::Ok,
        Some(Finish::AppError) => Ended::AppError,
        Some(Finish::Failed(code, certainty)) => Ended::Failed(code, certainty),
        Some(Finish::Replayed) => Ended::Replayed,
    }
}

/// Items of a stream whose end somebody wants to know of.
struct Watched {
    items: Box<dyn Items>,
    ends: Box<Ends>,
}

impl Items for Watched {
    fn poll_item(&mut self, cx: &mut TaskContext<'_>, head: &mut Vec<u8>, tail: &mut Bytes) -> Poll<Produced> {
        let polled = self.items.poll_item(cx, head, tail);
        match &polled {
            Poll::Ready(Produced::End) => self.ends.tell(Ended::Ok),
            Poll::Ready(Produced::AppError(_)) => self.ends.tell(Ended::AppError),
            Poll::Ready(Produced::Failed(e)) => self.ends.tell(Ended::Failed(e.code(), e.certainty())),
            Poll::Ready(Produced::Item) | Poll::Pending => {}
        }
        polled
    }
}
