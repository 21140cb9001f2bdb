//! Who is told what happens between a program and its registries.

use std::fmt;
use std::path::Path;

use farcall_core::RpcError;

use crate::directory::Directory;
use crate::entry::{Entry, ServiceKey};
use crate::registry::{Registry, Update};

/// Is told what happens: for logs, alarms and consoles. Called on tasks of farcall's, so it must be quick and must not block.
pub trait Watcher: Send + Sync + 'static {
    /// Something happened.
    fn tell(&self, event: &Event<'_>);
}

/// What happened. Its `Display` is a line for people.
#[non_exhaustive]
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// A backend told a consumer of a change.
    Updated {
        /// The backend.
        registry: &'a dyn Registry,
        /// The change.
        update: &'a Update,
    },
    /// The list of a directory is another now.
    Changed {
        /// Which one.
        directory: &'a Directory,
    },
    /// A subscription ended or could not be made; it is tried again. The list stays as it is.
    Unheard {
        /// The backend.
        registry: &'a dyn Registry,
        /// The service.
        service: &'a ServiceKey,
        /// Why.
        error: &'a RpcError,
    },
    /// A pull found what no push had told.
    Differed {
        /// The backend.
        registry: &'a dyn Registry,
        /// The service.
        service: &'a ServiceKey,
    },
    /// Something is wrong with a cache file.
    Cache {
        /// The file.
        path: &'a Path,
        /// What.
        why: &'a str,
    },
    /// An entry was published and acknowledged.
    Published {
        /// The backend.
        registry: &'a dyn Registry,
        /// The entry.
        entry: &'a Entry,
    },
    /// An entry is not, or may not be, published any more; it will be again.
    Unpublished {
        /// The backend.
        registry: &'a dyn Registry,
        /// The entry.
        entry: &'a Entry,
        /// Why.
        error: &'a RpcError,
    },
    /// An instance is avoided, since it would not understand the calls.
    Misfit {
        /// The instance.
        entry: &'a Entry,
        /// Why.
        why: &'a str,
    },
    /// Something looks wrong and may be meant.
    Warning(&'a str),
}

impl Event<'_> {
    /// Whether somebody should look: everything but what happens every day.
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Event::Updated { .. } | Event::Changed { .. } | Event::Published { .. })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Updated { registry, update } => match update {
                Update::All(listing) => {
                    write!(f, "{}: all {} entries, {:?}", registry.describe(), listing.entries.len(), listing.completeness)
                }
                Update::Put(entry) => write!(f, "{}: {} of {} is there", registry.describe(), entry.instance, entry.service),
                Update::Suspect(key) => write!(f, "{}: {} of {} is suspect", registry.describe(), key.instance, key.service),
                Update::Gone(key, why) => write!(f, "{}: {} of {} is gone: {why:?}", registry.describe(), key.instance, key.service),
                Update::Rules(rules) => write!(f, "{}: {} rules", registry.describe(), rules.len()),
            },
            Event::Changed { directory } => {
                let instances = directory.instances();
                let suspect = instances.iter().filter(|i| i.suspect).count();
                write!(f, "{}: {} instances, {suspect} suspect", directory.named(), instances.len())
            }
            Event::Unheard { registry, service, error } => {
                write!(f, "{service}: {} is not heard, the list stays as it is: {error}", registry.describe())
            }
            Event::Differed { registry, service } => {
                write!(f, "{service}: {} has what it never told: its pushes are late or lost", registry.describe())
            }
            Event::Cache { path, why } => write!(f, "cache file {}: {why}", path.display()),
            Event::Published { registry, entry } => write!(f, "{} is published at {}", entry.service, registry.describe()),
            Event::Unpublished { registry, entry, error } => {
                write!(f, "{} is not published at {}, and will be tried again: {error}", entry.service, registry.describe())
            }
            Event::Misfit { entry, why } => {
                let address = entry.addresses.first().map_or("", |a| a.address.as_str());
                write!(f, "{} at {address} is avoided: {why}", entry.service)
            }
            Event::Warning(text) => f.write_str(text),
        }
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Watcher for Quiet {
    fn tell(&self, _: &Event<'_>) {}
}

/// Writes what is [trouble](Event::is_trouble) to stderr, a line each.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToStderr;

impl Watcher for ToStderr {
    fn tell(&self, event: &Event<'_>) {
        if event.is_trouble() {
            // If stderr is gone there is nobody to tell.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("farcall: {event}\n").as_bytes());
        }
    }
}
