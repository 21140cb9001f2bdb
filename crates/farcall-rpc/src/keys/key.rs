//! The caller's side: a key, and what it remembers of the attempts made with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use farcall_core::{Certainty, Code, MethodDescriptor, RpcError, limits};
use farcall_wire::{CallKey, KeyMoment};

use crate::connection::random_id;
use crate::context::Peer;

/// Makes a call that may not run twice safe to make again: [`Call::key`](crate::Call::key).
///
/// The provider remembers the reply of a call with a key. If a call ends with
/// [`Certainty::MaybeExecuted`] because its connection was cut or its time was over, call again
/// with the same key and the same arguments: it waits for the attempt that still runs, or gets the
/// reply of the one that ran, or is the first to run.
///
/// Clones are the same key. A key remembers to which provider it was first sent and when, so that a
/// call which the provider can no longer tell to be new, because it was started again, is another
/// one or has had to forget, is refused with [`Code::FailedPrecondition`] and never run a second
/// time. While an attempt may have run, so says the certainty of every later failure.
#[derive(Clone)]
pub struct Key(Arc<Inner>);

struct Inner {
    bytes: Box<[u8]>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The first attempt, unless all so far are known not to have run.
    first: Option<First>,
    /// Attempts without their end.
    flying: usize,
    /// One of them may have run.
    ran: bool,
}

struct First {
    at: Instant,
    /// The same by the clock of the provider's record, or a little earlier; `None` for a provider
    /// in this process.
    moment: Option<KeyMoment>,
    peer: String,
}

/// A peer's record of keys, as seen in its hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) moment: KeyMoment,
    pub(crate) at: Instant,
}

impl Seen {
    /// A moment of ours by the record's clock, or a little earlier: a hello is read after it was
    /// written, and clocks run apart by less than a thousandth of the time since or before.
    fn moment(self, at: Instant) -> KeyMoment {
        let since = at.saturating_duration_since(self.at).as_millis() as u64;
        let before = self.at.saturating_duration_since(at).as_micros().div_ceil(1000) as u64;
        let forward = self.moment.ms.saturating_add(since - since.div_ceil(1000));
        KeyMoment { ms: forward.saturating_sub(before + before.div_ceil(1000)), ..self.moment }
    }
}

impl Key {
    /// A key that nobody else has: for a call that is made again by the same program.
    #[allow(clippy::new_without_default)] // Two defaults of a type should be equal; two keys never are.
    pub fn new() -> Key {
        Key::of(random_id().as_slice())
    }

    /// A key of 1 to 64 bytes that is known beforehand, such as the number of an order: for a call
    /// that is made again by a program that was started again. It must name what is to be done once
    /// for all callers of the provider; nobody else should be able to guess it, or they could read
    /// the reply.
    ///
    /// A new `Key` remembers nothing: after a restart of both sides, or when the provider has
    /// forgotten ([`Limits::key_time`](farcall_core::Limits)), a call with it runs again.
    pub fn named(key: impl AsRef<[u8]>) -> Result<Key, RpcError> {
        match key.as_ref() {
            bytes if (1..=limits::KEY).contains(&bytes.len()) => Ok(Key::of(bytes)),
            bytes => {
                let why = format!("an idempotency key is 1 to {} bytes, not {}: take a hash of it", limits::KEY, bytes.len());
                Err(RpcError::not_sent(Code::InvalidArgument, why))
            }
        }
    }

    fn of(bytes: &[u8]) -> Key {
        Key(Arc::new(Inner { bytes: bytes.into(), memory: Mutex::default() }))
    }

