//! Providers are found by the name of their service, and an outage of the registry is a non-event.
//!
//! **Goals**: a consumer keeps a list of [`Entry`]s that is never emptied by silence, starts and calls from its cache file alone, and
//! meets the same guarantees whichever backend is behind the URL. **Non-goals**: consensus of our own (durable agreement is
//! ZooKeeper's or etcd's job), balancing and routing (they stand above the list).
//!
//! A [`Registry`] is one backend: it publishes and tells what it sees, and has no policy. What is done with what it says (merging,
//! suspecting, publishing again, pulling, caching) is the guard's, which is one for all backends.

// The data macro names this crate; inside it, that is itself.
extern crate self as farcall_registry;

mod advertise;
mod backends;
mod cache;
mod derived;
mod directory;
mod discover;
mod discovered;
pub mod dns;
pub mod dubbo;
pub mod embedded;
mod entry;
#[cfg(feature = "etcd")]
pub mod etcd;
mod fit;
pub mod fixed;
pub mod guard;
mod host;
mod memory;
mod named;
mod order;
mod overrides;
mod random;
mod registration;
mod registry;
mod target;
mod url;
mod watcher;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use backends::Backends;
pub use cache::{Cache, LARGEST_FILE, MOST_SLOTS};
pub use directory::{Directory, DirectorySettings, Seen};
pub use discover::{Discover, Discovering};
pub use entry::{Advertised, Entry, EntryKey, Host, InstanceId, MethodPrints, ServiceKey};
pub use fit::MOST_TABLES;
pub use guard::{GuardSettings, Instance};
pub use host::{application, this_host};
pub use memory::Memory;
pub use overrides::Override;
pub use registration::{Register, Registration, RegistrationHandle, Status};
pub use registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Published, Registry, Rule, ServiceSummary, Update, Updates};
pub use url::{LONGEST_URL, MOST_BACKENDS, RegistryUrl, open, parse_list};
#[cfg(feature = "tracing")]
pub use watcher::ToTracing;
pub use watcher::{Event, Quiet, ToStderr, Watcher};
