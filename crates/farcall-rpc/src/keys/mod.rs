//! Idempotency keys: a call that may have run is resolved by calling again, without running twice.
//!
//! The caller's [`Key`] remembers where and when it was first sent; the provider's [`Record`]
//! remembers, in bounded room, the calls that came with a key and their replies; [`Keyed`] stands
//! between the driver and a handler and lets it run, wait for the attempt that runs, or answers
//! from the record. Why it is so, and what it does not promise:
//! `docs/decisions/idempotency-keys.md`.

mod handler;
mod key;
mod record;

pub(crate) use handler::Keyed;
pub use key::Key;
pub(crate) use key::{Attempt, Seen};
pub(crate) use record::Record;
