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

/// Gives all events to the crate `tracing`, target `farcall::registry`, a line each: what is [trouble](Event::is_trouble) at WARN, the rest at
/// DEBUG.
#[cfg(feature = "tracing")]
#[derive(Debug, Clone, Copy, Default)]
pub struct ToTracing;

#[cfg(feature = "tracing")]
impl Watcher for ToTracing {
    fn tell(&self, event: &Event<'_>) {
        match event.is_trouble() {
            true => tracing::warn!(target: "farcall::registry", "{event}"),
            false => tracing::debug!(target: "farcall::registry", "{event}"),
        }
    }
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

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata, Subscriber};

    use super::*;

    /// Notes the target, level and text of what is logged.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<(String, Level, String)>>>);

    struct Text(String);

    impl tracing::field::Visit for Text {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
            self.0 += &format!("{value:?}");
        }
    }

    impl Subscriber for Notes {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push((event.metadata().target().to_owned(), *event.metadata().level(), text.0));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn trouble_is_logged_as_a_warning_and_the_rest_below() {
        let notes = Notes::default();
        let registry = crate::Memory::new();
        let update = Update::Rules(Vec::new());
        tracing::subscriber::with_default(notes.clone(), || {
            ToTracing.tell(&Event::Cache { path: Path::new("/x"), why: "it is not used: too short" });
            ToTracing.tell(&Event::Updated { registry: &registry, update: &update });
        });
        let said = notes.0.lock().unwrap().clone();
        let target = || "farcall::registry".to_owned();
        assert_eq!(said[0], (target(), Level::WARN, "cache file /x: it is not used: too short".into()));
        assert_eq!((said[1].1, said[1].0.clone()), (Level::DEBUG, target()));
        assert_eq!(said.len(), 2);
    }
}