    /// What it consists of.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Forgets all attempts: the next call with this key is a first one, at whichever provider. For
    /// when you have found out by other means that nothing ran, or accept that it runs twice.
    pub fn forget(&self) {
        *self.memory() = Memory::default();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call of this method is sent with its key: not if running it twice is the same as
    /// once.
    pub(crate) fn serves(method: &MethodDescriptor) -> Result<bool, RpcError> {
        if method.traits.oneway {
            let why = "a one-way call has no reply to be kept: make the method two-way, or call it without a key";
            return Err(RpcError::not_sent(Code::InvalidArgument, why));
        }
        if method.traits.args_stream || method.traits.result_stream {
            let why = "a stream cannot be kept and sent again: a method with one takes no idempotency key";
            return Err(RpcError::not_sent(Code::InvalidArgument, why));
        }
        Ok(!method.traits.idempotent)
    }

    /// An attempt is about to be sent to this peer; `None` for a provider in this process. What
    /// goes with it says when the first one was, if it may have run.
    pub(crate) fn attempt(&self, peer: Option<&Peer>) -> Result<(Attempt, Box<CallKey>), RpcError> {
        let seen = peer.and_then(|peer| peer.keys);
        let mut memory = self.memory();
        let attempted = match &mut memory.first {
            Some(first) => match (&mut first.moment, seen) {
                (Some(moment), Some(seen)) if moment.record == seen.moment.record => {
                    // The later of two bounds is the better one: a new connection's hello is a
                    // fresh look at the clock.
                    moment.ms = moment.ms.max(seen.moment(first.at).ms);
                    Some(*moment)
                }
                _ => return Err(out_of_reach(first, peer)),
            },
            None if peer.is_some() && seen.is_none() => return Err(no_record()),
            None => {
                let name = peer.map_or("the provider in this process", |peer| &peer.address);
                let at = crate::time::now();
                memory.first = Some(First { at, moment: seen.map(|seen| seen.moment(at)), peer: name.to_owned() });
                None
            }
        };
        memory.flying += 1;
        Ok((Attempt { key: self.clone(), open: true }, Box::new(CallKey { bytes: self.0.bytes.clone(), attempted })))
    }

    /// The failure of an attempt as one of the call: what is known of all attempts.
    pub(crate) fn settle(&self, error: RpcError) -> RpcError {
        match self.memory().first {
            Some(_) => error.with_certainty(Certainty::MaybeExecuted),
            None => error,
        }
    }

    fn ended(&self, certainty: Certainty) {
        let mut memory = self.memory();
        memory.flying = memory.flying.saturating_sub(1);
        memory.ran |= !certainty.is_safe_to_retry();
        if memory.flying == 0 && !memory.ran {
            memory.first = None;
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.bytes().escape_ascii())
    }
}

/// One attempt with a key, from before it is sent to its end. Dropped without one, it may have run.
pub(crate) struct Attempt {
    key: Key,
    open: bool,
}

impl Attempt {
    pub(crate) fn ended(mut self, certainty: Certainty) {
        self.open = false;
        self.key.ended(certainty);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            self.key.ended(Certainty::MaybeExecuted);
        }
    }
}

/// The provider that an attempt was sent to, or its record, is not the one at hand.
#[cold]
fn out_of_reach(first: &First, peer: Option<&Peer>) -> RpcError {
    let advice = "find out with a query of your own, then call with a new key, or `forget()` this one's attempts";
    let why = match (first.moment, peer) {
        (Some(_), Some(peer)) => format!(
            "an earlier attempt with this key may have run at {}, and {} has another record of keys: that provider was started \
             again, or this is another one; whether it ran cannot be found out by calling again: {advice}",
            first.peer, peer.address
        ),
        (None, None) => format!("an earlier attempt with this key was made, and a provider in this process keeps no record: {advice}"),
        (_, _) => format!("an earlier attempt with this key may have run at {}, which is another provider: {advice}", first.peer),
    };
    RpcError::new(Code::FailedPrecondition, why)
}

