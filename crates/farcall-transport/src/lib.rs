//! Byte links under farcall: TCP, TLS, QUIC, unix sockets and pipes inside one process.
//!
//! [`connect`], [`Connector`] and [`Listener`] take an [`Address`](farcall_core::Address) and give an [`Io`]: one
//! enum instead of a box, so that reads and writes of the hot path are direct calls. Any other `AsyncRead +
//! AsyncWrite` becomes an [`Io`] through [`Io::boxed`]. What a link proves of its peer is in [`Io::facts`]. Errors
//! say what was tried and what to do.
//!
//! TLS is behind the feature `tls`, QUIC behind `quic`. What it does not do: frames, retries, deciding who may
//! do what.

mod accepted;
mod connect;
mod facts;
mod io;
mod listen;
mod memory;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "tls")]
mod tls;

pub use accepted::{Accepted, Security, Unopened};
pub use connect::{Connector, connect};
pub use facts::{PeerFacts, TlsPeer, UnixPeer};
pub use io::{ByteLink, Detached, Io};
pub use listen::Listener;
#[cfg(feature = "quic")]
pub use quic::QuicLink;
#[cfg(feature = "tls")]
pub use tls::{Authorities, CertifiedKey, TlsClient, TlsClientBuilder, TlsLink, TlsServer, TlsServerBuilder};
