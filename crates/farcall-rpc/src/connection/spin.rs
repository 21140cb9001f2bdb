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
    /// How many look now.
    all: &'static AtomicUsize,
    /// While looking: until when, and when it looked last.
    looking: Option<(u64, u64)>,
    /// How often it looked in vain since it began to.
    looks: u32,
    skip: u32,
    skipped: u32,
}

impl Spin {
    pub(super) fn new(window: Duration) -> Spin {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // A process with one core of its own may gain as much as any: it is tried.
        Spin::among(&LOOKING, (cores / 2).max(1), window)
    }

    fn among(all: &'static AtomicUsize, most: usize, window: Duration) -> Spin {
        Spin { window_us: window.as_micros() as u64, most, all, looking: None, looks: 0, skip: 0, skipped: 0 }
    }

    /// Whether it is looking now.
    #[inline]
    pub(super) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// Whether it is worth a look at the clock.
    #[inline]
    pub(super) fn is_possible(&mut self, expecting: bool) -> bool {
        self.looking.is_some() || expecting && self.window_us > 0 && !self.skips()
    }

    /// Whether this time is one of those that are skipped.
    #[inline]
    fn skips(&mut self) -> bool {
        let skips = self.skipped < self.skip;
        self.skipped += u32::from(skips);
        skips
    }

    /// There is nothing to do: whether to look on instead of going to sleep. `expecting` says that
    /// something happened and more is likely to come.
    #[inline]
    pub(super) fn look_on(&mut self, now_us: u64, expecting: bool) -> bool {
        match self.looking {
            Some((until, last)) if now_us < until && now_us - last <= GAP_US => {
                self.looking = Some((until, now_us));
                self.looks += 1;
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
        if self.all.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        (self.skipped, self.looks) = (0, 0);
        self.looking = Some((now_us + self.window_us, now_us));
        true
    }

    /// Something came while it was looking.
    #[inline]
    pub(super) fn found(&mut self, now_us: u64) {
        let Some((_, last)) = self.looking else { return };
        self.stop();
        match now_us - last <= GAP_US {
            // It was there already: the peer had the core while this side wrote.
            true if self.looks == 0 => {}
            true => self.skip = 0,
            // It came while somebody else had the core: sleeping would have done as well.
            false => self.of_no_use(),
        }
    }

    fn of_no_use(&mut self) {
        self.skip = (self.skip * 2 + 1).min(MOST_SKIPPED);
    }

    /// It goes to sleep for another reason: others may look meanwhile.
    pub(super) fn stop(&mut self) {
        if self.looking.take().is_some() {
            self.all.fetch_sub(1, Ordering::Relaxed);
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

    /// One that shares its count with no other test.
    fn alone(window: Duration) -> Spin {
        Spin::among(Box::leak(Box::default()), 1, window)
    }

    /// Goes to wait `times` times; the peer answers after `answer_us`. Returns how often it looked on.
    fn looks(spin: &mut Spin, times: usize, answer_us: u64, step_us: u64) -> usize {
        let (mut now, mut looked) = (0, 0);
        for _ in 0..times {
            now += 1000;
            let answer = now + answer_us;
            while spin.is_possible(true) && spin.look_on(now, true) {
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
        let mut spin = alone(WINDOW);
        assert_eq!(looks(&mut spin, 100, 10, 1), 100);
        let tried = looks(&mut spin, 10_000, 1_000_000, 1);
        assert!(tried < 25, "{tried} fruitless attempts in 10 000");
        // The peer has become quick: noticed in time.
        let tried = looks(&mut spin, 3000, 10, 1);
        assert!(tried > 1000, "{tried}");
    }

    #[test]
    fn what_came_while_others_had_the_core_is_no_success() {
        let mut spin = alone(WINDOW);
        let tried = looks(&mut spin, 10_000, 20, 30);
        assert!(tried < 25, "{tried} attempts on a shared core");
    }

    #[test]
    fn what_was_there_at_once_is_no_success() {
        let mut spin = alone(WINDOW);
        // The peer shares the core and answers during the write, or after this side sleeps.
        let mut tried = 0;
        for n in 0..10_000 {
            let answer_us = if n % 2 == 0 { 0 } else { 1_000_000 };
            tried += usize::from(looks(&mut spin, 1, answer_us, 1) > 0 && answer_us > 0);
        }
        assert!(tried < 25, "{tried} attempts in vain");
    }

    #[test]
    fn a_window_of_nothing_switches_it_off() {
        assert_eq!(looks(&mut alone(Duration::ZERO), 100, 10, 1), 0);
    }
}
