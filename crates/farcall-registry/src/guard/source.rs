//! What one backend says of a service, and when it is to be asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::random::Random;
use super::settings::GuardSettings;
use crate::entry::{Entry, InstanceId};
use crate::registry::Rule;

/// Pulls in a row that failed, or found what no push had told, after which the subscription counts as broken.
const STRIKES: u32 = 2;

/// An entry as one backend lists it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) entry: Arc<Entry>,
    /// The backend doubts it.
    pub(super) suspect: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) view: BTreeMap<InstanceId, Seen>,
    pub(super) rules: Vec<Arc<Rule>>,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    /// The subscription is on and has told all there is.
    pub(super) live: bool,
    /// Has told all there is at least once, and that it was all.
    pub(super) complete: bool,
    /// Updates so far: a pull that one of them overtook is no news.
    pub(super) heard: u64,
    state: State,
    failures: u32,
    strikes: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Is to be subscribed to at this moment.
    Due(Duration),
    Subscribing,
    /// Is to be pulled at this moment.
    On(Duration),
    /// A pull is under way that began when so much had been heard.
    Pulling(u64),
}

impl Default for State {
    fn default() -> State {
        State::Due(Duration::ZERO)
    }
}

/// What is to be asked of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Subscribe,
    Pull,
}

impl Source {
    pub(super) fn poll(&mut self, now: Duration) -> Option<Ask> {
        match self.state {
            State::Due(at) if at <= now => {
                self.state = State::Subscribing;
                Some(Ask::Subscribe)
            }
            State::On(at) if at <= now => {
                self.state = State::Pulling(self.heard);
                Some(Ask::Pull)
            }
            _ => None,
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::Due(at) | State::On(at) => Some(at),
            State::Subscribing | State::Pulling(_) => None,
        }
    }

    /// Whether there is a subscription, or one under way.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.state, State::Due(_))
    }

    /// It has told all there is.
    pub(super) fn told_all(&mut self, now: Duration, settings: &GuardSettings, random: &mut Random) {
        // A pull tells nothing of a subscription that has ended.
        if !self.is_on() {
            return;
        }
        (self.live, self.failures) = (true, 0);
        if let State::Subscribing = self.state {
            self.state = State::On(now + random.about(settings.pull));
        }
    }

    /// The subscription has ended, or did not come about.
    pub(super) fn ended(&mut self, now: Duration, settings: &GuardSettings, random: &mut Random) {
        self.live = false;
        self.strikes = 0;
        self.state = State::Due(now + random.pause(self.failures, settings.retry_base, settings.retry_cap));
        self.failures = self.failures.saturating_add(1);
    }

    /// A pull is over. Whether its listing is news: it is not if an update came meanwhile.
    pub(super) fn pulled(&mut self, now: Duration, settings: &GuardSettings, random: &mut Random) -> bool {
        let State::Pulling(heard) = self.state else { return false };
        self.state = State::On(now + random.about(settings.pull));
        heard == self.heard
    }

    /// What a pull showed of the subscription. True if it is to be given up.
    pub(super) fn judged(&mut self, good: bool) -> bool {
        self.strikes = if good { 0 } else { self.strikes + 1 };
        self.strikes >= STRIKES
    }
}
