//! The provider's side: one entry at one backend is published, and published again whenever it may be lost, until it is withdrawn.

use std::time::Duration;

use super::random::Random;
use super::settings::GuardSettings;

/// Failed checks in a row after which the entry counts as lost: one may be the network's.
const STRIKES: u32 = 2;

/// See the module's text. Moments are counted from any start.
#[derive(Debug)]
pub struct Keeping {
    state: State,
    failures: u32,
    strikes: u32,
    settings: GuardSettings,
    random: Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Is to be published at this moment.
    Due(Duration),
    Publishing,
    /// Acknowledged; is to be checked at this moment.
    Held(Duration),
    Checking,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Publish the entry.
    Publish,
    /// Ask whether it is still there.
    Check,
}

impl Keeping {
    /// Of an entry that is to be published at once.
    pub fn new(settings: GuardSettings, random: Random) -> Keeping {
        Keeping { state: State::Due(Duration::ZERO), failures: 0, strikes: 0, settings, random }
    }

    /// What is to be done now, if anything; it is asked for once.
    pub fn poll(&mut self, now: Duration) -> Option<Task> {
        let (task, state) = match self.state {
            State::Due(at) if at <= now => (Task::Publish, State::Publishing),
            State::Held(at) if at <= now => (Task::Check, State::Checking),
            _ => return None,
        };
        self.state = state;
        Some(task)
    }

    /// When there will be something to do; `None` while an answer is waited for.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::Due(at) | State::Held(at) => Some(at),
            State::Publishing | State::Checking => None,
        }
    }

    /// Whether the backend has acknowledged the entry and nothing speaks against it since.
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_) | State::Checking)
    }

    /// The backend has acknowledged it.
    pub fn published(&mut self, now: Duration) {
        (self.failures, self.strikes) = (0, 0);
        self.state = State::Held(now + self.random.about(self.settings.check));
    }

    /// The attempt to publish it failed. Also one that was refused is repeated: rights and limits change.
    pub fn failed(&mut self, now: Duration) {
        self.state = State::Due(now + self.random.pause(self.failures, self.settings.retry_base, self.settings.retry_cap));
        self.failures = self.failures.saturating_add(1);
    }

    /// The entry is another now: it is published at once, unless an attempt is to be made anyway.
    pub fn changed(&mut self, now: Duration) {
        if self.is_held() {
            self.state = State::Due(now);
        }
    }

    /// The backend may have lost it.
    pub fn lost(&mut self, now: Duration) {
        // All providers lose a backend together: they come back one by one.
        self.failed(now);
    }

    /// A check was answered: whether the entry is there, or `None` if that could not be found out.
    pub fn checked(&mut self, there: Option<bool>, now: Duration) {
        match there {
            Some(true) => self.published(now),
            Some(false) => self.lost(now),
            None => {
                self.strikes += 1;
                match self.strikes >= STRIKES {
                    true => self.lost(now),
                    false => self.state = State::Held(now + self.random.share(self.settings.retry_cap)),
                }
            }
        }
    }
}
