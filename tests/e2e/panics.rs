//! No panic can be reached from a peer: every place in the sources of the crates that read what peers send which could
//! panic by its words is on a list, with the reason why it cannot, or why it may.
//!
//! It looks for words (`unwrap()`, `expect(`, `panic!`, `unreachable!`, `todo!`, `unimplemented!`, `assert!`,
//! `assert_eq!`, `assert_ne!`), which a reader can check; what indexing and arithmetic do is the business of the fuzzing
//! and simulation of these crates.

use std::path::{Path, PathBuf};

/// The crates whose code a peer can reach.
const CRATES: &[&str] = &["farcall-core", "farcall-wire", "farcall-transport", "farcall-rpc", "farcall-registry", "farcall-http"];

const WORDS: &[&str] = &[
    ".unwrap()",
    ".expect(",
    ".unwrap_err()",
    ".expect_err(",
    "panic!(",
    "unreachable!(",
    "todo!(",
    "unimplemented!(",
    "assert!(",
    "assert_eq!(",
    "assert_ne!(",
];

/// File, what the line holds, and why it is no way for a peer.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "farcall-rpc/src/runtime.rs",
        "farcall's runtime cannot start",
        "a process that cannot start a thread can make no calls; no peer has a say in it",
    ),
    ("farcall-rpc/src/testing.rs", "std::ptr::eq(M::service(), self.service)", "a mistake in the user's own test, at its own line"),
];

/// The lines of a source without comments and without what is compiled for tests only, and their numbers.
fn lines(source: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut lines = source.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("#[cfg(test)]") || trimmed.starts_with("#[cfg(all(test") {
            skip_item(&mut lines);
            continue;
        }
        if !trimmed.starts_with("//") {
            out.push((number + 1, line.to_owned()));
        }
    }
    out
}

/// Steps over the item that an attribute belongs to: to the end of its block, or of its line.
fn skip_item<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) {
    let mut depth = 0i32;
    for (_, line) in lines {
        let opens = |c| line.chars().filter(|l| *l == c).count() as i32;
        depth += opens('{') - opens('}');
        let over = depth <= 0 && (line.trim_end().ends_with(['}', ';']));
        if over {
            return;
        }
    }
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            // Compiled for tests only.
            true if name == "models" => {}
            true => sources(&path, into),
            false if name == "tests.rs" || name == "simulation.rs" => {}
            false if name.ends_with(".rs") => into.push(path),
            false => {}
        }
    }
}

#[test]
fn nothing_a_peer_sends_can_reach_a_panic() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&crates.join(name).join("src"), &mut files));
    assert!(files.len() > 80, "{} files found", files.len());
    let (mut found, mut used) = (Vec::new(), vec![false; ALLOWED.len()]);
    for file in &files {
        let name = file.strip_prefix(&crates).unwrap().display().to_string();
        for (number, line) in lines(&std::fs::read_to_string(file).unwrap()) {
            // What only a debug build asserts is a test's affair.
            let line = line.replace("debug_assert", "");
            if !WORDS.iter().any(|word| line.contains(word)) {
                continue;
            }
            match ALLOWED.iter().position(|(of, holds, _)| *of == name && line.contains(holds)) {
                Some(at) => used[at] = true,
                None => found.push(format!("{name}:{number}: {}", line.trim())),
            }
        }
    }
    assert!(found.is_empty(), "return an error instead, or say in ALLOWED why it cannot be reached:\n{}", found.join("\n"));
    let unused: Vec<_> = ALLOWED.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "allowed, and not there any more: {unused:?}");
}

#[test]
fn the_scan_sees_what_it_must() {
    let source = "fn a() { b.unwrap(); }\n// c.unwrap()\n#[cfg(test)]\nmod tests {\n    fn d() { e.unwrap(); }\n}\nfn f() {}\n#[cfg(test)]\nmod tests;\ng\n";
    let kept: Vec<_> = lines(source).into_iter().map(|(number, _)| number).collect();
    assert_eq!(kept, [1, 7, 10]);
}
