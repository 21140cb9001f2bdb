//! Adaptive waiting: whether to look at the socket a little longer before going to sleep.
//!
//! To fall asleep and be woken costs tens of microseconds where each side has a core of its own: more
//! than most calls take. To look on for as long as that, letting other tasks run in between, makes a
//! call several times faster there. Where both sides share a core it makes everything slower, for the
//! peer cannot run meanwhile. Nobody can know which it is, so it is tried: every attempt that was of
//! no use doubles the number of times it is not tried again, up to [`MOST_SKIPPED`], so that it costs
//! less than one part in a hundred.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Times of going to sleep at once after attempts that were of no use.
const MOST_SKIPPED: u32 = 1023;
/// Between two looks more time than this passed: other tasks or processes have the core, and the
/// worker would not have slept anyway.
const GAP_US: u64 = 8;

/// Connections of this process that look now.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// See the module's text. Times are microseconds of the connection's clock.
#[derive(Debug)]
pub(super) struct Spin {
    /// For how long to look; 0 = never.
    window_us: u64,
    /// How many connections may look at once.
    most: usize,
    /// While looking: until when, and when it looked last.
    looking: Option<(u64, u64)>,
    skip: u32,
    skipped: u32,
}

impl Spin {
    pub(super) fn new(window: Duration) -> Spin {
        // Whoever has one core shares it with the peer, or with those who should run meanwhile.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Spin::on(cores, window)
    }

    fn on(cores: usize, window: Duration) -> Spin {
        let window_us = if cores > 1 { window.as_micros() as u64 } else { 0 };
        Spin { window_us, most: cores / 2, looking: None, skip: 0, skipped: 0 }
    }

    /// Whether it is looking now.
    #[inline]
    pub(super) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// There is nothing to do: whether to look on instead of going to sleep. `expecting` says that
    /// something happened and more is likely to come.
    #[inline]
    pub(super) fn look_on(&mut self, now_us: u64, expecting: bool) -> bool {
        match self.looking {
            _ if self.window_us == 0 => false,
            Some((until, last)) if now_us < until && now_us - last <= GAP_US => {
                self.looking = Some((until, now_us));
                true
            }
            Some(_) => {
                self.stop();
                self.of_no_use();
                false
            }
            None => expecting && self.start(now_us),
        }
    }

    fn start(&mut self, now_us: u64) -> bool {
        if self.skipped < self.skip {
            self.skipped += 1;
            return false;
        }
        if LOOKING.fetch_add(1, Ordering::Relaxed) >= self.most {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.skipped = 0;
        self.looking = Some((now_us + self.window_us, now_us));
        true
    }

    /// Something came while it was looking.
    #[inline]
    pub(super) fn found(&mut self, now_us: u64) {
        let Some((_, last)) = self.looking else { return };
        self.stop();
        match now_us - last <= GAP_US {
            true => self.skip = 0,
            // It came while somebody else had the core: sleeping would have done as well.
            false => self.of_no_use(),
        }
    }

    fn of_no_use(&mut self) {
        self.skip = (self.skip * 2 + 1).min(MOST_SKIPPED);
    }

    fn stop(&mut self) {
        if self.looking.take().is_some() {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(50);

    /// Goes to wait `times` times; the peer answers after `answer_us`. Returns how often it looked on.
    fn looks(spin: &mut Spin, times: usize, answer_us: u64, step_us: u64) -> usize {
        let (mut now, mut looked) = (0, 0);
        for _ in 0..times {
            now += 1000;
            let answer = now + answer_us;
            while spin.look_on(now, true) {
                looked += usize::from(now + answer_us == answer);
                now += step_us;
                if now >= answer {
                    spin.found(now);
                    break;
                }
            }
        }
        looked
    }

    #[test]
    fn it_goes_on_while_it_is_of_use_and_gives_up_when_not() {
        let mut spin = Spin::on(2, WINDOW);
        assert_eq!(looks(&mut spin, 100, 10, 1), 100);
        let tried = looks(&mut spin, 10_000, 1_000_000, 1);
        assert!(tried < 25, "{tried} fruitless attempts in 10 000");
        // The peer has become quick: noticed in time.
        let tried = looks(&mut spin, 3000, 10, 1);
        assert!(tried > 1000, "{tried}");
    }

    #[test]
    fn what_came_while_others_had_the_core_is_no_success() {
        let mut spin = Spin::on(2, WINDOW);
        let tried = looks(&mut spin, 10_000, 20, 30);
        assert!(tried < 25, "{tried} attempts on a shared core");
    }

    #[test]
    fn one_core_and_a_window_of_nothing_switch_it_off() {
        assert_eq!(looks(&mut Spin::on(1, WINDOW), 100, 10, 1), 0);
        assert_eq!(looks(&mut Spin::on(8, Duration::ZERO), 100, 10, 1), 0);
    }
}
