//! TLS: who is believed, what is said to whom is not, and certificates that change under way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::{Authorities, CertifiedKey, Observer, Outcome, TlsClient, TlsServer, prelude::*};
use farcall_tests::certificates::{Authority, Issued, LOCAL, self_signed};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli;
use crate::support::{TempDir, run, until};
use crate::surface::exercise;

/// What a handler knows of the link.
#[farcall::data]
#[derive(Debug, PartialEq, Default)]
struct Seen {
    address: String,
    encrypted: bool,
    names: Vec<String>,
    sni: Option<String>,
    alpn: Option<String>,
    version: String,
}

#[farcall::service]
trait Door {
    async fn seen(&self) -> Reply<Seen>;
    async fn count(&self, to: u64) -> Reply<Streaming<u64>>;
}

struct Doorman;

impl Door for Doorman {
    async fn seen(&self) -> Reply<Seen> {
        let cx = farcall::context();
        let facts = &cx.peer().unwrap().facts;
        let tls = facts.tls.clone().unwrap_or_default();
        Ok(Seen {
            address: facts.address.clone(),
            encrypted: facts.is_encrypted(),
            names: tls.names,
            sni: tls.sni,
            alpn: tls.alpn,
            version: tls.version.to_owned(),
        })
    }

    async fn count(&self, to: u64) -> Reply<Streaming<u64>> {
        Ok(Streaming::items(0..to))
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Told {
    refused: Mutex<Vec<String>>,
    not_reloaded: Mutex<Vec<String>>,
}

impl Told {
    fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }
}

impl Observer for Told {
    fn ended(&self, _: &Outcome<'_>) {}

    fn refused(&self, _: &str, error: &RpcError) {
        self.refused.lock().unwrap().push(error.message().to_owned());
    }

    fn not_reloaded(&self, error: &RpcError) {
        self.not_reloaded.lock().unwrap().push(error.message().to_owned());
    }
}

async fn serve(tls: &TlsServer, address: &str) -> Server {
    let builder = Server::builder().serve(PaymentServer::new(Till::default())).serve(DoorServer::new(Doorman));
    builder.tls(tls).listen(address).await.unwrap()
}

/// Connects by the name `localhost`, whatever the server listens on.
fn by_name(server: &Server) -> String {
    let address = server.address().to_string();
    address.replace("127.0.0.1", "localhost").replace("[::1]", "localhost")
}

/// The error of a connection that must fail.
async fn refused_at(address: String, tls: &TlsClient) -> RpcError {
    match DoorClient::connect(address).tls(tls).await {
        // In TLS 1.3 a client is done before its server has looked at the certificate: the first call tells.
        Ok(client) => client.seen().await.map(|_| ()).unwrap_err(),
        Err(e) => e,
    }
}

#[test]
fn everything_works_over_tls_and_both_sides_see_it() {
    run(async {
        let authority = Authority::new();
        let tls = authority.server();
        for listen in ["tls://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://[::1]:0"] {
            let server = serve(&tls, listen).await;
            assert!(server.address().to_string().starts_with("tls://"), "whoever is told the address connects rightly");
            let client = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
            exercise(&client).await;
            let large = vec![7; 5 << 20];
            assert_eq!(client.echo(large.clone()).await.unwrap(), large);
            let peer = client.channel().peer().unwrap();
            assert_eq!(peer.facts.tls.unwrap().names, ["localhost"]);
        }
        let server = serve(&tls, "tls://127.0.0.1:0").await;
        let door = DoorClient::connect(by_name(&server)).tls(&authority.trusting()).await.unwrap();
        let seen = door.seen().await.unwrap();
        assert!(seen.address.starts_with("tls://127.0.0.1:"), "{seen:?}");
        let expected = Seen {
            address: seen.address.clone(),
            encrypted: true,
            names: Vec::new(),
            sni: Some("localhost".into()),
            alpn: Some("farcall/1".into()),
            version: "TLS 1.3".into(),
        };
        assert_eq!(seen, expected);
        let mut items = door.count(100_000).await.unwrap();
        let mut sum = 0;
        while let Some(item) = items.next().await {
            sum += item.unwrap();
        }
        assert_eq!(sum, 4_999_950_000);
        server.drain(Duration::from_secs(5)).await.unwrap();
        let e = door.seen().await.unwrap_err();
        assert_eq!(e.certainty(), Certainty::NotSent, "{e}");
    });
}

#[test]
fn a_client_proves_itself_and_the_handler_sees_its_names() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let identity = || authority.issue(&LOCAL).identity();
        let required = TlsServer::builder(identity()).require_clients(clients.trusted()).build().unwrap();
        let asked = TlsServer::builder(identity()).ask_clients(clients.trusted()).build().unwrap();
        let till = clients.issue(&["till.shop.example", "spiffe://shop.example/till"]);
        let trusting = || TlsClient::builder().ca(authority.trusted());
        let known = trusting().certificate(till.identity()).build().unwrap();
        let unknown = trusting().build().unwrap();
        let foreign = trusting().certificate(authority.issue(&["till.shop.example"]).identity()).build().unwrap();
        for tls in [&required, &asked] {
            let server = serve(tls, "tls://127.0.0.1:0").await;
            let seen = DoorClient::connect(server.address()).tls(&known).await.unwrap().seen().await.unwrap();
            assert_eq!(seen.names, ["till.shop.example", "spiffe://shop.example/till"]);
            let e = refused_at(server.address().to_string(), &foreign).await;
            assert!(e.message().contains("refuses this side's certificate"), "{e}");
        }
        let server = serve(&asked, "tls://127.0.0.1:0").await;
        let seen = DoorClient::connect(server.address()).tls(&unknown).await.unwrap().seen().await.unwrap();
        assert!(seen.names.is_empty() && seen.encrypted);
        let server = serve(&required, "tls://127.0.0.1:0").await;
        let e = refused_at(server.address().to_string(), &unknown).await;
        assert!(e.message().contains("requires a certificate of its clients"), "{e}");
        assert!(e.message().contains("--cert"), "{e}");
        let old = clients.issue_between(&["till"], (2001, 1, 1), (2002, 1, 1));
        let old = trusting().certificate(old.identity()).build().unwrap();
        let e = refused_at(server.address().to_string(), &old).await;
        assert!(e.message().contains("refuses this side's certificate"), "{e}");
    });
}

