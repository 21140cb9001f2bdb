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
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::context::{Context as CallContext, Current, enter, with_current};
use crate::skeleton::ParkedHandler;

/// A handler that took longer than this before it waited or ended was slow.
pub(super) const SLOW_US: u64 = 500;
/// Slow twice within so many calls: run apart.
const NEAR: u32 = 1000;
/// Calls run apart before it is tried in place again.
const APART: u32 = 1000;

/// How a method behaved on this connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slow {
    calls: u32,
    /// The call that was slow last; 0 = none.
    slow_at: u32,
    apart: u32,
}

impl Slow {
    /// A call begins; whether it is to be run apart.
    #[inline]
    pub(super) fn begin(&mut self) -> bool {
        self.calls = self.calls.wrapping_add(1);
        if self.apart == 0 {
            return false;
        }
        self.apart -= 1;
        true
    }

    /// The call just begun was slow, in place.
    #[cold]
    pub(super) fn was_slow(&mut self) {
        let since = self.calls.wrapping_sub(self.slow_at);
        if self.slow_at != 0 && since <= NEAR + APART {
            self.apart = APART;
        }
        self.slow_at = self.calls.max(1);
    }
}

/// A handler in a task of its own, as its connection keeps it.
pub(super) struct Apart {
    task: JoinHandle<Current>,
    /// The handler may be dropped when nobody waits for it.
    cancel: bool,
}

impl Apart {
    pub(super) fn spawn(handler: Box<dyn ParkedHandler>, context: CallContext, cancel: bool) -> Apart {
        let current = Current { context, ..Current::default() };
        Apart { task: tokio::spawn(Running { handler, current }), cancel }
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
}

impl Drop for Apart {
    fn drop(&mut self) {
        if self.cancel {
            self.task.abort();
        }
    }
}

/// The handler and what it leaves behind.
struct Running {
    handler: Box<dyn ParkedHandler>,
    current: Current,
}

impl Future for Running {
    type Output = Current;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Current> {
        let Running { handler, current } = &mut *self;
        match enter(current, || catch_unwind(AssertUnwindSafe(|| handler.poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(std::mem::take(current)),
            Err(payload) => resume_unwind(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `calls` are run apart if those for which `slow` says so are slow in place.
    fn apart(calls: u32, slow: impl Fn(u32) -> bool) -> u32 {
        let mut method = Slow::default();
        (0..calls)
            .map(|n| {
                let apart = method.begin();
                if !apart && slow(n) {
                    method.was_slow();
                }
                u32::from(apart)
            })
            .sum()
    }

    #[test]
    fn a_slow_method_is_run_apart_and_tried_again() {
        assert_eq!(apart(1000, |_| false), 0);
        assert_eq!(apart(1000, |n| n == 500), 0, "once may be the machine's fault");
        let always = apart(100_000, |_| true);
        assert!((99_000..100_000).contains(&always), "{always}");
        let sometimes = apart(100_000, |n| n % 100 == 0);
        assert!(sometimes > 80_000, "{sometimes}");
        let rarely = apart(100_000, |n| n % 5000 == 0);
        assert_eq!(rarely, 0);
        assert!(apart(100_000, |n| n < 100) <= 2 * APART, "it may become quick again");
    }
}
