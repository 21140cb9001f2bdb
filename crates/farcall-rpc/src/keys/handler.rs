//! Between the driver and a handler: runs it once per key and writes its reply down.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farcall_core::{Code, RpcError, Stage};
use farcall_wire::{CallKey, HEADER, WHOLE, begin_reply, end_reply, status};

use super::record::{Admitted, Id, Kept, Record, Running, Waiting};
use crate::context::{Aside, Finish, with_current};
use crate::skeleton::{Incoming, ParkedHandler, Runner, panicked, result_too_large};

/// A runner for one call with a key, over the runner of its service.
pub(crate) struct Keyed<'a> {
    inner: &'a mut dyn Runner,
    record: Option<&'a Arc<Record>>,
    service: u32,
    caller: Option<&'a str>,
    key: CallKey,
    turn: Turn,
}

/// What a call with a key does here. Nothing is written before it is polled: only then is it inside
/// its context.
enum Turn {
    Runs(Runs),
    Waits(Waits),
    Answers(Answers),
    Over,
}

impl<'a> Keyed<'a> {
    /// `caller` is the name of the caller, if that is known: nobody is answered with what another has called.
    pub(crate) fn new(
        inner: &'a mut dyn Runner,
        record: Option<&'a Arc<Record>>,
        service: u32,
        caller: Option<&'a str>,
        key: CallKey,
    ) -> Keyed<'a> {
        Keyed { inner, record, service, caller, key, turn: Turn::Over }
    }

    fn admit(&mut self, call: &Incoming) -> Result<Admitted, RpcError> {
        let Some(record) = self.record else { return Err(no_record(self.key.attempted.is_some())) };
        if call.oneway {
            let why = "a one-way call has no reply to be kept: it takes no idempotency key";
            return Err(RpcError::not_executed(Code::InvalidArgument, why));
        }
        if call.is_streamed() {
            let why = "a stream cannot be kept and sent again: a method with one takes no idempotency key";
            return Err(RpcError::not_executed(Code::InvalidArgument, why));
        }
        let caller = self.caller.map(Into::into);
        let id = Id { caller, service: self.service, method: call.method, key: std::mem::take(&mut self.key.bytes) };
        let body = call.body.take();
        let admitted = record.admit(id, self.key.attempted, (call.codec, call.reading.as_ref().and_then(|r| r.writer())), &body);
        call.body.set(body);
        admitted
    }
}

impl Runner for Keyed<'_> {
    fn start(&mut self, call: Incoming) {
        match self.admit(&call) {
            Ok(Admitted::Run(running)) => {
                self.turn = Turn::Runs(Runs { id: call.id, running: Some(running) });
                self.inner.start(call);
            }
            Ok(Admitted::Wait(reply)) => self.turn = Turn::Waits(Waits::new(call, reply)),
            Ok(Admitted::Answer(reply)) => self.turn = Turn::Answers(Answers { call, answer: Ok(reply) }),
            Err(error) => self.turn = Turn::Answers(Answers { call, answer: Err(error) }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.turn {
            Turn::Runs(runs) => runs.poll(|panicked| match panicked {
                false => self.inner.poll(cx),
                true => {
                    self.inner.clear();
                    Poll::Ready(())
                }
            }),
            Turn::Waits(waits) => waits.poll(cx),
            Turn::Answers(answers) => answers.poll(cx),
            Turn::Over => Poll::Ready(()),
        }
    }

    fn clear(&mut self) {
        self.inner.clear();
    }

    fn park(&mut self) -> Box<dyn ParkedHandler> {
        match std::mem::replace(&mut self.turn, Turn::Over) {
            Turn::Runs(runs) => Box::new(Parked { handler: self.inner.park(), runs }),
            Turn::Waits(waits) => Box::new(waits),
            Turn::Answers(answers) => Box::new(answers),
            Turn::Over => self.inner.park(),
        }
    }
}

/// A handler with a key that was not ready at once. It runs to its end without its connection too.
struct Parked {
    handler: Box<dyn ParkedHandler>,
    runs: Runs,
}

impl ParkedHandler for Parked {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let handler = &mut self.handler;
        self.runs.poll(|panicked| if panicked { Poll::Ready(()) } else { handler.poll(cx) })
    }

    fn may_be_dropped(&self) -> Option<bool> {
        Some(false)
    }
}

/// The attempt that runs.
struct Runs {
    id: u32,
    /// Taken at its end.
    running: Option<Running>,
}