#[test]
fn a_provider_that_cannot_prove_its_name_is_refused_with_the_reason() {
    run(async {
        let (authority, other, false_one) = (Authority::named("real"), Authority::new(), Authority::named("real"));
        let cases: [(&str, Issued, &[&str]); 7] = [
            ("expired", authority.issue_between(&LOCAL, (2001, 1, 1), (2002, 3, 4)), &["has expired on 2002-03-04", "renew it"]),
            ("not yet valid", authority.issue_between(&LOCAL, (2998, 5, 6), (2999, 1, 1)), &["valid only from 2998-05-06", "clock"]),
            ("another host", authority.issue(&["shop.example"]), &["is for", "shop.example", "not for \"localhost\"", "server_name"]),
            ("another authority", other.issue(&LOCAL), &["issued by nobody whom this side trusts", "--ca"]),
            ("an impostor", false_one.issue(&LOCAL), &["is not signed by the issuer that it names"]),
            ("self-signed", self_signed(&LOCAL), &["issued by nobody whom this side trusts"]),
            ("for clients", authority.issue_for_clients(&LOCAL), &["not meant for this use", "serverAuth"]),
        ];
        for (what, issued, words) in cases {
            let told = Arc::new(Told::default());
            let tls = TlsServer::builder(issued.identity()).build().unwrap();
            let builder = Server::builder().serve(DoorServer::new(Doorman)).observe(told.clone()).tls(&tls);
            let server = builder.listen("tls://127.0.0.1:0").await.unwrap();
            let e = DoorClient::connect(by_name(&server)).tls(&authority.trusting()).await.map(|_| ()).unwrap_err();
            assert_eq!(e.certainty(), Certainty::NotSent, "{what}: {e}");
            for word in words {
                assert!(e.message().contains(word), "{what}: {e}");
            }
            until("the server's observers know", || !told.refused().is_empty()).await;
            assert!(told.refused()[0].contains("client refuses this server's certificate"), "{what}: {:?}", told.refused());
        }
        // The name is what counts, not how it is reached.
        let server = serve(&TlsServer::builder(authority.issue(&["shop.example"]).identity()).build().unwrap(), "tls://127.0.0.1:0").await;
        let tls = TlsClient::builder().ca(authority.trusted()).server_name("shop.example").build().unwrap();
        assert!(DoorClient::connect(server.address()).tls(&tls).await.unwrap().seen().await.unwrap().encrypted);
    });
}

