//! A connection: one link, the session over it, and the driver task that moves the bytes.

mod apart;
mod calls;
mod detached;
mod differing;
mod driver;
mod flows;
mod handshake;
#[cfg(all(test, farcall_loom))]
mod models;
mod parked;
mod read;
mod spin;
mod sync;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use farcall_core::{Certainty, Code, Limits, RpcError, ServiceDescriptor};
use farcall_wire::{CallId, Outbound, Replies, Sender, Start};

use crate::context::Peer;
pub(crate) use calls::crowded;
pub(crate) use detached::{Counted, Detached, Ending, Running, observe};
pub(crate) use driver::{Driver, LINGER, Services};
pub(crate) use handshake::{Greeting, establish, last_words, random_id};
pub(crate) use parked::Entry;
use sync::{Mutex, MutexGuard};

/// Milliseconds since the connection was made: what the session counts deadlines in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(crate::time::now())
    }

    #[inline]
    pub(crate) fn now(self) -> u64 {
        self.elapsed().as_millis() as u64
    }

    /// As [`now`](Clock::now), in microseconds.
    #[inline]
    pub(crate) fn us(self) -> u64 {
        self.elapsed().as_micros() as u64
    }

    /// Under the model checker time stands still, or an order would not be the same when repeated.
    #[inline]
    fn elapsed(self) -> Duration {
        if cfg!(all(test, farcall_loom)) { Duration::ZERO } else { crate::time::since(self.0) }
    }

    /// The millisecond that `at` lies in, or the next.
    pub(crate) fn ms(self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0).as_micros().div_ceil(1000) as u64
    }

    /// As [`ms`](Clock::ms), of a time of day as it is known now.
    fn ms_of(self, at: SystemTime) -> u64 {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        self.now().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }

    #[inline]
    pub(crate) fn instant(self, ms: u64) -> Instant {
        self.0 + Duration::from_millis(ms)
    }
}

/// Calls that count their deadlines from one look at the clock.
const MOST_GONE_BY: u32 = 8;
/// Only deadlines at least this far off.
const LONG_MS: u64 = 5000;

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
    /// There are rows of ours on which the two sides differ.
    differs: std::sync::atomic::AtomicBool,
}

struct Shared {
    outbound: Outbound<Waker>,
    /// Set while the driver sleeps with nothing to write: whoever queues something wakes it.
    driver: Option<Waker>,
    /// The time as it was looked at last, by the driver or a caller, and how many calls have gone by
    /// it since.
    now: u64,
    gone_by: u32,
    /// Batches being put together: nothing is written until they are complete.
    corks: usize,
    waiting_for_room: Room,
    orders: Orders,
}

/// Callers that wait until the out-buffer has room, one entry each.
#[derive(Default)]
struct Room {
    /// Grows each time they are all woken: a place of an earlier round is free.
    round: u64,
    waiting: Vec<Waker>,
}

/// A caller's place among those who wait for room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomPlace {
    round: u64,
    index: usize,
}

impl Room {
    /// Enters a caller; returns the waker that it replaces, to be dropped without the lock.
    fn enter(&mut self, place: &mut Option<RoomPlace>, waker: Waker) -> Option<Waker> {
        match place.filter(|p| p.round == self.round).and_then(|p| self.waiting.get_mut(p.index)) {
            Some(old) => Some(std::mem::replace(old, waker)),
            None => {
                *place = Some(RoomPlace { round: self.round, index: self.waiting.len() });
                self.waiting.push(waker);
                None
            }
        }
    }

    /// All of them, to be woken.
    fn clear(&mut self) -> Vec<Waker> {
        self.round += 1;
        std::mem::take(&mut self.waiting)
    }
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
            Bound::Stub(service) => outbound.bind(service),
            Bound::Raw(service) => outbound.bind_by_value(service),
        }
    }
}

/// What became of an attempt to start a call.
pub(crate) enum Started {
    /// With the stream of its arguments, if it has one.
    Sent(CallId, Option<Sender>),
    /// The out-buffer is full; the waker given is called when there is room.
    Full,
    /// The connection takes no more calls; nothing was sent.
    Closed,
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

