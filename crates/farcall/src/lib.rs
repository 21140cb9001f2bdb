//! Remote calls for Rust: a trait becomes a service of another process.
//!
//! ```
//! use farcall::prelude::*;
//!
//! #[farcall::data]
//! #[derive(Debug, PartialEq)]
//! pub struct Receipt { pub order: u64, pub cents: u64 }
//!
//! #[farcall::error]
//! #[derive(Debug)]
//! pub enum PayError { Declined { reason: String } }
//!
//! #[farcall::service]
//! pub trait Payment {
//!     /// Charges an order.
//!     async fn pay(&self, order: u64, cents: u64) -> Reply<Receipt, PayError>;
//! }
//!
//! struct Till;
//! impl Payment for Till {
//!     async fn pay(&self, order: u64, cents: u64) -> Reply<Receipt, PayError> {
//!         match cents {
//!             0 => Err(PayError::Declined { reason: "nothing to pay".into() })?,
//!             _ => Ok(Receipt { order, cents }),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let server = Server::builder().serve(PaymentServer::new(Till)).listen("tcp://127.0.0.1:0").await?;
//! let payment = PaymentClient::connect(server.address()).await?;
//! assert_eq!(payment.pay(7, 250).await?, Receipt { order: 7, cents: 250 });
//! assert!(matches!(payment.pay(8, 0).await, Err(Error::App(PayError::Declined { .. }))));
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! **Start here**: [`service`], [`data`] and [`error`](macro@error) are the attributes; [`Server`]
//! serves; a generated client's `connect` gives its stub, whose methods return a [`Call`] in four
//! styles: `.await`, [`wait`](Call::wait), [`then`](Call::then), [`send`](Call::send);
//! [`batch`] makes several in one write. [`Streaming`] as a parameter or result is a stream. A handler reads its caller, metadata and remaining time from
//! [`context`].
//!
//! **When a call fails** it says with which [`Code`], at which [`Stage`], and with which
//! [`Certainty`]: only a call that was `NotSent` or `NotExecuted` may be repeated if the method is
//! not idempotent, unless it is made with a [`Key`].
//!
//! **Addresses** are `tcp://host:port`, `unix:/path` and `mem:name`; `tls://` with the feature `tls`, `quic://` with `quic`
//! (`docs/guide/tls.md`). Anything else that carries bytes both ways is a link, too: [`Channel::over`],
//! [`Server::serve_link`].
//!
//! **What it does not do yet**: balance over several,
//! read another version of a type in XDR or protobuf (compact and JSON are).

#[cfg(feature = "http")]
pub use farcall_http as http;
pub use farcall_registry as registry;
pub use farcall_registry::{Discover, Register, Registration, RegistrationHandle};
pub use farcall_rpc::__rt;
pub use farcall_rpc::*;

/// What most programs need: `use farcall::prelude::*;`. It does not shadow anything of the standard
/// prelude.
pub mod prelude {
    pub use farcall_registry::{Discover, Register};
    pub use farcall_rpc::{Batch, Call, Certainty, Code, Error, Reply, RpcError, Server, Streaming};
}

/// The programs in the README and in the guide run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../../../README.zh-CN.md")]
#[doc = include_str!("../../../docs/guide/changing-types.md")]
struct Readme;
