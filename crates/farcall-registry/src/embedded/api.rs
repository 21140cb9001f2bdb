//! The service between nodes and everybody: `farcall.Registry`, as `docs/registry-protocol.md` tells it.

use std::collections::BTreeMap;

use bytes::Bytes;
use farcall_core::data;
use farcall_rpc::{Reply, Streaming};

use crate::entry::{Advertised, Entry, EntryKey, Host, InstanceId, ServiceKey};
use crate::registry::{Consumer, Rule, ServiceSummary};

/// What a provider says when it opens a session at a node.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The namespace of all that this session registers.
    pub namespace: String,
    /// Who opens it, for people: application, host and process.
    pub who: Consumer,
    /// What it has registered before, and would register again.
    pub own: Vec<Own>,
}

/// An entry that its provider has, without the entry.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// Which.
    pub key: EntryKey,
    /// The hash of its content.
    pub hash: u64,
}

/// What a node tells a session.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Always first.
    Opened(Opened),
    /// An entry is no longer this session's.
    Lost {
        /// Which.
        key: EntryKey,
        /// Another session registered it. Otherwise the node let it go, and it is to be registered again.
        taken: bool,
    },
    /// The node is about to stop: open a session elsewhere, or here later.
    Leaving {
        /// Within how many milliseconds to come back, each session after a random share of it.
        spread_ms: u32,
    },
}

/// The answer to [`Hello`].
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// The session's name in later calls. Who knows it may use it.
    pub session: u64,
    /// How long a node keeps entries without hearing of this session.
    pub lease_ms: u32,
    /// How often to renew it.
    pub renew_ms: u32,
    /// Which of [`Hello::own`], by place, the node does not have like this: register those. It holds the others for this session.
    pub missing: Vec<u32>,
    /// Within how many milliseconds to register those, each session after a random share of it: more than 0 when many come at once.
    pub spread_ms: u32,
}

/// How one entry of a call fared.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Not done, and it will not be.
    Refused {
        /// Number of the code, as in the protocol.
        code: u8,
        /// What was wrong and what to do.
        why: String,
    },
}

/// What to send of a service.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Interest {
    /// The namespace.
    pub namespace: String,
    /// The service.
    pub service: ServiceKey,
    /// What the reader has already.
    pub known: Option<Known>,
}

/// Where a reader stands.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Of the node that it comes from.
    pub epoch: u64,
    /// Up to which change.
    pub revision: u64,
    /// Of all hashes.
    pub digest: u64,
}

/// What a node says of a service: all of it, or what has changed. Travels as bytes in the compact codec, made once for all readers.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The node's history.
    pub epoch: u64,
    /// The change after which this begins; of no meaning if it is `whole`.
    pub from: u64,
    /// The change with which this ends.
    pub to: u64,
    /// It holds all there is, not what changed.
    pub whole: bool,
    /// What is not listed is known not to be.
    pub complete: bool,
    /// How many entries there are after it.
    pub count: u32,
    /// The exclusive or of their hashes.
    pub digest: u64,
    /// Method tables that `put` refers to by place.
    pub tables: Vec<Table>,
    /// Entries, new or changed.
    pub put: Vec<Packed>,
    /// Entries that became suspect and did not change.
    pub suspect: Vec<Name>,
    /// Entries that are no longer there.
    pub gone: Vec<Leaver>,
    /// All rules, if they changed or this is `whole`.
    pub rules: Option<Vec<Rule>>,
}

/// A method table, `Vec<MethodPrints>` in the compact codec.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The bytes.
    pub bytes: Bytes,
}

/// An entry as it travels from nodes.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Place of its method table among the tables.
    pub table: u32,
    /// The node doubts it.
    pub suspect: bool,
    /// [`Body`] in the compact codec.
    pub body: Bytes,
}

/// What of an [`Entry`] is its instance's own: all but the service and the method table.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// As in [`Entry`], so the others.
    pub instance: InstanceId,
    /// Start of the instance.
    pub incarnation: u64,
    /// Application.
    pub application: String,
    /// Where it listens.
    pub addresses: Vec<Advertised>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Weight.
    pub weight: u32,
    /// Whether it may be called.
    pub enabled: bool,
    /// Its machine.
    pub host: Option<Host>,
    /// What other people's registries say.
    pub params: BTreeMap<String, String>,
}

/// An instance at one start.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    /// The instance.
    pub instance: InstanceId,
    /// Its start.
    pub incarnation: u64,
}

/// An entry that is gone, and why.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Leaver {
    /// Which.
    pub name: Name,
    /// Taken away by its provider or an operator; otherwise its lease ended.
    pub withdrawn: bool,
}

/// A moment that nodes agree on the order of: time, then count, then node.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Milliseconds since 1970, as far as the nodes' clocks tell; never less than what a node saw before.
    pub ms: u64,
    /// Orders what has the same milliseconds.
    pub count: u32,
    /// The node that it happened at.
    pub node: u64,
}

