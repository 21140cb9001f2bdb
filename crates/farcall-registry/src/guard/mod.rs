//! What is done with what backends say, one for all of them: an outage of a registry is a non-event.
//!
//! Two machines without sockets, tasks and clocks decide: [`List`] for consumers (what is listed, merged, doubted, dropped; when to
//! subscribe, to pull, to probe) and [`Keeping`] for providers (when to publish, to publish again, to check). Time and random numbers
//! are arguments; `tests/guard` simulates both with backends that fail in every way. [`Directory`](crate::Directory) and
//! [`Registration`](crate::Registration) drive them.

mod keeping;
mod list;
mod random;
mod settings;
mod source;

pub use keeping::{Keeping, Task};
pub use list::{Action, Instance, List, Reach, Tombstone};
pub use random::Random;
pub use settings::{GuardSettings, MOST_PROBES, MOST_TOMBSTONES};
