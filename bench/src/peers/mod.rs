//! The systems under test, one file each. To add one: implement [`Peer`] in a file, add its `mod` line and its line
//! in [`ALL`].
use crate::company::{self, Beside, Company};
use crate::config::{ClientConfig, ServerConfig};
use crate::delay::Delay;
use crate::flow::{self, Direction, Flow, Meter, Pauses};
use crate::load::{self, Measurement, Window};
use crate::scenario::soak::Growth;
use anyhow::{Result, ensure};
use std::future::Future;
use std::sync::Arc;

mod farcall;
#[cfg(feature = "http-door")]
mod http;
mod raw;
mod raw_spin;
mod raw_stream;
#[cfg(feature = "tarpc")]
mod tarpc;
#[cfg(feature = "tonic")]
mod tonic;

/// Every peer this binary was built with.
pub(crate) const ALL: &[Entry] = &[
    Entry::streaming::<raw::Raw>(),
    Entry::of::<raw_spin::RawSpin>(),
    Entry::mixed::<farcall::Farcall>(),
    Entry::of::<farcall::Intercepted>(),
    #[cfg(feature = "http-door")]
    Entry::of::<http::Http1>(),
    #[cfg(feature = "http-door")]
    Entry::of::<http::Http2>(),
    #[cfg(feature = "tarpc")]
    Entry::of::<tarpc::Tarpc>(),
    #[cfg(feature = "tonic")]
    Entry::mixed::<tonic::Tonic>(),
];

/// One system: how to serve and how to connect. The loop around it is [`load`]'s.
pub(crate) trait Peer: 'static {
    const NAME: &'static str;
    /// Version and tuning, for `list`.
    const ABOUT: &'static str;
    /// Whether it takes [`Addr::Unix`](crate::config::Addr::Unix).
    const UNIX: bool = false;
    /// Whether it takes [`Addr::Secure`](crate::config::Addr::Secure).
    const SECURE: bool = false;
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

/// A [`Peer`] that has streams.
pub(crate) trait StreamPeer: Peer {
    type Streams: Streams;

    /// As [`Peer::serve`], for clients that open streams.
    fn serve_streams(config: ServerConfig) -> impl Future<Output = Result<()>> + Send {
        Self::serve(config)
    }

    /// One connection.
    fn open(config: ClientConfig) -> impl Future<Output = Result<Self::Streams>> + Send;
}

/// A connection on which streams can be opened.
pub(crate) trait Streams: Send + Sync + 'static {
    type Items: Items;

    /// Opens a stream of items of `item` bytes which the server sends until nobody reads it.
    fn download(&self, item: usize) -> impl Future<Output = Result<Self::Items>> + Send;

    /// Sends items of `item` bytes as long as there is [`more`](Meter::more) to send; the bytes that the server has read.
    fn upload(&self, item: usize, meter: Arc<Meter>) -> impl Future<Output = Result<u64>> + Send;
}

/// The reading end of a stream.
pub(crate) trait Items: Send + 'static {
    /// Takes an item, or what has come of several if the peer knows no items; its bytes.
    fn next(&mut self) -> impl Future<Output = Result<usize>> + Send;
}

/// A connection on which small calls have company.
pub(crate) trait Mixed: Caller + Streams {
    /// A call with a reply of so many bytes, its length checked.
    fn large(&self, bytes: usize) -> impl Future<Output = Result<()>> + Send;
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
    pub(crate) secure: bool,
    pub(crate) serve: fn(ServerConfig) -> Result<()>,
    pub(crate) drive: fn(ClientConfig, Window) -> Result<Measurement>,
    pub(crate) hold: fn(ClientConfig, usize) -> Result<()>,
    pub(crate) repeat: fn(ClientConfig, usize, u32) -> Result<Growth>,
    streams: Option<StreamEntry>,
    mixed: Option<Mixing>,
}

/// Measures small calls beside what else goes over their connection.
type Mixing = fn(ClientConfig, Window, Beside) -> Result<Company>;

/// What a [`StreamPeer`] can do besides.
pub(crate) struct StreamEntry {
    pub(crate) serve: fn(ServerConfig) -> Result<()>,
    pub(crate) flow: fn(ClientConfig, Direction, usize, Window) -> Result<Flow>,
    pub(crate) read_slowly: fn(ClientConfig, Pauses, u32) -> Result<Growth>,
}

impl Entry {
    const fn of<P: Peer>() -> Entry {
        Entry {
            name: P::NAME,
            about: P::ABOUT,
            unix: P::UNIX,
            secure: P::SECURE,
            serve: load::serve::<P>,
            drive: load::drive::<P>,
            hold: load::hold::<P>,
            repeat: load::repeat::<P>,
            streams: None,
            mixed: None,
        }
    }

    const fn streaming<P: StreamPeer>() -> Entry {
        let streams = StreamEntry { serve: flow::serve::<P>, flow: flow::drive::<P>, read_slowly: flow::read_slowly::<P> };
        Entry { streams: Some(streams), ..Entry::of::<P>() }
    }

    const fn mixed<P: StreamPeer<Streams: Mixed>>() -> Entry {
        Entry { mixed: Some(company::drive::<P>), ..Entry::streaming::<P>() }
    }

    pub(crate) fn streams(&self) -> Result<&StreamEntry, String> {
        self.streams.as_ref().ok_or_else(|| format!("{} has no streams here", self.name))
    }

    pub(crate) fn mixing(&self) -> Result<Mixing, String> {
        self.mixed.ok_or_else(|| format!("{} has no company for small calls here", self.name))
    }

    pub(crate) fn named(name: &str) -> Result<&'static Entry, String> {
        let names = || ALL.iter().map(|peer| peer.name).collect::<Vec<_>>().join(", ");
        let found = ALL.iter().find(|peer| peer.name == name);
        found.ok_or_else(|| format!("no peer {name:?} in this build, which has {}", names()))
    }
}
