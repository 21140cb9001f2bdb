//! Real ZooKeeper.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use farcall::Code;
use farcall_registry::{Consumer, Registry, ServiceKey, dubbo};
use farcall_tests::servers::{Kind, Server, free_port};

use crate::suite::{LEASE, SETTLE, Subject, suite};
use crate::support::{Seen, entry, eventually, publish, run, service, soon};

pub(crate) struct ZooKeeper(Server);

impl ZooKeeper {
    /// Where it is.
    pub(crate) fn place(&self) -> String {
        self.0.place()
    }

    /// With further parameters.
    fn open_with(&self, path_and_params: &str) -> Arc<dyn Registry> {
        farcall_registry::open(&format!("zookeeper://{}{path_and_params}", self.0.place()).parse().unwrap()).unwrap()
    }

    /// What a client of somebody else does: the project's own tool, a command a line.
    fn commands(&self, lines: &str) -> String {
        let jars = "/usr/share/java/zookeeper.jar";
        let mut child = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", jars, "org.apache.zookeeper.ZooKeeperMain", "-server", &self.0.place()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{lines}\nquit\n").as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

impl Subject for ZooKeeper {
    fn start() -> Option<ZooKeeper> {
        Server::start(Kind::ZooKeeper).map(ZooKeeper)
    }

    fn shared() -> Option<&'static ZooKeeper> {
        static SHARED: OnceLock<Option<ZooKeeper>> = OnceLock::new();
        SHARED.get_or_init(ZooKeeper::start).as_ref()
    }

    fn open(&self) -> Arc<dyn Registry> {
        farcall_registry::open(&self.url().parse().unwrap()).unwrap()
    }

