//! HTTPS: a real client of both versions on the port that farcall's own callers use, certificates that say who calls,
//! and what is said to those who come without TLS.

use std::process::Command;
use std::sync::{Arc, Mutex};

use farcall::auth::{Certificates, Identity};
use farcall::http::Http;
use farcall::{CertifiedKey, Limits, Observer, Outcome, TlsClient, TlsServer, prelude::*};
use farcall_tests::certificates::{Authority, Issued, LOCAL};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{Counter, CountingServer, Http1};
use crate::support::{run, until};

/// What is asked for by ALPN, and the version that comes of it.
const VERSIONS: [(&str, Version); 2] = [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)];

/// As anybody's client is made: with rustls, trusting one authority, and a certificate of its own if need be.
fn rustls_client(ca: &str, own: Option<&Issued>, alpn: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.chain.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap()
        }
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    }
    TlsConnector::from(Arc::new(config))
}

/// A connection of hyper's client.
enum Https {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    version: Version,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Https {
    /// Connects to `localhost`, whatever the address is.
    async fn connect(socket: &str, tls: &TlsConnector, alpn: &str) -> Result<Https, Failed> {
        let link = TcpStream::connect(socket).await?;
        let link = tls.connect(ServerName::try_from("localhost")?, link).await?;
        let agreed = link.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(agreed.as_deref(), Some(alpn).filter(|alpn| !alpn.is_empty()));
        let io = TokioIo::new(link);
        if alpn == "h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(Https::Two(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Https::One(sender))
    }

    async fn ask(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Failed> {
        let body = body.into();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = Request::builder().method(method).header("content-type", "application/json");
        let full = |body: Bytes| Full::new(body);
        let response = match self {
            Https::One(sender) => {
                sender.ready().await?;
                sender.send_request(request.header("host", "localhost").uri(path).body(full(body))?).await?
            }
            Https::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(format!("https://localhost{path}")).body(full(body))?).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, version: head.version, body: body.collect().await?.to_bytes() })
    }
}

/// One request of a connection of its own.
async fn once(socket: &str, tls: &TlsConnector, alpn: &str, path: &str, body: &str) -> Result<Answer, Failed> {
    Https::connect(socket, tls, alpn).await?.ask(path, body.to_owned()).await
}

fn socket(server: &Server) -> String {
    server.address().to_string().split_once("://").unwrap().1.to_owned()
}

async fn serve(tls: &TlsServer) -> Server {
    let builder = Server::builder().serve(PaymentServer::new(Till::default())).serve(CountingServer::new(Counter));
    builder.protocol(Http::new()).tls(tls).listen("tls://127.0.0.1:0").await.unwrap()
}

#[test]
fn https_is_spoken_on_farcalls_own_port() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority.server()).await;
        let farcall = PaymentClient::connect(server.address()).tls(&authority.trusting()).await.unwrap();
        for (alpn, version) in VERSIONS.into_iter().chain([("", Version::HTTP_11)]) {
            let tls = rustls_client(&authority.pem, None, alpn);
            let mut https = Https::connect(&socket(&server), &tls, alpn).await.unwrap();
            let answer = https.ask("/Payment/status", r#"{"id":7}"#).await.unwrap();
            assert_eq!((answer.status, answer.version, answer.json()), (StatusCode::OK, version, json!({"Paid": {"cents": 250}})));
            assert_eq!(https.ask("/Payment/status?id=8", "").await.unwrap().json(), json!("Unknown"));
            // Large both ways: many records, and beyond every window.
            let large = format!(r#"{{"bytes":"{}"}}"#, "A".repeat(4 << 20));
            let echoed = https.ask("/Payment/echo", large).await.unwrap();
            assert_eq!((echoed.status, echoed.body.len()), (StatusCode::OK, (4 << 20) + 2));
            let events = https.ask("/Counting/count?to=1000", "").await.unwrap();
            assert_eq!(events.body.windows(6).filter(|part| part == b"data: ").count(), 1001);
            assert_eq!(https.ask("/Payment/nothing", "{}").await.unwrap().status, StatusCode::NOT_FOUND);
            assert_eq!(farcall.status(7).await.unwrap(), Status::Paid { cents: 250 }, "beside it");
        }
        // What nobody speaks here is refused before a byte of it.
        let e = once(&socket(&server), &rustls_client(&authority.pem, None, "imap"), "imap", "/", "").await.unwrap_err();
        assert!(e.to_string().contains("NoApplicationProtocol"), "{e}");
        // farcall's name does not hold a client to it: the first bytes decide.
        let tls = rustls_client(&authority.pem, None, "farcall/1");
        let link = TcpStream::connect(socket(&server)).await.unwrap();
        let mut link = tls.connect(ServerName::try_from("localhost").unwrap(), link).await.unwrap();
        link.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        link.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn an_https_client_believes_only_whom_it_trusts() {
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let wrong = [
            (authority.issue(&["shop.example"]), "not valid for name"),
            (authority.issue_between(&LOCAL, (2001, 1, 1), (2002, 1, 1)), "expired"),
            (other.issue(&LOCAL), "UnknownIssuer"),
        ];
        for (issued, words) in wrong {
            let server = serve(&TlsServer::builder(issued.identity()).build().unwrap()).await;
            for (alpn, _) in VERSIONS {
                let e = once(&socket(&server), &rustls_client(&authority.pem, None, alpn), alpn, "/healthz", "").await.unwrap_err();
                assert!(e.to_string().contains(words), "{words}: {e}");
            }
        }
    });
}

