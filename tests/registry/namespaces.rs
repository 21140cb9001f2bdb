//! Which address is registered, where it matters: a provider, a registry and a consumer in network namespaces of their own, as
//! containers are. Needs root and iproute2; where there are none, each test says that it skips.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::processes::{Named, url_of};

/// Two namespaces and a cable between them; taken away when dropped.
struct Two {
    provider: String,
    consumer: String,
}

/// Addresses at the ends of the cable.
const PROVIDER: &str = "10.231.7.1";
const PROVIDER_V6: &str = "fd00:fa2c::1";
const CONSUMER: &str = "10.231.7.2";
const CONSUMER_V6: &str = "fd00:fa2c::2";

fn ip(args: &str) -> bool {
    Command::new("ip").args(args.split_whitespace()).output().is_ok_and(|done| done.status.success())
}

impl Two {
    fn new() -> Option<Two> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let two = Two { provider: format!("fcp{number}"), consumer: format!("fcc{number}") };
        let (p, c) = (&two.provider, &two.consumer);
        // An interface's name has at most 15 letters; in namespaces of their own they may be the same every time.
        let made = ip(&format!("netns add {p}"))
            && ip(&format!("netns add {c}"))
            && ip(&format!("-n {p} link add cable type veth peer name cable netns {c}"))
            && [(p, PROVIDER, PROVIDER_V6), (c, CONSUMER, CONSUMER_V6)].into_iter().all(|(name, v4, v6)| {
                ip(&format!("-n {name} link set lo up"))
                    && ip(&format!("-n {name} addr add {v4}/24 dev cable"))
                    && ip(&format!("-n {name} addr add {v6}/64 dev cable nodad"))
                    && ip(&format!("-n {name} link set cable up"))
            });
        if !made {
            println!("skipped: network namespaces cannot be made here (they need root and iproute2)");
            return None;
        }
        Some(two)
    }

    /// The registry, beside the consumer.
    fn node(&self, address: &str) -> Named {
        Named::start_in(&["ip", "netns", "exec", &self.consumer], &["node", address], &[])
    }

    fn provider(&self, url: &str, listen: &str, environment: &[(&str, &str)]) -> Named {
        Named::start_in(&["ip", "netns", "exec", &self.provider], &["provide", url, listen, "ours"], environment)
    }

    /// From where an answer came.
    fn ask(&self, url: &str) -> String {
        let said = Named::start_in(&["ip", "netns", "exec", &self.consumer], &["ask", url, "1"], &[]).ends();
        let answer = said.iter().find_map(|line| line.strip_prefix("answer ours 0 from "));
        answer.unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        // With them goes the cable.
        for name in [&self.provider, &self.consumer] {
            ip(&format!("netns del {name}"));
        }
    }
}

fn check(registry: &str, listen: &str, environment: &[(&str, &str)], advertised: &str) {
    let Some(two) = Two::new() else { return };
    let node = two.node(registry);
    let url = url_of(&node);
    let provider = two.provider(&url, listen, environment);
    let said = provider.says("advertised");
    let port = provider.says("registered").rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap();
    let wanted = advertised.replace("PORT", &port);
    assert_eq!(said, wanted);
    assert_eq!(two.ask(&url), wanted);
}

#[test]
fn of_all_addresses_the_one_that_leads_to_the_registry_is_advertised() {
    check(&format!("tcp://{CONSUMER}:0"), "tcp://0.0.0.0:0", &[], &format!("tcp://{PROVIDER}:PORT"));
}

#[test]
fn over_ipv6_too() {
    check(&format!("tcp://[{CONSUMER_V6}]:0"), "tcp://[::]:0", &[], &format!("tcp://[{PROVIDER_V6}]:PORT"));
}

#[test]
fn what_is_set_wins_over_what_is_found() {
    let set = format!("tcp://[{PROVIDER_V6}]:0");
    check(&format!("tcp://{CONSUMER}:0"), "tcp://[::]:0", &[("FARCALL_ADVERTISE", &set)], &format!("tcp://[{PROVIDER_V6}]:PORT"));
}

/// The registry is told all the same: on one host it may be meant. But it does not happen unnoticed.
#[test]
fn an_address_that_others_cannot_reach_is_warned_of() {
    let Some(two) = Two::new() else { return };
    let node = two.node(&format!("tcp://{CONSUMER}:0"));
    let url = url_of(&node);
    let provider = two.provider(&url, "tcp://127.0.0.1:0", &[]);
    let warning = provider.says("warning");
    assert!(warning.contains("only this host can connect to") && warning.contains("set advertise"), "{warning}");
    provider.says("registered");
    // Elsewhere it is not mistaken for the loopback there: nobody can be reached, and that is said.
    let said = Named::start_in(&["ip", "netns", "exec", &two.consumer], &["ask", &url, "1"], &[]).ends();
    let failed = said.iter().find(|line| line.starts_with("failed")).unwrap_or_else(|| panic!("{said:?}"));
    assert!(failed.contains("has an address that this program reaches from here"), "{failed}");
}

/// Also when a test fails.
#[test]
fn nothing_is_left_behind_by_the_namespaces() {
    let Some(two) = Two::new() else { return };
    let (provider, consumer) = (two.provider.clone(), two.consumer.clone());
    let there =
        |name: &str| Command::new("ip").args(["netns", "list"]).output().is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(name));
    assert!(there(&provider) && there(&consumer));
    // As if its test had failed.
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _two = two;
        panic!("on purpose");
    }));
    assert!(failed.is_err() && !there(&provider) && !there(&consumer));
}
