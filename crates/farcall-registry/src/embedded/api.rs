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
}