/// All that an HTTP/1.1 or HTTP/2 client in plaintext hears.
async fn hear(socket: &str, says: &[u8]) -> Vec<u8> {
    let mut link = TcpStream::connect(socket).await.unwrap();
    link.write_all(says).await.unwrap();
    let mut heard = Vec::new();
    link.read_to_end(&mut heard).await.unwrap();
    heard
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The reason and the text of the GOAWAY behind the server's settings.
fn go_away(heard: &[u8]) -> (u8, String) {
    assert_eq!((heard[3], heard[12]), (4, 7), "{heard:?}");
    (heard[25], String::from_utf8_lossy(&heard[26..]).into_owned())
}

#[test]
fn who_comes_without_tls_is_told_so_in_its_own_protocol() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority.server()).await;
        let to = socket(&server);
        let answer = Http1::connect(&to).await.ask("POST", "/Payment/status", &["content-type: application/json"], r#"{"id":7}"#).await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        let body = answer.json();
        assert_eq!((&body["code"], &body["certainty"]), (&json!("failed_precondition"), &json!("not_executed")));
        assert!(body["message"].as_str().unwrap().contains("https://"), "{body}");
        let (reason, text) = go_away(&hear(&to, PREFACE).await);
        assert!(reason == 0xc && text.contains("https://"), "INADEQUATE_SECURITY: {reason} {text}");
        // Both on one port, where that is said.
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).accept_plaintext().build().unwrap();
        let server = serve(&tls).await;
        assert_eq!(Http1::connect(&socket(&server)).await.get("/Payment/status?id=8").await.json(), json!("Unknown"));
        let tls = rustls_client(&authority.pem, None, "h2");
        assert_eq!(once(&socket(&server), &tls, "h2", "/Payment/status?id=8", "").await.unwrap().json(), json!("Unknown"));
    });
}

#[test]
fn a_host_with_too_many_connections_is_told_so_in_its_own_protocol() {
    run(async {
        let limits = Limits { connections_per_host: 1, ..Limits::default() };
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits);
        let server = builder.protocol(Http::new()).listen("tcp://127.0.0.1:0").await.unwrap();
        let mut first = Http1::connect(&socket(&server)).await;
        assert_eq!(first.get("/Payment/status?id=8").await.json(), json!("Unknown"));
        let second = Http1::connect(&socket(&server)).await.get("/Payment/status?id=8").await;
        assert_eq!((second.status, &second.json()["code"]), (429, &json!("resource_exhausted")));
        assert!(second.body.contains("connections_per_host"), "{second:?}");
        let (reason, text) = go_away(&hear(&socket(&server), PREFACE).await);
        assert!(reason == 0xb && text.contains("connections_per_host"), "ENHANCE_YOUR_CALM: {reason} {text}");
        assert_eq!(first.get("/Payment/status?id=8").await.status, 200);
    });
}

#[test]
fn bytes_of_no_protocol_are_an_invalid_preface() {
    run(async {
        let server = Server::builder().protocol(Http::new()).listen("tcp://127.0.0.1:0").await.unwrap();
        for says in [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n", b"EHLO client.example\r\n"] {
            let (reason, text) = go_away(&hear(&socket(&server), says).await);
            assert!(reason == 1 && text.contains("this port speaks farcall 1, HTTP/1.1 and HTTP/2"), "{reason} {text}");
        }
    });
}

/// A safe that few may open.
#[farcall::service]
trait Safe {
    /// Who asks: name, and how that is proven.
    #[farcall(idempotent)]
    async fn whoami(&self) -> Reply<Option<(String, String)>>;
    #[farcall(role = "teller")]
    async fn open(&self) -> Reply<bool>;
}

