//! Each limit of a node refuses by its name, and what was there stays.

use farcall_core::compact;

use super::*;
use crate::embedded::api::{Holdings, Push};
use crate::entry::MethodPrints;
use crate::registry::Rule;

const HOST: &str = "ip:10.0.0.1";

/// A node with sessions.
struct Node {
    state: State,
    now: Instant,
    sessions: u64,
}

impl Node {
    fn new(limits: RegistryLimits) -> Node {
        Node::with_peers(limits, 0)
    }

    fn with_peers(limits: RegistryLimits, peers: usize) -> Node {
        let now = Instant::now();
        Node { state: State::new(limits, 1, 1, now, 1_000_000, peers), now, sessions: 0 }
    }

    fn open(&mut self) -> Result<Opened, RpcError> {
        self.sessions += 1;
        let who = Consumer { application: "a".into(), host: "h".into() };
        let hello = Hello { namespace: String::new(), who, own: Vec::new() };
        self.state.open(self.now, self.sessions, None, HOST, &hello)
    }

    fn register(&mut self, session: u64, entry: &Entry) -> Result<(), RpcError> {
        self.state.register(self.now, session, entry)
    }

    fn subscribe(&mut self, name: &str) -> Result<(u64, u64), RpcError> {
        self.subscribe_as("a", name)
    }

    fn subscribe_as(&mut self, caller: &str, name: &str) -> Result<(u64, u64), RpcError> {
        self.state.subscribe(&Arc::from(caller), &Interest { namespace: String::new(), service: service(name), known: None }, None)
    }

    fn write(&mut self, name: &str, body: &str) -> Result<(), RpcError> {
        let rule = Rule { service: service("pay"), kind: "tag-router".into(), name: name.into(), body: body.into() };
        self.state.write_rule(self.now, "", rule, "ann").map(drop)
    }

    /// What a reader is told next.
    fn read(&mut self, topic: u64, at: &mut Option<Known>, first: bool) -> Option<Push> {
        let (bytes, known) = self.state.read(topic, *at, first).unwrap()?;
        *at = Some(known);
        Some(compact::decode(&bytes).unwrap())
    }

    /// Lets time pass in steps that are not taken for stalls.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = until.min(self.now + Duration::from_millis(100));
            self.state.tick(self.now);
        }
    }
}

fn service(name: &str) -> ServiceKey {
    ServiceKey { name: name.into(), group: String::new(), version: String::new() }
}

fn entry(name: &str, n: u8) -> Entry {
    let at = Entry::at(&service(name), format!("tcp://10.0.0.{n}:1"));
    Entry { instance: InstanceId([n; 16]), incarnation: 1, ..at }
}

fn refused<T>(done: Result<T, RpcError>, limit: &str) {
    let e = done.err().unwrap_or_else(|| panic!("{limit} refuses nothing"));
    assert!(e.code() == Code::ResourceExhausted && e.message().contains(&format!("limit `{limit}`")), "{limit}: {e}");
}

#[test]
fn what_a_node_holds_in_all_is_limited_by_name() {
    let default = RegistryLimits::default;
    let mut node = Node::new(RegistryLimits { sessions: 2, ..default() });
    node.open().unwrap();
    node.open().unwrap();
    refused(node.open(), "sessions");

    let mut node = Node::new(RegistryLimits { entries: 2, ..default() });
    node.open().unwrap();
    node.register(1, &entry("a", 1)).unwrap();
    node.register(1, &entry("b", 1)).unwrap();
    refused(node.register(1, &entry("a", 2)), "entries");
    node.register(1, &entry("a", 1)).unwrap();

    let mut node = Node::new(RegistryLimits { services: 2, ..default() });
    node.open().unwrap();
    node.register(1, &entry("a", 1)).unwrap();
    node.subscribe("b").unwrap();
    refused(node.register(1, &entry("c", 1)), "services");
    refused(node.subscribe("c"), "services");

    let mut node = Node::new(RegistryLimits { subscriptions: 1, ..default() });
    let (topic, reader) = node.subscribe("a").unwrap();
    refused(node.subscribe("a"), "subscriptions");
    node.state.unsubscribe(&Arc::from("a"), topic, reader);
    node.subscribe("a").unwrap();

    let mut node = Node::new(RegistryLimits { caller_subscriptions: 2, ..default() });
    let (topic, reader) = node.subscribe_as("a", "x").unwrap();
    node.subscribe_as("a", "y").unwrap();
    refused(node.subscribe_as("a", "z"), "caller_subscriptions");
    node.subscribe_as("b", "z").unwrap();
    // Once for each that went, however often it is said.
    node.state.unsubscribe(&Arc::from("a"), topic, reader);
    node.state.unsubscribe(&Arc::from("a"), topic, reader);
    node.subscribe_as("a", "x").unwrap();
    refused(node.subscribe_as("a", "x"), "caller_subscriptions");

    let mut node = Node::new(RegistryLimits { bytes: 2000, ..default() });
    node.open().unwrap();
    let mut large = entry("a", 1);
    large.params.insert("x".into(), "y".repeat(1500));
    node.register(1, &large).unwrap();
    large.instance = InstanceId([2; 16]);
    refused(node.register(1, &large), "bytes");
    assert_eq!((node.state.entries, node.state.services("").len()), (1, 1));
}

#[test]
fn what_one_session_and_one_entry_hold_is_limited_by_name() {
    let mut node = Node::new(RegistryLimits { session_entries: 2, methods: 3, ..RegistryLimits::default() });
    node.open().unwrap();
    node.register(1, &entry("a", 1)).unwrap();
    node.register(1, &entry("a", 2)).unwrap();
    refused(node.register(1, &entry("a", 3)), "session_entries");
    let mut many = entry("a", 1);
    many.methods =
        (0..4).map(|m| MethodPrints { name: format!("m{m}"), args: [0; 16], result: [0; 16], error: [0; 16], bits: 0 }).collect();
    refused(node.register(1, &many), "methods");
    // Those that one caller has in several sessions: `a_caller_has_one_share_in_all_its_sessions`.
}

