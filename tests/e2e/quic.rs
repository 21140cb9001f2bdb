//! QUIC: everything that works over TCP, certificates as for TLS, and nothing lost at the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farcall::{Limits, TlsClient, TlsServer, prelude::*};
use farcall_tests::certificates::{Authority, LOCAL, self_signed};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use tokio::net::UdpSocket;

use crate::support::{run, until};
use crate::surface::exercise;

#[farcall::service]
trait Flow {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>>;
    async fn sum(&self, items: Streaming<u64>) -> Reply<u64>;
}

struct Counter;

impl Flow for Counter {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>> {
        Ok(Streaming::items(0..to))
    }

    async fn sum(&self, mut items: Streaming<u64>) -> Reply<u64> {
        let mut sum = 0;
        while let Some(item) = items.next().await {
            sum += item?;
        }
        Ok(sum)
    }
}

async fn serve(authority: &Authority, till: &Arc<Till>, limits: Limits) -> Server {
    let builder = Server::builder().serve(PaymentServer::shared(till.clone())).serve(FlowServer::new(Counter)).limits(limits);
    builder.tls(&authority.server()).listen("quic://127.0.0.1:0").await.unwrap()
}

#[test]
fn everything_works_over_quic() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, &Arc::default(), Limits::default()).await;
        assert!(server.address().to_string().starts_with("quic://127.0.0.1:"));
        let client = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        exercise(&client).await;
        let large = vec![7; 5 << 20];
        assert_eq!(client.echo(large.clone()).await.unwrap(), large);
        let calls: Vec<_> = (0..500).map(|id| client.status(id).send()).collect();
        for call in calls {
            call.await.unwrap();
        }
        let facts = client.channel().peer().unwrap().facts;
        assert!(facts.address.starts_with("quic://127.0.0.1:") && facts.ip.is_some());
        let tls = facts.tls.unwrap();
        assert_eq!((&tls.names[..], tls.alpn.as_deref()), (&["localhost".to_owned()][..], Some("farcall/1")));
        let flow = FlowClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        let mut items = flow.count(20_000).await.unwrap();
        let mut sum = 0;
        while let Some(item) = items.next().await {
            sum += item.unwrap();
        }
        assert_eq!(sum, 199_990_000);
        assert_eq!(flow.sum(Streaming::items(0..20_000)).await.unwrap(), 199_990_000);
    });
}

#[test]
fn a_drain_loses_no_reply_and_frees_the_port() {
    run(async {
        let (authority, till) = (Authority::new(), Arc::new(Till::default()));
        let server = serve(&authority, &till, Limits::default()).await;
        let address = server.address().to_string();
        let client = PaymentClient::connect(&address).tls(&authority.trusting()).await.unwrap();
        let calls: Vec<_> = (0..20).map(|_| client.sure(100).send()).collect();
        until("the handlers run", || till.begun.load(Ordering::SeqCst) == 20).await;
        server.drain(Duration::from_secs(10)).await.unwrap();
        for call in calls {
            call.await.expect("its reply was on its way before the end");
        }
        let e = client.status(7).await.unwrap_err();
        assert_eq!(e.certainty(), Certainty::NotSent, "{e}");
        // The same port again.
        let again = Server::builder().serve(PaymentServer::new(Till::default())).tls(&authority.server()).listen(&address).await.unwrap();
        drop(again);
    });
}

#[test]
fn one_way_calls_arrive_although_their_client_is_gone() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, &Arc::default(), Limits::default()).await;
        let client = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        for n in 0..1000 {
            client.note(format!("note {n}")).await.unwrap();
        }
        drop(client);
        let reader = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        let mut notes = 0;
        while notes < 1000 {
            notes = reader.notes().await.unwrap().len();
        }
    });
}

