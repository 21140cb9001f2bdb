//! Limits per caller: calls at a time, and calls per second. What is beyond is shed at once, so that it can be made
//! elsewhere: nothing waits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farcall_core::{Code, RpcError, Stage};

use super::{CallInfo, Interceptor, Next};
use crate::method::BoxFuture;
use crate::observer::Ended;

/// Callers that are remembered at a time; beyond it, those that nothing is known against are forgotten.
const CALLERS: usize = 10_000;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn shed(why: String) -> RpcError {
    RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
}

/// So many calls of one caller at a time, and one more is shed as `ResourceExhausted`, not executed. Callers are told
/// apart by [`CallInfo::caller`]; at a client, where there is one, it limits its own calls.
///
/// ```
/// use farcall_rpc::intercept::ConcurrencyLimit;
/// let limit = ConcurrencyLimit::per_caller(100);
/// ```
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    most: usize,
    running: Arc<Mutex<HashMap<String, usize>>>,
}

impl ConcurrencyLimit {
    /// At most `most` calls of each caller at a time.
    pub fn per_caller(most: usize) -> ConcurrencyLimit {
        ConcurrencyLimit { most, running: Arc::default() }
    }

    fn enter(&self, caller: String) -> Result<Place, RpcError> {
        let mut running = lock(&self.running);
        let count = running.entry(caller.clone()).or_default();
        if *count >= self.most {
            return Err(shed(format!("{count} calls of this caller are running here, the limit: call again when one has ended")));
        }
        *count += 1;
        drop(running);
        Ok(Place { running: Arc::clone(&self.running), caller })
    }
}

/// A call that is counted.
struct Place {
    running: Arc<Mutex<HashMap<String, usize>>>,
    caller: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Callers without calls are forgotten, so the table is as large as what runs.
        if let Entry::Occupied(mut count) = lock(&self.running).entry(std::mem::take(&mut self.caller)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Interceptor for ConcurrencyLimit {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let entered = self.enter(call.caller());
        Box::pin(async move {
            let _place = entered?;
            next.run(call).await
        })
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
    callers: Arc<Mutex<HashMap<String, Bucket>>>,
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

    fn take(&self, caller: String, now: Instant) -> Result<(), RpcError> {
        let mut callers = lock(&self.callers);
        if callers.len() >= CALLERS && !callers.contains_key(&caller) {
            callers.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
            if callers.len() >= CALLERS {
                return Err(shed(format!("{CALLERS} callers are being limited here, and this one is new: call again later")));
            }
        }
        let bucket = callers.entry(caller).or_insert(Bucket { left: self.burst, at: now });
        *bucket = Bucket { left: self.filled(*bucket, now), at: now };
        if bucket.left < 1.0 {
            let (left, rate) = (bucket.left, self.per_second);
            let wait = Duration::try_from_secs_f64((1.0 - left) / rate).map_or("never".into(), |d| format!("in {} ms", d.as_millis() + 1));
            return Err(shed(format!("more than {rate} calls of this caller in a second, the limit: the next may come {wait}")));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.per_second).min(self.burst)
    }
}

impl Interceptor for RateLimit {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        match self.take(call.caller(), crate::time::now()) {
            Ok(()) => next.run(call),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_no_further_than_its_burst() {
        let (limit, start) = (RateLimit::per_caller(10.0, 3), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let take = |caller: &str, ms| limit.take(caller.into(), at(ms)).is_ok();
        assert!((0..3).all(|_| take("a", 0)) && !take("a", 0), "a burst of three");
        assert!(take("b", 0), "callers do not share");
        assert!(!take("a", 99) && take("a", 101) && !take("a", 150), "one each 100 ms");
        assert!((0..3).all(|_| take("a", 60_000)) && !take("a", 60_000), "a rest fills it, and no more");
        let e = limit.take("a".into(), at(60_000)).unwrap_err();
        assert!(e.code() == Code::ResourceExhausted && e.message().contains("in 101 ms"), "{e}");
        assert!(RateLimit::per_caller(0.0, 1).take("a".into(), start).is_ok());
    }

    #[test]
    fn the_table_of_callers_is_bounded() {
        let (limit, start) = (RateLimit::per_caller(1.0, 1), Instant::now());
        for n in 0..CALLERS {
            limit.take(n.to_string(), start).unwrap();
        }
        assert!(limit.take("new".into(), start).is_err(), "all of them are being limited");
        assert!(limit.take("new".into(), start + Duration::from_secs(2)).is_ok(), "they are forgotten once they may call again");
        assert_eq!(lock(&limit.callers).len(), 1);
    }

    #[test]
    fn places_are_given_back_and_callers_forgotten() {
        let limit = ConcurrencyLimit::per_caller(2);
        let (one, two) = (limit.enter("a".into()).unwrap(), limit.enter("a".into()).unwrap());
        assert!(limit.enter("a".into()).is_err() && limit.enter("b".into()).is_ok());
        drop(one);
        assert!(limit.enter("a".into()).is_ok());
        drop(two);
        assert!(lock(&limit.running).is_empty());
    }
}
