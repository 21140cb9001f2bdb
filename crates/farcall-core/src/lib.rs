//! The words of farcall: errors, descriptors, schemas and codecs, no I/O.

// The macros name this crate; inside it, that is itself.
extern crate self as farcall_core;

mod base64;
pub mod byte_vec;
pub mod check;
pub mod codec;
pub mod compact;
pub mod compat;
pub mod descriptor;
pub mod endpoint;
pub mod error;
pub mod export;
pub mod frame_bytes;
#[cfg(feature = "json")]
pub mod json;
pub mod lent;
pub mod limits;
pub mod messages;
pub mod metadata;
pub mod plan;
#[cfg(feature = "protobuf")]
pub mod protobuf;
pub mod reading;
pub mod schema;
pub mod secret;
#[cfg(feature = "xdr")]
pub mod xdr;

#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "protobuf")]
pub use codec::Protobuf;
#[cfg(feature = "xdr")]
pub use codec::Xdr;
pub use codec::{Codec, CodecError, CodecId, Compact};
pub use descriptor::{MethodDescriptor, MethodTraits, Prints, ServiceDescriptor};
pub use endpoint::{Address, Endpoint};
pub use error::{AppError, Certainty, Code, Detail, Error, Fault, Never, Reply, RpcError, Stage};
pub use farcall_macros::{Schema, data, error};
pub use limits::Limits;
pub use metadata::{Metadata, Trace};
pub use plan::{Incompatible, Plan};
pub use reading::Reading;
pub use schema::{Fingerprint, Schema, TypeSchema};
pub use secret::{Credentials, Secret};

/// What code made by the macros refers to. Not for people: it may change with any version.
#[doc(hidden)]
pub mod __rt {
    pub use crate::descriptor::ErrorSchema;
    pub use crate::error::AppError;
    pub use crate::lent::{Many, Octets, One, Text};
    pub use crate::schema::*;
    pub use crate::{byte_vec, frame_bytes, lent};
    pub use farcall_macros::{Schema, data};
    pub use serde;
}
