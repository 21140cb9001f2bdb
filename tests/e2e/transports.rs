//! What a link may be: a child's standard streams, IPv6 in all its spellings.

use std::process::{Command, Stdio};

use farcall::{Channel, Io, Limits, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use tokio::net::unix::pipe;

use crate::support::{TempDir, run, serve};
use crate::surface::exercise;

#[test]
fn a_child_is_called_over_its_standard_streams() {
    run(async {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_provider")).arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = pipe::Sender::from_owned_fd(child.stdin.take().unwrap().into()).unwrap();
        let from = pipe::Receiver::from_owned_fd(child.stdout.take().unwrap().into()).unwrap();
        let channel = Channel::over(Io::boxed(tokio::io::join(from, to)), Limits::default()).await.unwrap();
        let client = PaymentClient::from(channel);
        exercise(&client).await;
        let large = vec![7; 3 << 20];
        assert_eq!(client.echo(large.clone()).await.unwrap(), large);
        child.kill().unwrap();
        child.wait().unwrap();
        let e = client.status(7).await.unwrap_err();
        assert_eq!(e.code(), Code::Unavailable, "{e}");
    });
}

#[test]
fn a_port_of_both_families_takes_both_and_shows_which() {
    run(async {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).allow_anonymous().listen("tcp://[::]:0").await.unwrap();
        let address = server.address().to_string();
        assert!(address.starts_with("tcp://[::]:"), "{address}");
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let client = PaymentClient::connect(address.replace("[::]", host)).await.unwrap();
            assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
        }
        let (_, _server, client) = serve("tcp://[::1]:0").await;
        let peer = client.channel().peer().unwrap();
        assert!(peer.facts.address.starts_with("tcp://[::1]:"), "{peer:?}");
        assert_eq!(peer.facts.ip, Some("::1".parse().unwrap()));
    });
}

/// Runs a script in a network of its own, with `$PROVIDER`; `None` if this process may not make one.
fn in_own_network(script: &str, folder: &TempDir) -> Option<String> {
    let allowed = Command::new("unshare").args(["-n", "sh", "-c", "ip link set lo up"]).output();
    if !allowed.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: no network namespaces here (needs root, unshare and ip)");
        return None;
    }
    let output = Command::new("timeout")
        .args(["60", "unshare", "-n", "bash", "-euc", &format!("ip link set lo up\n{script}")])
        .env("PROVIDER", env!("CARGO_BIN_EXE_provider"))
        .env("FOLDER", &folder.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A link-local address means nothing without its zone.
#[test]
fn an_address_keeps_its_zone() {
    let folder = TempDir::new("zone");
    let script = r#"
        ip -6 address add fe80::1/64 dev lo nodad
        mkfifo "$FOLDER/stdin"
        "$PROVIDER" "tcp://[fe80::1%lo]:0" <"$FOLDER/stdin" >"$FOLDER/address" & provider=$!
        exec 7>"$FOLDER/stdin"
        until [ -s "$FOLDER/address" ]; do kill -0 $provider; sleep 0.02; done
        cat "$FOLDER/address"
        "$PROVIDER" call "$(cat "$FOLDER/address")" 10
        exec 7>&-
        wait $provider
    "#;
    let Some(said) = in_own_network(script, &folder) else { return };
    for line in said.lines() {
        assert!(line.starts_with("tcp://[fe80::1%1]:"), "the zone as a number: {said}");
    }
}
