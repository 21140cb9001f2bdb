//! When entries may go: leases on a clock that does not count the node's own stalls, warm-up, self-protection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Gone, InstanceId, RegistryLimits, State};

/// So many may expire at a time whatever share that is: a process of few services may end.
const FEW: usize = 5;
/// The share of all entries, in percent, that may expire within one lease before the node doubts itself, and the most that goes in
/// one round after that.
const SHARE: usize = 15;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Expiry {
    lease: Duration,
    /// Time since the start, without the node's own stalls.
    clock: Duration,
    last: Instant,
    /// How many expired when, within the last lease.
    lately: VecDeque<(Duration, usize)>,
    /// Since when so many leases are over that it is rather the node that does not see.
    protecting: Option<Duration>,
    /// When the next round of a protection that lasts may be.
    round: Duration,
    /// What [`sees_normally`](Expiry::sees_normally) last told everybody.
    told_normal: bool,
    random: u64,
}

impl Expiry {
    pub(super) fn new(limits: &RegistryLimits, seed: u64, now: Instant) -> Expiry {
        Expiry {
            lease: limits.lease,
            clock: Duration::ZERO,
            last: now,
            lately: VecDeque::new(),
            protecting: None,
            round: Duration::ZERO,
            told_normal: false,
            random: seed.max(1),
        }
    }

    /// The lease clock.
    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    /// Whether what is not here is known not to be anywhere.
    pub(super) fn sees_normally(&self) -> bool {
        !self.warming_up() && self.protecting.is_none()
    }

    fn warming_up(&self) -> bool {
        self.clock < self.lease
    }

    fn advance(&mut self, now: Instant) {
        // The node is looked after far more often than this: whoever was silent longer, it was the node.
        let step = now.saturating_duration_since(self.last).min(self.lease / 4);
        self.clock += step;
        self.last = self.last.max(now);
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// How many of so many leases that are over may expire now, of so many entries in all.
    fn allowed(&mut self, over: usize, all: usize, protection: Duration) -> usize {
        let (clock, lease) = (self.clock, self.lease);
        while self.lately.front().is_some_and(|(at, _)| *at + lease <= clock) {
            self.lately.pop_front();
        }
        let lately: usize = self.lately.iter().map(|(_, n)| n).sum();
        let many = over + lately > FEW && (over + lately) * 100 > (all + lately) * SHARE;
        let since = match (many && over > 0, self.protecting) {
            (false, _) => {
                self.protecting = None;
                return over;
            }
            (true, Some(since)) => since,
            (true, None) => {
                self.protecting = Some(clock);
                clock
            }
        };
        if clock < since + protection || clock < self.round {
            return 0;
        }
        self.round = clock + lease;
        (all * SHARE / 100).max(1)
    }

    fn expired(&mut self, n: usize) {
        if n > 0 {
            self.lately.push_back((self.clock, n));
        }
    }
}

impl State {
    /// Moves the lease clock.
    pub(super) fn advance(&mut self, now: Instant) {
        self.expiry.advance(now);
    }

    /// To be called when [`next`](State::next) says so: tells readers what waits, lets go what is over.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.advance(now);
        while let Some(&(due, topic)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            self.tell(now, topic);
        }
        self.doubt_the_silent(now);
        self.lose_sight_of_peers(now);
        if !self.expiry.warming_up() {
            self.expire(now);
        }
        self.announce(now);
    }

    /// When to call [`tick`](State::tick) next, at the latest.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let regular = now + (self.limits.lease / 60).clamp(Duration::from_millis(5), Duration::from_millis(250));
        self.due.first().map_or(regular, |(due, _)| regular.min(*due))
    }

    /// Sessions that missed a renewal, though their connections look well.
    fn doubt_the_silent(&mut self, now: Instant) {
        let silent = self.expiry.clock().saturating_sub(self.limits.lease * 2 / 3);
        let is_silent = |s: &&mut super::Session| !s.suspect && s.count > 0 && s.renewed < silent;
        let all: Vec<u64> = self
            .sessions
            .iter_mut()
            .filter(|(_, s)| is_silent(s))
            .map(|(id, s)| {
                s.suspect = true;
                *id
            })
            .collect();
        for session in all {
            self.doubt(now, session, true);
        }
    }

    fn expire(&mut self, now: Instant) {
        let mut over = self.over();
        let most = self.expiry.allowed(over.len(), self.entries, self.limits.protection);
        let n = most.min(over.len());
        // The first n of a random order.
        for at in 0..n {
            let other = at + (self.expiry.random() % (over.len() - at) as u64) as usize;
            over.swap(at, other);
        }
        for (topic, instance) in over.into_iter().take(n) {
            match self.topics.get(&topic).and_then(|t| t.record(instance)).map(|r| (r.peers, r.session)) {
                Some((peers, Some(session))) if peers != 0 => self.keep_for_peers(topic, instance, session),
                Some((peers, None)) if peers != 0 => drop(self.loose.remove(&(topic, instance))),
                _ => self.remove(now, topic, instance, Gone::Expired),
            }
        }
        self.expiry.expired(n);
        self.forget_silent_sessions();
    }

    /// Nobody renews it here, but another node still hears of it.
    fn keep_for_peers(&mut self, topic: u64, instance: InstanceId, session: u64) {
        self.leave(session, topic, instance);
        if let Some(t) = self.topics.get_mut(&topic) {
            t.loosen(instance);
        }
    }

    /// Entries whose lease is over.
    fn over(&self) -> Vec<(u64, InstanceId)> {
        let clock = self.expiry.clock();
        let ended = self.sessions.values().filter(|s| s.renewed + self.limits.lease <= clock);
        let of_sessions = ended.flat_map(|s| s.entries.iter().flat_map(|(topic, of)| of.iter().map(|instance| (*topic, *instance))));
        let loose = self.loose.iter().filter(|(_, expires)| **expires <= clock).map(|(at, _)| *at);
        of_sessions.chain(loose).collect()
    }

    /// A session with nothing in it that is not renewed is none; its stream may live on unused.
    fn forget_silent_sessions(&mut self) {
        let clock = self.expiry.clock();
        let lease = self.limits.lease;
        self.sessions.retain(|_, s| s.count > 0 || s.renewed + lease > clock);
    }

    /// Tells everybody when the node begins or ceases to see normally.
    fn announce(&mut self, now: Instant) {
        let normal = self.expiry.sees_normally();
        if normal == self.expiry.told_normal {
            return;
        }
        self.expiry.told_normal = normal;
        self.revision += 1;
        let read: Vec<u64> = self.topics.iter().filter(|(_, t)| t.has_readers()).map(|(number, _)| *number).collect();
        for topic in read {
            if let Some(t) = self.topics.get_mut(&topic) {
                t.announce(self.revision);
            }
            self.tell(now, topic);
        }
    }
}
