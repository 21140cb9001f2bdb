//! TLS over any byte link: who may be believed, and what it says when somebody may not.
//!
//! [`TlsServer`] holds what a server proves itself with, [`TlsClient`] what a client trusts. Both read PEM
//! from files or memory, and read changed files anew without a restart. The protocol is rustls's, TLS 1.3
//! alone; `failure` turns its errors into what to do about them.

mod client;
mod failure;
mod link;
mod pem;
mod server;
#[cfg(feature = "quic")]
mod verdict;
mod watched;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{TlsClient, TlsClientBuilder};
#[cfg(feature = "quic")]
pub(crate) use failure::{Here, told_by_alert};
pub use pem::{Authorities, CertifiedKey};
pub use server::{TlsServer, TlsServerBuilder};

pub use link::TlsLink;
pub(crate) use link::proven_names;
pub(crate) use server::TlsAcceptor;

/// What a client asks for by ALPN.
pub(crate) const FARCALL_ALPN: &[u8] = b"farcall/1";
/// As facts name it.
pub(crate) const VERSION: &str = "TLS 1.3";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
