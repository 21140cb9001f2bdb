//! A connection: one link, the session over it, and the driver task that moves the bytes.

mod driver;
mod handshake;
mod parked;
mod read;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use farcall_core::{Certainty, Code, Limits, RpcError, ServiceDescriptor};
use farcall_wire::{CallId, Outbound, Start};

use crate::context::Peer;
pub(crate) use driver::{Driver, Services};
pub(crate) use handshake::{establish, last_words};

/// Milliseconds since the connection was made: what the session counts deadlines in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    #[inline]
    pub(crate) fn now(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// The millisecond that `at` lies in, or the next.
    pub(crate) fn ms(self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0).as_micros().div_ceil(1000) as u64
    }

    #[inline]
    pub(crate) fn instant(self, ms: u64) -> Instant {
        self.0 + Duration::from_millis(ms)
    }
}

/// A handle on a connection. The connection closes when the last one is dropped, after what is
/// queued has been written.
pub(crate) struct Connection {
    pub(crate) inner: Arc<Inner>,
}

/// What callers and driver share.
pub(crate) struct Inner {
    shared: Mutex<Shared>,
    clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) peer: Arc<Peer>,
    /// No new calls: the link is lost or the peer is going away.
    closed: AtomicBool,
}

struct Shared {
    outbound: Outbound<Waker>,
    /// Set while the driver sleeps with nothing to write: whoever queues something wakes it.
    driver: Option<Waker>,
    /// The time of the driver's last turn. While it is awake this is fresh enough for callers.
    now: u64,
    /// Batches being put together: nothing is written until they are complete.
    corks: usize,
    /// Callers that wait until the out-buffer has room.
    waiting_for_room: Vec<Waker>,
    orders: Orders,
}

/// What the driver is told to do.
#[derive(Debug, Default)]
struct Orders {
    /// Write what is queued, then hang up.
    close: bool,
    /// Take no further calls, let the running ones end, then hang up.
    drain: bool,
    /// Hang up now.
    abort: bool,
}

/// The service of a call, and how its rows are found again.
#[derive(Clone, Copy)]
pub(crate) enum Bound<'a> {
    /// A stub's descriptor, which lives for ever: by its address.
    Stub(&'static ServiceDescriptor),
    /// One that comes and goes: by what it says.
    Raw(&'a ServiceDescriptor),
}

impl Bound<'_> {
    #[inline]
    fn row(self, outbound: &mut Outbound<Waker>) -> Result<u16, RpcError> {
        match self {
            Bound::Stub(service) => outbound.bind(std::ptr::from_ref(service).addr(), service),
            Bound::Raw(service) => outbound.bind_by_value(service),
        }
    }
}

/// What became of an attempt to start a call.
pub(crate) enum Started {
    Sent(CallId),
    /// The out-buffer is full; the waker given is called when there is room.
    Full,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing that can panic runs under the lock; if it did, the data is still whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, f: impl FnOnce(&mut Orders)) {
        let mut shared = self.lock();
        f(&mut shared.orders);
        let driver = shared.driver.take();
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Starts a graceful end: see [`Orders::drain`].
    pub(crate) fn drain(&self) {
        self.order(|o| o.drain = true);
    }

    /// Ends it now.
    pub(crate) fn abort(&self) {
        self.order(|o| o.abort = true);
    }

    /// Whether new calls must look for another connection.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Connection {
    /// Queues a two-way call.
    #[inline]
    pub(crate) fn start(&self, service: Bound<'_>, method: u16, call: Start<'_>, waker: &Waker) -> Result<Started, RpcError> {
        let mut shared = self.inner.lock();
        if shared.outbound.queued() > self.inner.limits.out_buffer {
            shared.waiting_for_room.push(waker.clone());
            return Ok(Started::Full);
        }
        let driver = shared.wake_driver(self.inner.clock);
        let now = shared.now;
        let outbound = &mut shared.outbound;
        let started = match service.row(outbound) {
            Ok(row) => outbound.start(now, Start { row: row + method, ..call }, Some(waker.clone())),
            Err(e) => Err(e),
        };
        drop(shared);
        // Also after a failure: the driver's waker is gone from its place, so nobody else would.
        if let Some(driver) = driver {
            driver.wake();
        }
        started.map(Started::Sent)
    }

    /// Queues a one-way call. `false` if the out-buffer is full.
    pub(crate) fn start_oneway(&self, service: Bound<'_>, method: u16, call: Start<'_>, waker: &Waker) -> Result<bool, RpcError> {
        let mut shared = self.inner.lock();
        if shared.outbound.queued() > self.inner.limits.out_buffer {
            shared.waiting_for_room.push(waker.clone());
            return Ok(false);
        }
        let driver = shared.wake_driver(self.inner.clock);
        let outbound = &mut shared.outbound;
        let queued = service.row(outbound).and_then(|row| outbound.start_oneway(Start { row: row + method, ..call }));
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
        queued.map(|()| true)
    }

    /// The answer of a call, if it is here; else `waker` is called when it is.
    #[inline]
    pub(crate) fn poll(&self, id: CallId, waker: &Waker) -> Option<farcall_wire::Answer> {
        self.inner.lock().outbound.poll(id, |waiting| match waiting {
            Some(old) if old.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        })
    }

    /// The caller of a call is gone. Says what is known about its execution.
    pub(crate) fn cancel(&self, id: CallId) -> Certainty {
        let mut shared = self.inner.lock();
        let certainty = shared.outbound.cancel(id);
        let driver = shared.wake_driver(self.inner.clock);
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
        certainty
    }

    /// When a call expires, if it does.
    pub(crate) fn expires(&self, id: CallId) -> Option<Instant> {
        let at = self.inner.lock().outbound.expires(id);
        (at != farcall_wire::NEVER).then(|| self.inner.clock.instant(at))
    }

    /// Ends what is past its deadline. The driver does that; this is for those who wait for a driver
    /// whose runtime stands still.
    pub(crate) fn expire(&self) {
        let mut wake = Vec::new();
        self.inner.lock().outbound.expire(self.inner.clock.now(), &mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Holds back writing until the cork is dropped.
    pub(crate) fn cork(self: &Arc<Self>) -> Cork {
        self.inner.lock().corks += 1;
        Cork(Arc::clone(self))
    }
}

impl Shared {
    /// The driver's waker if it must be woken; also refreshes the clock, which nobody did while it
    /// slept.
    #[inline]
    fn wake_driver(&mut self, clock: Clock) -> Option<Waker> {
        if self.driver.is_some() {
            self.now = clock.now();
        }
        match self.corks {
            0 => self.driver.take(),
            _ => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inner.order(|o| o.close = true);
    }
}

/// See [`Connection::cork`].
pub(crate) struct Cork(Arc<Connection>);

impl Drop for Cork {
    fn drop(&mut self) {
        let mut shared = self.0.inner.lock();
        shared.corks -= 1;
        let driver = if shared.outbound.queued() > 0 { shared.wake_driver(self.0.inner.clock) } else { None };
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// The error of calls on a link that ended.
fn lost(peer: &Peer, why: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::Unavailable, format!("the connection ended before the reply: {why}")).with_peer(peer.address.clone())
}
