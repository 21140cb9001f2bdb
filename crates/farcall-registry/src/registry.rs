//! The trait of backends: publish, list, subscribe. No policy: that is the guard's.
//!
//! A backend makes one attempt at what it is asked and says how that went. It does not retry, does not remember lists for a consumer
//! and does not decide what a missing entry means; it says what it knows, [`Completeness`] and [`Gone`] included.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use farcall_core::{RpcError, ServiceDescriptor, data};

use crate::entry::{Entry, EntryKey, ServiceKey};

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One backend: the embedded servers, ZooKeeper, etcd, DNS, a list.
///
/// Its futures may be dropped at any time. Every one ends by itself within a bounded time, the `lost` of a publication and the
/// `next` of updates excepted. Errors are `Unavailable` where trying again may help; `PermissionDenied`, `Unauthenticated`, `InvalidArgument`
/// and `ResourceExhausted` name what was refused; `Unimplemented` is what the backend has no place for (to publish in DNS).
pub trait Registry: Send + Sync + 'static {
    /// Its URL without secrets, for errors and people.
    fn describe(&self) -> String;

    /// What it calls a service that is known by its trait. Registries that others read too (Dubbo's layout) use the foreign name,
    /// if it has one.
    fn key_of(&self, service: &ServiceDescriptor) -> ServiceKey {
        ServiceKey::of(service)
    }

    /// Publishes an entry: done when the backend has acknowledged it. It takes the place of what is published of the same instance
    /// and service with the same or a smaller incarnation, and of what an earlier session of this process left behind.
    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>>;

    /// All entries of a service now.
    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>>;

    /// What is true now and what changes: the first update is [`Update::All`]. `as_consumer` is recorded where the backend has a place
    /// for it, for as long as the subscription lives.
    fn subscribe(&self, service: &ServiceKey, as_consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>>;

    /// The services known, with how many entries and consumers each has.
    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>>;

    /// Who subscribes to a service, where the backend records it.
    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>>;

    /// Writes a rule, or takes it away if its body is empty.
    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>>;
}

/// An entry that a backend holds for as long as this lives, more or less: dropped without [`withdraw`](Published::withdraw), it goes
/// away when its lease does.
pub trait Published: Send {
    /// Waits until the backend may have lost the entry (session expired, lease gone, connection reset, another took its place), and says
    /// why. The guard publishes again.
    fn lost(&mut self) -> BoxFuture<'_, RpcError>;

    /// Whether the backend still holds it, by asking.
    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>>;

    /// Takes it away: consumers see it at once, as [`Gone::Withdrawn`] where the backend can say so.
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>>;
}

/// What a subscription tells, in order.
pub trait Updates: Send {
    /// The next update. An error ends the subscription; the guard subscribes again.
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>>;
}

/// Whether what is not in a listing is known not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// It is: the backend is past its warm-up and sees normally.
    Complete,
    /// It is not: the backend was started lately, or lost so many at once that it doubts itself. Readers merge.
    Incomplete,
}

/// The entries of a service at one moment.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Entries, in no order.
    pub entries: Vec<Arc<Entry>>,
    /// Those of them that the backend doubts: their provider's connection broke and their lease still runs, or nobody has confirmed
    /// them since the backend was started. To be used last. Empty where the backend cannot tell.
    pub suspect: Vec<EntryKey>,
    /// Rules that concern the service.
    pub rules: Vec<Arc<Rule>>,
    /// Whether more may exist.
    pub completeness: Completeness,
    /// Grows with each change, within one `epoch`; 0 where the backend has none.
    pub revision: u64,
    /// Another one = other history (the backend was wiped or restarted): revisions do not compare.
    pub epoch: u64,
}

/// A change.
#[derive(Debug, Clone)]
pub enum Update {
    /// All there is: at the start, and whenever the backend cannot say what changed.
    All(Listing),
    /// New, or changed, or no longer suspect.
    Put(Arc<Entry>),
    /// It is still there, but the backend doubts it: its provider's connection broke. [`Put`](Update::Put) or [`Gone`](Update::Gone)
    /// follows, at the latest when its lease ends.
    Suspect(EntryKey),
    /// No longer there.
    Gone(EntryKey, Gone),
    /// All rules that concern the service, after a change.
    Rules(Vec<Arc<Rule>>),
}

/// Why an entry is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gone {
    /// Its provider or an operator took it away: it shows at once, even to zero.
    Withdrawn,
    /// Its lease ended while the backend saw normally.
    Expired,
    /// The backend only says that it is gone (a deleted node).
    Unsaid,
}

/// Who uses a service.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Consumer {
    /// Its application.
    pub application: String,
    /// Its host, as address or name, and process id, for people: `10.0.0.9/4711`.
    pub host: String,
}

/// A service and how much there is of it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceSummary {
    /// The service.
    pub service: ServiceKey,
    /// Entries.
    pub entries: u64,
    /// Consumers, where they are recorded.
    pub consumers: u64,
}

/// A rule about a service, for routers and operators. Registries carry it and do not read it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The service.
    pub service: ServiceKey,
    /// Its kind, hence its form: `condition-router`, `tag-router`, `configurator`.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
    /// Its text.
    pub body: String,
}

/// Whether a backend said no, so that trying again will hardly help.
pub(crate) fn is_refusal(e: &RpcError) -> bool {
    use farcall_core::Code::{InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented};
    matches!(e.code(), InvalidArgument | PermissionDenied | Unauthenticated | Unimplemented)
}