/// What a node holds by its own sessions.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Holdings {
    /// The node's history.
    pub epoch: u64,
    /// What it does not hold it is known not to.
    pub complete: bool,
    /// Its clock.
    pub now: Moment,
    /// Of all topics together.
    pub digest: u64,
    /// Topics with entries held; none if the asker knows this digest.
    pub topics: Vec<Holding>,
    /// Entries taken away, after the number that the asker knows.
    pub graves: Vec<Grave>,
    /// The number of the last of them.
    pub grave: u64,
    /// Of all rules.
    pub rules: u64,
}

/// What a node holds of one service.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The namespace.
    pub namespace: String,
    /// The service.
    pub service: ServiceKey,
    /// The exclusive or of the entries' hashes.
    pub digest: u64,
}

/// An entry that was taken away.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Grave {
    /// The namespace.
    pub namespace: String,
    /// Which.
    pub key: EntryKey,
    /// When.
    pub at: Moment,
}

/// The entries of a service that a node holds by its own sessions, in the compact codec.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Method tables, by place.
    pub tables: Vec<Table>,
    /// The entries.
    pub entries: Vec<HeldEntry>,
}

/// An entry that a node holds.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct HeldEntry {
    /// The instance.
    pub name: Name,
    /// When it was registered there.
    pub since: Moment,
    /// The entry.
    pub packed: Packed,
}

/// A rule as nodes keep it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct RuleVersion {
    /// The namespace.
    pub namespace: String,
    /// The rule; with an empty body it was taken away.
    pub rule: Rule,
    /// When it was written: the later of two counts.
    pub at: Moment,
    /// Who wrote it, if that is known.
    pub who: String,
    /// What its writer saw and replaced.
    pub replaces: Option<Moment>,
}

/// Nodes of our registry, to providers, consumers and each other.
#[farcall_rpc::service(crate = farcall_rpc, name = "farcall.Registry")]
pub trait Registrar {
    /// Opens a session: what is registered in it is held as long as it is renewed. The session's connection is the stream's: when it
    /// breaks, the entries become suspect at once and go when their lease ends.
    async fn open(&self, hello: Hello) -> Reply<Streaming<Notice>>;
    /// Keeps a session's entries. Not found = open another.
    #[farcall(idempotent)]
    async fn renew(&self, session: u64) -> Reply<()>;
    /// Registers entries, at most 256; each fares by itself.
    #[farcall(idempotent)]
    async fn register(&self, session: u64, entries: Vec<Entry>) -> Reply<Vec<Outcome>>;
    /// Takes entries away. Those that `linger` go when their lease ends, the others at once.
    #[farcall(idempotent)]
    async fn withdraw(&self, session: u64, keys: Vec<EntryKey>, linger: bool) -> Reply<Vec<Outcome>>;
    /// Which of these the session holds.
    #[farcall(idempotent)]
    async fn holds(&self, session: u64, keys: Vec<EntryKey>) -> Reply<Vec<bool>>;
    /// A `Push` with all of a service, or an empty one if the reader knows it already. Not an error if nobody knows the service.
    #[farcall(idempotent)]
    async fn list(&self, interest: Interest) -> Reply<Bytes>;
    /// A `Push` now, and one for each change.
    async fn subscribe(&self, interest: Interest, consumer: Option<Consumer>) -> Reply<Streaming<Bytes>>;
    /// The services of a namespace.
    #[farcall(idempotent)]
    async fn services(&self, namespace: String) -> Reply<Vec<ServiceSummary>>;
    /// Who subscribes to a service here.
    #[farcall(idempotent)]
    async fn consumers(&self, namespace: String, service: ServiceKey) -> Reply<Vec<Consumer>>;
    /// Writes a rule, or takes it away if its body is empty. Done when it is on the node's disk.
    #[farcall(idempotent)]
    async fn write_rule(&self, namespace: String, rule: Rule) -> Reply<()>;
    /// The rules of a service with who wrote them when; and those that lost against another that was written without knowing them.
    #[farcall(idempotent)]
    async fn rules(&self, namespace: String, service: ServiceKey) -> Reply<(Vec<RuleVersion>, Vec<RuleVersion>)>;
    /// Between nodes: what this one holds, if its digest is not `known`, and what was taken away after `grave`.
    #[farcall(idempotent)]
    async fn holdings(&self, known: u64, grave: u64) -> Reply<Holdings>;
    /// Between nodes: a [`Held`].
    #[farcall(idempotent)]
    async fn held(&self, namespace: String, service: ServiceKey) -> Reply<Bytes>;
    /// Between nodes: all rules.
    #[farcall(idempotent)]
    async fn all_rules(&self) -> Reply<Vec<RuleVersion>>;
}
