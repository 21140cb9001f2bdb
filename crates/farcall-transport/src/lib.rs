//! Byte links under farcall: TCP, unix sockets and pipes inside one process.
//!
//! [`connect`] and [`Listener::bind`] take an [`Address`](farcall_core::Address) and give an [`Io`]: one enum instead of a
//! box, so that reads and writes of the hot path are direct calls. Any other `AsyncRead +
//! AsyncWrite` becomes an [`Io`] through [`Io::boxed`]. Errors say what was tried and what to do.
//!
//! What it does not do: frames, retries, TLS (that comes as another variant of [`Io`]).

mod connect;
mod facts;
mod io;
mod listen;
mod memory;

pub use connect::connect;
pub use facts::{PeerFacts, TlsPeer, UnixPeer};
pub use io::{ByteLink, Detached, Io};
pub use listen::Listener;
