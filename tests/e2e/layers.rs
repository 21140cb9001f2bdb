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
    &["farcall-cli", "shop", "farcall-bench", "farcall-tests"],
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

#[test]
fn users_compile_nothing_unseen() {
    let metadata = metadata();
    let packages: BTreeMap<&str, &Value> = metadata["packages"].as_array().unwrap().iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|n| (text(&n["id"]), n)).collect();
    let facade = packages.iter().find(|(_, p)| p["name"] == "farcall").map(|(id, _)| *id).unwrap();
    // The features that the workspace's other members turn on are not the user's.
    let tree = ["tree", "-p", "farcall", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--offline"];
    let tree = Command::new(env!("CARGO")).args(tree).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).output().unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let by_default: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(by_default.contains("tokio") && !by_default.contains("hyper"), "{by_default:?}");
    let (mut todo, mut seen) = (vec![facade], BTreeSet::new());
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let wanted = |k: &Value| k["kind"].is_null() && by_default.contains(text(&packages[text(&dependency["pkg"])]["name"]));
            if dependency["dep_kinds"].as_array().unwrap().iter().any(wanted) {
                todo.push(text(&dependency["pkg"]));
            }
        }
    }
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in seen.iter().map(|id| packages[id]).filter(|p| !p["source"].is_null()) {
        let name = text(&package["name"]);
        assert!(THIRD_PARTY.contains(&name), "{name} is new: say why in docs/decisions/dependencies.md, then list it here");
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
    let twice: Vec<_> = versions.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "in two versions: {twice:?}");
}
