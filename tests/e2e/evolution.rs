//! Two versions of a program, two binaries, over a real link: what each makes of the other's types, in both
//! directions, and that `farcall compat` says the same beforehand.
//!
//! The types are in `src/bin/versions`, what happens in the text files beside this one: a line for each call.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::cli::run;

/// The binary with the types of this version.
fn program(version: &str) -> Command {
    Command::new(match version {
        "old" => env!("CARGO_BIN_EXE_version-old"),
        _ => env!("CARGO_BIN_EXE_version-new"),
    })
}

/// A server of a version, killed when dropped.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(version: &str) -> Serving {
        let mut child = program(version).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "the {version} server did not come up");
        Serving { child, address: address.trim().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call(version: &str, server: &Serving) -> String {
    let ran = program(version).args(["call", &server.address]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn check(client: &str, server: &str, expected: &str) {
    let found = call(client, &Serving::start(server));
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

const OLD_CLIENT: &str = include_str!("evolution/old_client_new_server.txt");
const NEW_CLIENT: &str = include_str!("evolution/new_client_old_server.txt");

#[test]
fn an_old_client_calls_a_new_server() {
    check("old", "new", OLD_CLIENT);
}

#[test]
fn a_new_client_calls_an_old_server() {
    check("new", "old", NEW_CLIENT);
}

#[test]
fn a_version_understands_itself() {
    for version in ["old", "new"] {
        let found = call(version, &Serving::start(version));
        let refused =
            |line: &&str| ["FailedPrecondition", "InvalidArgument", "Internal", "Unimplemented"].iter().any(|code| line.contains(code));
        assert_eq!(found.lines().find(refused), None);
    }
}

/// What is refused of a method before anything runs, in the words of the connection.
fn refusals(lines: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in lines.lines() {
        let (method, what) = line.split_once(": ").unwrap();
        if let Some((_, why)) = what.strip_prefix("FailedPrecondition ").and_then(|what| what.split_once("cannot read the ")) {
            let (_, why) = why.split_once(": ").unwrap();
            all.insert(method.to_owned(), why.to_owned());
        } else if what.starts_with("Unimplemented ") {
            all.insert(method.to_owned(), String::new());
        }
    }
    all
}

/// What `farcall compat` says of each method in one direction: whether it breaks, and why.
fn verdicts(text: &str, direction: &str) -> BTreeMap<String, (bool, Vec<String>)> {
    let (mut all, mut service, mut method, mut here) = (BTreeMap::new(), "", String::new(), false);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.len() - line.trim_start().len() {
            0 => service = line,
            2 => {
                let name = line.trim_start().split(':').next().unwrap();
                method = format!("{service} {name}");
                all.insert(method.clone(), (false, Vec::new()));
            }
            4 => {
                here = line.trim_start().starts_with(direction);
                if here {
                    all.get_mut(&method).unwrap().0 = line.ends_with("breaks");
                }
            }
            _ if here => all.get_mut(&method).unwrap().1.push(line.trim_start().to_owned()),
            _ => {}
        }
    }
    all
}

#[test]
fn compat_says_beforehand_what_connections_do() {
    let (old, new) = (Serving::start("old"), Serving::start("new"));
    let text = run(&["compat", &old.address, &new.address]).out;
    for (direction, lines) in [("old client, new server", OLD_CLIENT), ("new client, old server", NEW_CLIENT)] {
        let (verdicts, refused) = (verdicts(&text, direction), refusals(lines));
        let called: BTreeSet<&str> = lines.lines().filter_map(|line| line.split(':').next()).collect();
        let mut breaking = 0;
        for method in &called {
            let (breaks, issues) = &verdicts[*method];
            breaking += usize::from(*breaks);
            match refused.get(*method) {
                None => assert!(!breaks, "{direction}, {method}: compat refuses what works: {issues:?}"),
                // A method that is not there is said in other words.
                Some(why) if why.is_empty() => assert!(issues[0].starts_with("the method is "), "{method}: {issues:?}"),
                Some(why) => assert_eq!((*breaks, why), (true, &issues.join("; ")), "{direction}, {method}"),
            }
        }
        assert!(breaking > 5, "{breaking} break: {text}");
        assert!(called.len() > 40);
    }
}