#[cold]
fn no_record() -> RpcError {
    let why = "the provider keeps no record of idempotency keys (its limit `keys` is 0): call without one";
    RpcError::not_sent(Code::Unimplemented, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(record: Option<u64>) -> Peer {
        let keys = record.map(|record| Seen { moment: KeyMoment { record, ms: 5000 }, at: Instant::now() });
        Peer { address: "tcp://h:1".into(), incarnation: 1, keys, ..Peer::default() }
    }

    /// What an attempt says of earlier ones.
    fn sent(key: &Key, peer: &Peer) -> Option<KeyMoment> {
        key.attempt(Some(peer)).unwrap().1.attempted
    }

    #[test]
    fn a_key_remembers_the_attempts_that_may_have_run() {
        let (key, here) = (Key::new(), peer(Some(1)));
        let (attempt, sent) = key.attempt(Some(&here)).unwrap();
        assert_eq!(sent.attempted, None);
        attempt.ended(Certainty::NotExecuted);
        let (attempt, sent) = key.attempt(Some(&here)).unwrap();
        assert_eq!(sent.attempted, None, "the first is known not to have run");
        drop(attempt);
        let (again, sent) = key.clone().attempt(Some(&here)).unwrap();
        let attempted = sent.attempted;
        assert!(attempted.is_some_and(|moment| moment.record == 1 && (4000..=5000).contains(&moment.ms)), "{attempted:?}");
        again.ended(Certainty::NotSent);
        let e = key.settle(RpcError::not_sent(Code::Unavailable, "nobody listens"));
        assert_eq!(e.certainty(), Certainty::MaybeExecuted, "not this attempt, but an earlier one");
    }

    #[test]
    fn a_hello_tells_the_records_time_before_and_after_it() {
        let seen = Seen { moment: KeyMoment { record: 1, ms: 100_000 }, at: Instant::now() + Duration::from_secs(500) };
        for (after_ms, expected) in [(0, 100_000), (1, 100_000), (2000, 101_998), (-1, 99_998), (-2000, 97_998), (-200_000, 0)] {
            let after = Duration::from_millis(i64::unsigned_abs(after_ms));
            let at = if after_ms < 0 { seen.at - after } else { seen.at + after };
            assert_eq!(seen.moment(at).ms, expected, "{after_ms}");
        }
    }

    #[test]
    fn a_new_hello_tells_the_time_of_the_first_attempt_better() {
        let key = Key::new();
        drop(key.attempt(Some(&peer(Some(1)))).unwrap());
        let old = sent(&key, &peer(Some(1)));
        let mut again = peer(Some(1));
        again.keys.as_mut().unwrap().moment.ms += 3_600_000;
        let new = sent(&key, &again);
        assert!(new.unwrap().ms > old.unwrap().ms + 3_500_000, "{old:?} {new:?}");
        let kept = sent(&key, &peer(Some(1)));
        assert_eq!(kept, new);
    }

    #[test]
    fn an_attempt_on_its_way_may_run() {
        let (key, here) = (Key::new(), peer(Some(1)));
        let (first, _) = key.attempt(Some(&here)).unwrap();
        let (second, sent) = key.attempt(Some(&here)).unwrap();
        assert!(sent.attempted.is_some());
        second.ended(Certainty::NotExecuted);
        let e = || RpcError::not_executed(Code::ResourceExhausted, "full");
        assert_eq!(key.settle(e()).certainty(), Certainty::MaybeExecuted);
        first.ended(Certainty::NotExecuted);
        assert_eq!(key.settle(e()).certainty(), Certainty::NotExecuted);
    }

    #[test]
    fn another_record_is_refused_until_the_attempts_are_forgotten() {
        let key = Key::named("order-17").unwrap();
        drop(key.attempt(Some(&peer(Some(1)))).unwrap());
        for (other, said) in [(Some(peer(Some(2))), "started again"), (Some(peer(None)), "another record"), (None, "another provider")] {
            let e = key.attempt(other.as_ref()).err().unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted));
            assert!(e.message().contains(said) && e.message().contains("forget()"), "{e}");
        }
        key.forget();
        assert_eq!(sent(&key, &peer(Some(2))), None);
    }

    #[test]
    fn who_keeps_no_record_is_not_sent_a_key() {
        let e = Key::new().attempt(Some(&peer(None))).err().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::Unimplemented, Certainty::NotSent));
        let local = Key::new();
        drop(local.attempt(None).unwrap());
        assert!(local.attempt(None).err().unwrap().message().contains("keeps no record"));
    }

    #[test]
    fn a_name_has_a_length_and_random_keys_differ() {
        assert!(Key::named("").is_err());
        assert!(Key::named([7; 65]).unwrap_err().message().contains("1 to 64 bytes, not 65"));
        assert_eq!(format!("{:?}", Key::named("order-\n").unwrap()), "Key(order-\\n)");
        assert_ne!(Key::new().bytes(), Key::new().bytes());
    }
}
