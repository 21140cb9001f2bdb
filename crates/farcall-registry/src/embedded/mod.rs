//! Our own registry: nodes that need nothing but themselves, and the backend that speaks to them.
//!
//! A [`Embedded`] node runs in any program, or as `farcall registry`. One to eight nodes serve together without a quorum: providers
//! register at all of them, consumers subscribe at one and go to another when it is lost, and the nodes copy from each other what only
//! one of them heard. The last survivor still registers. [`Nodes`] is the backend for all that ([`Registry`](crate::Registry)).
//!
//! The rules of a node are a value without sockets, tasks and clocks (`state/`); `server/` runs it as a farcall service (`api.rs`,
//! described for other implementations in `docs/registry-protocol.md`), `client/` is the other end.

mod access;
pub mod api;
mod client;
mod limits;
mod packed;
mod server;
mod state;

pub use access::{Action, Grant};
pub(crate) use client::open;
pub use client::{DEFAULT_PORT, Nodes, NodesBuilder};
pub use limits::RegistryLimits;
pub use server::{Embedded, EmbeddedBuilder};
