//! Limits per caller: calls at a time, and calls per second. What is beyond is shed at once, so that it can be made
//! elsewhere: nothing waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farcall_core::{Code, RpcError, Stage};

use super::{CallInfo, Interceptor, Next};
use crate::caller::{Caller, Callers};
use crate::method::BoxFuture;
use crate::observer::Ended;

/// Callers that are remembered at a time; beyond it, those that nothing is known against are forgotten.
const CALLERS: usize = 10_000;

/// Callers that are remembered though they may have no call: most of them come again. Beyond it those without one are
/// forgotten each time that there are twice as many as had one last time.
const IDLE_CALLERS: usize = 1_000;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn shed(why: String) -> RpcError {
    RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
}

/// So many calls of one caller at a time, and one more is shed as `ResourceExhausted`, not executed. A call counts from
/// here until it has ended itself, whatever interceptors further in do afterwards. Callers are told apart by
/// [`CallInfo::caller`]; at a client, where there is one, it limits its own calls.
///
/// ```
/// use farcall_rpc::intercept::ConcurrencyLimit;
/// let limit = ConcurrencyLimit::per_caller(100);
/// ```
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    most: usize,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    /// Each of them has one place here, and one for each of its calls.
    callers: Callers<Place>,
    /// So many callers that those without a call are forgotten.
    forget_at: usize,
}

/// A call is counted as long as it has one.
pub(super) type Place = Arc<()>;

impl ConcurrencyLimit {
    /// At most `most` calls of each caller at a time.
    pub fn per_caller(most: usize) -> ConcurrencyLimit {
        ConcurrencyLimit { most, running: Arc::default() }
    }

    fn enter(&self, caller: &Caller) -> Result<Place, RpcError> {
        let mut running = lock(&self.running);
        match running.callers.get(caller) {
            // Others may leave meanwhile, but enter only here.
            Some(place) if Arc::strong_count(place) <= self.most => Ok(Arc::clone(place)),
            None if self.most > 0 => Ok(running.first(caller)),
            _ => {
                let most = self.most;
                Err(shed(format!("{most} calls of this caller are running here, the limit: call again when one has ended")))
            }
        }
    }
}

impl Running {
    /// The first call of a caller, as far as is remembered.
    #[cold]
    fn first(&mut self, caller: &Caller) -> Place {
        if self.callers.len() >= self.forget_at.max(IDLE_CALLERS) {
            self.callers.retain(|_, place| Arc::strong_count(place) > 1);
            self.forget_at = 2 * self.callers.len();
        }
        let place = Place::default();
        self.callers.insert(caller.clone(), Arc::clone(&place));
        place
    }
}

impl Interceptor for ConcurrencyLimit {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let entered = self.enter(call.caller_key());
        Box::pin(async move {
            let _place = entered?;
            next.run(call).await
        })
    }

    fn pass(&self, call: &mut CallInfo) -> Option<Result<(), RpcError>> {
        if call.0.place.is_some() {
            return None;
        }
        Some(self.enter(call.caller_key()).map(|place| call.0.place = Some(place)))
    }
}

/// So many calls of one caller per second (a token bucket); one more is shed as `ResourceExhausted`, not executed.
///
/// ```
/// use farcall_rpc::intercept::RateLimit;
/// // 100 calls a second, and 200 at once after a rest.
/// let limit = RateLimit::per_caller(100.0, 200);
/// ```
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    callers: Arc<Mutex<Callers<Bucket>>>,
}