#[test]
fn plaintext_is_refused_by_name_where_tls_is_required() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority.server(), "tls://127.0.0.1:0").await;
        let plain = server.address().to_string().replace("tls://", "tcp://");
        let e = DoorClient::connect(plain.clone()).await.map(|_| ()).unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotSent), "{e}");
        assert!(e.message().contains("speaks TLS only") && e.message().contains("use tls://"), "{e}");
        // Another protocol is told so in text.
        let mut link = TcpStream::connect(plain.trim_start_matches("tcp://")).await.unwrap();
        link.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        link.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("TLS only"), "{answer}");
    });
}

#[test]
fn a_tls_client_never_speaks_plaintext() {
    run(async {
        let authority = Authority::new();
        // A port of farcall without TLS.
        let server = Server::builder().serve(DoorServer::new(Doorman)).listen("tcp://127.0.0.1:0").await.unwrap();
        let address = server.address().to_string().replace("tcp://", "tls://");
        let e = DoorClient::connect(address).tls(&authority.trusting()).await.map(|_| ()).unwrap_err();
        assert_eq!(e.certainty(), Certainty::NotSent);
        assert!(e.message().contains("does not speak TLS") && e.message().contains("use tcp://"), "{e}");
        // Whatever answers, it gets a ClientHello and nothing of the call.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tls://{}", listener.local_addr().unwrap());
        let tls = authority.trusting();
        let connecting = tokio::spawn(async move { DoorClient::connect(address).tls(&tls).await.map(|_| ()) });
        let (mut link, _) = listener.accept().await.unwrap();
        link.write_all(b"farcall\x01hello").await.unwrap();
        let mut got = Vec::new();
        link.read_to_end(&mut got).await.unwrap();
        assert_eq!(got[0], 0x16, "a handshake record");
        assert!(!got.windows(7).any(|w| w == b"farcall") || got.windows(9).any(|w| w == b"farcall/1"), "no preface");
        assert!(connecting.await.unwrap().is_err());
        // Nobody to trust: nothing is even tried.
        let e = DoorClient::connect("tls://127.0.0.1:1").await.map(|_| ()).unwrap_err();
        assert!(e.message().contains("nobody is trusted") && e.message().contains("--ca"), "{e}");
    });
}

#[test]
fn a_port_for_both_says_which_it_was() {
    run(async {
        let authority = Authority::new();
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).accept_plaintext().build().unwrap();
        let server = serve(&tls, "tcp://127.0.0.1:0").await;
        let secure = server.address().to_string();
        let plain = secure.replace("tls://", "tcp://");
        assert!(secure.starts_with("tls://"));
        for (address, encrypted) in [(secure, true), (plain, false)] {
            let client = DoorClient::connect(address).tls(&authority.trusting()).await.unwrap();
            assert_eq!(client.seen().await.unwrap().encrypted, encrypted);
            assert_eq!(client.channel().peer().unwrap().facts.is_encrypted(), encrypted);
        }
    });
}

#[test]
fn a_server_with_several_names_shows_the_right_certificate() {
    run(async {
        let authority = Authority::new();
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity())
            .name("shop.example", authority.issue(&["shop.example"]).identity())
            .name("*.till.example", authority.issue(&["*.till.example"]).identity())
            .build()
            .unwrap();
        let server = serve(&tls, "tls://127.0.0.1:0").await;
        for (asked, shown) in [
            ("localhost", "localhost"),
            ("shop.example", "shop.example"),
            ("SHOP.example", "shop.example"),
            ("one.till.example", "*.till.example"),
        ] {
            let client = TlsClient::builder().ca(authority.trusted()).server_name(asked).build().unwrap();
            let client = DoorClient::connect(server.address()).tls(&client).await.unwrap();
            assert_eq!(client.channel().peer().unwrap().facts.tls.unwrap().names, [shown]);
            assert_eq!(client.seen().await.unwrap().sni.unwrap().to_lowercase(), asked.to_lowercase());
        }
        let other = TlsClient::builder().ca(authority.trusted()).server_name("bank.example").build().unwrap();
        let e = refused_at(server.address().to_string(), &other).await;
        assert!(e.message().contains("not for \"bank.example\""), "{e}");
        let e =
            TlsServer::builder(authority.issue(&LOCAL).identity()).name("shop.example", authority.issue(&["a.example"]).identity()).build();
        assert!(e.unwrap_err().message().contains("is a certificate for a.example, not for \"shop.example\""));
    });
}