struct Steel;

impl Safe for Steel {
    async fn whoami(&self) -> Reply<Option<(String, String)>> {
        Ok(farcall::context().identity().map(|caller| (caller.name().to_owned(), format!("{:?}", caller.proof()))))
    }

    async fn open(&self) -> Reply<bool> {
        Ok(true)
    }
}

/// Keeps why links were refused.
#[derive(Default)]
struct Refusals(Mutex<Vec<String>>);

impl Observer for Refusals {
    fn ended(&self, _: &Outcome<'_>) {}

    fn refused(&self, _: &str, error: &RpcError) {
        self.0.lock().unwrap().push(error.message().to_owned());
    }
}

const TELLER: &str = "spiffe://bank.example/tom";
const GUEST: &str = "spiffe://bank.example/gus";

/// A server that asks for certificates of `clients`, as a must or not.
async fn safe(tls: TlsServer, refusals: &Arc<Refusals>) -> Server {
    let known = Certificates::new().name(TELLER, Identity::new("tom").role("teller")).name(GUEST, Identity::new("gus"));
    let builder = Server::builder().serve(SafeServer::new(Steel)).authenticate(known).protocol(Http::new()).tls(&tls);
    builder.observe(refusals.clone()).listen("tls://127.0.0.1:0").await.unwrap()
}

#[test]
fn a_certificate_says_who_calls_over_http_and_over_farcall() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).ask_clients(clients.trusted()).build().unwrap();
        let server = safe(tls, &Arc::default()).await;
        let to = socket(&server);
        let (teller, guest, stranger) = (clients.issue(&[TELLER]), clients.issue(&[GUEST]), clients.issue(&["spiffe://bank.example/sam"]));
        for (alpn, _) in VERSIONS {
            let as_whom = |own: Option<&Issued>| rustls_client(&authority.pem, own, alpn);
            let mut tom = Https::connect(&to, &as_whom(Some(&teller)), alpn).await.unwrap();
            assert_eq!(tom.ask("/Safe/whoami", "").await.unwrap().json(), json!(["tom", "Certificate"]));
            assert_eq!(tom.ask("/Safe/open", "{}").await.unwrap().json(), json!(true));
            let mut gus = Https::connect(&to, &as_whom(Some(&guest)), alpn).await.unwrap();
            assert_eq!(gus.ask("/Safe/whoami", "").await.unwrap().json(), json!(["gus", "Certificate"]));
            let denied = gus.ask("/Safe/open", "{}").await.unwrap();
            assert_eq!((denied.status, &denied.json()["code"]), (StatusCode::FORBIDDEN, &json!("permission_denied")));
            // Certified, but nobody whom the server knows; and without a certificate.
            for own in [Some(&stranger), None] {
                let unknown = once(&to, &as_whom(own), alpn, "/Safe/whoami", "").await.unwrap();
                assert_eq!((unknown.status, &unknown.json()["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
                assert!(unknown.json()["message"].as_str().unwrap().contains("a client certificate"), "{unknown:?}");
            }
        }
        // The same callers over farcall, on the same port.
        let trusting = || TlsClient::builder().ca(authority.trusted());
        let as_whom = |own: &Issued| SafeClient::connect(server.address()).tls(&trusting().certificate(own.identity()).build().unwrap());
        let tom = as_whom(&teller).await.unwrap();
        assert_eq!(tom.whoami().await.unwrap(), Some(("tom".into(), "Certificate".into())));
        assert!(tom.open().await.unwrap());
        let e = as_whom(&guest).await.unwrap().open().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::PermissionDenied, Certainty::NotExecuted), "{e}");
        for e in [as_whom(&stranger).await.err(), SafeClient::connect(server.address()).tls(&trusting().build().unwrap()).await.err()] {
            let e = e.unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::Unauthenticated, Certainty::NotSent), "{e}");
            assert!(e.message().contains("a client certificate"), "{e}");
        }
    });
}

