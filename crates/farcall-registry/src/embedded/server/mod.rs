//! A node that runs: the state behind a lock, its clock, and the farcall service in front of it.

mod disk;
mod front;
mod peers;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farcall_core::{Address, Code, Credentials, Limits, RpcError};
use farcall_rpc::auth::Authenticator;
use farcall_rpc::{Server, ServerBuilder, StopSignals};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use self::disk::Disk;
pub(super) use self::front::BATCH;
use self::front::Front;
use super::access::{Access, Grant};
use super::api::{Notice, RegistrarClient, RegistrarServer};
use super::client::MOST_NODES;
use super::limits::RegistryLimits;
use super::state::State;

/// Notices that wait for a session whose connection is slow; with more it is closed, and comes again.
const NOTICES: usize = 256;

/// How often entries are saved, if any changed.
const SAVE: Duration = Duration::from_secs(5);

/// The state and those who wait for it.
pub(super) struct Node {
    shared: Mutex<Shared>,
    /// The clock may have to ring earlier than it was set.
    wound: Notify,
    limits: RegistryLimits,
    access: Access,
    disk: Option<Arc<Disk>>,
    /// Rules go to disk one state after the other.
    saving_rules: tokio::sync::Mutex<()>,
    /// What is wrong with disk and other nodes, by what it concerns.
    troubles: Mutex<BTreeMap<String, String>>,
}

struct Shared {
    state: State,
    /// Of each topic that has readers: rung when there is something to read.
    bells: HashMap<u64, watch::Sender<()>>,
    sessions: HashMap<u64, mpsc::Sender<Notice>>,
    /// The node stops: whoever comes still would hold it up, and is sent elsewhere.
    leaving: bool,
}