/// Certificate, key and authorities as files that are replaced by a rename.
struct Files(TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.0.join("new"), text).unwrap();
        std::fs::rename(self.0.0.join("new"), self.0.0.join(name)).unwrap();
    }

    fn issue(&self, issued: &Issued) {
        self.write("chain.pem", &issued.chain);
        self.write("key.pem", &issued.key);
    }

    fn identity(&self) -> CertifiedKey {
        CertifiedKey::files(self.0.0.join("chain.pem"), self.0.0.join("key.pem"))
    }
}

#[test]
fn certificates_are_changed_without_a_restart() {
    run(async {
        let (first, second) = (Authority::new(), Authority::new());
        let files = Files(TempDir::new("reload"));
        files.issue(&first.issue(&LOCAL));
        let tls = TlsServer::builder(files.identity()).look_every(Duration::from_secs(3600)).build().unwrap();
        let server = serve(&tls, "tls://127.0.0.1:0").await;
        let old = DoorClient::connect(server.address()).tls(&first.trusting()).await.unwrap();
        old.seen().await.unwrap();
        files.issue(&second.issue(&LOCAL));
        tls.reload().unwrap();
        let new = DoorClient::connect(server.address()).tls(&second.trusting()).await.unwrap();
        new.seen().await.unwrap();
        old.seen().await.expect("what is open goes on");
        let e = refused_at(server.address().to_string(), &first.trusting()).await;
        assert!(e.message().contains("trusts"), "{e}");
        // Files that are not right are refused by name; the last good ones stay.
        files.write("key.pem", &first.issue(&LOCAL).key);
        let e = tls.reload().unwrap_err();
        assert!(e.message().contains("key.pem is not the key of") && e.message().contains("chain.pem"), "{e}");
        files.write("chain.pem", "nonsense");
        let e = tls.reload().unwrap_err();
        assert!(e.message().contains("chain.pem has no certificate"), "{e}");
        DoorClient::connect(server.address()).tls(&second.trusting()).await.unwrap().seen().await.unwrap();
    });
}

#[test]
fn changed_files_are_found_and_broken_ones_told_of() {
    run(async {
        let (first, second) = (Authority::new(), Authority::new());
        let files = Files(TempDir::new("found"));
        files.issue(&first.issue(&LOCAL));
        files.write("ca.pem", &first.pem);
        let told = Arc::new(Told::default());
        let tls = TlsServer::builder(files.identity()).look_every(Duration::ZERO).build().unwrap();
        let builder = Server::builder().serve(DoorServer::new(Doorman)).observe(told.clone()).tls(&tls);
        let server = builder.listen("tls://127.0.0.1:0").await.unwrap();
        let client = TlsClient::builder().ca(Authorities::file(files.0.0.join("ca.pem"))).build().unwrap();
        DoorClient::connect(server.address()).tls(&client).await.unwrap().seen().await.unwrap();
        files.write("key.pem", "broken");
        for _ in 0..3 {
            DoorClient::connect(server.address()).tls(&client).await.unwrap().seen().await.unwrap();
        }
        {
            let told = told.not_reloaded.lock().unwrap();
            assert!(told.len() == 1 && told[0].contains("key.pem has no private key"), "once per change: {told:?}");
        }
        files.issue(&second.issue(&LOCAL));
        files.write("ca.pem", &second.pem);
        client.reload().unwrap();
        DoorClient::connect(server.address()).tls(&client).await.unwrap().seen().await.unwrap();
    });
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_starts() {
    let authority = Authority::new();
    let dir = TempDir::new("unusable");
    let good = authority.issue(&LOCAL);
    let missing = dir.0.join("nowhere.pem");
    let cases = [
        (CertifiedKey::files(&missing, &missing), "nowhere.pem cannot be read"),
        (CertifiedKey::pem("", &good.key), "has no certificate"),
        (CertifiedKey::pem(&good.chain, &good.chain), "has no private key"),
        (CertifiedKey::pem(&good.chain, authority.issue(&LOCAL).key), "is not the key of the first certificate"),
        (CertifiedKey::pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key), "cannot be used"),
        (CertifiedKey::pem("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n", &good.key), "is not right PEM"),
    ];
    for (identity, words) in cases {
        let e = TlsServer::builder(identity).build().unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument);
        assert!(e.message().contains(words), "{words}: {e}");
        assert!(!e.to_string().contains(&good.key), "a key is never shown");
    }
    assert!(!format!("{:?}", good.identity()).contains("PRIVATE"), "a key is never shown");
    let e = TlsClient::builder().build().unwrap_err();
    assert!(e.message().contains("nobody is trusted"), "{e}");
    let e = TlsClient::builder().ca(authority.trusted()).server_name("no name").build().unwrap_err();
    assert!(e.message().contains("server_name(\"no name\")"), "{e}");
    run(async {
        for address in ["tls://127.0.0.1:0", "quic://127.0.0.1:0"] {
            let e = Server::builder().serve(DoorServer::new(Doorman)).listen(address).await.map(|_| ()).unwrap_err();
            assert!(e.message().contains("without a certificate") && e.message().contains(".tls("), "{e}");
        }
    });
}

