//! `farcall registry` as processes: looked at, killed, started again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use farcall_registry::embedded::Nodes;
use farcall_registry::{Consumer, Entry, InstanceId, Registry, ServiceKey};

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
    let labels = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    let at = Entry::at(&service(name), format!("tcp://10.0.0.{n}:9000"));
    Arc::new(Entry { instance: InstanceId([n; 16]), incarnation: 1, application: "till".into(), labels, ..at })
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
        for slip in ["org.example.Paymnt", "Payment"] {
            ls(&[slip]).check(2, &[], &["did you mean \"org.example.Payment\"?", "farcall ls shows them"]);
        }

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

/// Whoever operates a registry is not who chose the features of the programs that use it.
#[test]
fn registries_of_all_kinds_are_looked_at() {
    let list = "static:tcp://10.0.0.1:9000?zone=b";
    cli::run(&["ls", "Pay", "--registry", list]).check(0, &["Pay", "tcp://10.0.0.1:9000", "zone=b"], &[]);
    let dns = "dns://pay.invalid:9000?server=127.0.0.1:1";
    cli::run(&["ls", "--registry", dns]).check(2, &[], &["name one: farcall ls SERVICE"]);
    for url in ["zookeeper://127.0.0.1:1?timeout_ms=200", "etcd://127.0.0.1:1?timeout_ms=200"] {
        cli::run(&["ls", "--registry", url]).check(1, &[], &["127.0.0.1:1", "refused"]);
    }
}

/// Who may, turns an instance off; who may not, is told so. `ls` shows what consumers go by.
#[test]
fn an_operator_turns_instances_off_with_the_command() {
    let folder = std::env::temp_dir().join(format!("farcall-operate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, "reader-token shop\nops-token ann ops\nbank-token bank\n").unwrap();
    let grants = ["--allow", "*:read:*", "--allow", "role=ops:rules:*", "--allow", "bank:register:*"];
    let node = NodeProcess::start("tcp://127.0.0.1:0", &[&["--tokens", &tokens.display().to_string()][..], &grants].concat());
    let url = node.url();
    run(async {
        let credentials = |token: &str| farcall::Credentials::bearer(token.to_owned());
        let bank = Nodes::builder([node.address.clone()]).credentials(credentials("bank-token")).build().unwrap();
        let _held = (bank.publish(entry("Pay", 1)).await.unwrap(), bank.publish(entry("Pay", 2)).await.unwrap());
        let with = |token: &str, args: &[&str]| cli::run_in(&[args, &["--registry", &url]].concat(), "FARCALL_TOKEN", token);
        let ops = |args: &[&str]| with("ops-token", &[&["registry"], args].concat());
        let ls = || with("reader-token", &["ls", "Pay"]);
        cli::run(&["ls", "--registry", &url]).check(1, &[], &["Unauthenticated"]);
        ls().check(0, &["tcp://10.0.0.1:9000  till  zone=b"], &[]);
        // The command line before the environment, and what is wrong with either is said as everywhere.
        with("no-such-token", &["ls", "Pay", "--token", "reader-token"]).check(0, &["tcp://10.0.0.1:9000"], &[]);
        with("reader-token", &["ls", "Pay", "--token-file", "/dev/null"]).check(
            2,
            &[],
            &["--token-file \"/dev/null\": the token is empty"],
        );
        with("reader-token", &["watch", "Pay", "--token", ""]).check(2, &[], &["--token: the token is empty"]);
        with("reader-token", &["registry", "disable", "Pay", "01010101"]).check(1, &[], &["\"shop\" may not write rules for Pay"]);
        ops(&["disable", "Pay", "01010101"]).check(0, &["enabled=false", "tcp://10.0.0.1:9000  till  disabled"], &[]);
        ls().check(0, &["tcp://10.0.0.1:9000  till  disabled  zone=b", "tcp://10.0.0.2:9000  till  zone=b", "rules:", "instance "], &[]);
        ops(&["weight", "7", "Pay", "tcp://10.0.0.2:9000", "0101"]).check(0, &["enabled=false weight=7"], &[]);
        ls().check(0, &["till  weight=7  disabled", "tcp://10.0.0.2:9000  till  weight=7  zone=b"], &[]);
        ops(&["enable", "Pay", "0101"]).check(0, &["enabled=true weight=7"], &[]);
        ops(&["reset", "Pay", "0101", "tcp://10.0.0.2:9000"]).check(0, &["as its provider says"], &[]);
        ls().check(0, &["tcp://10.0.0.1:9000  till  zone=b", "tcp://10.0.0.2:9000  till  zone=b"], &[]);
        for (instance, why) in [
            ("01", "write 4 to 32 of its digits"),
            ("99999999", "there is none; farcall ls shows them"),
            ("tcp://10.0.0.9:1", "no instance has this address"),
        ] {
            ops(&["disable", "Pay", instance]).check(2, &[], &[why]);
        }
        ops(&["disable", "Payy", "0101"]).check(2, &[], &["did you mean \"Pay\"?"]);
    });
    std::fs::remove_dir_all(folder).unwrap();
}
