//! The connections of a channel: those that are up, and the attempt that is under way.
//!
//! There is one attempt at a time, however many connections a channel may have and however many calls
//! wait: so a dead provider is asked no more often by a busy channel than by an idle one. Calls that
//! wait share the attempt's result.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use farcall_core::error::display_duration;
use farcall_core::{Code, Endpoint, Limits, RpcError, Stage};

use super::pace::Pace;
use super::random::Xorshift;
use crate::connection::Connection;

/// See the module's text.
pub(super) struct Pool {
    most: usize,
    up: Vec<Up>,
    /// Where the search for the least busy connection begins: it moves on with every call, so that
    /// connections that are equally busy take turns.
    turn: usize,
    pace: Pace,
    random: Xorshift,
    /// The number of the last attempt.
    attempt: u64,
    /// Those who wait for it, while it is under way.
    waiting: Option<Vec<Waker>>,
    /// The last attempt that came to nothing, and why.
    failed: Option<(u64, RpcError)>,
    /// How long a call waits for the next attempt to begin.
    patience: Duration,
}

/// A connection, and since when.
pub(super) struct Up {
    connection: Arc<Connection>,
    /// Where it leads to; none over a link that existed already.
    endpoint: Option<Arc<Endpoint>>,
    since: Instant,
}

/// Where a caller waits for a connection: the attempt, and its place among those who wait for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    attempt: u64,
    index: usize,
}

/// An attempt that is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) attempt: u64,
    /// After this long.
    pub(super) pause: Duration,
}

/// Which connection a caller would like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// How long it can wait for one; `None` = for ever.
    pub(crate) within: Option<Duration>,
    /// Another than this, if there is one: by its address.
    pub(crate) but: Option<usize>,
}

impl Pool {
    pub(super) fn new(most: usize, limits: &Limits) -> Pool {
        Pool {
            most,
            up: Vec::new(),
            turn: 0,
            pace: Pace::new(limits),
            random: Xorshift::seeded(),
            attempt: 0,
            waiting: None,
            failed: None,
            patience: limits.reconnect_wait,
        }
    }

    /// The connection of a channel that has but one, lost or not.
    #[inline]
    pub(super) fn only(&self) -> Option<&Arc<Connection>> {
        match &self.up[..] {
            [only] if self.most == 1 => Some(&only.connection),
            _ => None,
        }
    }

    /// The connection with the fewest calls in flight. With it comes the attempt to make another, if
    /// there may be more and this one is busy. [Take out](Pool::take_lost) the lost ones first.
    pub(super) fn pick(&mut self, but: Option<usize>, now: Instant) -> Option<(Arc<Connection>, Option<Start>)> {
        self.turn = self.turn.wrapping_add(1);
        let (last, first) = self.up.split_at(self.turn.checked_rem(self.up.len())?);
        let all = first.iter().chain(last).map(|up| &up.connection);
        let picked = Arc::clone(all.min_by_key(|c| (but == Some(Arc::as_ptr(c).addr()), in_flight(c)))?);
        // One is held here.
        let busy = in_flight(&picked) > 1;
        let more = busy && self.up.len() < self.most && self.waiting.is_none() && self.pace.pause(now).is_zero();
        let start = more.then(|| self.begin(Vec::new(), Duration::ZERO));
        Some((picked, start))
    }

    /// Takes out connections that are no good any more; to be dropped without the lock.
    pub(super) fn take_lost(&mut self, now: Instant) -> Vec<Up> {
        let lost: Vec<Up> = self.up.extract_if(.., |up| up.connection.inner.is_closed()).collect();
        // Lost together, they tell of one event: the oldest shows how good the provider was.
        if let Some(oldest) = lost.iter().min_by_key(|up| up.since) {
            let good = self.pace.lost(now.saturating_duration_since(oldest.since), now, self.random.next());
            // After a good one all begins anew: who waited on it waits for the next.
            self.failed = (!good).then(|| {
                let why = format!("{}: the connection was lost soon after it was made", oldest.connection.inner.peer.address);
                (self.attempt, RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Connect))
            });
        }
        lost
    }

    /// Enters a caller that waits for a connection. `waker` is left with the one that it replaces.
    pub(super) fn enter(
        &mut self,
        place: &mut Option<Place>,
        waker: &mut Waker,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<Option<Start>, RpcError> {
        if let Some(waiting) = &mut self.waiting
            && let Some(mine) = place.filter(|p| p.attempt == self.attempt).and_then(|p| waiting.get_mut(p.index))
        {
            std::mem::swap(mine, waker);
            return Ok(None);
        }
        // What it waited for came to nothing: whether to wait for a further attempt is not ours to say.
        if let Some((attempt, error)) = &self.failed
            && place.is_some_and(|p| p.attempt <= *attempt)
        {
            return Err(error.clone());
        }
        let pause = self.pace.pause(now);
        if pause > within.map_or(self.patience, |within| within.min(self.patience)) {
            return Err(self.too_long(pause));
        }
        let waker = std::mem::replace(waker, Waker::noop().clone());
        let Some(waiting) = &mut self.waiting else {
            let start = self.begin(vec![waker], pause);
            *place = Some(Place { attempt: start.attempt, index: 0 });
            return Ok(Some(start));
        };
        *place = Some(Place { attempt: self.attempt, index: waiting.len() });
        waiting.push(waker);
        Ok(None)
    }

    fn begin(&mut self, waiting: Vec<Waker>, pause: Duration) -> Start {
        self.attempt += 1;
        self.waiting = Some(waiting);
        Start { attempt: self.attempt, pause }
    }

    fn too_long(&self, pause: Duration) -> RpcError {
        let (code, why) = self.failed.as_ref().map_or((Code::Unavailable, "no connection"), |(_, error)| (error.code(), error.message()));
        let why = format!("{why} (the next attempt is in {})", display_duration(pause));
        RpcError::not_sent(code, why).with_stage(Stage::Connect)
    }

    /// The attempt of this number has ended as `how` says, unless it had ended before. Returns whom to
    /// wake.
    pub(super) fn ended(&mut self, attempt: u64, how: impl FnOnce(&mut Pool)) -> Vec<Waker> {
        if attempt != self.attempt || self.waiting.is_none() {
            return Vec::new();
        }
        how(self);
        self.waiting.take().unwrap_or_default()
    }

    /// A connection was made.
    pub(super) fn connected(&mut self, connection: Arc<Connection>, endpoint: Option<Arc<Endpoint>>, now: Instant) {
        self.up.push(Up { connection, endpoint, since: now });
    }

    /// Where its connections lead to.
    pub(super) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.up.iter().filter_map(|up| up.endpoint.clone()).collect()
    }

    /// Takes out the connections that were made for these; to be dropped without the lock.
    pub(super) fn take_out(&mut self, left: &[Arc<Endpoint>]) -> Vec<Up> {
        let is_left = |up: &Up| up.endpoint.as_ref().is_some_and(|endpoint| left.iter().any(|left| Arc::ptr_eq(left, endpoint)));
        self.up.extract_if(.., |up| is_left(up)).collect()
    }

    /// An attempt has failed.
    pub(super) fn failed(&mut self, error: RpcError, now: Instant) {
        self.pace.failed(now, self.random.next());
        self.given_up(error);
    }

    /// An attempt was given up, which says nothing about the provider.
    pub(super) fn given_up(&mut self, error: RpcError) {
        self.failed = Some((self.attempt, error));
    }
}

/// Calls in flight hold their connection, as the pool does: so it counts them for us.
fn in_flight(connection: &Arc<Connection>) -> usize {
    Arc::strong_count(connection) - 1
}