    fn url(&self) -> String {
        let (lease, settle) = (LEASE.as_millis(), SETTLE.as_millis());
        format!("zookeeper://{}?session_ms={lease}&settle_ms={settle}&timeout_ms=3000", self.0.place())
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn start_again(&mut self) {
        self.0.start_again();
    }

    fn wipe(&mut self) {
        self.0.wipe();
    }

    fn pause(&self) {
        self.0.pause();
    }

    fn resume(&self) {
        self.0.resume();
    }

    fn put_garbage(&self, service: &ServiceKey) {
        let providers = format!("/dubbo/{}/providers", service.name);
        let huge = "x".repeat(100_000);
        self.commands(&format!(
            "create {providers}/junk\ncreate {providers}/%zz\ncreate {providers}/farcall%3A%2F%2F no\ncreate {providers}/{huge}\n\
             create {providers}/dubbo%3A%2F%2Fh%3A1%2Fother.Service {huge}\n\
             create /dubbo/{0}/consumers/junk\ncreate /dubbo/{0}/routers\ncreate /dubbo/{0}/routers/junk\n\
             create /dubbo/config\ncreate /dubbo/config/dubbo\ncreate /dubbo/config/dubbo/{0}:1.0:blue.\n\
             create /dubbo/%zz\ncreate /dubbo/junk data",
            service.name
        ));
    }
}

suite!(ZooKeeper);

/// What the published crate zookeeper-client did: its watcher panicked when it was asked for the next change after the end of its
/// session. Here the session is ended by the server under an open subscription, and both go on.
#[test]
fn the_end_of_a_session_is_no_panic_and_no_end() {
    let Some(subject) = ZooKeeper::start() else { return };
    run(async {
        let registry = subject.open();
        let service = service("Ended");
        let mut held = publish(&registry, &entry(&service, 1)).await;
        let mut seen = Seen::new(&registry, &service).await;
        seen.instances(&[1]).await;
        // Stopped for longer than the session: what it does first when it goes on is to end those it has not heard of.
        subject.pause();
        tokio::time::sleep(3 * LEASE).await;
        subject.resume();
        if !soon("an answer", async {
            loop {
                if let Ok(there) = held.check().await {
                    return there;
                }
            }
        })
        .await
        {
            soon("the loss is told", held.lost()).await;
            held = publish(&registry, &entry(&service, 1)).await;
        }
        let _other = publish(&registry, &entry(&service, 2)).await;
        seen.instances(&[1, 2]).await;
        assert!(held.check().await.unwrap());
    });
}

/// What zookeeper-client did: it declared its session over by itself, 7 s after the connection broke, while the server kept it and
/// its nodes. Here it is taken up again, whenever the server comes back, as long as the server has it: a server that was stopped for
/// longer than the session lasts, and has not looked at its clock since, still has it.
#[test]
fn only_the_server_ends_a_session() {
    let Some(mut subject) = ZooKeeper::start() else { return };
    run(async {
        let session = 2 * LEASE;
        let registry = subject.open_with(&format!("?session_ms={}&settle_ms=100", session.as_millis()));
        let service = service("Kept");
        let mut held = publish(&registry, &entry(&service, 1)).await;
        let mut seen = Seen::new(&registry, &service).await;
        subject.kill();
        tokio::time::sleep(session + Duration::from_secs(1)).await;
        // Sessions are on its disk, and their time begins anew with it.
        subject.start_again();
        let lists = seen.lists;
        let lost = tokio::time::timeout(Duration::from_millis(500), held.lost()).await;
        assert!(lost.is_err(), "{lost:?}");
        seen.until("a list after the outage", |seen| seen.lists > lists).await;
        assert_eq!(seen.entries.len(), 1);
        let there = eventually("an answer", || registry.list(&service)).await;
        assert_eq!(there.entries.len(), 1);
        assert!(seen.gone.is_empty(), "{:?}", seen.gone);
    });
}

/// After every reconnect the list is read anew: what changed while nobody was told shows.
#[test]
fn what_changed_during_an_outage_shows_after_it() {
    let Some(mut subject) = ZooKeeper::start() else { return };
    run(async {
        let service = service("Missed");
        let reader = subject.open();
        let mut seen = Seen::new(&reader, &service).await;
        let port = subject.0.place();
        subject.kill();
        // For a while there is nobody at all.
        tokio::time::sleep(Duration::from_millis(300)).await;
        subject.start_again();
        assert_eq!(subject.0.place(), port);
        let writer = subject.open();
        let _held = publish(&writer, &entry(&service, 3)).await;
        seen.instances(&[3]).await;
    });
}

/// A later provider of the same name beside Dubbo's own: real-looking nodes put there by ZooKeeper's own tool, ours read back by it.
#[test]
fn our_instances_stand_beside_dubbos() {
    let Some(subject) = ZooKeeper::shared() else { return };
    run(async {
        let registry = subject.open();
        let ours = ServiceKey { name: "org.example.demo.DemoService".into(), group: String::new(), version: String::new() };
        let mut seen = Seen::new(&registry, &ours).await;
        let directory = format!("/dubbo/{}", ours.name);
        let dubbo3 = "dubbo%3A%2F%2F192.168.1.9%3A20880%2Forg.example.demo.DemoService%3Fanyhost%3Dtrue%26application%3Ddemo-provider\
                      %26background%3Dfalse%26deprecated%3Dfalse%26dubbo%3D2.0.2%26dynamic%3Dtrue%26generic%3Dfalse%26interface%3D\
                      org.example.demo.DemoService%26methods%3DsayHello%2CsayHelloAsync%26pid%3D19559%26release%3D3.0.8%26\
                      service-name-mapping%3Dtrue%26side%3Dprovider%26timestamp%3D1654938441023";
        let triple = "tri%3A%2F%2F192.168.1.9%3A50051%2Forg.example.demo.DemoService%3Fapplication%3Ddemo%26interface%3D\
                      org.example.demo.DemoService%26side%3Dprovider%26timestamp%3D1690000000000%26version%3D0.0.0";
        let consumer = "consumer%3A%2F%2F192.168.1.20%2Forg.example.demo.DemoService%3Fapplication%3Ddemo-consumer%26category%3D\
                        consumers%26check%3Dfalse%26dubbo%3D2.0.2%26interface%3Dorg.example.demo.DemoService%26methods%3DsayHello%26\
                        pid%3D77%26side%3Dconsumer%26timestamp%3D1654938441999";
        let route = "route%3A%2F%2F0.0.0.0%2Forg.example.demo.DemoService%3Fcategory%3Drouters%26dynamic%3Dfalse%26rule%3D%3D%253E%2Bx";
        let mut mine = entry(&ours, 7);
        mine.labels.insert("tag".into(), "gray".into());
        let _held = publish(&registry, &mine).await;
        let printed = subject.commands(&format!(
            "create {directory}/configurators\ncreate {directory}/routers\ncreate {directory}/routers/{route}\n\
             create {directory}/providers/{dubbo3}\ncreate {directory}/providers/{triple}\ncreate {directory}/consumers/{consumer}\n\
             create /dubbo/config\ncreate /dubbo/config/dubbo\n\
             create /dubbo/config/dubbo/org.example.demo.DemoService::.condition-router force:true\n\
             ls {directory}/providers"
        ));
        seen.until("three providers, two rules", |seen| seen.entries.len() == 3 && seen.rules.len() == 2).await;
        let kinds: Vec<(&str, &str)> = seen.rules.iter().map(|r| (r.kind.as_str(), r.body.as_str())).collect();
        let rule = "route://0.0.0.0/org.example.demo.DemoService?category=routers&dynamic=false&rule==%3E+x";
        assert_eq!(kinds, [("condition-router", "force:true"), ("router-url", rule)]);
        // What Dubbo's stands for, and its node's name byte by byte.
        for (node, protocol, address) in [(dubbo3, "dubbo", "tcp://192.168.1.9:20880"), (triple, "tri", "tcp://192.168.1.9:50051")] {
            let found = seen.entries.values().find(|e| e.address(protocol) == Some(address)).unwrap();
            assert_eq!(found.service, ours);
            assert_eq!(dubbo::node_name(found).unwrap(), node);
        }
        let theirs = Consumer { application: "demo-consumer".into(), host: "192.168.1.20/77".into() };
        assert!(registry.consumers(&ours).await.unwrap().contains(&theirs));
        // What Dubbo's tools see of ours.
        let node = printed.lines().rev().find_map(|line| line.strip_prefix('[')?.split(", ").find(|n| n.starts_with("farcall"))).unwrap();
        let expected =
            "farcall%3A%2F%2F10.0.0.7%3A9000%2Forg.example.demo.DemoService%3Fapplication%3Dshop%2B%2526%2Bco%26dubbo.tag%3Dgray";
        assert!(node.starts_with(expected), "{node}");
        assert_eq!(dubbo::entry_of_node(node.trim_end_matches(']')).unwrap(), mine);
    });
}

#[test]
fn a_chroot_and_a_root_part_what_is_in_them() {
    let Some(subject) = ZooKeeper::shared() else { return };
    run(async {
        let service = service("Apart");
        let inside = subject.open_with("/shop/eu?root=services");
        let outside = subject.open();
        let _held = publish(&inside, &entry(&service, 1)).await;
        assert_eq!(inside.list(&service).await.unwrap().entries.len(), 1);
        assert!(outside.list(&service).await.unwrap().entries.is_empty());
        assert!(subject.commands(&format!("ls /shop/eu/services/{}/providers", service.name)).contains("[farcall%3A"));
    });
}

#[test]
fn with_credentials_what_we_make_is_for_who_has_them() {
    let Some(subject) = ZooKeeper::shared() else { return };
    run(async {
        let service = service("Private");
        let place = subject.0.place();
        let open = |user: &str| farcall_registry::open(&format!("zookeeper://{user}{place}/private").parse().unwrap()).unwrap();
        let (owner, stranger) = (open("ann:s3cret@"), open("bob:guess@"));
        let held = publish(&owner, &entry(&service, 1)).await;
        assert_eq!(owner.list(&service).await.unwrap().entries.len(), 1);
        for e in [stranger.list(&service).await.unwrap_err(), stranger.publish(Arc::new(entry(&service, 2))).await.err().unwrap()] {
            assert_eq!(e.code(), Code::PermissionDenied, "{e}");
            assert!(!format!("{e:?} {}", stranger.describe()).contains("guess"), "{e:?}");
        }
        held.withdraw().await.unwrap();
        assert!(owner.list(&service).await.unwrap().entries.is_empty());
    });
}

/// Of several hosts one that is dead, and one whose name does not exist, are passed over.
#[test]
fn a_dead_host_of_several_is_passed_over() {
    let Some(subject) = ZooKeeper::shared() else { return };
    run(async {
        let service = service("Several");
        for _ in 0..4 {
            let url = format!("zookeeper://127.0.0.1:{},no.such.host.invalid,{}", free_port(), subject.0.place());
            let registry = farcall_registry::open(&url.parse().unwrap()).unwrap();
            let _held = publish(&registry, &entry(&service, 1)).await;
            assert_eq!(registry.list(&service).await.unwrap().entries.len(), 1);
        }
    });
}

/// Somebody else takes our node away: its provider is told, and registers again.
#[test]
fn a_node_that_was_deleted_is_lost() {
    let Some(subject) = ZooKeeper::shared() else { return };
    run(async {
        let registry = subject.open();
        let published = entry(&service("Deleted"), 1);
        let mut held = publish(&registry, &published).await;
        let path = format!("/dubbo/{}/providers/{}", published.service.name, dubbo::node_name(&published).unwrap());
        let (lost, _) = tokio::join!(soon("the loss is told", held.lost()), async {
            tokio::task::block_in_place(|| subject.commands(&format!("delete {path}")))
        });
        assert!(lost.message().contains("its node is gone"), "{lost}");
        assert!(!held.check().await.unwrap());
    });
}
