//! `docs/limits.md` names every limit, and the tests that it names exist; and limits that no other
//! file of tests reaches.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use farcall::{Channel, Io, Limits, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Till};
use farcall_wire::{Bind, Header, Kind, PREFACE_LEN, get_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::bad_peer::{frame, opening};
use crate::support::run;

const MS: Duration = Duration::from_millis(1);

/// The names in the first column of the page, and the tests in its last.
fn page() -> Vec<(String, Vec<String>)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md")).unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.trim_matches('|').split('|').collect::<Vec<_>>());
    rows.map(|cells| (quoted(cells[0])[0].clone(), quoted(cells[cells.len() - 1]))).collect()
}

#[test]
fn every_limit_is_on_the_page_and_has_a_test() {
    let page = page();
    // Derived, so that a new field cannot be forgotten.
    let shown = format!("{:?} {:?}", Limits::default(), farcall::http::HttpLimits::default());
    let mut fields: Vec<&str> = shown.split(['{', ',', '}']).filter_map(|part| part.split_once(':')).map(|(name, _)| name.trim()).collect();
    fields.sort_unstable();
    let mut named: Vec<&str> = page.iter().map(|(name, _)| name.as_str()).filter(|name| fields.contains(name)).collect();
    named.sort_unstable();
    assert_eq!(named, fields, "docs/limits.md must have one row for each field of Limits and of HttpLimits");
    let mut sources = String::new();
    for folder in [
        "/e2e",
        "/http",
        "/../crates/farcall-core/tests",
        "/../crates/farcall-core/src",
        "/../crates/farcall-wire/src",
        "/../crates/farcall-wire/tests",
        "/../crates/farcall-rpc/src",
    ] {
        read_all(&format!("{}{folder}", env!("CARGO_MANIFEST_DIR")).into(), &mut sources);
    }
    for (name, tests) in page {
        assert!(!tests.is_empty(), "no test is named that reaches `{name}`");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "the test {test}, named for `{name}`, does not exist");
        }
    }
}

/// The rows below a heading: the names in the first column, the tests in the last.
fn rows_of(heading: &str) -> (Vec<String>, Vec<String>) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md")).unwrap();
    let section = page.split("## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit")).map(|line| line.trim_matches('|'));
    let (mut names, mut tests) = (Vec::new(), Vec::new());
    for row in rows.map(|row| row.split('|').collect::<Vec<_>>()) {
        names.extend(row[0].split(',').map(|name| name.trim().to_owned()));
        let named: Vec<String> = row[row.len() - 1].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!named.is_empty(), "no test is named that reaches {}", row[0]);
        tests.extend(named);
    }
    (names, tests)
}

#[test]
fn every_limit_of_registries_is_on_the_page_and_has_a_test() {
    let mut sources = String::new();
    for folder in ["/registry", "/../crates/farcall-registry/src", "/../crates/farcall-registry/tests"] {
        read_all(&format!("{}{folder}", env!("CARGO_MANIFEST_DIR")).into(), &mut sources);
    }
    let node = format!("{:?}", farcall_registry::embedded::RegistryLimits::default());
    let guard = format!("{:?}", farcall::registry::GuardSettings::default());
    for (heading, shown) in [("Of a registry node", node), ("Of a consumer or provider at a registry", guard)] {
        let (names, tests) = rows_of(heading);
        for field in shown.split(['{', ',', '}']).filter_map(|part| part.split_once(':')).map(|(name, _)| name.trim()) {
            assert!(names.iter().any(|name| name == field), "{heading}: there is no row for {field}");
        }
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "{heading}: the test {test} does not exist");
        }
    }
}

fn read_all(folder: &std::path::PathBuf, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_all(&path, into),
            false if path.extension().is_some_and(|e| e == "rs") => into.push_str(&std::fs::read_to_string(&path).unwrap()),
            false => {}
        }
    }
}

/// A client with this heartbeat whose peer is the test.
async fn client_of(heartbeat: Duration) -> (PaymentClient, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(&opening()).await.unwrap();
    let limits = Limits { heartbeat: Some(heartbeat), ..Limits::default() };
    let client = PaymentClient::from(Channel::over(Io::boxed(ours), limits).await.unwrap());
    (client, theirs)
}

