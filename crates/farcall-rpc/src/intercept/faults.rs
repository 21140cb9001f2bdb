//! Faults on purpose: delays, errors and aborts for a share of the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farcall_core::{Code, RpcError, Stage};

use super::{CallInfo, Interceptor, Next};
use crate::method::BoxFuture;
use crate::observer::Ended;

/// Hurts a share of the calls, to see what their callers make of it. The same seed hurts the same calls, by the order
/// in which they come.
///
/// ```
/// use std::time::Duration;
/// use farcall_rpc::Code;
/// use farcall_rpc::intercept::Faults;
/// let faults = Faults::seeded(7)
///     .delay(0.10, Duration::from_millis(200))
///     .fail(0.01, Code::Unavailable)
///     .abort(0.001);
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    seed: u64,
    count: Arc<AtomicU64>,
    delay: (f64, Duration),
    fail: (f64, Code),
    abort: f64,
    only: Option<String>,
}

impl Faults {
    /// None yet.
    pub fn seeded(seed: u64) -> Faults {
        Faults { seed, count: Arc::default(), delay: (0.0, Duration::ZERO), fail: (0.0, Code::Unavailable), abort: 0.0, only: None }
    }

    /// Holds up this share of the calls (0 to 1) by `time` before they run.
    pub fn delay(mut self, share: f64, time: Duration) -> Faults {
        self.delay = (share, time);
        self
    }

    /// Ends this share of the calls with this code instead of running them.
    pub fn fail(mut self, share: f64, code: Code) -> Faults {
        self.fail = (share, code);
        self
    }

    /// Runs this share of the calls and throws their replies away: the caller is told that they may have run
    /// ([`Code::Aborted`]).
    pub fn abort(mut self, share: f64) -> Faults {
        self.abort = share;
        self
    }

    /// Hurts only calls of this method, `Service.method`.
    pub fn only(mut self, method: impl Into<String>) -> Faults {
        self.only = Some(method.into());
        self
    }

    /// Three numbers from 0 to 1 for the next call.
    fn dice(&self) -> [f64; 3] {
        let call = self.count.fetch_add(1, Ordering::Relaxed);
        [1, 2, 3].map(|which| (mix(self.seed ^ mix(call * 4 + which)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// SplitMix64's finalizer (Steele, Lea, Flood 2014): each bit of the input changes half of the output's.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn fault(code: Code, what: &str) -> RpcError {
    RpcError::not_executed(code, format!("a fault on purpose: {what}")).with_stage(Stage::Handler)
}

impl Interceptor for Faults {
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        if self.only.as_ref().is_some_and(|only| *only != call.method_name()) {
            return next.run(call);
        }
        let [delay, fail, abort] = self.dice();
        let delay = (delay < self.delay.0).then_some(self.delay.1);
        let (fail, abort) = ((fail < self.fail.0).then_some(self.fail.1), abort < self.abort);
        Box::pin(async move {
            if let Some(time) = delay {
                tokio::time::sleep(time).await;
            }
            if let Some(code) = fail {
                return Err(fault(code, "it did not run"));
            }
            let ended = next.run(call).await?;
            if abort { Err(fault(Code::Aborted, "its reply was thrown away")) } else { Ok(ended) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_repeat_with_the_seed() {
        let draw = |seed| {
            let faults = Faults::seeded(seed);
            (0..10_000).map(|_| faults.dice()).collect::<Vec<_>>()
        };
        let (one, two) = (draw(1), draw(1));
        assert_eq!(one, two);
        assert_ne!(one, draw(2));
        for die in 0..3 {
            let hit = one.iter().filter(|dice| dice[die] < 0.1).count();
            assert!((900..1100).contains(&hit), "{hit} of 1000");
        }
    }
}