#[test]
fn rules_are_limited_in_number_and_size() {
    let mut node = Node::new(RegistryLimits { rules: 2, rule_bytes: 10, ..RegistryLimits::default() });
    node.write("a", "x").unwrap();
    node.write("b", "x").unwrap();
    refused(node.write("c", "x"), "rules");
    refused(node.write("a", "much too long"), "rule_bytes");
    node.write("a", "y").unwrap();
    // One that was taken away makes room.
    node.write("b", "").unwrap();
    node.write("c", "x").unwrap();
}

/// A reader that is further behind than the log gets all of it; one that is not, what it has not read.
#[test]
fn a_log_is_as_long_as_it_may_be() {
    let mut node = Node::new(RegistryLimits { log: 2, push_least: Duration::ZERO, push_most: Duration::ZERO, ..RegistryLimits::default() });
    node.open().unwrap();
    let (topic, _) = node.subscribe("a").unwrap();
    let (mut near, mut far) = (None, None);
    assert!(node.read(topic, &mut near, true).unwrap().whole);
    node.read(topic, &mut far, true).unwrap();
    for n in 0..6 {
        node.register(1, &entry("a", n)).unwrap();
        node.wait(Duration::from_millis(100));
        let push = node.read(topic, &mut near, false).unwrap();
        assert_eq!((push.whole, push.put.len()), (false, 1));
    }
    let push = node.read(topic, &mut far, false).unwrap();
    assert_eq!((push.whole, push.put.len()), (true, 6));
}

/// The first change at once, then with pauses that double.
#[test]
fn pushes_of_a_service_that_keeps_changing_have_pauses() {
    let (least, most) = (Duration::from_millis(20), Duration::from_millis(500));
    let mut node = Node::new(RegistryLimits { push_least: least, push_most: most, ..RegistryLimits::default() });
    node.open().unwrap();
    let (topic, _) = node.subscribe("a").unwrap();
    let mut at = None;
    node.read(topic, &mut at, true);
    node.wait(Duration::from_secs(2));
    let mut pushes = 0;
    let begun = node.now;
    for n in 0..1000u32 {
        let mut changed = entry("a", 1);
        changed.weight = n;
        node.register(1, &changed).unwrap();
        pushes += usize::from(node.read(topic, &mut at, false).is_some());
        assert!(n > 0 || pushes == 1, "the first is told at once");
        node.now += Duration::from_millis(5);
        node.state.tick(node.now);
        pushes += usize::from(node.read(topic, &mut at, false).is_some());
    }
    // 5 s: six pushes within the first second or so, then two a second.
    assert!((8..=20).contains(&pushes), "{pushes} pushes in {:?}", node.now - begun);
}

/// The oldest of those that were taken away are forgotten first, and all after their time.
#[test]
fn what_was_taken_away_is_remembered_for_a_while() {
    let limits = RegistryLimits { tombstones: 2, tombstone_time: Duration::from_secs(60), ..RegistryLimits::default() };
    let mut node = Node::with_peers(limits, 1);
    node.open().unwrap();
    let graves = |node: &mut Node| -> Holdings { node.state.holdings(node.now, 0, 0) };
    for n in 1..=3 {
        node.register(1, &entry("a", n)).unwrap();
        node.state.withdraw(node.now, 1, &entry("a", n).key(), false).unwrap();
    }
    let first: Vec<u8> = graves(&mut node).graves.iter().map(|grave| grave.key.instance.0[0]).collect();
    assert_eq!(first, [2, 3]);
    for _ in 0..61 {
        node.wait(Duration::from_secs(1));
        node.state.renew(node.now, 1).unwrap();
    }
    node.register(1, &entry("a", 4)).unwrap();
    node.state.withdraw(node.now, 1, &entry("a", 4).key(), false).unwrap();
    let then: Vec<u8> = graves(&mut node).graves.iter().map(|grave| grave.key.instance.0[0]).collect();
    assert_eq!(then, [4]);
}

#[test]
fn sessions_that_come_all_at_once_are_told_to_spread() {
    let mut node = Node::new(RegistryLimits::default());
    let spreads: Vec<u32> = (0..10_000).map(|_| node.open().unwrap().spread_ms).collect();
    assert!(spreads[..200].iter().all(|ms| *ms == 0), "so many a second are no crowd");
    // At most a fifth of the lease, though `spread` is more.
    assert_eq!(spreads.iter().max(), Some(&3000));
    node.now += Duration::from_secs(2);
    assert_eq!(node.open().unwrap().spread_ms, 0);
}

/// Self-protection lets nothing go for its time, then a share at a time.
#[test]
fn a_node_that_loses_many_at_once_protects_itself_for_a_while() {
    let limits = RegistryLimits { lease: Duration::from_secs(3), protection: Duration::from_secs(30), ..RegistryLimits::default() };
    let mut node = Node::new(limits);
    node.open().unwrap();
    for n in 0..100 {
        node.register(1, &entry("a", n)).unwrap();
    }
    node.state.lost(node.now, 1);
    node.wait(Duration::from_secs(25));
    assert_eq!((node.state.entries, node.state.stamp().complete), (100, false));
    node.wait(Duration::from_secs(15));
    assert!((40..100).contains(&node.state.entries), "{} are left", node.state.entries);
    node.wait(Duration::from_secs(60));
    assert_eq!((node.state.entries, node.state.stamp().complete), (0, true));
}