/// What a caller may still do.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl RateLimit {
    /// `per_second` calls of each caller on average, `burst` at once (at least one).
    pub fn per_caller(per_second: f64, burst: u32) -> RateLimit {
        RateLimit { per_second: per_second.max(0.0), burst: f64::from(burst.max(1)), callers: Arc::default() }
    }

    fn take(&self, caller: &Caller, now: Instant) -> Result<(), RpcError> {
        let mut callers = lock(&self.callers);
        let Some(bucket) = callers.get_mut(caller) else { return self.first(&mut callers, caller, now) };
        // Connections look at the clock each by itself: one may be behind what another has counted already.
        if now > bucket.at {
            *bucket = Bucket { left: self.filled(*bucket, now), at: now };
        }
        if bucket.left < 1.0 {
            let (left, rate) = (bucket.left, self.per_second);
            let wait = Duration::try_from_secs_f64((1.0 - left) / rate).map_or("never".into(), |d| format!("in {} ms", d.as_millis() + 1));
            return Err(shed(format!("more than {rate} calls of this caller in a second, the limit: the next may come {wait}")));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// The first call of a caller, as far as is remembered.
    #[cold]
    fn first(&self, callers: &mut Callers<Bucket>, caller: &Caller, now: Instant) -> Result<(), RpcError> {
        if callers.len() >= CALLERS {
            callers.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
        }
        if callers.len() >= CALLERS {
            return Err(shed(format!("{CALLERS} callers are being limited here, and this one is new: call again later")));
        }
        callers.insert(caller.clone(), Bucket { left: self.burst - 1.0, at: now });
        Ok(())
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.per_second).min(self.burst)
    }
}

impl Interceptor for RateLimit {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        match self.take(call.caller_key(), call.came()) {
            Ok(()) => next.run(call),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn pass(&self, call: &mut CallInfo) -> Option<Result<(), RpcError>> {
        Some(self.take(call.caller_key(), call.came()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_no_further_than_its_burst() {
        let (limit, start) = (RateLimit::per_caller(10.0, 3), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let take = |caller: &str, ms| limit.take(&Caller::new(caller), at(ms)).is_ok();
        assert!((0..3).all(|_| take("a", 0)) && !take("a", 0), "a burst of three");
        assert!(take("b", 0), "callers do not share");
        assert!(!take("a", 99) && take("a", 101) && !take("a", 150), "one each 100 ms");
        assert!((0..3).all(|_| take("a", 60_000)) && !take("a", 60_000), "a rest fills it, and no more");
        let e = limit.take(&Caller::new("a"), at(60_000)).unwrap_err();
        assert!(e.code() == Code::ResourceExhausted && e.message().contains("in 101 ms"), "{e}");
        // A time that was counted is not counted again for somebody whose clock is behind.
        assert!(!take("a", 59_000) && take("a", 60_100) && !take("a", 60_100));
        assert!(RateLimit::per_caller(0.0, 1).take(&Caller::new("a"), start).is_ok());
    }

    #[test]
    fn the_table_of_callers_is_bounded() {
        let (limit, start) = (RateLimit::per_caller(1.0, 1), Instant::now());
        for n in 0..CALLERS {
            limit.take(&Caller::new(&n.to_string()), start).unwrap();
        }
        assert!(limit.take(&Caller::new("new"), start).is_err(), "all of them are being limited");
        assert!(limit.take(&Caller::new("new"), start + Duration::from_secs(2)).is_ok(), "they are forgotten once they may call again");
        assert_eq!(lock(&limit.callers).len(), 1);
    }

    #[test]
    fn places_are_given_back_and_callers_forgotten() {
        let limit = ConcurrencyLimit::per_caller(2);
        let (one, two) = (limit.enter(&Caller::new("a")).unwrap(), limit.enter(&Caller::new("a")).unwrap());
        assert!(limit.enter(&Caller::new("a")).is_err() && limit.enter(&Caller::new("b")).is_ok());
        drop(one);
        assert!(limit.enter(&Caller::new("a")).is_ok());
        drop(two);
        let enter = |n: usize| limit.enter(&Caller::new(&n.to_string())).unwrap();
        let known = || lock(&limit.running).callers.len();
        let many: Vec<_> = (0..3 * IDLE_CALLERS).map(enter).collect();
        assert!(known() >= many.len(), "they have calls");
        drop(many);
        (0..20 * IDLE_CALLERS).for_each(|n| drop(enter(n)));
        assert!(known() <= 2 * 3 * IDLE_CALLERS, "{} without a call", known());
        (0..20 * IDLE_CALLERS).for_each(|n| drop(enter(n)));
        assert!(known() <= IDLE_CALLERS, "{} without a call", known());
        let nobody = ConcurrencyLimit::per_caller(0);
        assert!(nobody.enter(&Caller::new("a")).is_err() && lock(&nobody.running).callers.is_empty());
    }
}