/// The next frame of this kind.
async fn next(link: &mut DuplexStream, read: &mut BytesMut, kind: Kind) -> Header {
    loop {
        while let Some(frame) = get_frame(read, 1 << 20).unwrap() {
            if frame.header.kind == kind {
                return frame.header;
            }
        }
        assert!(link.read_buf(read).await.unwrap() > 0, "closed before a {kind:?} frame");
    }
}

#[test]
fn a_peer_that_stops_dead_is_given_up() {
    run(async {
        let (client, mut theirs) = client_of(100 * MS).await;
        let start = Instant::now();
        let call = client.status(1).no_deadline().send();
        let mut read = BytesMut::new();
        theirs.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
        next(&mut theirs, &mut read, Kind::Ping).await;
        let e = call.await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("no answer to a heartbeat"), "{e}");
        assert!(start.elapsed() >= 200 * MS, "given up after {:?}", start.elapsed());
    });
}

#[test]
fn a_silent_peer_that_answers_is_kept() {
    run(async {
        let (client, mut theirs) = client_of(30 * MS).await;
        let mut call = client.status(1).no_deadline().send();
        let mut read = BytesMut::new();
        theirs.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
        for _ in 0..5 {
            let ping = next(&mut theirs, &mut read, Kind::Ping).await;
            theirs.write_all(&frame(Kind::Pong, 0, 0, ping.id, b"")).await.unwrap();
        }
        let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut call).poll(cx).is_pending()));
        assert!(pending.await, "the call goes on");
    });
}

#[test]
fn calls_without_credit_wait_and_go_on() {
    run(async {
        let limits = Limits { credit: 1 << 20, ..Limits::default() };
        let server = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).await.unwrap();
        // Twenty times the credit.
        let calls: Vec<_> = (0..200).map(|n| client.echo(vec![n as u8; 100_000]).send()).collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), vec![n as u8; 100_000]);
        }
    });
}

#[test]
fn a_peer_that_does_not_read_gets_no_new_credit() {
    run(async {
        let limits = Limits { credit: 1 << 20, out_buffer: 64 << 10, ..Limits::default() };
        let server = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits).listen("mem:no-credit").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_link(Io::boxed(theirs));
        let (mut read, mut write) = tokio::io::split(ours);
        write.write_all(&opening()).await.unwrap();
        let bind = Bind::of(PaymentClient::descriptor()).encode();
        write.write_all(&frame(Kind::Bind, 0, 0, 1, &bind)).await.unwrap();
        let echo = PaymentClient::descriptor().methods.iter().position(|m| m.name == "echo").unwrap() as u16;
        // Two mebibytes of calls, whose replies nobody reads: all of them are taken from the link,
        // because what a peer sends is bounded by its credit and not by the link.
        let body = [&[0; 4][..], &[0x80, 0x80, 0x01], &[7; 16_384]].concat();
        for id in 0..60 {
            write.write_all(&frame(Kind::Call, 0, echo, id, &body)).await.unwrap();
        }
        // Read at last, they are all answered.
        let mut bytes = BytesMut::new();
        read.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
        let mut replies = 0;
        while replies < 60 {
            while let Some(frame) = get_frame(&mut bytes, 1 << 20).unwrap() {
                replies += u32::from(frame.header.kind == Kind::Reply);
            }
            if replies < 60 {
                assert!(read.read_buf(&mut bytes).await.unwrap() > 0);
            }
        }
    });
}

#[test]
fn a_default_deadline_ends_a_call_that_has_none() {
    run(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&opening()).await.unwrap();
        let limits = Limits { default_deadline: Some(50 * MS), ..Limits::default() };
        let client = PaymentClient::from(Channel::over(Io::boxed(ours), limits).await.unwrap());
        let e = client.status(1).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        assert!(e.message().contains("deadline 50 ms"), "{e}");
    });
}

#[test]
fn a_server_takes_only_so_many_links() {
    run(async {
        let limits = Limits { connections: 2, ..Limits::default() };
        let server = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let first = PaymentClient::connect(server.address()).await.unwrap();
        let _second = PaymentClient::connect(server.address()).await.unwrap();
        let impatient = Limits { handshake: 100 * MS, ..Limits::default() };
        let third = PaymentClient::connect(server.address()).limits(impatient).await;
        assert_eq!(third.err().unwrap().code(), Code::Unavailable);
        // A place that is free again is taken.
        drop(first);
        PaymentClient::connect(server.address()).await.unwrap().status(1).await.unwrap();
    });
}
