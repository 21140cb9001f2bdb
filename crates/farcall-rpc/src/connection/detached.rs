//! Handlers that run on when their connection is gone, and what is told of a call's end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use farcall_core::{Certainty, Code};
use tokio::sync::{Notify, Semaphore};

use super::driver::Services;
use super::parked::Entry;
use crate::context::{Current, Finish, Peer, enter};
use crate::observer::{Ended, Outcome, Side};

/// Counts the handlers of a server that were not ready at once, also those whose connection is gone: so
/// many and no more, and a server that drains waits for them.
#[derive(Default)]
pub(crate) struct Running {
    /// Looked at for every call, so it is no more than an atomic.
    handlers: AtomicUsize,
    none_left: Notify,
    /// Slow handlers that may compute at a time: the connections need a worker, too.
    workers: OnceLock<Arc<Semaphore>>,
}

impl Running {
    /// What a handler that is run apart must hold while it computes.
    pub(super) fn workers(&self) -> Arc<Semaphore> {
        let all = || tokio::runtime::Handle::current().metrics().num_workers();
        Arc::clone(self.workers.get_or_init(|| Arc::new(Semaphore::new(all().saturating_sub(1).max(1)))))
    }

    #[inline]
    pub(crate) fn handlers(&self) -> usize {
        self.handlers.load(Ordering::Relaxed)
    }

    /// Until there are none.
    pub(crate) async fn none(&self) {
        loop {
            let mut left = pin!(self.none_left.notified());
            // Registered before the count is looked at, or the last one could end in between.
            left.as_mut().enable();
            if self.handlers.load(Ordering::Acquire) == 0 {
                return;
            }
            left.await;
        }
    }
}

/// Counts a handler for as long as it exists.
pub(crate) struct Counted(Arc<Running>);

impl Counted {
    pub(crate) fn new(running: &Arc<Running>) -> Counted {
        running.handlers.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(running))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.handlers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

/// What is needed to end a call.
pub(crate) struct Ending {
    pub(crate) id: u32,
    pub(crate) oneway: bool,
    pub(crate) service: u32,
    pub(crate) method: u16,
    pub(crate) since: Option<Instant>,
    /// Streams flow beside it: its number is in use until they are over too.
    pub(crate) streamed: bool,
    /// Bytes of its arguments, while they count as held.
    pub(crate) held: usize,
}

impl Entry {
    pub(crate) fn ending(&self) -> Ending {
        let Entry { id, oneway, service, method, since, streamed, held, .. } = *self;
        Ending { id, oneway, service, method, since, streamed, held }
    }
}

/// Tells the observers of a call's end.
#[cold]
pub(crate) fn observe(services: &Services, peer: &Peer, ending: &Ending, finish: Option<Finish>) {
    let descriptor = services.skeletons[ending.service as usize].descriptor();
    let outcome = Outcome {
        side: Side::Server,
        service: &descriptor.name,
        method: &descriptor.methods[ending.method as usize].name,
        peer: &peer.address,
        elapsed: ending.since.map_or(Duration::ZERO, crate::time::since),
        ended: match finish.unwrap_or(Finish::Ok) {
            Finish::Ok => Ended::Ok,
            Finish::AppError => Ended::AppError,
            Finish::Failed(code, certainty) => Ended::Failed(code, certainty),
            Finish::Replayed => Ended::Replayed,
        },
    };
    for observer in &services.observers {
        // A call does not fail because somebody could not count it.
        let _ = catch_unwind(AssertUnwindSafe(|| observer.ended(&outcome)));
    }
}

/// A handler whose connection is gone and that runs to its end all the same.
pub(crate) struct Detached {
    pub(crate) entry: Entry,
    pub(crate) services: Arc<Services>,
    pub(crate) peer: Arc<Peer>,
}

impl Future for Detached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Detached { entry, services, peer, .. } = &mut *self;
        let mut current = Current { context: std::mem::take(&mut entry.context), ..Current::default() };
        let polled = enter(&mut current, || catch_unwind(AssertUnwindSafe(|| entry.handler.poll(cx))));
        entry.context = current.context;
        let finish = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => current.finish,
            Err(_) => Some(Finish::Failed(Code::Internal, Certainty::MaybeExecuted)),
        };
        if entry.since.is_some() {
            observe(services, peer, &entry.ending(), finish);
        }
        Poll::Ready(())
    }
}
