//! Handlers that prove slow are run apart from the connection's task, so that they do not hold up
//! their neighbours.
//!
//! A handler runs in place because that costs nothing. One that computes for long without waiting
//! holds up every other call of its connection. It cannot be known before, so it is measured: a method
//! that was slow twice within a few calls is run in a task of its own from then on, and tried in place
//! again now and then.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, block_in_place};

use crate::context::{Context as CallContext, Current, enter, with_current};
use crate::skeleton::ParkedHandler;

/// A handler that took longer than this before it waited or ended was slow.
const SLOW_US: u64 = 500;
/// Slow so many times in a row: run apart.
const IN_A_ROW: u32 = 3;
/// Calls over which a method's time is averaged.
const WINDOW: u32 = 256;
/// On average slower than this over a window, and so slow more than once or twice: run apart. A machine that stood still for 50 ms
/// would otherwise make the average of 256 calls by itself.
const SLOW_ON_AVERAGE_US: u64 = 200;
/// That many.
const SEVERAL: u32 = 3;
/// Calls run apart before it is tried in place again.
const APART: u32 = 1000;

/// How slow a method was on this connection. A single slow call says nothing: the system may have
/// given the core to somebody else meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slow {
    calls: u32,
    in_a_row: u32,
    /// Time of the calls of this window.
    total_us: u64,
    /// Calls of this window above the average that is allowed.
    long: u32,
    apart: u32,
}

impl Slow {
    /// A call begins; whether it is to be run apart.
    #[inline]
    pub(super) fn begin(&mut self) -> bool {
        if self.apart == 0 {
            return false;
        }
        self.apart -= 1;
        true
    }

    /// The call just begun took so long in place.
    #[inline]
    pub(super) fn took(&mut self, us: u64) {
        self.calls += 1;
        self.total_us += us;
        self.long += u32::from(us > SLOW_ON_AVERAGE_US);
        self.in_a_row = if us > SLOW_US { self.in_a_row + 1 } else { 0 };
        if self.in_a_row >= IN_A_ROW || self.calls >= WINDOW {
            self.judge();
        }
    }

    #[cold]
    fn judge(&mut self) {
        let on_average = self.total_us / u64::from(self.calls) > SLOW_ON_AVERAGE_US;
        let slow = self.in_a_row >= IN_A_ROW || (on_average && self.long >= SEVERAL);
        *self = Slow { apart: if slow { APART } else { 0 }, ..Slow::default() };
    }
}

/// Calls that are run between two looks at the clock, which costs as much as a small handler.
const MOST_UNMEASURED: u32 = 8;
/// A handful of calls that took less than this: fewer looks will do.
const QUICK_US: u64 = 20;
/// One that took more: look after every call.
const LONG_US: u64 = 100;

/// How many calls are run between two looks at the clock: more the quicker they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stride {
    calls: u32,
    most: u32,
}

impl Default for Stride {
    fn default() -> Stride {
        Stride { calls: 0, most: 1 }
    }
}

impl Stride {
    /// A call has run; whether to look at the clock.
    #[inline]
    pub(super) fn ends(&mut self) -> bool {
        self.calls += 1;
        self.calls >= self.most
    }

    /// No call has run since the clock was looked at.
    #[inline]
    pub(super) fn is_fresh(&self) -> bool {
        self.calls == 0
    }

    /// The calls since the last look took so long. Returns the time of the last, if it was the only
    /// one.
    #[inline]
    pub(super) fn took(&mut self, us: u64) -> Option<u64> {
        let alone = self.calls == 1;
        if std::mem::take(&mut self.calls) == 0 {
            return None;
        }
        self.most = match us {
            0..QUICK_US => (self.most * 2).min(MOST_UNMEASURED),
            QUICK_US..LONG_US => self.most,
            _ => 1,
        };
        alone.then_some(us)
    }
}

/// A handler in a task of its own, as its connection keeps it.
pub(super) struct Apart {
    task: JoinHandle<Current>,
    /// The handler may be dropped when nobody waits for it.
    cancel: bool,
}

impl Apart {
    pub(super) fn spawn(handler: Box<dyn ParkedHandler>, context: CallContext, workers: Arc<Semaphore>, cancel: bool) -> Apart {
        let current = Current { context, ..Current::default() };
        Apart { task: tokio::spawn(Computing { handler, current, workers, turn: None }), cancel }
    }
}

impl ParkedHandler for Apart {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ended = match Pin::new(&mut self.task).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(ended)) => ended,
            Poll::Ready(Err(e)) => match e.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                // The runtime is shutting down, and the connection with it.
                Err(_) => return Poll::Pending,
            },
        };
        with_current(|c| {
            c.replies.extend_from_slice(&ended.replies);
            (c.finish, c.aside) = (ended.finish, ended.aside);
        });
        Poll::Ready(())
    }

    fn may_be_dropped(&self) -> Option<bool> {
        Some(self.cancel)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if self.cancel {
            self.task.abort();
        }
    }
}

/// The handler and what it leaves behind. It computes only while it has a worker: many of them must
/// not keep the connections from theirs.
struct Computing {
    handler: Box<dyn ParkedHandler>,
    current: Current,
    workers: Arc<Semaphore>,
    turn: Option<Turn>,
}

/// A place among those who wait for a worker.
type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

impl Future for Computing {
    type Output = Current;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Current> {
        let Computing { handler, current, workers, turn } = &mut *self;
        let waiting = turn.get_or_insert_with(|| Box::pin(Arc::clone(workers).acquire_owned()));
        // It is never closed; the worker is given back when this poll ends.
        let _worker = ready!(waiting.as_mut().poll(cx)).ok();
        *turn = None;
        let mut compute = || enter(current, || catch_unwind(AssertUnwindSafe(|| handler.poll(cx))));
        // Told that it blocks, the runtime gives what else this worker has to do to another: its queue,
        // and the sockets if it was the one that watched them.
        let polled = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => block_in_place(&mut compute),
            _ => compute(),
        };
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(std::mem::take(current)),
            Err(payload) => resume_unwind(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `calls` are run apart if each takes as long as `us` says in place.
    fn apart(calls: u32, us: impl Fn(u32) -> u64) -> u32 {
        let mut method = Slow::default();
        let mut apart = 0;
        for n in 0..calls {
            match method.begin() {
                true => apart += 1,
                false => method.took(us(n)),
            }
        }
        apart
    }

    #[test]
    fn a_slow_method_is_run_apart_and_tried_again() {
        assert_eq!(apart(100_000, |_| 100), 0);
        let always = apart(100_000, |_| 1000);
        assert!((99_000..100_000).contains(&always), "{always}");
        let sometimes = apart(100_000, |n| if n % 100 == 0 { 50_000 } else { 1 });
        assert!(sometimes > 50_000, "{sometimes}");
        assert!(apart(100_000, |n| if n < 100 { 1000 } else { 1 }) <= APART, "it may become quick again");
    }

    #[test]
    fn a_core_that_is_shared_makes_no_method_slow() {
        // Every few milliseconds somebody else has the core for a few.
        assert_eq!(apart(100_000, |n| if n % 100 == 0 { 9_000 } else { 20 }), 0);
        // The whole machine stands still now and then.
        assert_eq!(apart(100_000, |n| if n % 200 == 0 { 80_000 } else { 1 }), 0);
    }
}