impl Node {
    fn new(limits: RegistryLimits, access: Access, disk: Option<Disk>, peers: usize) -> Result<Node, RpcError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let state = State::new(limits.clone(), random(), random(), Instant::now(), wall_ms, peers);
        let shared = Shared { state, bells: HashMap::new(), sessions: HashMap::new(), leaving: false };
        let node = Node {
            shared: Mutex::new(shared),
            wound: Notify::new(),
            limits,
            access,
            disk: disk.map(Arc::new),
            saving_rules: tokio::sync::Mutex::default(),
            troubles: Mutex::default(),
        };
        node.load()?;
        Ok(node)
    }

    /// What is on disk is served at once.
    fn load(&self) -> Result<(), RpcError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        for rule in disk.rules()? {
            self.on(|state, now| state.merge_rule(now, rule))?;
        }
        let (entries, said) = disk.entries();
        if let Some(said) = said {
            self.trouble("entries on disk", Err(said));
        }
        for saved in entries {
            if let Err(e) = self.on(|state, now| state.load(now, saved)) {
                self.trouble("entries on disk", Err(format!("not all can be used: {}", e.message())));
            }
        }
        Ok(())
    }

    /// Notes that something is wrong, or no longer.
    fn trouble(&self, with: &str, done: Result<(), String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(|e| e.into_inner());
        match done {
            Ok(()) => drop(troubles.remove(with)),
            Err(why) => drop(troubles.insert(with.to_owned(), why)),
        }
    }

    fn heard_of_peer(&self, peer: usize, heard: Result<(), RpcError>) {
        self.trouble(&format!("other node {}", peer + 1), heard.map_err(|e| e.message().to_owned()));
    }

    /// Saves entries now and then, as long as the node is there.
    async fn save(node: Weak<Node>) {
        loop {
            tokio::time::sleep(SAVE).await;
            let Some(here) = node.upgrade() else { return };
            here.save_entries().await;
        }
    }

    async fn save_entries(&self) {
        let Some(disk) = self.disk.clone() else { return };
        let Some(saved) = self.on(|state, _| state.take_unsaved()) else { return };
        let done = tokio::task::spawn_blocking(move || disk.save_entries(&saved)).await;
        let done = done.unwrap_or_else(|e| Err(e.to_string()));
        if done.is_err() {
            self.on(|state, _| state.not_saved());
        }
        self.trouble("entries to disk", done);
    }

    /// Done when all rules there are now are on disk.
    async fn save_rules(&self) -> Result<(), RpcError> {
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let _one_after_the_other = self.saving_rules.lock().await;
        let rules = self.on(|state, _| state.all_rules());
        let done = tokio::task::spawn_blocking(move || disk.save_rules(&rules)).await;
        let done = done.unwrap_or_else(|e| Err(e.to_string()));
        self.trouble("rules to disk", done.clone());
        done.map_err(|why| RpcError::new(Code::Unavailable, format!("the rule counts at this node, but would not outlast it: {why}")))
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
    async fn tick(node: Weak<Node>) {
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
    /// What rings when there is something to read of a topic; an error once the node stops.
    fn bell(&mut self, topic: u64) -> Result<watch::Receiver<()>, RpcError> {
        self.stays()?;
        Ok(self.bells.entry(topic).or_default().subscribe())
    }

    fn enter(&mut self, session: u64, to: mpsc::Sender<Notice>) -> Result<(), RpcError> {
        self.stays()?;
        self.sessions.insert(session, to);
        Ok(())
    }

    fn stays(&self) -> Result<(), RpcError> {
        match self.leaving {
            true => Err(RpcError::not_executed(Code::Unavailable, "the registry node stops")),
            false => Ok(()),
        }
    }

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
    server: ServerBuilder,
    peers: Vec<String>,
    credentials: Option<Credentials>,
    grants: Vec<Grant>,
    folder: Option<PathBuf>,
}

impl EmbeddedBuilder {
    /// Other limits and times than the default ones.
    pub fn limits(mut self, limits: RegistryLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Listens on a further address.
    pub fn also(mut self, address: impl Into<String>) -> Self {
        self.server = self.server.also(address);
        self
    }

    /// Another node of the same registry, at most seven; each must be told of all others. This one copies from it what it alone heard.
    pub fn peer(mut self, address: impl Into<String>) -> Self {
        self.peers.push(address.into());
        self
    }

    /// What this node shows to the others.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Says who calls. Without one, a node listens on this machine only, unless [everybody](EmbeddedBuilder::allow_anonymous) may call.
    pub fn authenticate(mut self, authenticator: impl Authenticator) -> Self {
        self.server = self.server.authenticate(authenticator);
        self
    }

    /// Lets callers in that show nothing, also from other machines.
    pub fn allow_anonymous(mut self) -> Self {
        self.server = self.server.allow_anonymous();
        self
    }

    /// Allows something. Without any, whoever is let in may do everything; from the first on, only what one of them says.
    pub fn allow(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// Keeps entries and rules in this folder: after a start they are served at once. Without one a node forgets with its process.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Binds and serves. When it returns the port is open; `tcp://127.0.0.1:0` picks a free one, which [`Embedded::address`] tells.
    pub async fn listen(self, address: impl Into<String>) -> Result<Embedded, RpcError> {
        let disk = self.folder.as_deref().map(Disk::open).transpose()?;
        if self.peers.len() >= MOST_NODES {
            let why = format!("{} other nodes: a registry has at most {MOST_NODES} nodes", self.peers.len());
            return Err(RpcError::not_sent(Code::InvalidArgument, why));
        }
        let peers = self.peers.iter().map(|peer| client_of(peer, &self.credentials)).collect::<Result<Vec<_>, _>>()?;
        let node = Arc::new(Node::new(self.limits, Access(self.grants), disk, peers.len())?);
        let front = RegistrarServer::new(Front(Arc::clone(&node)));
        let server = self.server.limits(server_limits(&node.limits)).serve(front).listen(address).await?;
        let mut tasks = vec![tokio::spawn(Node::tick(Arc::downgrade(&node)))];
        if node.disk.is_some() {
            tasks.push(tokio::spawn(Node::save(Arc::downgrade(&node))));
        }
        for (at, client) in peers.into_iter().enumerate() {
            tasks.push(tokio::spawn(peers::follow(Arc::downgrade(&node), at, client)));
        }
        Ok(Embedded { server: Some(server), node, tasks })
    }
}

fn client_of(peer: &str, credentials: &Option<Credentials>) -> Result<RegistrarClient, RpcError> {
    let limits =
        Limits { body: 512 << 20, held: 512 << 20, spin: Duration::ZERO, reconnect_cap: Duration::from_secs(1), ..Limits::default() };
    let connect = RegistrarClient::connect(peer).limits(limits);
    match credentials {
        Some(credentials) => connect.credentials(credentials.clone()).lazy(),
        None => connect.lazy(),
    }
}

/// Of a server with many connections that each do little.
fn server_limits(limits: &RegistryLimits) -> Limits {
    Limits {
        connections: limits.sessions,
        connections_per_host: limits.connections_per_host,
        streams: limits.session_services.max(1024),
        keys: 0,
        spin: Duration::ZERO,
        ..Limits::default()
    }
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
    tasks: Vec<JoinHandle<()>>,
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

    /// What is wrong now, a line each: with its folder, with other nodes. Empty if all is well.
    pub fn troubles(&self) -> Vec<String> {
        let troubles = self.node.troubles.lock().unwrap_or_else(|e| e.into_inner());
        troubles.iter().map(|(with, why)| format!("{with}: {why}")).collect()
    }

    /// Ends gracefully: sessions are told to go elsewhere, and to come back spread out.
    pub async fn stop(mut self, patience: Duration) -> Result<(), RpcError> {
        self.say_goodbye();
        self.node.save_entries().await;
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
        shared.leaving = true;
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
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(disk) = &self.node.disk {
            disk.release();
        }
    }
}
