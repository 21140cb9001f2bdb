//! A limit of calls at a time that finds itself.
//!
//! [`Gradient`] is the rule, without a clock: it compares how long calls take now with how long they take when nothing
//! waits, and lets in as many as keep the two close. After the gradient limit of Netflix's concurrency-limits
//! (<https://github.com/Netflix/concurrency-limits>, Gradient2Limit), in the form: new = limit × gradient + queue,
//! gradient = clamp(tolerance × usual / short, 0.5, 1), smoothed. Other than there, what is usual follows quickly downwards
//! and hardly upwards: under a load that never lets up, a plain average would come to take the queue for the server.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farcall_core::{Code, RpcError, Stage};

use super::{CallInfo, Interceptor, Next};
use crate::method::BoxFuture;
use crate::observer::Ended;

/// The rule of an [`AdaptiveLimit`].
#[derive(Debug, Clone)]
pub struct Gradient {
    limit: f64,
    least: f64,
    most: f64,
    /// Seconds that a call takes when nothing waits, as far as is known.
    usual: f64,
    /// Seconds that a call takes, over the last few.
    short: f64,
    samples: u64,
}

/// Calls that may take this much longer than usual before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// The share of a new limit, and of new times in the averages.
const SMOOTH: f64 = 0.2;
const SHORT: f64 = 0.1;
/// How quickly what is usual follows when calls become quicker, and when they become slower: ten thousand calls then.
const DOWN: f64 = 0.05;
const UP: f64 = 0.0001;

impl Gradient {
    /// Between `least` (at least 1) and `most` calls at a time; begins with `least` and a few more.
    pub fn new(least: usize, most: usize) -> Gradient {
        let least = least.max(1) as f64;
        let most = (most as f64).max(least);
        Gradient { limit: (least + 20.0).min(most), least, most, usual: 0.0, short: 0.0, samples: 0 }
    }

    /// Calls that may run at a time now.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A call took `time`, and so many ran while it did. `dropped`: it ended for lack of time or room, which counts as
    /// a sign of too many.
    pub fn sample(&mut self, time: Duration, running: usize, dropped: bool) {
        let seconds = time.as_secs_f64().max(1e-9);
        self.samples += 1;
        // Soon after the beginning the plain average knows more.
        self.short += (seconds - self.short) * SHORT.max(1.0 / self.samples as f64);
        let follow = if self.samples == 1 {
            1.0
        } else if self.short < self.usual {
            DOWN
        } else {
            UP
        };
        self.usual += (self.short - self.usual) * follow;
        if dropped {
            return self.shrink();
        }
        // One that is not used up says nothing about a higher one.
        if (running as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.usual / self.short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit * (1.0 - SMOOTH) + wanted * SMOOTH).clamp(self.least, self.most);
    }

    /// A call ended for lack of time or room.
    fn shrink(&mut self) {
        self.limit = (self.limit * 0.9).max(self.least);
    }
}

/// While less than half of the limit is used, the time of a call can only tell what is usual: one in so many is enough,
/// and looking at the clock is a good part of what this costs.
const TIMED: u32 = 8;

/// Lets in as many calls at a time as keep their times close to those of an idle server, and sheds the rest as
/// `ResourceExhausted`, not executed: a server that is asked for too much answers what it can in good time instead of
/// everything too late.
///
/// ```
/// use farcall_rpc::intercept::AdaptiveLimit;
/// let limit = AdaptiveLimit::between(10, 1000);
/// assert!(limit.now() >= 10);
/// ```
#[derive(Debug, Clone)]
pub struct AdaptiveLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gradient: Mutex<Gradient>,
    /// What the gradient says, for those who only want to come in.
    limit: AtomicUsize,
    running: AtomicUsize,
    /// Calls since one was timed; about, for two may count as one.
    untimed: AtomicU32,
}

impl Shared {
    /// Whether a call that begins as one of so many is to be timed.
    fn is_timed(&self, running: usize, limit: usize) -> bool {
        let untimed = self.untimed.load(Relaxed) + 1;
        let timed = untimed >= TIMED || running >= limit / 2;
        self.untimed.store(if timed { 0 } else { untimed }, Relaxed);
        timed
    }

    fn learn(&self, f: impl FnOnce(&mut Gradient)) {
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut gradient);
        self.limit.store(gradient.limit(), Relaxed);
    }
}

impl AdaptiveLimit {
    /// Between `least` and `most` calls at a time, whoever makes them.
    pub fn between(least: usize, most: usize) -> AdaptiveLimit {
        let gradient = Gradient::new(least, most);
        let (limit, untimed) = (AtomicUsize::new(gradient.limit()), AtomicU32::new(TIMED - 1));
        AdaptiveLimit(Arc::new(Shared { gradient: Mutex::new(gradient), limit, running: AtomicUsize::new(0), untimed }))
    }