#[test]
fn a_cut_is_noticed_and_the_next_call_connects_anew() {
    run(async {
        let authority = Authority::new();
        let till = Arc::new(Till::default());
        let server = serve(&authority, &till, Limits::default()).await;
        let address = server.address().to_string();
        let client = PaymentClient::connect(&address).tls(&authority.trusting()).await.unwrap();
        let call = client.sure(60_000).send();
        until("it runs", || till.begun.load(Ordering::SeqCst) == 1).await;
        drop(server);
        let e = call.await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        // Cut off, not drained: the port is free a moment later.
        let _server = loop {
            let builder = Server::builder().serve(PaymentServer::new(Till::default())).tls(&authority.server());
            match builder.listen(&address).await {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let status = loop {
            match client.status(7).await {
                Ok(status) => break status,
                Err(e) => assert_eq!(e.certainty(), Certainty::NotSent, "{e}"),
            }
        };
        assert_eq!(status, Status::Paid { cents: 250 });
    });
}

#[test]
fn certificates_count_as_they_do_for_tls() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let trusting = authority.trusting();
        for (issued, words) in [
            (authority.issue_between(&LOCAL, (2001, 1, 1), (2002, 1, 1)), "the provider's certificate has expired on 2002-01-01: renew it"),
            (authority.issue(&["shop.example"]), "the provider's certificate is for shop.example, not for \"localhost\""),
            (self_signed(&LOCAL), "the provider's certificate is issued by nobody whom this side trusts"),
        ] {
            let tls = TlsServer::builder(issued.identity()).build().unwrap();
            let server = Server::builder().serve(FlowServer::new(Counter)).tls(&tls).listen("quic://127.0.0.1:0").await.unwrap();
            let address = server.address().to_string().replace("127.0.0.1", "localhost");
            let e = FlowClient::connect(address).tls(&trusting).await.map(|_| ()).unwrap_err();
            assert_eq!(e.certainty(), Certainty::NotSent);
            assert!(e.message().contains(words), "{words}: {e}");
        }
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).require_clients(clients.trusted()).build().unwrap();
        let server = Server::builder().serve(FlowServer::new(Counter)).tls(&tls).listen("quic://127.0.0.1:0").await.unwrap();
        let e = match FlowClient::connect(server.address()).tls(&trusting).await {
            Ok(client) => client.sum(Streaming::items(0..3)).await.unwrap_err(),
            Err(e) => e,
        };
        assert!(e.message().contains("requires a certificate of its clients"), "{e}");
        let strange = TlsClient::builder().ca(authority.trusted()).certificate(authority.issue(&["till"]).identity()).build().unwrap();
        let e = match FlowClient::connect(server.address()).tls(&strange).await {
            Ok(client) => client.sum(Streaming::items(0..3)).await.unwrap_err(),
            Err(e) => e,
        };
        assert!(e.message().contains("the provider refuses this side's certificate: it does not trust the issuer"), "{e}");
        let known = TlsClient::builder().ca(authority.trusted()).certificate(clients.issue(&["till"]).identity()).build().unwrap();
        let client = FlowClient::connect(server.address()).tls(&known).await.unwrap();
        assert_eq!(client.sum(Streaming::items(0..3)).await.unwrap(), 3);
    });
}

#[test]
fn who_is_not_there_is_said_so_in_time() {
    run(async {
        let authority = Authority::new();
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("quic://{}", silent.local_addr().unwrap());
        let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
        let e = FlowClient::connect(address).tls(&authority.trusting()).limits(limits).await.map(|_| ()).unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
        assert!(e.message().contains("no connection within 300 ms"), "{e}");
    });
}

/// Packets of no sense, of every length, and beginnings of handshakes that never go on.
#[test]
fn datagrams_of_no_sense_are_nothing_to_it() {
    run(async {
        let authority = Authority::new();
        let limits = Limits { handshake: Duration::from_millis(500), ..Limits::default() };
        let server = serve(&authority, &Arc::default(), limits).await;
        let client = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        let to = server.address().to_string().trim_start_matches("quic://").to_owned();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = 7u64;
        for n in 0..2000 {
            let packet: Vec<u8> = (0..n % 1400)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 56) as u8
                })
                .collect();
            let _ = socket.send_to(&packet, &to);
            if n % 100 == 0 {
                assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
            }
        }
        PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap().status(7).await.unwrap();
    });
}

/// A network that loses every twentieth packet, sends some twice and some in another order.
#[test]
fn a_lossy_network_loses_no_call() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, &Arc::default(), Limits::default()).await;
        let to: SocketAddr = server.address().to_string().trim_start_matches("quic://").parse().unwrap();
        let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = format!("quic://{}", lossy.local_addr().unwrap());
        let lost = Arc::new(AtomicUsize::new(0));
        let between = tokio::spawn(pass_on_badly(lossy, to, lost.clone()));
        let client = PaymentClient::connect(&address).tls(&authority.trusting()).await.unwrap();
        for n in 0..40u8 {
            let bytes = vec![n; 10_000 * usize::from(n % 4)];
            assert_eq!(client.echo(bytes.clone()).await.unwrap(), bytes);
        }
        let notes: Vec<_> = (0..50).map(|n| client.note(format!("note {n}")).send()).collect();
        for note in notes {
            note.await.unwrap();
        }
        assert_eq!(client.notes().await.unwrap(), (0..50).map(|n| format!("note {n}")).collect::<Vec<_>>());
        assert!(lost.load(Ordering::Relaxed) > 0);
        between.abort();
    });
}

/// Between one client and `server`.
async fn pass_on_badly(socket: UdpSocket, server: SocketAddr, lost: Arc<AtomicUsize>) {
    let (mut client, mut kept, mut random) = (None, None, 7u64);
    let mut packet = vec![0; 65_536];
    loop {
        let (n, from) = socket.recv_from(&mut packet).await.unwrap();
        let to = if from == server {
            client
        } else {
            client = Some(from);
            Some(server)
        };
        let Some(to) = to else { continue };
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let packet = packet[..n].to_vec();
        match (random >> 33) % 60 {
            0..3 => drop(lost.fetch_add(1, Ordering::Relaxed)),
            // Behind the next one.
            3 => kept = Some((packet, to)),
            twice => {
                let _ = socket.send_to(&packet, to).await;
                if twice == 4 {
                    let _ = socket.send_to(&packet, to).await;
                }
                if let Some((packet, to)) = kept.take() {
                    let _ = socket.send_to(&packet, to).await;
                }
            }
        }
    }
}
