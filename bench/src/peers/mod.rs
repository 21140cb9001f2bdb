//! The systems under test, one file each. To add one: implement [`Peer`] in a file, add its `mod` line and its line
//! in [`ALL`].
use crate::config::{ClientConfig, ServerConfig};
use crate::delay::Delay;
use crate::load::{self, Measurement, Window};
use crate::scenario::soak::Growth;
use anyhow::{Result, ensure};
use std::future::Future;

mod farcall;
mod raw;
mod raw_spin;
#[cfg(feature = "tarpc")]
mod tarpc;
#[cfg(feature = "tonic")]
mod tonic;

/// Every peer this binary was built with.
pub(crate) const ALL: &[Entry] = &[
    Entry::of::<raw::Raw>(),
    Entry::of::<raw_spin::RawSpin>(),
    Entry::of::<farcall::Farcall>(),
    #[cfg(feature = "tarpc")]
    Entry::of::<tarpc::Tarpc>(),
    #[cfg(feature = "tonic")]
    Entry::of::<tonic::Tonic>(),
];

/// One system: how to serve and how to connect. The loop around it is [`load`]'s.
pub(crate) trait Peer: 'static {
    const NAME: &'static str;
    /// Version and tuning, for `list`.
    const ABOUT: &'static str;
    /// Whether it takes [`Addr::Unix`](crate::config::Addr::Unix).
    const UNIX: bool = false;
    type Caller: Caller;

    /// Answers every call with its argument (`Tiny`: with the sum) until the process is killed. Runs as a task of
    /// the one worker; says where it listens by [`ServerConfig::listen`] or [`ServerConfig::announce`].
    fn serve(config: ServerConfig) -> impl Future<Output = Result<()>> + Send;

    /// One connection; asked for `config.connections` times.
    fn connect(config: ClientConfig) -> impl Future<Output = Result<Self::Caller>> + Send;
}

/// A connection, shared by the tasks that call over it.
pub(crate) trait Caller: Send + Sync + 'static {
    /// One call with the configured payload, its answer checked. Its handler passes the `delay`, which is none but for
    /// [`Payload::Slow`](crate::config::Payload::Slow).
    fn call(&self, delay: Option<Delay>) -> impl Future<Output = Result<()>> + Send;
}

/// For [`Caller::call`]: the cheap test that an answer is the one asked for.
pub(crate) fn check(right: bool) -> Result<()> {
    ensure!(right, "wrong answer");
    Ok(())
}

/// A [`Peer`] with its type erased.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) unix: bool,
    pub(crate) serve: fn(ServerConfig) -> Result<()>,
    pub(crate) drive: fn(ClientConfig, Window) -> Result<Measurement>,
    pub(crate) hold: fn(ClientConfig, usize) -> Result<()>,
    pub(crate) repeat: fn(ClientConfig, usize, u32) -> Result<Growth>,
}

impl Entry {
    const fn of<P: Peer>() -> Entry {
        Entry {
            name: P::NAME,
            about: P::ABOUT,
            unix: P::UNIX,
            serve: load::serve::<P>,
            drive: load::drive::<P>,
            hold: load::hold::<P>,
            repeat: load::repeat::<P>,
        }
    }

    pub(crate) fn named(name: &str) -> Result<&'static Entry, String> {
        let names = || ALL.iter().map(|peer| peer.name).collect::<Vec<_>>().join(", ");
        let found = ALL.iter().find(|peer| peer.name == name);
        found.ok_or_else(|| format!("no peer {name:?} in this build, which has {}", names()))
    }
}
