//! The program of the design: one trait, the same code over a provider, a client and every link.

use std::sync::atomic::Ordering;

use farcall::prelude::*;
use farcall_tests::{PayError, Payment, PaymentClient, PaymentServer, Receipt, Status, Till, order};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Provider, TempDir, run, serve};

/// Generic code: it does not know whether the other side is here or elsewhere.
pub(crate) async fn exercise(payment: &impl Payment) {
    assert_eq!(payment.pay(order(1, 3)).await.unwrap(), Receipt { order: 1, cents: 600 });
    let declined = payment.pay(order(2, 0)).await.unwrap_err();
    assert_eq!(declined.app(), Some(&PayError::Declined { reason: "nothing to pay".into() }));
    assert_eq!(payment.status(7).await.unwrap(), Status::Paid { cents: 250 });
    assert_eq!(payment.status(8).await.unwrap(), Status::Unknown);
    payment.note("one".into()).await;
    payment.note("two".into()).await;
    assert_eq!(payment.notes().await.unwrap(), ["one", "two"]);
    assert_eq!(payment.echo(vec![7; 100_000]).await.unwrap(), vec![7; 100_000]);
    assert!(payment.echo(Vec::new()).await.unwrap().is_empty());
}

#[test]
fn the_same_code_runs_on_a_provider_and_on_every_client() {
    let dir = TempDir::new("surface");
    run(async {
        exercise(&Till::default()).await;
        exercise(&PaymentClient::local(Till::default())).await;
        for address in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "mem:surface", &dir.socket()] {
            let (_till, _server, client) = serve(address).await;
            exercise(&client).await;
        }
    });
}

#[test]
fn it_runs_between_processes() {
    let dir = TempDir::new("processes");
    run(async {
        for address in ["tcp://127.0.0.1:0", &dir.socket()] {
            let provider = Provider::start(address);
            let client = PaymentClient::connect(&provider.address).await.unwrap();
            exercise(&client).await;
            let peer = client.channel().peer().unwrap();
            assert!(peer.software.starts_with("farcall/"), "{peer:?}");
            assert!(!peer.facts.is_encrypted());
            assert_eq!(peer.facts.ip.is_some_and(|ip| ip.is_loopback()), address.starts_with("tcp"));
            let process = peer.facts.unix.map(|u| (u.pid, u.uid));
            let expected = address.starts_with("unix").then(|| (Some(provider.pid()), dir.owner()));
            assert_eq!(process, expected, "as the system tells it");
        }
    });
}

#[test]
fn a_client_without_a_runtime_is_as_good() {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let client = PaymentClient::connect(server.address()).wait().unwrap();
    assert_eq!(client.pay(order(1, 1)).wait().unwrap().cents, 100);
    assert_eq!(client.sum(vec![order(1, 1), order(2, 1)]).wait().unwrap(), 200);
    // The trait's plain method is the blocking one, on the client too.
    assert_eq!(Payment::sum(&client, vec![order(1, 1)]).unwrap(), 100);
    client.note("sync".into()).wait().unwrap();
    assert_eq!(client.notes().wait().unwrap(), ["sync"]);
}

#[test]
fn one_server_listens_on_several_addresses_and_says_which() {
    run(async {
        let server =
            Server::builder().serve(PaymentServer::new(Till::default())).also("mem:several").listen("tcp://127.0.0.1:0").await.unwrap();
        assert!(!server.address().to_string().ends_with(":0"));
        assert_eq!(server.addresses().len(), 2);
        for address in server.addresses() {
            let client = PaymentClient::connect(address).await.unwrap();
            assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
        }
    });
}

#[test]
fn any_byte_link_will_do() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(1000);
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("mem:any-link").await.unwrap();
        server.serve_link(farcall::Io::boxed(theirs));
        let channel = farcall::Channel::over(farcall::Io::boxed(ours), farcall::Limits::default()).await.unwrap();
        let client = PaymentClient::from(channel);
        exercise(&client).await;
        drop(server);
        // The link's end may take a moment to arrive; until then it still carries calls.
        let e = loop {
            if let Err(e) = client.status(1).await {
                break e;
            }
        };
        assert_eq!(e.code(), Code::Unavailable, "{e}");
        let e = client.status(1).await.unwrap_err();
        assert_eq!(e.certainty(), Certainty::NotSent, "{e}");
    });
}

#[test]
fn the_descriptor_knows_docs_names_and_numbers() {
    let service = PaymentClient::descriptor();
    assert_eq!(service.foreign_name.as_deref(), Some("org.example.Payment"));
    assert_eq!(service.docs, "Charges orders.");
    let (row, status) = service.method("status").unwrap();
    assert_eq!((row, status.docs.as_str()), (1, "Where an order stands."));
    assert_eq!(status.signature, "status(id: u64) -> Reply<Status>");
    assert!(status.traits.idempotent && status.traits.cancel && !status.traits.blocking);
    let (_, sum) = service.method("sum").unwrap();
    assert_eq!(sum.foreign_name.as_deref(), Some("sumUp"));
    assert!(sum.traits.blocking && !sum.traits.cancel);
    let args = status.args.describe();
    assert!(args.contains("id"), "{args}");
}

#[test]
fn json_is_a_codec_per_call() {
    run(async {
        let (till, _server, client) = serve("mem:json").await;
        let receipt = client.pay(order(9, 2)).codec(farcall::CodecId::Json).await.unwrap();
        assert_eq!(receipt.cents, 300);
        let e = client.pay(order(9, 0)).codec(farcall::CodecId::Json).await.unwrap_err();
        assert!(e.app().is_some());
        assert_eq!(client.echo(vec![1, 2, 255]).codec(farcall::CodecId::Json).await.unwrap(), [1, 2, 255]);
        assert_eq!(till.paid.load(Ordering::SeqCst), 2);
    });
}

/// Another protocol on the same port: it answers PING with PONG, line by line.
struct Ping;

impl farcall::Protocol for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }
    fn sniff(&self, first: &[u8]) -> farcall::Sniff {
        match first {
            _ if first.starts_with(b"PING\n") => farcall::Sniff::Yes,
            _ if b"PING\n".starts_with(first) => farcall::Sniff::More,
            _ => farcall::Sniff::No,
        }
    }
    fn serve(
        &self,
        mut link: farcall::Io,
        first: bytes::BytesMut,
        _: farcall::Dispatch,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(async move {
            let lines = first.iter().filter(|&&b| b == b'\n').count();
            let _ = link.write_all("PONG\n".repeat(lines).as_bytes()).await;
        })
    }
}

#[test]
fn several_protocols_share_a_port() {
    run(async {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).protocol(Ping).listen("tcp://127.0.0.1:0").await.unwrap();
        let port = server.address().to_string();
        let socket = port.trim_start_matches("tcp://");
        let say = async |text: &str| {
            let mut link = tokio::net::TcpStream::connect(socket).await.unwrap();
            // One byte at a time: the protocols have to wait for more.
            for byte in text.as_bytes() {
                link.write_all(&[*byte]).await.unwrap();
                link.flush().await.unwrap();
            }
            let mut answer = String::new();
            link.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(say("PING\n").await, "PONG\n");
        let answer = say("GET / HTTP/1.1\r\n").await;
        assert!(answer.contains("farcall 1, ping"), "{answer}");
        let client = PaymentClient::connect(server.address()).await.unwrap();
        assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
    });
}
