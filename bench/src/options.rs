//! The words of a command line, and its options: each known to its command, given once and within its bounds.
use crate::config::{Payload, Transport};
use crate::peers::Entry;
use crate::placement;
use std::collections::HashMap;
use std::fmt::Display;
use std::iter::Peekable;
use std::str::FromStr;
use std::time::Duration;

/// Or what is wrong, for people.
pub(crate) type Parsed<T> = Result<T, String>;

const MAX_SECS: f64 = 3_600.0;
/// Given by a parent to its children: end when stdin closes, which it does however the parent dies.
pub(crate) const ATTACHED: &str = "--attached";
/// Told to a server whose clients will open streams.
pub(crate) const STREAMS: &str = "--streams";

/// What is not looked at yet.
pub(crate) struct Words(Peekable<std::vec::IntoIter<String>>);

impl Words {
    pub(crate) fn new(words: Vec<String>) -> Words {
        Words(words.into_iter().peekable())
    }

    pub(crate) fn asks_for_help(&mut self) -> bool {
        self.0.peek().is_some_and(|word| ["--help", "-h", "help"].contains(&word.as_str()))
    }

    /// The next word, if it is no option.
    pub(crate) fn name(&mut self) -> Option<String> {
        self.0.next_if(|word| !word.starts_with('-'))
    }

    pub(crate) fn peer(&mut self) -> Parsed<&'static Entry> {
        Entry::named(&self.name().ok_or("the peer's name is missing")?)
    }

    /// All that is left.
    pub(crate) fn options(mut self, known: &[&str]) -> Parsed<Options> {
        let mut read = HashMap::new();
        while let Some(name) = self.0.next() {
            if !known.contains(&name.as_str()) {
                return Err(format!("no option {name:?}"));
            }
            let value = match name.as_str() {
                placement::APART | placement::UNPINNED | STREAMS | ATTACHED => String::new(),
                _ => self.0.next_if(|value| !value.starts_with("--")).ok_or_else(|| format!("{name} needs a value"))?,
            };
            if read.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(Options { words: read })
    }
}

/// The options of one command, by name.
pub(crate) struct Options {
    words: HashMap<String, String>,
}

impl Options {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.words.contains_key(name)
    }

    /// As it was written.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.words.get(name).map(String::as_str)
    }

    pub(crate) fn one<T: FromStr<Err: Display>>(&self, name: &str, default: &str) -> Parsed<T> {
        value(name, self.text(name).unwrap_or(default))
    }

    pub(crate) fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Parsed<T> {
        value(name, self.text(name).ok_or_else(|| format!("{name} is missing"))?)
    }

    pub(crate) fn maybe<T: FromStr<Err: Display>>(&self, name: &str) -> Parsed<Option<T>> {
        self.text(name).map(|word| value(name, word)).transpose()
    }

    pub(crate) fn list<T: FromStr<Err: Display>>(&self, name: &str, default: &str) -> Parsed<Vec<T>> {
        self.text(name).unwrap_or(default).split(',').map(|word| value(name, word)).collect()
    }

    pub(crate) fn counts(&self, name: &str, default: &str, max: usize) -> Parsed<Vec<usize>> {
        let counts: Vec<usize> = self.list(name, default)?;
        match counts.iter().find(|count| !(1..=max).contains(*count)) {
            Some(count) => Err(format!("{name} {count} is not within 1 to {max}")),
            None => Ok(counts),
        }
    }

    pub(crate) fn count(&self, name: &str, default: &str, max: usize) -> Parsed<usize> {
        match self.counts(name, default, max)?[..] {
            [count] => Ok(count),
            _ => Err(format!("{name} takes one number")),
        }
    }

    pub(crate) fn secs(&self, name: &str, default: &str) -> Parsed<Duration> {
        let secs: f64 = self.one(name, default)?;
        match (0.0..=MAX_SECS).contains(&secs) {
            true => Ok(Duration::from_secs_f64(secs)),
            false => Err(format!("{name} {secs} is not within 0 to {MAX_SECS}")),
        }
    }

    /// `--peers`, which must all speak over `transport`; all of this build that do if there is none.
    pub(crate) fn peers_over(&self, transport: Transport) -> Parsed<Vec<&'static Entry>> {
        let able = |peer: &&Entry| match transport {
            Transport::Tcp => true,
            Transport::Unix => peer.unix,
            Transport::Tls | Transport::Quic => peer.secure,
        };
        let Some(names) = self.text("--peers") else {
            return Ok(crate::peers::ALL.iter().filter(able).collect());
        };
        let peers: Vec<_> = names.split(',').map(Entry::named).collect::<Parsed<_>>()?;
        match peers.iter().find(|peer| !able(peer)) {
            Some(peer) => Err(format!("{} is not measured over {transport}", peer.name)),
            None => Ok(peers),
        }
    }

    /// `--peers`, of which `able` must say yes to each; all of this build that it says yes to if there is none.
    pub(crate) fn peers_that(&self, able: fn(&Entry) -> Parsed<()>) -> Parsed<Vec<&'static Entry>> {
        let peers = self.peers_over(Transport::Tcp)?;
        if self.has("--peers") {
            peers.iter().try_for_each(|peer| able(peer))?;
        }
        Ok(peers.into_iter().filter(|peer| able(peer).is_ok()).collect())
    }

    /// The sizes of blocks of bytes: `64`, `64k`.
    pub(crate) fn sizes(&self, name: &str, default: &str) -> Parsed<Vec<usize>> {
        let size = |payload| match payload {
            Payload::Bytes(size) if size > 0 => Ok(size),
            _ => Err(format!("{name} {payload} is no byte count (64, 64k)")),
        };
        self.list(name, default)?.into_iter().map(size).collect()
    }

    pub(crate) fn size(&self, name: &str, default: &str) -> Parsed<usize> {
        match self.sizes(name, default)?[..] {
            [size] => Ok(size),
            _ => Err(format!("{name} takes one size")),
        }
    }
}

fn value<T: FromStr<Err: Display>>(name: &str, word: &str) -> Parsed<T> {
    word.parse().map_err(|problem| format!("{name} {word:?}: {problem}"))
}

/// The cores this process may run on.
pub(crate) fn cpus() -> Parsed<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|error| format!("cannot read the CPU affinity: {error}"))?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}