#[test]
fn unix_sockets_and_memory_stay_as_they_are() {
    let dir = TempDir::new("tls-unix");
    run(async {
        let authority = Authority::new();
        for address in ["mem:tls", &dir.socket()] {
            let server = serve(&authority.server(), address).await;
            let client = DoorClient::connect(server.address()).await.unwrap();
            assert!(!client.seen().await.unwrap().encrypted);
        }
    });
}

#[test]
fn a_server_on_threads_speaks_tls_too() {
    run(async {
        let authority = Authority::new();
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).tls(&authority.server()).threads(2);
        let server = builder.also("quic://127.0.0.1:0").listen("tls://127.0.0.1:0").await.unwrap();
        for address in server.addresses() {
            let clients: Vec<_> = (0..4).map(|_| PaymentClient::connect(address).tls(&authority.trusting())).collect();
            for client in clients {
                assert_eq!(client.await.unwrap().status(7).await.unwrap(), Status::Paid { cents: 250 });
            }
        }
        server.drain(Duration::from_secs(5)).await.unwrap();
    });
}

#[test]
fn the_command_line_reaches_a_provider_over_tls() {
    let (authority, folder) = (Authority::new(), TempDir::new("tls-cli"));
    authority.write_to(&folder.0);
    let file = |name: &str| folder.0.join(name).display().to_string();
    let (ca, chain, key) = (file("ca.pem"), file("chain.pem"), file("key.pem"));
    let server = |tls: TlsServer| Server::builder().serve(PaymentServer::new(Till::default())).tls(&tls);
    let open = server(authority.server()).also("quic://127.0.0.1:0").listen("tls://127.0.0.1:0").wait().unwrap();
    for address in open.addresses() {
        let address = address.to_string();
        cli::run(&["call", &address, "Payment.status", "7", "--ca", &ca]).check(0, &["250"], &[]);
        cli::run(&["describe", &address]).check(1, &[], &["nobody is trusted", "--ca"]);
    }
    let address = open.address().to_string();
    let wrong = ["describe", &address, "--ca", &ca, "--server-name", "bank.example"];
    cli::run(&wrong).check(1, &[], &["not for \"bank.example\""]);
    cli::run(&["describe", &address, "--ca", "/nowhere.pem"]).check(1, &[], &["/nowhere.pem cannot be read"]);
    let required = TlsServer::builder(authority.issue(&LOCAL).identity()).require_clients(authority.trusted()).build().unwrap();
    let asking = server(required).listen("tls://127.0.0.1:0").wait().unwrap();
    let address = asking.address().to_string();
    cli::run(&["schema", &address, "--ca", &ca]).check(1, &[], &["requires a certificate", "--cert and --cert-key"]);
    cli::run(&["schema", &address, "--cert", &chain, "--cert-key", &key]).check(1, &[], &["--cert is for TLS", "--ca FILE or --ca system"]);
    cli::run(&["schema", &address, "--ca", &ca, "--cert-key", &key]).check(1, &[], &["--cert-key", "give that, too, by --cert FILE"]);
    cli::run(&["schema", &address, "--ca", &ca, "--cert", &chain, "--cert-key", &key]).check(0, &["Receipt"], &[]);
}
