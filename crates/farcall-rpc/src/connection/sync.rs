//! The lock and the atomic that callers, handlers and the driver meet at: the standard library's, or
//! the model checker's, so that `models` runs this very code in every order.

#[cfg(all(test, farcall_loom))]
pub(super) use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool};
#[cfg(not(all(test, farcall_loom)))]
pub(super) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};
