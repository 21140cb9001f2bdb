//! `farcall registry` as processes: looked at, killed, started again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use farcall_registry::embedded::Nodes;
use farcall_registry::{Advertised, Consumer, Entry, InstanceId, Registry, ServiceKey};

use crate::cli;
use crate::support::run;

/// A node in a process of its own. Killed when dropped.
pub(crate) struct NodeProcess {
    child: Child,
    /// As it says itself.
    pub(crate) address: String,
}

impl NodeProcess {
    /// On this address, with further arguments.
    pub(crate) fn start(address: &str, args: &[&str]) -> NodeProcess {
        let mut command = Command::new(cli::binary());
        command.args(["registry", "--listen", address]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let line = line(&mut BufReader::new(child.stdout.take().unwrap()));
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        NodeProcess { child, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("farcall://{}", self.address.strip_prefix("tcp://").unwrap())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

pub(crate) fn backend(of: &[&NodeProcess]) -> Nodes {
    Nodes::builder(of.iter().map(|node| node.address.clone())).build().unwrap()
}

pub(crate) fn service(name: &str) -> ServiceKey {
    ServiceKey { name: name.into(), group: String::new(), version: String::new() }
}

pub(crate) fn entry(name: &str, n: u8) -> Arc<Entry> {
    Arc::new(Entry {
        service: service(name),
        instance: InstanceId([n; 16]),
        incarnation: 1,
        application: "till".into(),
        addresses: vec![Advertised { protocol: "farcall".into(), address: format!("tcp://10.0.0.{n}:9000") }],
        labels: BTreeMap::from([("zone".to_owned(), "b".to_owned())]),
        weight: 100,
        enabled: true,
        host: None,
        methods: Vec::new(),
        params: BTreeMap::new(),
    })
}

#[test]
fn a_registry_shows_what_it_knows() {
    let node = NodeProcess::start("tcp://127.0.0.1:0", &["--lease", "1s"]);
    run(async {
        let registry = backend(&[&node]);
        let held = registry.publish(entry("org.example.Payment", 1)).await.unwrap();
        let who = Consumer { application: "shop".into(), host: "10.0.0.9/4711".into() };
        let _updates = registry.subscribe(&service("org.example.Payment"), Some(who)).await.unwrap();
        let url = node.url();
        let ls = |args: &[&str]| cli::run(&[&["ls", "--registry", &url], args].concat());
        ls(&[]).check(0, &["SERVICE", "org.example.Payment        1          1"], &[]);
        ls(&["org.example.Payment"]).check(0, &["tcp://10.0.0.1:9000  till  zone=b  [01010101]", "shop  10.0.0.9/4711"], &[]);
        ls(&["org.example.Payment", "--json"]).check(0, &["\"application\":\"shop\"", "\"labels\":{\"zone\":\"b\"}"], &[]);
        ls(&["org.example.Paymnt"]).check(2, &[], &["did you mean \"org.example.Payment\"?"]);

        let mut watch = Command::new(cli::binary())
            .args(["watch", "org.example.Payment", "--json", "--registry", &url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap());
        assert!(line(&mut lines).contains("\"address\":\"tcp://10.0.0.1:9000\""));
        held.withdraw().await.unwrap();
        let gone = std::iter::repeat_with(|| line(&mut lines)).find(|line| !line.contains("\"all\"")).unwrap();
        assert!(gone.contains("\"gone\"") && gone.contains("\"withdrawn\""), "{gone}");
        watch.kill().unwrap();
        watch.wait().unwrap();
    });
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn a_registry_that_cannot_be_reached_is_said_so() {
    let mut node = NodeProcess::start("tcp://127.0.0.1:0", &[]);
    let url = node.url();
    node.kill();
    cli::run(&["ls", "--registry", &url]).check(
        1,
        &[],
        &["no node of the registry farcall://127.0.0.1:", "calling again cannot run it twice"],
    );
    cli::run(&["ls", "--registry", "farcal://h"]).check(2, &[], &["there is no kind of registry \"farcal\""]);
}
