//! The crate map holds: arrows only point down, and nothing comes in unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Our crates, by layer; a crate may use those of lower layers only.
const LAYERS: &[&[&str]] = &[
    &["farcall-macros"],
    &["farcall-core"],
    &["farcall-wire", "farcall-cluster", "farcall-sim"],
    &["farcall-transport", "farcall-shm"],
    &["farcall-rpc"],
    &["farcall-registry", "farcall-monitor", "farcall-http", "farcall-dubbo"],
    &["farcall"],
    &["browser", "farcall-cli", "shop", "farcall-bench", "farcall-tests"],
];

/// More would be hard to find one's way in.
const MOST_CRATES: usize = 20;

/// What a user of the facade compiles beside us, and why: `docs/decisions/dependencies.md`.
const THIRD_PARTY: &[&str] = &[
    "arrayvec",
    "blake3",
    "bytes",
    "cfg-if",
    "constant_time_eq",
    "cpufeatures",
    "errno",
    "futures-core",
    "itoa",
    "libc",
    "memchr",
    "mio",
    "pin-project-lite",
    "proc-macro2",
    "quote",
    "ryu",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "signal-hook-registry",
    "socket2",
    "syn",
    "tokio",
    "unicode-ident",
    "zmij",
];

/// Licences that put no condition on programs that use the crate.
const LICENCES: &[&str] =
    &["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "Unicode-3.0", "Zlib", "MIT-0", "Unlicense", "ISC"];

/// What cargo knows of the workspace, for this machine's kind: other kinds' crates are not downloaded.
fn metadata() -> &'static Value {
    static ONCE: OnceLock<Value> = OnceLock::new();
    ONCE.get_or_init(|| {
        let version = Command::new("rustc").arg("-vV").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", host])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&name))
}

#[test]
fn arrows_point_down() {
    let metadata = metadata();
    let ours: Vec<&Value> = metadata["packages"].as_array().unwrap().iter().filter(|p| p["source"].is_null()).collect();
    assert!(ours.len() <= MOST_CRATES, "{} crates; make one of them a module", ours.len());
    for package in ours {
        let name = text(&package["name"]);
        let own = layer(name).unwrap_or_else(|| panic!("{name} is not on the crate map: put it in LAYERS and in ARCHITECTURE.md"));
        for dependency in package["dependencies"].as_array().unwrap() {
            // Tests may look anywhere.
            if dependency["kind"] == "dev" {
                continue;
            }
            let to = text(&dependency["name"]);
            if let Some(below) = layer(to) {
                assert!(below < own, "{name} uses {to}, which is not below it: a new arrow is a design decision");
            }
        }
    }
}

#[test]
fn the_machines_see_no_socket_task_or_clock() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(&package["name"]);
        if !["farcall-core", "farcall-wire", "farcall-macros", "farcall-cluster", "farcall-sim"].contains(&name) {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"] != "dev") {
            let to = text(&dependency["name"]);
            assert!(!["tokio", "mio", "socket2", "libc", "rustix"].contains(&to), "{name} uses {to}");
        }
    }
}

/// What the features of links add: TLS, and then QUIC.
const WITH_TLS: &[&str] =
    &["getrandom", "once_cell", "ring", "rustls", "rustls-pki-types", "rustls-webpki", "subtle", "tokio-rustls", "untrusted", "zeroize"];
const WITH_QUIC: &[&str] = &[
    "chacha20",
    "lru-slab",
    "quinn",
    "quinn-proto",
    "quinn-udp",
    "rand",
    "rand_core",
    "rand_pcg",
    "rustc-hash",
    "slab",
    "thiserror",
    "thiserror-impl",
    "tinyvec",
    "tracing",
    "tracing-core",
];

/// Name and version of all that is compiled for the facade alone with these features; not what other members of
/// the workspace ask of it.
fn compiled(features: &str) -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "farcall", "-e", "normal", "--prefix", "none", "--offline", "--features", features])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() > 1);
    words.map(|words| (words[0].to_owned(), words[1].trim_start_matches('v').to_owned())).collect()
}

/// Checks what is compiled with these features against the list; returns what there is in two versions.
fn nothing_unseen(features: &str, lists: &[&[&str]]) -> Vec<String> {
    let packages = metadata()["packages"].as_array().unwrap();
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for (name, version) in compiled(features) {
        let package = packages.iter().find(|p| text(&p["name"]) == name && text(&p["version"]) == version).unwrap();
        if package["source"].is_null() {
            continue;
        }
        assert!(lists.concat().contains(&name.as_str()), "{name} is new: say why in docs/decisions/dependencies.md, then list it here");
        assert!(
            text(&package["source"]).starts_with("registry+https://github.com/rust-lang/crates.io-index"),
            "{name} is not from crates.io"
        );
        let licence = text(&package["license"]);
        let mut choices = licence.split(" OR ").flat_map(|l| l.split('/'));
        let fine = |choice: &str| choice.split(" AND ").all(|l| LICENCES.contains(&l.trim_matches(['(', ')', ' '])));
        let all = |l: &str| l.split(" AND ").all(|part| part.trim_matches(['(', ')', ' ']).split(" OR ").any(|l| LICENCES.contains(&l)));
        assert!(choices.any(fine) || all(licence), "{name} has the licence {licence}");
        *versions.entry(name).or_default() += 1;
    }
    versions.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect()
}

#[test]
fn users_compile_nothing_unseen() {
    assert!(nothing_unseen("", &[THIRD_PARTY]).is_empty());
    assert!(nothing_unseen("tls", &[THIRD_PARTY, WITH_TLS]).is_empty());
    assert!(nothing_unseen("system-roots", &[THIRD_PARTY, WITH_TLS, &["openssl-probe", "rustls-native-certs"]]).is_empty());
    let with_tracing = ["once_cell", "tracing", "tracing-core"];
    assert!(nothing_unseen("tracing,testing", &[THIRD_PARTY, &with_tracing]).is_empty());
    // ring still takes the older one.
    assert_eq!(nothing_unseen("quic", &[THIRD_PARTY, WITH_TLS, WITH_QUIC]), ["getrandom"]);
}