#[test]
fn a_certificate_that_proves_nothing_ends_the_handshake_and_the_server_says_why() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let refusals = Arc::new(Refusals::default());
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).require_clients(clients.trusted()).build().unwrap();
        let server = safe(tls, &refusals).await;
        let cases = [
            (None, "CertificateRequired", "has shown no certificate"),
            (Some(authority.issue(&[TELLER])), "UnknownCA", "the client's certificate is issued by nobody whom this side trusts"),
            (
                Some(clients.issue_between(&[TELLER], (2001, 1, 1), (2002, 3, 4))),
                "CertificateExpired",
                "the client's certificate has expired on 2002-03-04",
            ),
        ];
        for (own, alert, words) in cases {
            for (alpn, _) in VERSIONS {
                refusals.0.lock().unwrap().clear();
                let tls = rustls_client(&authority.pem, own.as_ref(), alpn);
                // In TLS 1.3 a client is done before its server has looked at the certificate: it hears of it when it reads.
                let link = TcpStream::connect(socket(&server)).await.unwrap();
                let mut link = tls.connect(ServerName::try_from("localhost").unwrap(), link).await.unwrap();
                let e = link.read(&mut [0; 64]).await.unwrap_err();
                assert!(e.to_string().contains(alert), "{alert}: {e}");
                until("the server says why", || refusals.0.lock().unwrap().iter().any(|why| why.contains(words))).await;
            }
        }
        // The right one gets in all the while.
        let tls = rustls_client(&authority.pem, Some(&clients.issue(&[TELLER])), "h2");
        assert_eq!(once(&socket(&server), &tls, "h2", "/Safe/open", "{}").await.unwrap().json(), json!(true));
    });
}

#[test]
fn certificates_change_while_connections_live() {
    run(async {
        let (first, second) = (Authority::new(), Authority::new());
        let folder = std::env::temp_dir().join(format!("farcall-https-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        first.write_to(&folder);
        let tls = TlsServer::builder(CertifiedKey::files(folder.join("chain.pem"), folder.join("key.pem"))).build().unwrap();
        let server = serve(&tls).await;
        let to = socket(&server);
        let mut old = Vec::new();
        for (alpn, _) in VERSIONS {
            old.push(Https::connect(&to, &rustls_client(&first.pem, None, alpn), alpn).await.unwrap());
        }
        second.write_to(&folder);
        tls.reload().unwrap();
        for (alpn, _) in VERSIONS {
            let new = once(&to, &rustls_client(&second.pem, None, alpn), alpn, "/Payment/status?id=8", "").await.unwrap();
            assert_eq!(new.json(), json!("Unknown"));
            let e = once(&to, &rustls_client(&first.pem, None, alpn), alpn, "/healthz", "").await.unwrap_err();
            assert!(e.to_string().contains("UnknownIssuer"), "{e}");
        }
        for mut connection in old {
            assert_eq!(connection.ask("/Payment/status?id=8", "").await.unwrap().json(), json!("Unknown"), "what is open goes on");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

#[test]
fn curl_speaks_https() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not here: skipped");
        return;
    }
    run(async {
        let authority = Authority::new();
        let folder = std::env::temp_dir().join(format!("farcall-curl-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        authority.write_to(&folder);
        let own = authority.issue(&[TELLER]);
        std::fs::write(folder.join("own.pem"), &own.chain).unwrap();
        std::fs::write(folder.join("own.key"), &own.key).unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        let tls = TlsServer::builder(CertifiedKey::files(file("chain.pem"), file("key.pem"))).ask_clients(authority.trusted());
        let server = safe(tls.build().unwrap(), &Arc::default()).await;
        let base = format!("https://localhost:{}", socket(&server).rsplit_once(':').unwrap().1);
        let curl = async |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| arg.replace("BASE", &base)).collect();
            let ran = tokio::task::spawn_blocking(|| Command::new("curl").args(["-sS", "-4"]).args(args).output().unwrap()).await.unwrap();
            (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
        };
        let (ca, cert, key) = (file("ca.pem"), file("own.pem"), file("own.key"));
        let known = ["--cacert", &ca, "--cert", &cert, "--key", &key];
        for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let said = curl(&[&known[..], &[option, "-w", " %{http_version}", "BASE/Safe/whoami"]].concat()).await;
            assert_eq!(said, (Some(0), format!(r#"["tom","Certificate"] {version}"#)));
        }
        assert_eq!(curl(&[&known[..], &["--json", "{}", "BASE/Safe/open"]].concat()).await, (Some(0), "true".into()));
        let (code, said) = curl(&["--cacert", &ca, "BASE/Safe/whoami"]).await;
        assert!(code == Some(0) && said.contains("unauthenticated"), "{said}");
        let (code, said) = curl(&["BASE/Safe/whoami"]).await;
        assert_eq!(code, Some(60), "nobody trusts it: {said}");
        let plain = base.replace("https", "http");
        let (code, said) = curl(&[&format!("{plain}/Safe/whoami")]).await;
        assert!(code == Some(0) && said.contains("use tls:// instead of tcp:// (https:// instead of http://)"), "{said}");
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