    /// Enters a caller among those who are woken when there is room; at once if there is.
    #[cold]
    fn wait_for_room(&self, place: &mut Option<RoomPlace>, waker: &Waker, is_room: impl FnOnce(&Shared) -> bool) {
        let new = waker.clone();
        let mut shared = self.lock();
        // It may have been written meanwhile; then nobody else would call.
        let room = is_room(&shared);
        let unused = if room { Some(new) } else { shared.waiting_for_room.enter(place, new) };
        drop(shared);
        drop(unused);
        if room {
            waker.wake_by_ref();
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

    /// Whether one of the sides has said that it is to end.
    fn is_to_end(&self) -> bool {
        let shared = self.lock();
        let Orders { close, drain, abort } = shared.orders;
        close || drain || abort || shared.outbound.closed().is_some()
    }

    /// How the replies of a method are read, if the two sides differ on it.
    #[inline]
    pub(crate) fn replies(&self, service: &'static ServiceDescriptor, method: u16) -> Option<Replies> {
        // Set before the first reply is delivered, under the lock under which that is taken.
        match self.differs.load(Ordering::Relaxed) {
            false => None,
            true => self.lock().outbound.replies(service, method),
        }
    }

    /// Whether new calls must look for another connection.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Connection {
    /// The lock, if a call can be queued now. If there is no room, `waker` is called when there is.
    #[inline]
    fn admit(&self, call: &Start<'_>, waker: &Waker, place: &mut Option<RoomPlace>) -> Result<MutexGuard<'_, Shared>, Started> {
        let shared = self.inner.lock();
        if shared.outbound.closed().is_some() {
            return Err(Started::Closed);
        }
        if shared.has_room(&self.inner.limits) && shared.outbound.has_credit(call) {
            return Ok(shared);
        }
        drop(shared);
        let limits = &self.inner.limits;
        self.inner.wait_for_room(place, waker, |shared| {
            shared.outbound.closed().is_some() || shared.has_room(limits) && shared.outbound.has_credit(call)
        });
        Err(Started::Full)
    }

    /// Queues a two-way call. `place` is the caller's place if it has to wait for room.
    #[inline]
    pub(crate) fn start(
        &self,
        service: Bound<'_>,
        method: u16,
        call: Start<'_>,
        waker: &Waker,
        place: &mut Option<RoomPlace>,
    ) -> Result<Started, RpcError> {
        // Another executor's waker is foreign code, which must not run under the lock: it is cloned
        // before and dropped after.
        let waker = waker.clone();
        let mut shared = match self.admit(&call, &waker, place) {
            Ok(shared) => shared,
            Err(refused) => return Ok(refused),
        };
        let driver = shared.wake_driver();
        let now = shared.time(self.inner.clock, call.deadline, driver.is_some());
        let (outbound, streams) = (&mut shared.outbound, call.streams);
        let mut unused = None;
        let started = match service.row(outbound) {
            Ok(row) => outbound.start(now, Start { row: row + method, ..call }, None),
            Err(e) => Err(e),
        };
        let mut sender = None;
        match started {
            Ok(id) => {
                drop(outbound.poll(id, |waiting| *waiting = Some(waker)));
                if streams.args {
                    sender = Some(outbound.open_args(id));
                }
            }
            Err(_) => unused = Some(waker),
        }
        drop(shared);
        drop(unused);
        // Also after a failure: the driver's waker is gone from its place, so nobody else would.
        if let Some(driver) = driver {
            driver.wake();
        }
        started.map(|id| Started::Sent(id, sender))
    }

    /// Queues a one-way call, which is then over: there is no `Started::Sent`.
    pub(crate) fn start_oneway(
        &self,
        service: Bound<'_>,
        method: u16,
        call: Start<'_>,
        waker: &Waker,
        place: &mut Option<RoomPlace>,
    ) -> Result<Option<Started>, RpcError> {
        let mut shared = match self.admit(&call, waker, place) {
            Ok(shared) => shared,
            Err(refused) => return Ok(Some(refused)),
        };
        let driver = shared.wake_driver();
        let outbound = &mut shared.outbound;
        let queued = service.row(outbound).and_then(|row| outbound.start_oneway(Start { row: row + method, ..call }));
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
        queued.map(|()| None)
    }

    /// The answer of a call, if it is here; else `waker` is called when it is.
    #[inline]
    pub(crate) fn poll(&self, id: CallId, waker: &Waker) -> Option<farcall_wire::Answer> {
        let mut same = false;
        let answer = self.inner.lock().outbound.poll(id, |waiting| same = waiting.as_ref().is_some_and(|w| w.will_wake(waker)));
        if answer.is_some() || same {
            return answer;
        }
        let mut new = Some(waker.clone());
        // `new` holds the waker that was replaced when the lock is gone.
        let answer = self.inner.lock().outbound.poll(id, |waiting| std::mem::swap(waiting, &mut new));
        drop(new);
        answer
    }

    /// The caller of a call is gone. Says what is known about its execution.
    pub(crate) fn cancel(&self, id: CallId) -> Certainty {
        let (mut waiting, mut wake) = (None, Vec::new());
        let mut shared = self.inner.lock();
        // A call that has ended keeps its answer: this only takes the waker of one that has not.
        shared.outbound.take_waiting(id, &mut waiting);
        let certainty = shared.outbound.cancel(id, &mut wake);
        let driver = shared.wake_driver();
        drop(shared);
        drop(waiting);
        wake.into_iter().for_each(Waker::wake);
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
    /// The time for a call with this deadline to count from. To look at the clock costs as much as the
    /// rest of a call's start: among calls that leave in one write, a few share one look. Only if the
    /// deadline is far off, for they may also be held up by a task that keeps its thread to itself.
    #[inline]
    fn time(&mut self, clock: Clock, deadline: Option<u64>, driver_slept: bool) -> u64 {
        self.gone_by += 1;
        let Some(deadline) = deadline else { return self.now };
        if driver_slept || self.gone_by >= MOST_GONE_BY || deadline < LONG_MS {
            (self.now, self.gone_by) = (clock.now(), 0);
        }
        self.now
    }

    /// Whether more may be queued.
    #[inline]
    fn has_room(&self, limits: &Limits) -> bool {
        self.outbound.queued() <= limits.out_buffer && self.outbound.resting() <= limits.held.max(limits.body)
    }

    /// The driver's waker if it must be woken.
    #[inline]
    fn wake_driver(&mut self) -> Option<Waker> {
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

impl Cork {
    /// What it is in.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        let mut shared = self.0.inner.lock();
        shared.corks -= 1;
        let driver = if shared.outbound.has_output() { shared.wake_driver() } else { None };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_waits_for_room_in_one_place_however_often_it_is_polled() {
        let mut room = Room::default();
        let (mut a, mut b) = (None, None);
        for _ in 0..1000 {
            drop(room.enter(&mut a, Waker::noop().clone()));
            drop(room.enter(&mut b, Waker::noop().clone()));
        }
        assert_eq!(room.waiting.len(), 2);
        assert_eq!(room.clear().len(), 2);
        // A place of the last round is not one of this.
        assert!(room.enter(&mut b, Waker::noop().clone()).is_none());
        assert_eq!(room.waiting.len(), 1);
    }
}
