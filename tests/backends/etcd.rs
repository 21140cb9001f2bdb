//! Real etcd.

use std::process::Command;
use std::sync::{Arc, OnceLock};

use farcall::Code;
use farcall_registry::{Registry, ServiceKey, dubbo};
use farcall_tests::servers::{Kind, Server, free_port};

use crate::suite::{LEASE, SETTLE, Subject, suite};
use crate::support::{Seen, entry, eventually, publish, run, service, soon};

pub(crate) struct Etcd(Server);

impl Etcd {
    /// With further parameters.
    fn open_with(&self, user: &str, params: &str) -> Arc<dyn Registry> {
        farcall_registry::open(&format!("etcd://{user}{}{params}", self.0.place()).parse().unwrap()).unwrap()
    }

    /// What a client of somebody else does: the project's own tool.
    fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.0.place(), "--command-timeout", "20s"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Subject for Etcd {
    fn start() -> Option<Etcd> {
        Server::start(Kind::Etcd).map(Etcd)
    }

    fn shared() -> Option<&'static Etcd> {
        static SHARED: OnceLock<Option<Etcd>> = OnceLock::new();
        SHARED.get_or_init(Etcd::start).as_ref()
    }

    fn open(&self) -> Arc<dyn Registry> {
        farcall_registry::open(&self.url().parse().unwrap()).unwrap()
    }

    fn url(&self) -> String {
        let (lease, settle) = (LEASE.as_millis(), SETTLE.as_millis());
        format!("etcd://{}?lease_ms={lease}&settle_ms={settle}&timeout_ms=3000", self.0.place())
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
        let directory = format!("/dubbo/{}", service.name);
        for (key, value) in [
            (format!("{directory}/providers/junk"), "x"),
            (format!("{directory}/providers/%zz"), ""),
            (format!("{directory}/providers/"), "x"),
            (format!("{directory}/providers/a/b/c"), "x"),
            (format!("{directory}/providers/farcall%3A%2F%2F"), "x"),
            (format!("{directory}/providers/{}", "x".repeat(100_000)), "x"),
            (format!("{directory}/consumers/junk"), "x"),
            (format!("{directory}/routers/junk"), "x"),
            (format!("{directory}/nothing"), "x"),
            (format!("/dubbo/config/dubbo/{}:1.0:blue.", service.name), "x"),
            ("/dubbo/%zz/providers/x".to_owned(), "x"),
            ("/dubbo/junk".to_owned(), "x"),
        ] {
            self.ctl(&["put", "--", &key, value]);
        }
        self.ctl(&["put", "--", &format!("{directory}/providers/large"), &"x".repeat(120_000)]);
    }
}

suite!(Etcd);

/// What the published crate etcd-client did: its keep-alive stream ended with the server and was never made anew; the keys came back
/// with the server for one full lease, and 12 s later all of them were gone.
#[test]
fn leases_are_renewed_after_a_crash_of_the_server() {
    let Some(mut subject) = Etcd::start() else { return };
    run(async {
        let registry = subject.open();
        let services: Vec<ServiceKey> = (0..30).map(|_| service("Renewed")).collect();
        let mut held = Vec::new();
        for service in &services {
            held.push(publish(&registry, &entry(service, 1)).await);
        }
        for _ in 0..2 {
            subject.kill();
            subject.start_again();
            tokio::time::sleep(2 * LEASE).await;
        }
        for service in &services {
            let list = eventually("a list", || registry.list(service)).await;
            assert_eq!(list.entries.len(), 1, "{service} is not renewed");
        }
        for held in &mut held {
            assert!(held.check().await.unwrap());
        }
    });
}

/// What etcd-client did: its watch ended with the server's connection and was never made anew.
#[test]
fn watches_are_made_anew_after_a_crash_of_the_server() {
    let Some(mut subject) = Etcd::start() else { return };
    run(async {
        let registry = subject.open();
        let service = service("Watched");
        let mut seen = Seen::new(&registry, &service).await;
        for n in 1..3 {
            subject.kill();
            subject.start_again();
            let held = publish(&subject.open(), &entry(&service, n)).await;
            seen.instances(&[n]).await;
            held.withdraw().await.unwrap();
            seen.instances(&[]).await;
        }
    });
}

/// What etcd-client did: a watch from a revision that was compacted came back as a success, cancelled. Here the past is compacted
/// while the server is away from its watcher, and the list is read anew.
#[test]
fn a_compacted_watch_reads_all_anew() {
    let Some(mut subject) = Etcd::start() else { return };
    run(async {
        let registry = subject.open();
        let service = service("Compacted");
        let _held = publish(&registry, &entry(&service, 1)).await;
        let mut seen = Seen::new(&registry, &service).await;
        for _ in 0..50 {
            subject.ctl(&["put", "/elsewhere", "x"]);
        }
        let revision = registry.list(&service).await.unwrap().revision;
        subject.kill();
        subject.start_again();
        subject.ctl(&["compact", &revision.to_string()]);
        let _other = publish(&subject.open(), &entry(&service, 2)).await;
        seen.until("the new one", |seen| seen.entries.len() == 2).await;
        // And under an open watch: it goes on, or is made anew.
        let revision = eventually("a list", || registry.list(&service)).await.revision;
        subject.ctl(&["compact", &revision.to_string()]);
        let third = publish(&registry, &entry(&service, 3)).await;
        seen.instances(&[1, 2, 3]).await;
        third.withdraw().await.unwrap();
        seen.instances(&[1, 2]).await;
    });
}

