//! What a handler may do before it answers: calls that share a connection with slow ones should not notice.
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Of so many calls of a task one is slow.
const ONE_IN: usize = 100;
/// tokio's timers tick in milliseconds, so that this becomes one to two.
const WAIT: Duration = Duration::from_millis(1);
const WORK: Duration = Duration::from_micros(200);

#[farcall::data]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Delay {
    /// Waits for a millisecond as asynchronous handlers wait: others run meanwhile.
    Wait,
    /// Computes for 200 us without a pause.
    Work,
}

impl Delay {
    /// That of the call number `nth`: of one in a hundred.
    #[inline]
    pub(crate) fn of_call(self, nth: usize) -> Option<Delay> {
        nth.is_multiple_of(ONE_IN).then_some(self)
    }

    pub(crate) async fn pass(self) {
        match self {
            Delay::Wait => tokio::time::sleep(WAIT).await,
            Delay::Work => work(),
        }
    }

    /// Above 0; for peers whose calls carry numbers only.
    pub(crate) fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The one of this number.
    pub(crate) fn numbered(number: u8) -> Option<Delay> {
        [Delay::Wait, Delay::Work].into_iter().find(|delay| delay.number() == number)
    }
}

/// What a handler does that has no delay, or this one.
pub(crate) async fn pass(delay: Option<Delay>) {
    if let Some(delay) = delay {
        delay.pass().await;
    }
}

/// By the thread's own clock: on a shared core the other process must not do the work for us.
pub(crate) fn work() {
    let end = on_cpu() + WORK;
    while on_cpu() < end {}
}

fn on_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_a_hundred_is_slow() {
        let slow = (7..1_007).filter(|nth| Delay::Work.of_call(*nth) == Some(Delay::Work)).count();
        assert_eq!(slow, 10);
    }

    #[test]
    fn numbers_name_delays() {
        for delay in [Delay::Wait, Delay::Work] {
            assert_eq!(Delay::numbered(delay.number()), Some(delay));
        }
        assert_eq!((Delay::numbered(0), Delay::numbered(b'x')), (None, None));
    }

    #[test]
    fn work_takes_its_time_of_the_cpu() {
        let before = on_cpu();
        work();
        assert!(on_cpu() - before >= WORK);
    }
}
