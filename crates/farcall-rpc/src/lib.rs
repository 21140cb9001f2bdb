//! Client, server and the connection task between them.
//!
//! [`Server`] listens and runs providers, [`Channel`] reaches one, [`Call`] is one call on its way.
//! Stubs and skeletons are made by `#[farcall::service]` on top of [`Method`] and [`Skeleton`]. One
//! driver task per connection reads, dispatches and writes (`connection/driver.rs`); the protocol's
//! rules are in `farcall-wire`, which it drives.
//!
//! The seams to the rest of farcall: [`Resolver`] (endpoints in), [`Observer`] (outcomes out),
//! [`Protocol`] and [`Dispatch`] (other protocols on the
//! same port), [`Invoke`] (calls without a stub). What it does
//! not know: registries, balancing, retries.

// The service macro names this crate; the built-in service in `meta` is inside it.
extern crate self as farcall_rpc;

mod admission;
mod announce;
pub mod auth;
mod batch;
mod call;
mod caller;
mod channel;
mod connection;
mod context;
mod dispatch;
mod early;
pub mod health;
mod hedge;
pub mod intercept;
mod invoke;
mod keys;
pub mod meta;
mod method;
mod observer;
mod protocol;
mod resolver;
mod runtime;
mod scratch;
mod server;
mod skeleton;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use admission::Admission;
pub use announce::Announce;
pub use auth::Identity;
pub use batch::{Batch, batch};
pub use call::{Call, Pending};
pub use channel::{Channel, Connect};
pub use context::{Context, Peer, context, spawn, spawn_blocking};
pub use dispatch::{Dispatch, ForeignCall, ForeignCalling, ForeignItem, ForeignItems, ForeignReply, Held, Target};
pub use farcall_core::*;
pub use farcall_macros::service;
#[cfg(feature = "tls")]
pub use farcall_transport::{Authorities, CertifiedKey, TlsClient, TlsClientBuilder, TlsServer, TlsServerBuilder};
pub use farcall_transport::{Io, PeerFacts, TlsPeer, UnixPeer};
pub use hedge::Hedged;
pub use invoke::{Invoke, RawCall, RawItem, RawReply, RawStream};
pub use keys::Key;
pub use method::{Idempotent, Method, Stub};
pub use observer::{Ended, Observer, Outcome, Side};
pub use protocol::{Protocol, Sniff};
pub use resolver::{Fate, Resolver, StaticResolver};
pub use runtime::block_on;
#[doc(hidden)]
pub use runtime::handle as runtime_handle;
pub use server::{Listen, ServedLink, Server, ServerBuilder, StopSignals};
pub use skeleton::Skeleton;
pub use stream::{Next, StreamSender, Streaming};

/// What code made by the macros refers to. Not for people: it may change with any version.
#[doc(hidden)]
pub mod __rt {
    pub use crate::call::Call;
    pub use crate::channel::{Channel, Connect};
    pub use crate::early::{Early, Lending};
    pub use crate::method::{
        AsBytes, AsStream, AsValue, BoxFuture, Idempotent, LocalTarget, Method, StreamArg, Stub, is_app_error, local_blocking, travels,
        travels_lent, wrong_target,
    };
    pub use crate::resolver::Resolver;
    pub use crate::skeleton::{Incoming, Lender, Runner, Skeleton, runner};
    pub use crate::stream::{Received, Streaming};
    pub use farcall_core::__rt::*;
    pub use farcall_core::{Address, Fault, MethodDescriptor, MethodTraits, Never, Reply, RpcError, ServiceDescriptor};
}
