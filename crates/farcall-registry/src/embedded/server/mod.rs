//! A node that runs: the state behind a lock, its clock, and the farcall service in front of it.

mod front;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use farcall_core::{Address, Limits, RpcError};
use farcall_rpc::{Server, StopSignals};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

pub(super) use self::front::BATCH;
use self::front::Front;
use super::api::{Notice, RegistrarServer};
use super::limits::RegistryLimits;
use super::state::State;

/// Notices that wait for a session whose connection is slow; with more it is closed, and comes again.
const NOTICES: usize = 256;

/// The state and those who wait for it.
pub(super) struct Node {
    shared: Mutex<Shared>,
    /// The clock may have to ring earlier than it was set.
    wound: Notify,
    limits: RegistryLimits,
}

struct Shared {
    state: State,
    /// Of each topic that has readers: rung when there is something to read.
    bells: HashMap<u64, watch::Sender<()>>,
    sessions: HashMap<u64, mpsc::Sender<Notice>>,
}

impl Node {
    fn new(limits: RegistryLimits) -> Node {
        let state = State::new(limits.clone(), random(), random(), Instant::now());
        let shared = Shared { state, bells: HashMap::new(), sessions: HashMap::new() };
        Node { shared: Mutex::new(shared), wound: Notify::new(), limits }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic under the lock leaves the state as far as it came: every event is complete or was not taken.
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives an event to the state, and does what comes of it.
    fn on<R>(&self, event: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut shared = self.lock();
        let before = Instant::now();
        let set = shared.state.next(before);
        let done = event(&mut shared.state, before);
        let earlier = shared.state.next(before) < set;
        shared.carry_out();
        drop(shared);
        if earlier {
            self.wound.notify_one();
        }
        done
    }

    /// Calls the state when its time comes, as long as the node is there.
    async fn tick(node: std::sync::Weak<Node>) {
        loop {
            let Some(here) = node.upgrade() else { return };
            let next = here.lock().state.next(Instant::now());
            let wait = next.saturating_duration_since(Instant::now());
            let _ = tokio::time::timeout(wait, here.wound.notified()).await;
            here.on(|state, now| state.tick(now));
        }
    }
}

impl Shared {
    fn carry_out(&mut self) {
        let effects = self.state.effects();
        for topic in effects.woken {
            if let Some(bell) = self.bells.get(&topic) {
                bell.send_replace(());
            }
        }
        for (session, notice) in effects.notices {
            if self.sessions.get(&session).is_some_and(|to| to.try_send(notice).is_err()) {
                self.sessions.remove(&session);
            }
        }
    }
}

/// Fresh keys for every map are the standard library's only source of random numbers; hashed, they tell nothing of each other.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a node is made of; see [`Embedded::builder`].
#[derive(Default)]
#[must_use = "it does nothing until it listens"]
pub struct EmbeddedBuilder {
    limits: RegistryLimits,
    also: Vec<String>,
}

impl EmbeddedBuilder {
    /// Other limits and times than the default ones.
    pub fn limits(mut self, limits: RegistryLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Listens on a further address.
    pub fn also(mut self, address: impl Into<String>) -> Self {
        self.also.push(address.into());
        self
    }

    /// Binds and serves. When it returns the port is open; `tcp://127.0.0.1:0` picks a free one, which [`Embedded::address`] tells.
    pub async fn listen(self, address: impl Into<String>) -> Result<Embedded, RpcError> {
        let node = Arc::new(Node::new(self.limits));
        let ticking = tokio::spawn(Node::tick(Arc::downgrade(&node)));
        let mut server = Server::builder().limits(server_limits(&node.limits)).serve(RegistrarServer::new(Front(Arc::clone(&node))));
        for also in self.also {
            server = server.also(also);
        }
        let server = match server.listen(address).await {
            Ok(server) => server,
            Err(e) => {
                ticking.abort();
                return Err(e);
            }
        };
        Ok(Embedded { server: Some(server), node, ticking })
    }
}

/// Of a server with many connections that each do little.
fn server_limits(limits: &RegistryLimits) -> Limits {
    Limits { connections: limits.sessions, streams: limits.session_services.max(1024), keys: 0, spin: Duration::ZERO, ..Limits::default() }
}

/// A running node of the registry, in this process. Dropped, it stops at once.
///
/// ```no_run
/// # async fn f() -> Result<(), farcall_rpc::RpcError> {
/// use farcall_registry::embedded::Embedded;
/// let registry = Embedded::builder().listen("tcp://127.0.0.1:0").await?;
/// println!("farcall://{}", registry.address().to_string().trim_start_matches("tcp://"));
/// # Ok(())
/// # }
/// ```
pub struct Embedded {
    server: Option<Server>,
    node: Arc<Node>,
    ticking: JoinHandle<()>,
}

impl Embedded {
    /// A node with nothing set yet.
    pub fn builder() -> EmbeddedBuilder {
        EmbeddedBuilder::default()
    }

    /// Where it listens; the first address if there are several.
    pub fn address(&self) -> &Address {
        // It is taken out only by what consumes this.
        self.server.as_ref().map(Server::address).unwrap_or(const { &Address::Memory(String::new()) })
    }

    /// All addresses it listens on.
    pub fn addresses(&self) -> &[Address] {
        self.server.as_ref().map(Server::addresses).unwrap_or_default()
    }

    /// The URL of a registry that is this node alone: `farcall://127.0.0.1:7400`.
    pub fn url(&self) -> String {
        super::client::url_of(self.address())
    }

    /// Ends gracefully: sessions are told to go elsewhere, and to come back spread out.
    pub async fn stop(mut self, patience: Duration) -> Result<(), RpcError> {
        self.say_goodbye();
        match self.server.take() {
            Some(server) => server.drain(patience).await,
            None => Ok(()),
        }
    }

    /// Serves until the process is asked to end by SIGTERM or SIGINT, then [stops](Embedded::stop).
    pub async fn stop_on(self, mut signals: StopSignals, patience: Duration) -> Result<(), RpcError> {
        signals.next().await;
        self.stop(patience).await
    }

    fn say_goodbye(&self) {
        let mut shared = self.node.lock();
        let leaving = Notice::Leaving { spread_ms: u32::try_from(self.node.limits.spread.as_millis()).unwrap_or(u32::MAX) };
        for (_, session) in shared.sessions.drain() {
            let _ = session.try_send(leaving.clone());
        }
        // Readers' streams end: they subscribe elsewhere.
        shared.bells.clear();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.ticking.abort();
    }
}