    /// Calls that may run at a time now.
    pub fn now(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    fn enter(&self) -> Result<Place, RpcError> {
        let limit = self.now();
        let before = self.0.running.fetch_add(1, Relaxed);
        if before >= limit {
            self.0.running.fetch_sub(1, Relaxed);
            return Err(crowded(limit));
        }
        let running = before + 1;
        let since = self.0.is_timed(running, limit).then(crate::time::now);
        Ok(Place { limit: Arc::clone(&self.0), running, since, took: None, dropped: false })
    }
}

#[cold]
fn crowded(limit: usize) -> RpcError {
    let why = format!("{limit} calls run here, as many as it answers in good time now: call another, or later");
    RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
}

/// A call that is counted. What is known of its end is told when it is dropped.
struct Place {
    limit: Arc<Shared>,
    /// Calls that run, this one included.
    running: usize,
    /// If it is timed.
    since: Option<Instant>,
    took: Option<Duration>,
    dropped: bool,
}

impl Place {
    fn end(&mut self, ended: &Result<Ended, RpcError>) {
        let late = |code| matches!(code, Code::DeadlineExceeded | Code::ResourceExhausted);
        self.dropped = match ended {
            Ok(Ended::Failed(code, _)) => late(*code),
            Ok(_) => false,
            Err(error) => late(error.code()),
        };
        self.took = self.since.map(crate::time::since);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.running.fetch_sub(1, Relaxed);
        match self.took {
            Some(took) => self.limit.learn(|gradient| gradient.sample(took, self.running, self.dropped)),
            None if self.dropped => self.limit.learn(Gradient::shrink),
            None => {}
        }
    }
}

impl Interceptor for AdaptiveLimit {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let entered = self.enter();
        Box::pin(async move {
            let mut place = entered?;
            let ended = next.run(call).await;
            place.end(&ended);
            ended
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e-3;

    /// A server that answers `cores` calls at a time in 10 ms each and lets the rest queue, asked for as much as the
    /// limit allows. Returns the limit over time.
    fn simulate(gradient: &mut Gradient, cores: usize, calls: usize) -> usize {
        for _ in 0..calls {
            let running = gradient.limit();
            let rounds = running.div_ceil(cores) as f64;
            gradient.sample(Duration::from_secs_f64(10.0 * MS * rounds.max(1.0)), running, false);
        }
        gradient.limit()
    }

    #[test]
    fn it_grows_while_calls_stay_quick_and_settles_near_what_the_server_can_do() {
        let mut gradient = Gradient::new(10, 1000);
        assert_eq!(gradient.limit(), 30);
        let settled = simulate(&mut gradient, 100, 2000);
        assert!((90..=250).contains(&settled), "{settled}");
        // Half of the server goes away: it follows.
        let less = simulate(&mut gradient, 50, 2000);
        assert!(less < settled, "{less} after {settled}");
        // It comes back.
        let again = simulate(&mut gradient, 100, 4000);
        assert!((90..=250).contains(&again), "{again}");
    }

    #[test]
    fn an_idle_server_learns_nothing_and_drops_shrink_it_to_the_least() {
        let mut gradient = Gradient::new(10, 1000);
        (0..1000).for_each(|_| gradient.sample(Duration::from_millis(1), 1, false));
        assert_eq!(gradient.limit(), 30);
        (0..100).for_each(|_| gradient.sample(Duration::from_millis(1), 30, true));
        assert_eq!(gradient.limit(), 10);
        assert_eq!(Gradient::new(0, 0).limit(), 1);
        let mut odd = Gradient::new(1, usize::MAX);
        (0..1000).for_each(|n| odd.sample(Duration::from_nanos(n % 3), usize::MAX, n % 7 == 0));
        assert!(odd.limit() >= 1);
    }

    #[test]
    fn places_are_counted() {
        let limit = AdaptiveLimit::between(1, 1);
        let place = limit.enter().unwrap();
        assert!(place.running == 1 && place.since.is_some());
        let e = limit.enter().err().unwrap();
        assert!(e.code() == Code::ResourceExhausted && e.certainty().is_safe_to_retry(), "{e}");
        drop(place);
        assert!(limit.enter().is_ok());
    }

    #[test]
    fn every_call_is_timed_that_may_change_the_limit() {
        let limit = AdaptiveLimit::between(10, 100);
        let timed = |n: usize| (0..n).filter(|_| limit.enter().unwrap().since.is_some()).count();
        assert_eq!(timed(80), 10, "one in eight");
        let half: Vec<_> = (0..14).map(|_| limit.enter().unwrap()).collect();
        assert_eq!(timed(10), 10, "the fifteenth of thirty");
        drop(half);
        // Not timed, but too late all the same.
        let before = limit.now();
        let late = Ok(Ended::Failed(Code::DeadlineExceeded, farcall_core::Certainty::MaybeExecuted));
        (0..8).for_each(|_| limit.enter().unwrap().end(&late));
        assert!(limit.now() <= before * 9 / 20, "{} of {before}: all eight count", limit.now());
    }
}