impl Runs {
    /// Polls the handler with a buffer of its own for its reply, so that the reply can be kept. After a panic
    /// `poll` is called once more, with `true`, to clear up.
    fn poll(&mut self, mut poll: impl FnMut(bool) -> Poll<()>) -> Poll<()> {
        let others = with_current(|c| std::mem::take(&mut c.replies));
        let polled = catch_unwind(AssertUnwindSafe(|| poll(false)));
        if polled.is_err() {
            // What is left of it may panic again, which is of no further interest.
            let _ = catch_unwind(AssertUnwindSafe(|| poll(true)));
        }
        let (written, finish, aside) = with_current(|c| (std::mem::replace(&mut c.replies, others), c.finish, c.aside.take()));
        let (reply, finish) = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => (kept(&written, finish, aside), finish),
            Err(payload) => {
                let error = panicked(&*payload);
                (Kept::failure(&error), Some(Finish::Failed(error.code(), error.certainty())))
            }
        };
        with_current(|c| c.finish = finish);
        write(self.id, &reply);
        if let Some(running) = self.running.take() {
            running.ended(finish, reply);
        }
        Poll::Ready(())
    }
}

/// The reply that a handler wrote, without its header.
fn kept(written: &[u8], finish: Option<Finish>, aside: Option<Box<Aside>>) -> Kept {
    if let Some(Aside::Large { status, head, tail }) = aside.map(|aside| *aside) {
        // Copied: it may be a piece of a buffer that is to be used again.
        return Kept { status, body: [&head[..], &tail].concat().into() };
    }
    let status = match finish {
        Some(Finish::AppError) => status::APP_ERROR,
        Some(Finish::Failed(..)) => status::FAILURE,
        Some(Finish::Ok | Finish::Replayed) | None => status::OK,
    };
    match written.get(HEADER..) {
        Some(body) => Kept { status, body: Bytes::copy_from_slice(body) },
        None => Kept::failure(&RpcError::new(Code::Internal, "the handler ended without a reply").with_stage(Stage::Handler)),
    }
}

fn write(id: u32, reply: &Kept) {
    with_current(|c| {
        if reply.body.len() > WHOLE {
            c.aside = Some(Box::new(Aside::Large { status: reply.status, head: Bytes::new(), tail: reply.body.clone() }));
            return;
        }
        let start = begin_reply(&mut c.replies, id, reply.status);
        c.replies.extend_from_slice(&reply.body);
        end_reply(&mut c.replies, start);
    });
}

/// Answers a call with the reply of another attempt.
fn answer(call: &Incoming, reply: &Kept) {
    match reply.body.len() {
        len if len > call.max_reply && reply.status != status::FAILURE => call.fail(&result_too_large(len, call.max_reply)),
        _ => write(call.id, reply),
    }
    with_current(|c| c.finish = Some(Finish::Replayed));
}

/// A later attempt, while the first one runs.
struct Waits {
    call: Incoming,
    reply: Pin<Box<dyn Future<Output = Kept> + Send>>,
}

impl Waits {
    fn new(call: Incoming, reply: Waiting) -> Waits {
        // Its arguments are those of the one that runs.
        drop(call.body.take());
        Waits { call, reply: Box::pin(reply_of(reply)) }
    }
}

impl ParkedHandler for Waits {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reply = ready!(self.reply.as_mut().poll(cx));
        answer(&self.call, &reply);
        Poll::Ready(())
    }

    fn may_be_dropped(&self) -> Option<bool> {
        Some(true)
    }
}

/// A call that does not run.
struct Answers {
    call: Incoming,
    answer: Result<Kept, RpcError>,
}

impl ParkedHandler for Answers {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match &self.answer {
            Ok(reply) => answer(&self.call, reply),
            Err(error) => self.call.fail(error),
        }
        Poll::Ready(())
    }
}

async fn reply_of(mut waiting: Waiting) -> Kept {
    let reply = waiting.wait_for(Option::is_some).await.ok().and_then(|reply| reply.clone());
    reply
        .unwrap_or_else(|| Kept::failure(&RpcError::new(Code::Unavailable, "the attempt that ran was given up").with_stage(Stage::Handler)))
}

#[cold]
fn no_record(attempted: bool) -> RpcError {
    let why = "this side keeps no record of idempotency keys (its limit `keys` is 0): call without one";
    match attempted {
        true => RpcError::new(Code::Unimplemented, why),
        false => RpcError::not_executed(Code::Unimplemented, why),
    }
}
