//! What was compiled before, for all sessions that share it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall_core::compat::Part;
use farcall_core::limits::READINGS;
use farcall_core::{Reading, TypeSchema};

/// The two schemas themselves. Their fingerprints would not do: names that are read besides, defaults and what must be
/// understood are not in a fingerprint, so a peer could make others read by plans that are not theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) part: Part,
    pub(super) stream: bool,
    pub(super) writer: Arc<[u8]>,
    /// Empty: this side has no such part.
    pub(super) reader: Vec<u8>,
}

/// A reading, or why there is none.
pub(super) type Made = Result<Arc<Reading>, Arc<str>>;

/// Plans that were compiled, shared by sessions: of a server, or of a channel. Bounded by
/// [`READINGS`](farcall_core::limits::READINGS); the oldest go first, and are compiled again if asked for.
#[derive(Debug, Default)]
pub struct Readings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    made: HashMap<Arc<Key>, Made>,
    /// In the order in which they were made, with what each takes.
    order: VecDeque<(Arc<Key>, usize)>,
    weight: usize,
}

impl Readings {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is in it is whole between any two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, key: &Key) -> Option<Made> {
        self.lock().made.get(key).cloned()
    }

    /// Compiles, without the lock: of two who do so at once for one key, the second is right, too.
    pub(super) fn compile(&self, key: Key, writer: &TypeSchema, reader: Option<&TypeSchema>) -> Made {
        let made: Made = match Reading::compile(key.part, key.stream, Some(writer), reader) {
            Ok((reading, _)) => Ok(Arc::new(reading)),
            Err(issues) => Err(issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ").into()),
        };
        self.lock().insert(key, made.clone());
        made
    }

    /// Bytes that it takes, roughly.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.lock().weight
    }
}

impl Kept {
    fn insert(&mut self, key: Key, made: Made) {
        let value = match &made {
            Ok(reading) => reading.weight(),
            Err(why) => why.len(),
        };
        let weight = size_of::<Key>() + key.writer.len() + key.reader.len() + value;
        if weight > READINGS || self.made.contains_key(&key) {
            return;
        }
        let key = Arc::new(key);
        self.made.insert(Arc::clone(&key), made);
        self.order.push_back((key, weight));
        self.weight += weight;
        while self.weight > READINGS
            && let Some((oldest, weight)) = self.order.pop_front()
        {
            self.made.remove(&oldest);
            self.weight -= weight;
        }
    }
}
