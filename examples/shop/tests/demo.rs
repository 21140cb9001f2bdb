//! The demo as a whole, from outside: it ends well, finds what is wrong, and leaves nobody behind.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

/// The last line before a demo waits to be ended.
const UP: &str = "Ctrl-C ends them";

fn shop(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(args.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs to the end: exit code, stdout, stderr. That the pipes close also shows that no child is left,
/// since the children hold stderr too.
#[track_caller]
fn check(args: &str, code: i32, in_stdout: &[&str], in_stderr: &[&str]) {
    let Output { status, stdout, stderr } = shop(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    let all = format!("{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    assert_eq!(status.code(), Some(code), "{all}");
    in_stdout.iter().for_each(|text| assert!(stdout.contains(text), "{text:?} is not in stdout of\n{all}"));
    in_stderr.iter().for_each(|text| assert!(stderr.contains(text), "{text:?} is not in stderr of\n{all}"));
}

#[test]
fn the_ledger_is_right() {
    let lines = [
        "payment-1   | killed",
        "registry    | killed",
        "it found the desks in its cache file",
        "all 9 processes had registered again",
        "payment-2   | ended on SIGTERM, exit code 0",
        "order-1     | ended on SIGTERM, exit code 0",
        "orders    900 = ",
        "+ 0 failed",
        "styles    300 waited, 300 awaited, 300 called back",
        "v1 at v1 ",
        "v1 at v2 ",
        "v2 at v1 ",
        "v2 at v2 ",
        "1 tills killed",
        "and charged or declined 900",
        "the ledger is right",
    ];
    check("demo --once --orders 900", 0, &lines, &[]);
}

/// Each in its own process, so at the same time: they mostly wait.
fn check_all(demos: &[(&str, i32, &[&str], &[&str])]) {
    thread::scope(|scope| {
        for (args, code, stdout, stderr) in demos {
            scope.spawn(|| check(args, *code, stdout, stderr));
        }
    });
}

#[test]
fn small_and_odd_demos_are_right() {
    check_all(&[
        ("demo --once --orders 1 --seed 5", 0, &["orders    1 = ", "the ledger is right"], &[]),
        ("demo --once --orders 101 --seed 6", 0, &["orders    101 = ", "the ledger is right"], &[]),
    ]);
}

#[test]
fn every_wrong_number_is_found() {
    let wrong = "the ledger is WRONG";
    check_all(&[
        ("demo --once --orders 60 --sabotage money", 1, &["MISMATCH money: cents charged - refunded", wrong], &["1 mismatch"]),
        ("demo --once --orders 60 --sabotage stock", 1, &["MISMATCH stock: lamp: pieces at the start", wrong], &["mismatches"]),
        ("demo --once --orders 60 --sabotage calls", 1, &["MISMATCH calls: order → journal Journal.open: ", wrong], &["mismatches"]),
    ]);
}

/// What makes the demo go well is what is taken away here.
#[test]
fn without_what_it_stands_on_it_fails() {
    let twice: &[&str] = &["was charged twice", "the ledger is WRONG"];
    check_all(&[
        ("demo --once --orders 3000 --sabotage keys", 1, twice, &["mismatches"]),
        ("demo --once --orders 3000 --sabotage journal", 1, twice, &["mismatches"]),
        ("demo --once --orders 60 --sabotage cache", 1, &[], &["there is no cached list", "customer-2 died (exit code 1)"]),
    ]);
}

#[test]
fn a_crash_midway_ends_the_demo_with_a_message() {
    check_all(&[
        ("demo --once --orders 600 --crash-payment-at 100000", 1, &[], &["died (exit code 70)"]),
        ("demo --orders 600 --crash-payment-at 0", 1, &[], &["died (exit code 70)"]),
    ]);
}

#[test]
fn a_wrong_command_line_is_explained() {
    check("demo --orders none", 2, &[], &["--orders \"none\"", "usage: shop demo"]);
    check("order --listen tcp://127.0.0.1:0", 2, &[], &["--registry URL is missing", "usage: shop"]);
}

#[test]
fn a_provider_that_is_not_there_is_named() {
    check("payment --registry static:tcp://127.0.0.1:1", 1, &[], &["tcp://127.0.0.1:1", "nobody listens there"]);
    check("payment --registry farcall://127.0.0.1:1", 1, &[], &["Journal at farcall://127.0.0.1:1", "there is no cached list"]);
}

/// A demo that has printed a line with `until` in it, and the pids it printed before.
fn demo_at(args: &str, until: &str) -> (Child, BufReader<std::process::ChildStdout>, Vec<(String, u32)>) {
    let mut demo = shop(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let (mut line, mut pids) = (String::new(), Vec::new());
    while !line.contains(until) {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the demo ended");
        if let Some((role, rest)) = line.split_once("| pid ") {
            pids.push((role.trim().to_owned(), rest.split_once(',').unwrap().0.parse().unwrap()));
        }
    }
    (demo, out, pids)
}

#[test]
fn a_signal_midway_ends_everything() {
    let (mut demo, mut out, _) = demo_at("demo --orders 100000", "both customers buy");
    send("-TERM", demo.id());
    let mut more = String::new();
    out.read_to_string(&mut more).unwrap();
    assert_eq!(rest(&mut demo), "shop: SIGTERM: interrupted before the ledger\n", "{more}");
    assert_eq!(demo.wait().unwrap().code(), Some(1));
}

fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Ends when the last process that holds the demo's stderr has ended.
fn rest(demo: &mut Child) -> String {
    let mut text = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_demo_that_is_up_ends_cleanly_on_a_signal() {
    for signal in ["-INT", "-TERM"] {
        let (mut demo, _out, pids) = demo_at("demo --orders 30", UP);
        assert_eq!(
            pids.iter().map(|(role, _)| role.as_str()).collect::<Vec<_>>(),
            [
                "registry",
                "journal",
                "payment-1",
                "payment-2",
                "warehouse-1",
                "warehouse-2",
                "order-1",
                "customer-1",
                "customer-2",
                "payment-1",
                "order-2",
                "customer-2",
                "registry",
                "payment-2"
            ]
        );
        send(signal, demo.id());
        assert_eq!(rest(&mut demo), "");
        assert_eq!(demo.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_killed_child_ends_a_demo_that_is_up() {
    let (mut demo, _out, pids) = demo_at("demo --orders 30", UP);
    let warehouse = pids.iter().find(|(name, _)| name == "warehouse-1").unwrap();
    send("-KILL", warehouse.1);
    let text = rest(&mut demo);
    assert!(text.contains("warehouse-1 died (signal 9)"), "{text}");
    assert_eq!(demo.wait().unwrap().code(), Some(1));
}

#[test]
fn nobody_outlives_a_killed_launcher() {
    let (mut demo, _out, pids) = demo_at("demo --orders 30", UP);
    send("-KILL", demo.id());
    rest(&mut demo);
    assert_eq!(demo.wait().unwrap().signal(), Some(9));
    assert_eq!(pids.len(), 14);
    // The one thing it could not do any more.
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("farcall-shop-{}-0", demo.id())));
}