/// The lease is taken away by hand: the loss is told, and the next publication has a new one.
#[test]
fn a_revoked_lease_is_lost_and_replaced() {
    let Some(subject) = Etcd::start() else { return };
    run(async {
        let registry = subject.open();
        let service = service("Revoked");
        let mut held = publish(&registry, &entry(&service, 1)).await;
        let mut seen = Seen::new(&registry, &service).await;
        seen.instances(&[1]).await;
        let leases = subject.ctl(&["lease", "list"]);
        for lease in leases.lines().skip(1) {
            subject.ctl(&["lease", "revoke", lease.trim()]);
        }
        soon("the loss is told", held.lost()).await;
        seen.instances(&[]).await;
        let mut held = publish(&registry, &entry(&service, 1)).await;
        seen.instances(&[1]).await;
        tokio::time::sleep(2 * LEASE).await;
        assert!(held.check().await.unwrap());
    });
}

#[test]
fn a_user_with_a_password_and_one_with_the_wrong_one() {
    let Some(subject) = Etcd::start() else { return };
    for command in [
        "user add root:top",
        "user grant-role root root",
        "role add shop",
        "role grant-permission shop readwrite /dubbo/ --prefix=true",
        "user add ann:s3cret",
        "user grant-role ann shop",
        "auth enable",
    ] {
        subject.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    run(async {
        let service = service("Secured");
        let ann = subject.open_with("ann:s3cret@", "?lease_ms=3000");
        let _held = publish(&ann, &entry(&service, 1)).await;
        let mut seen = Seen::new(&ann, &service).await;
        seen.instances(&[1]).await;
        for (user, code) in [("ann:guess@", Code::Unauthenticated), ("", Code::InvalidArgument)] {
            let e = subject.open_with(user, "").list(&service).await.unwrap_err();
            assert_eq!(e.code(), code, "{e}");
            assert!(!format!("{e:?}").contains("guess"), "{e:?}");
        }
        // Elsewhere she may not write.
        let elsewhere = subject.open_with("ann:s3cret@", "?root=other");
        let e = elsewhere.publish(Arc::new(entry(&service, 1))).await.err().unwrap();
        assert_eq!(e.code(), Code::PermissionDenied, "{e}");
    });
}

#[test]
fn dead_endpoints_of_several_are_passed_over() {
    let Some(subject) = Etcd::shared() else { return };
    run(async {
        let service = service("Several");
        for _ in 0..4 {
            let url = format!("etcd://127.0.0.1:{},no.such.host.invalid,{}?timeout_ms=6000", free_port(), subject.0.place());
            let registry = farcall_registry::open(&url.parse().unwrap()).unwrap();
            let _held = publish(&registry, &entry(&service, 1)).await;
            assert_eq!(registry.list(&service).await.unwrap().entries.len(), 1);
        }
    });
}

/// Keys as Dubbo's other clients put them beside ours, and ours as they read them.
#[test]
fn our_keys_stand_beside_dubbos() {
    let Some(subject) = Etcd::shared() else { return };
    run(async {
        let registry = subject.open();
        let ours = ServiceKey { name: "org.example.demo.EtcdService".into(), group: String::new(), version: String::new() };
        let node = "dubbo%3A%2F%2F10.0.0.5%3A20880%2Forg.example.demo.EtcdService%3Fapplication%3Dgo%26interface%3D\
                    org.example.demo.EtcdService%26methods%3DA%252CB%26release%3Ddubbo-golang-3.1.0%26timestamp%3D1690000000";
        subject.ctl(&["put", &format!("/dubbo/{}/providers/{node}", ours.name), "x"]);
        let mine = entry(&ours, 7);
        let _held = publish(&registry, &mine).await;
        let mut seen = Seen::new(&registry, &ours).await;
        seen.until("both", |seen| seen.entries.len() == 2).await;
        let theirs = seen.entries.values().find(|e| e.address("dubbo").is_some()).unwrap();
        assert_eq!(dubbo::node_name(theirs).unwrap(), node);
        let keys = subject.ctl(&["get", "--prefix", "--keys-only", &format!("/dubbo/{}/providers/", ours.name)]);
        let name = keys.lines().find_map(|key| key.rsplit('/').next().filter(|name| name.starts_with("farcall%3A"))).unwrap();
        assert_eq!(dubbo::entry_of_node(name).unwrap(), mine);
        // A lease holds it.
        assert!(subject.ctl(&["get", "-w", "json", &format!("/dubbo/{}/providers/{name}", ours.name)]).contains("\"lease\":"));
    });
}
