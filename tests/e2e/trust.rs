//! Who calls, and what he may call: credentials, roles, and what a stranger can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use farcall::auth::{Certificates, SignedTokens, TokenKey, Tokens, UnixUsers, Verifier};
use farcall::meta::DescribeClient;
use farcall::{Channel, CodecId, Credentials, Identity, Io, Key, Limits, Secret, ServerBuilder, Stage, TlsClient, TlsServer, prelude::*};
use farcall_tests::certificates::{Authority, LOCAL};
use farcall_wire::{Hello, Kind, PREFACE_LEN, Session, control, get_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bad_peer::frame;
use crate::cli;
use crate::support::{TempDir, run, until};

const MS: Duration = Duration::from_millis(1);
const TELLER: &str = "teller-token-93d1c6";
const GUEST: &str = "guest-token-71f0aa";

/// A bank. All but its door is for tellers.
#[farcall::service]
#[farcall(role = "teller")]
pub(crate) trait Bank {
    /// Is it open?
    #[farcall(public, idempotent)]
    async fn open(&self) -> Reply<bool>;
    /// Who is asking: name, roles, proof.
    #[farcall(public)]
    async fn whoami(&self) -> Reply<Option<(String, Vec<String>, String)>>;
    async fn pay(&self, cents: u64) -> Reply<u64>;
    #[farcall(oneway)]
    async fn note(&self, text: String);
    #[farcall(idempotent)]
    async fn balance(&self, account: u64) -> Reply<u64>;
    async fn follow(&self, account: u64) -> Reply<Streaming<u64>>;
    async fn add_up(&self, cents: Streaming<u64>) -> Reply<u64>;
    async fn store(&self, bytes: Vec<u8>) -> Reply<u64>;
    /// For either of two.
    #[farcall(role = "manager", role = "auditor")]
    async fn audit(&self) -> Reply<u64>;
}

/// It counts what ran beside what is public.
#[derive(Default)]
pub(crate) struct Vault(AtomicUsize);

impl Vault {
    fn ran(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn run(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) as u64 + 1
    }
}

impl Bank for Vault {
    async fn open(&self) -> Reply<bool> {
        Ok(true)
    }
    async fn whoami(&self) -> Reply<Option<(String, Vec<String>, String)>> {
        let cx = farcall::context();
        Ok(cx.identity().map(|i| (i.name().to_owned(), i.roles().to_vec(), format!("{:?}", i.proof()))))
    }
    async fn pay(&self, _: u64) -> Reply<u64> {
        Ok(self.run())
    }
    async fn note(&self, _: String) {
        self.run();
    }
    async fn balance(&self, _: u64) -> Reply<u64> {
        Ok(self.run())
    }
    async fn follow(&self, _: u64) -> Reply<Streaming<u64>> {
        self.run();
        Ok(Streaming::items([1, 2, 3]))
    }
    async fn add_up(&self, mut cents: Streaming<u64>) -> Reply<u64> {
        self.run();
        let mut sum = 0;
        while let Some(n) = cents.next().await {
            sum += n?;
        }
        Ok(sum)
    }
    async fn store(&self, bytes: Vec<u8>) -> Reply<u64> {
        self.run();
        Ok(bytes.len() as u64)
    }
    async fn audit(&self) -> Reply<u64> {
        Ok(self.run())
    }
}

fn tokens() -> Tokens {
    Tokens::new().token(TELLER, Identity::new("tom").role("teller")).token(GUEST, Identity::new("gus"))
}

fn asking() -> (Arc<Vault>, ServerBuilder) {
    let vault = Arc::new(Vault::default());
    (Arc::clone(&vault), Server::builder().serve(BankServer::shared(vault)).authenticate(tokens()))
}

async fn bank(server: &Server, token: &str) -> BankClient {
    BankClient::connect(server.address()).credentials(Credentials::bearer(token)).await.unwrap()
}

/// Refused by name, and nothing ran.
fn check_refused<T: std::fmt::Debug>(reply: Reply<T>, code: Code, says: &[&str]) {
    let e = reply.unwrap_err();
    assert_eq!((e.code(), e.certainty()), (code, Certainty::NotExecuted), "{e}");
    assert!(says.iter().all(|part| e.message().contains(part)), "{e}");
}

#[test]
fn a_token_proves_who_calls() {
    run(async {
        let (_, server) = asking();
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let teller = bank(&server, TELLER).await;
        assert_eq!(teller.whoami().await.unwrap(), Some(("tom".into(), vec!["teller".into()], "Token".into())));
        assert_eq!(teller.pay(1).await.unwrap(), 1);
        let guest = bank(&server, GUEST).await;
        assert!(guest.open().await.unwrap());
        assert_eq!(guest.whoami().await.unwrap().unwrap().0, "gus");
    });
}

#[test]
fn who_shows_nothing_or_something_wrong_is_refused_before_any_call() {
    run(async {
        let (vault, server) = asking();
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let nothing = BankClient::connect(server.address()).await.err().unwrap();
        assert_eq!(
            (nothing.code(), nothing.certainty(), nothing.stage()),
            (Code::Unauthenticated, Certainty::NotSent, Some(Stage::Connect))
        );
        assert!(nothing.message().contains("a bearer token") && nothing.message().contains("--token"), "{nothing}");
        for wrong in ["teller-token-93d1c7", "teller-token", "", "x"] {
            let connect = BankClient::connect(server.address()).credentials(Credentials::bearer(wrong));
            let e = connect.await.err().unwrap();
            assert_eq!(e.code(), Code::Unauthenticated, "{e}");
            assert!(wrong.len() < 3 || !format!("{e} {e:?}").contains(wrong), "{e}");
        }
        let other = Credentials::new("kerberos", "ticket").unwrap();
        let e = BankClient::connect(server.address()).credentials(other).await.err().unwrap();
        assert_eq!(e.code(), Code::Unauthenticated, "{e}");
        // A client that connects at its first call learns it there.
        let lazy = BankClient::connect(server.address()).lazy().unwrap();
        let e = lazy.open().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unauthenticated, Certainty::NotSent), "{e}");
        // And again while it does not even try.
        let limits = Limits {
            reconnect_base: Duration::from_hours(10_000),
            reconnect_cap: Duration::from_hours(10_000),
            reconnect_wait: Duration::ZERO,
            ..Limits::default()
        };
        let hasty = BankClient::connect(server.address()).limits(limits).lazy().unwrap();
        hasty.open().await.unwrap_err();
        let e = hasty.open().await.unwrap_err();
        assert!(e.code() == Code::Unauthenticated && e.message().contains("the next attempt is in"), "{e}");
        assert_eq!((vault.ran(), server.connections()), (0, 0));
    });
}

#[test]
fn roles_hold_on_every_way_to_a_method() {
    run(async {
        let (vault, server) = asking();
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let guest = bank(&server, GUEST).await;
        let denied = |reply| check_refused::<u64>(reply, Code::PermissionDenied, &["needs the role \"teller\"", "gus"]);
        denied(guest.pay(1).await);
        denied(guest.pay(1).codec(CodecId::Json).await);
        denied(guest.pay(1).key(&Key::named("order-1").unwrap()).await);
        denied(guest.balance(1).hedge(Duration::ZERO).await);
        denied(guest.pay(1).send().await);
        let (one, two) = farcall::batch((guest.pay(1), guest.balance(2))).await;
        denied(one);
        denied(two);
        let says = guest.follow(1).await.map(|_| 0);
        denied(says);
        denied(guest.add_up(Streaming::items([1, 2, 3])).await);
        // In fragments, and refused all the same.
        denied(guest.store(vec![7; 1 << 20]).await);
        denied(guest.store(vec![7; 20_000]).await);
        check_refused(guest.audit().await, Code::PermissionDenied, &["Bank.audit", "\"manager\" or \"auditor\""]);
        guest.note("nobody reads this".into()).await.unwrap();
        assert!(guest.open().await.unwrap(), "others go on");
        assert_eq!(vault.ran(), 0);
        // A key that was refused is as new for those who may.
        let teller = bank(&server, TELLER).await;
        assert_eq!(teller.pay(1).key(&Key::named("order-1").unwrap()).await.unwrap(), 1);
        check_refused(teller.audit().await, Code::PermissionDenied, &["Bank.audit"]);
        teller.note("read".into()).await.unwrap();
        assert_eq!(teller.store(vec![7; 1 << 20]).await.unwrap(), 1 << 20);
        until("the note", || vault.ran() == 3).await;
    });
}

#[test]
fn a_key_belongs_to_its_caller() {
    run(async {
        let vault = Arc::new(Vault::default());
        let both = tokens().token("tina-token-5b1e", Identity::new("tina").role("teller"));
        let server = Server::builder().serve(BankServer::shared(vault.clone())).authenticate(both);
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let (tom, tina) = (bank(&server, TELLER).await, bank(&server, "tina-token-5b1e").await);
        let key = || Key::named("order-7").unwrap();
        assert_eq!(tom.pay(1).key(&key()).await.unwrap(), 1);
        assert_eq!(tom.pay(1).key(&key()).await.unwrap(), 1, "answered, not run again");
        assert_eq!(tina.pay(1).key(&key()).await.unwrap(), 2, "her own");
        assert_eq!(vault.ran(), 2);
    });
}

#[test]
fn anonymous_callers_are_let_in_where_that_is_said() {
    run(async {
        let (vault, server) = asking();
        let server = server.allow_anonymous().listen("tcp://127.0.0.1:0").await.unwrap();
        let anybody = BankClient::connect(server.address()).await.unwrap();
        assert!(anybody.open().await.unwrap());
        assert_eq!(anybody.whoami().await.unwrap(), None);
        check_refused(anybody.pay(1).await, Code::Unauthenticated, &["Bank.pay needs the role \"teller\"", "show credentials"]);
        // What is shown must be right all the same.
        let wrong = BankClient::connect(server.address()).credentials(Credentials::bearer("wrong")).await;
        assert_eq!(wrong.err().unwrap().code(), Code::Unauthenticated);
        assert_eq!(bank(&server, TELLER).await.pay(1).await.unwrap(), 1);
        assert_eq!(vault.ran(), 1);
    });
}

#[test]
fn nobody_is_told_of_what_he_may_not_call() {
    run(async {
        let (_, server) = asking();
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let names = async |token: &str| {
            let meta = DescribeClient::connect(server.address()).credentials(Credentials::bearer(token)).await.unwrap();
            let services = meta.services().await.unwrap();
            let bank = services.iter().find(|s| s.name == "Bank").unwrap();
            assert_eq!(meta.schemas("Bank".into(), "".into(), "".into()).await.unwrap().len(), bank.methods.len());
            bank.methods.iter().map(|m| m.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(GUEST).await, ["open", "whoami"]);
        assert_eq!(names(TELLER).await, ["open", "whoami", "pay", "note", "balance", "follow", "add_up", "store"]);
    });
}

#[test]
fn descriptions_may_be_for_some_only() {
    run(async {
        let (_, server) = asking();
        let server = server.describe_to("teller").listen("tcp://127.0.0.1:0").await.unwrap();
        let ask = async |token: &str| {
            let meta = DescribeClient::connect(server.address()).credentials(Credentials::bearer(token)).await.unwrap();
            meta.services().await
        };
        assert!(ask(TELLER).await.is_ok());
        check_refused(ask(GUEST).await, Code::PermissionDenied, &["farcall.Meta.services needs the role \"teller\""]);
        // Nor by a wrong guess.
        let guest = bank(&server, GUEST).await;
        let other = crate::bad_peer::EchoClient::from(guest.channel().clone());
        let e = other.make(1).await.unwrap_err();
        assert!(e.message().contains("services: none") && !e.message().contains("Bank"), "{e}");
    });
}

fn key() -> TokenKey {
    TokenKey::new("k1", "0123456789abcdef0123456789abcdef").unwrap()
}

#[test]
fn a_signed_token_that_expires_ends_its_connection_and_a_fresh_one_comes() {
    run(async {
        let vault = Arc::new(Vault::default());
        let tokens = SignedTokens::new(key()).skew(Duration::ZERO);
        let server = Server::builder().serve(BankServer::shared(vault.clone())).authenticate(tokens);
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let tom = Identity::new("tom").role("teller");
        let made = Arc::new(AtomicUsize::new(0));
        let source = {
            let (made, tom) = (made.clone(), tom.clone());
            move || {
                made.fetch_add(1, Ordering::SeqCst);
                let token = key().sign(&tom, Duration::from_secs(2));
                async move { Ok(Credentials::bearer(token)) }
            }
        };
        let client = BankClient::connect(server.address()).credentials_from(source).await.unwrap();
        assert_eq!(client.whoami().await.unwrap().unwrap().2, "SignedToken");
        until("the token expires and the client comes back", || made.load(Ordering::SeqCst) > 1 || client.channel().peer().is_none()).await;
        client.pay(1).await.unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 2, "one token for each connection");
        // Without a fresh one the door stays shut: an expired token is refused, however often it is shown.
        let old = key().sign(&tom, Duration::ZERO);
        for _ in 0..3 {
            let e = BankClient::connect(server.address()).credentials(Credentials::bearer(old.clone())).await.err().unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::Unauthenticated, Certainty::NotSent));
            assert!(e.message().contains("expired") && e.message().contains("get a fresh one"), "{e}");
        }
        assert_eq!(vault.ran(), 1);
    });
}

#[test]
fn an_identity_that_ends_takes_no_calls_and_lets_running_ones_end() {
    run(async {
        let soon = |_: Secret| async { Ok(Identity::new("tom").role("teller").until(SystemTime::now() + 300 * MS)) };
        let server = Server::builder()
            .serve(BankServer::new(Vault::default()))
            .serve(farcall_tests::PaymentServer::new(farcall_tests::Till::default()))
            .authenticate(Verifier::bearer(soon))
            .listen("tcp://127.0.0.1:0")
            .await
            .unwrap();
        let client = bank(&server, "any").await;
        let slow = farcall_tests::PaymentClient::from(client.channel().clone()).sure(900).send();
        until("it is drained", || client.channel().peer().is_none()).await;
        assert_eq!(slow.await.unwrap(), 1, "it had begun");
    });
}

#[test]
fn a_process_is_known_by_its_user() {
    run(async {
        let dir = TempDir::new("unix-user");
        let users = UnixUsers::new().user(dir.owner(), Identity::new("ops").role("teller"));
        let server = Server::builder().serve(BankServer::new(Vault::default())).authenticate(users).also("tcp://127.0.0.1:0");
        let server = server.listen(dir.socket()).await.unwrap();
        let client = BankClient::connect(server.address()).await.unwrap();
        assert_eq!(client.whoami().await.unwrap(), Some(("ops".into(), vec!["teller".into()], "UnixUser".into())));
        assert_eq!(client.pay(1).await.unwrap(), 1);
        // Not over TCP, which does not tell.
        let e = BankClient::connect(&server.addresses()[1]).await.err().unwrap();
        assert!(e.code() == Code::Unauthenticated && e.message().contains("a unix socket"), "{e}");
    });
}

#[test]
fn authenticators_are_asked_in_their_order_and_their_errors_do_not_leak() {
    run(async {
        let verify = |token: Secret| async move {
            let token = String::from_utf8_lossy(token.expose()).into_owned();
            match token.as_str() {
                "good-9a8b7c" => Ok(Identity::new("vera")),
                "down-9a8b7c" => Err(RpcError::new(Code::Internal, format!("database at 10.1.2.3 is down, token {token}"))),
                _ => Err(RpcError::new(Code::Unauthenticated, format!("{token} was revoked"))),
            }
        };
        let (_, server) = asking();
        let server = server.authenticate(Verifier::bearer(verify)).listen("tcp://127.0.0.1:0").await.unwrap();
        assert_eq!(bank(&server, TELLER).await.whoami().await.unwrap().unwrap().0, "tom");
        assert_eq!(bank(&server, "good-9a8b7c").await.whoami().await.unwrap().unwrap().2, "Other");
        let refused =
            async |token: &str| BankClient::connect(server.address()).credentials(Credentials::bearer(token)).await.err().unwrap();
        let e = refused("revoked-9a8b7c").await;
        assert!(e.code() == Code::Unauthenticated && e.message().contains("(secret) was revoked"), "{e}");
        let e = refused("down-9a8b7c").await;
        assert!(e.code() == Code::Unavailable && !e.message().contains("10.1.2.3") && !e.message().contains("9a8b7c"), "{e}");
    });
}

/// Counts for as long as it lives.
struct One(Arc<AtomicUsize>);

impl One {
    fn new(count: Arc<AtomicUsize>) -> One {
        count.fetch_add(1, Ordering::SeqCst);
        One(count)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_slow_verifier_is_bounded_and_others_are_served() {
    run(async {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, peak) = (running.clone(), most.clone());
        let never = move |_: Secret| {
            let one = One::new(counted.clone());
            peak.fetch_max(counted.load(Ordering::SeqCst), Ordering::SeqCst);
            async move {
                let _one = one;
                std::future::pending::<Result<Identity, RpcError>>().await
            }
        };
        let limits = Limits { verify: 200 * MS, verifying: 2, ..Limits::default() };
        let (_, server) = asking();
        let server = server.authenticate(Verifier::bearer(never)).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let teller = bank(&server, TELLER).await;
        let flood: Vec<_> = (0..20)
            .map(|_| tokio::spawn(BankClient::connect(server.address()).credentials(Credentials::bearer("slow")).into_future()))
            .collect();
        until("two are judged", || running.load(Ordering::SeqCst) == 2).await;
        assert_eq!(teller.pay(1).await.unwrap(), 1, "who is in is not held up");
        for connecting in flood {
            let e = connecting.await.unwrap().err().unwrap();
            assert_eq!(e.code(), Code::Unavailable, "{e}");
        }
        until("all are over", || running.load(Ordering::SeqCst) == 0).await;
        assert_eq!(most.load(Ordering::SeqCst), 2, "the limit `verifying`");
    });
}

#[test]
fn beyond_this_machine_a_server_must_say_whom_it_serves() {
    run(async {
        let server = || Server::builder().serve(farcall_tests::PaymentServer::new(farcall_tests::Till::default()));
        for address in ["tcp://0.0.0.0:0", "tcp://[::]:0"] {
            let e = server().listen(address).await.err().unwrap();
            assert_eq!(e.code(), Code::FailedPrecondition, "{e}");
            for way_out in [".authenticate(", "client certificates", "tcp://127.0.0.1", ".allow_anonymous()"] {
                assert!(e.message().contains(way_out), "{e}");
            }
            let e = server().also(address).listen("tcp://127.0.0.1:0").await.err().unwrap();
            assert_eq!(e.code(), Code::FailedPrecondition, "{e}");
            server().allow_anonymous().listen(address).await.unwrap();
            server().authenticate(tokens()).listen(address).await.unwrap();
        }
        for address in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "mem:trusted"] {
            server().listen(address).await.unwrap();
        }
        let warned = async |address: &str| {
            let notes = Arc::new(Notes::default());
            server().authenticate(tokens()).observe(notes.clone()).listen(address).await.unwrap();
            notes.0.lock().unwrap().contains("without TLS")
        };
        assert!(warned("tcp://0.0.0.0:0").await && !warned("tcp://127.0.0.1:0").await);
    });
}

#[test]
fn to_require_certificates_is_to_say_whom_it_serves() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let identity = || TlsServer::builder(authority.issue(&LOCAL).identity());
        let server = |tls: &TlsServer| Server::builder().serve(farcall_tests::PaymentServer::new(farcall_tests::Till::default())).tls(tls);
        let required = identity().require_clients(clients.trusted()).build().unwrap();
        for address in ["tls://0.0.0.0:0", "tcp://[::]:0", "quic://0.0.0.0:0"] {
            server(&required).listen(address).await.unwrap();
        }
        // None of these keeps strangers out.
        let asked = identity().ask_clients(clients.trusted()).build().unwrap();
        let both = identity().require_clients(clients.trusted()).accept_plaintext().build().unwrap();
        let none = identity().build().unwrap();
        for open in [asked, both, none] {
            let e = server(&open).listen("tls://0.0.0.0:0").await.err().unwrap();
            assert_eq!(e.code(), Code::FailedPrecondition, "{e}");
            assert!(e.message().contains("require_clients"), "{e}");
        }
        // Nobody has a role by that alone.
        let e = Server::builder().serve(BankServer::new(Vault::default())).tls(&required).listen("tls://127.0.0.1:0").await.err().unwrap();
        assert!(e.message().contains("needs the role"), "{e}");
    });
}

/// Over TCP by TLS, and over UDP by QUIC.
#[test]
fn a_certificate_gives_roles() {
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).require_clients(clients.trusted()).build().unwrap();
        let known = Certificates::new()
            .name("spiffe://bank.example/tom", Identity::new("tom").role("teller"))
            .name("gus.example", Identity::new("gus"));
        let vault = Arc::new(Vault::default());
        let server = Server::builder().serve(BankServer::shared(vault.clone())).authenticate(known).tls(&tls);
        let server = server.also("quic://127.0.0.1:0").listen("tls://127.0.0.1:0").await.unwrap();
        for address in server.addresses() {
            let as_whom = |name: &str| {
                let own = clients.issue(&[name]).identity();
                BankClient::connect(address).tls(&TlsClient::builder().ca(authority.trusted()).certificate(own).build().unwrap())
            };
            let before = vault.ran();
            let tom = as_whom("spiffe://bank.example/tom").await.unwrap();
            assert_eq!(tom.whoami().await.unwrap(), Some(("tom".into(), vec!["teller".into()], "Certificate".into())));
            tom.pay(1).await.unwrap();
            let gus = as_whom("gus.example").await.unwrap();
            check_refused(gus.pay(1).await, Code::PermissionDenied, &["needs the role \"teller\"", "gus"]);
            let e = as_whom("sam.example").await.err().unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::Unauthenticated, Certainty::NotSent), "{e}");
            assert_eq!(vault.ran(), before + 1);
        }
    });
}

/// Somebody on the way keeps what a client sends, and sends it again.
async fn recording(listener: tokio::net::TcpListener, to: String) -> Vec<u8> {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
    let mut kept = Vec::new();
    let forth = async {
        let mut piece = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut piece).await {
            kept.extend_from_slice(&piece[..n]);
            to_server.write_all(&piece[..n]).await.unwrap();
        }
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(forth, back);
    kept
}

#[test]
fn what_was_recorded_on_the_way_is_of_no_use_under_tls_and_runs_again_without() {
    run(async {
        let authority = Authority::new();
        for (scheme, runs_again) in [("tls", false), ("tcp", true)] {
            let (vault, server) = asking();
            let server = if scheme == "tls" { server.tls(&authority.server()) } else { server };
            let server = server.listen(format!("{scheme}://127.0.0.1:0")).await.unwrap();
            let to = server.address().to_string().split_once("://").unwrap().1.to_owned();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("{scheme}://{}", listener.local_addr().unwrap());
            let recorded = tokio::spawn(recording(listener, to.clone()));
            let connect = BankClient::connect(address).credentials(Credentials::bearer(TELLER)).tls(&authority.trusting());
            let client = connect.await.unwrap();
            assert_eq!(client.pay(1).await.unwrap(), 1);
            assert_eq!(client.pay(2).key(&Key::named("order-2").unwrap()).await.unwrap(), 2);
            drop(client);
            let recorded = recorded.await.unwrap();
            for _ in 0..3 {
                let mut link = tokio::net::TcpStream::connect(&to).await.unwrap();
                link.write_all(&recorded).await.unwrap();
                link.shutdown().await.unwrap();
                let _ = link.read_to_end(&mut Vec::new()).await;
            }
            // The one without a key runs each time; the one with a key never.
            let expected = if runs_again { 2 + 3 } else { 2 };
            until("all has run that runs", || vault.ran() == expected).await;
        }
    });
}

#[test]
fn the_end_of_a_link_can_be_awaited() {
    run(async {
        let (_, server) = asking();
        let server = server.listen("mem:served").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut served = server.serve_link(Io::boxed(theirs));
        let channel = Channel::over_as(Io::boxed(ours), Limits::default(), Credentials::bearer(TELLER)).await.unwrap();
        let bank = BankClient::from(channel);
        assert!(bank.open().await.unwrap());
        assert!(tokio::time::timeout(20 * MS, &mut served).await.is_err(), "it is served");
        drop(bank);
        served.await;
        assert_eq!(server.connections(), 0);
        // One that comes to nothing ends, too; and to drop what is returned ends nothing.
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = server.serve_link(Io::boxed(theirs));
        drop(ours);
        served.await;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        drop(server.serve_link(Io::boxed(theirs)));
        let channel = Channel::over_as(Io::boxed(ours), Limits::default(), Credentials::bearer(TELLER)).await.unwrap();
        assert!(BankClient::from(channel).open().await.unwrap());
    });
}

#[test]
fn a_role_that_nobody_can_have_is_a_mistake() {
    run(async {
        let e = Server::builder().serve(BankServer::new(Vault::default())).listen("mem:no-roles").await.err().unwrap();
        assert_eq!(e.code(), Code::FailedPrecondition);
        assert!(e.message().contains("Bank.pay needs the role \"teller\"") && e.message().contains(".authenticate("), "{e}");
        let e = Server::builder().describe_to("admin").listen("mem:no-roles").await.err().unwrap();
        assert!(e.message().contains("describe needs the role \"admin\""), "{e}");
    });
}

/// A server that asks, and a link to it on which nothing was said.
async fn stranger(server: &Server) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    server.serve_link(Io::boxed(theirs));
    ours
}

/// The payload of a hello with this entry for credentials.
fn hello(auth: Option<&[u8]>) -> Vec<u8> {
    let whole = Hello { software: String::new(), ..Hello::new([7; 16], 1, &Limits::default()) }.encode();
    // The software, which is the last entry and empty here, comes after the credentials.
    let mut payload = whole[..whole.len() - 2].to_vec();
    if let Some(auth) = auth {
        payload.push(11);
        let mut len = auth.len();
        while len >= 0x80 {
            payload.push(len as u8 | 0x80);
            len >>= 7;
        }
        payload.push(len as u8);
        payload.extend_from_slice(auth);
    }
    payload
}

/// What comes back for these bytes: the reason of the GoAway that is all that is said.
async fn refusal(server: &Server, bytes: &[u8]) -> RpcError {
    let mut link = stranger(server).await;
    link.write_all(bytes).await.unwrap();
    let mut answer = bytes::BytesMut::new();
    while link.read_buf(&mut answer).await.unwrap() > 0 {}
    assert_eq!(&answer[..7], b"farcall");
    let _ = answer.split_to(PREFACE_LEN);
    let frame = get_frame(&mut answer, 1 << 16).unwrap().unwrap();
    assert_eq!((frame.header.kind, answer.len()), (Kind::GoAway, 0), "no hello comes before it");
    let refused = control::on_go_away(&frame.payload).unwrap();
    assert_eq!(refused.last, 0);
    refused.reason
}

#[test]
fn garbage_for_credentials_is_refused_and_never_repeated() {
    run(async {
        let (vault, server) = asking();
        let server = server.listen("mem:garbage").await.unwrap();
        let teller = bank(&server, TELLER).await;
        let preface = &Session::<()>::opening(&Hello::new([0; 16], 0, &Limits::default()))[..PREFACE_LEN];
        let say = |payload: &[u8]| [preface, &frame(Kind::Hello, 0, 0, 0, payload)].concat();
        let huge = [&b"\x06bearer"[..], &[b'z'; 17 << 10]].concat();
        for (auth, code) in [
            (None, Code::Unauthenticated),
            (Some(&b"\x06bearer"[..]), Code::Unauthenticated),
            (Some(b"\x06bearerzzzz"), Code::Unauthenticated),
            (Some(b"\x06bearer\xff\xfe\x00zzzz"), Code::Unauthenticated),
            (Some(b"\x05zzzzzzzzz"), Code::Unauthenticated),
            (Some(b""), Code::InvalidArgument),
            (Some(b"\xff"), Code::InvalidArgument),
            (Some(b"\x20zzzz"), Code::InvalidArgument),
            (Some(b"\x04zzz\xffzzzz"), Code::InvalidArgument),
            (Some(b"\x06Bearerzzzz"), Code::InvalidArgument),
            (Some(&huge), Code::InvalidArgument),
        ] {
            let reason = refusal(&server, &say(&hello(auth))).await;
            assert_eq!(reason.code(), code, "{auth:?}: {reason}");
            assert!(!reason.message().contains("zzz"), "{reason}");
        }
        // Calls in the same write are not looked at.
        let call = frame(Kind::Call, 0, 0, 0, &[0; 4]);
        let reason = refusal(&server, &[say(&hello(Some(b"\x06bearerno"))), call].concat()).await;
        assert_eq!(reason.code(), Code::Unauthenticated);
        let reason = refusal(&server, &[preface, &[0xff; 12]].concat()).await;
        assert_eq!(reason.code(), Code::InvalidArgument, "{reason}");
        assert_eq!((vault.ran(), teller.pay(1).await.unwrap()), (0, 1));
    });
}

#[test]
fn strangers_that_flood_and_strangers_that_dawdle_hold_nobody_up() {
    run(async {
        let limits = Limits { handshake: 300 * MS, ..Limits::default() };
        let (vault, server) = asking();
        let server = server.limits(limits).listen("mem:strangers").await.unwrap();
        let teller = bank(&server, TELLER).await;
        // Some say nothing, some half a hello, some all of it with a wrong token.
        let whole =
            Session::<()>::opening(&Hello { auth: Some(Credentials::bearer("wrong")), ..Hello::new([0; 16], 0, &Limits::default()) });
        let mut links = Vec::new();
        for n in 0..300 {
            let mut link = stranger(&server).await;
            let say = [&b""[..], &whole[..30], &whole][n % 3];
            link.write_all(say).await.unwrap();
            links.push(link);
            if n % 50 == 0 {
                assert!(teller.open().await.unwrap());
            }
        }
        assert_eq!(server.connections(), 1, "none of them is in");
        for mut link in links {
            while link.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
        }
        assert_eq!((vault.ran(), teller.pay(1).await.unwrap()), (0, 1));
    });
}

#[test]
fn a_channel_over_a_link_shows_credentials_too() {
    run(async {
        let (_, server) = asking();
        let server = server.listen("mem:over").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        server.serve_link(Io::boxed(theirs));
        let channel = Channel::over_as(Io::boxed(ours), Limits::default(), Credentials::bearer(TELLER)).await.unwrap();
        assert_eq!(BankClient::from(channel).pay(1).await.unwrap(), 1);
    });
}

#[test]
fn clients_and_servers_can_be_printed_and_say_no_secret() {
    run(async {
        let (_, server) = asking();
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let bank = BankClient::connect(server.address()).credentials(Credentials::bearer(TELLER)).await.unwrap();
        let shown = format!("{bank:?} {server:?}");
        let address = server.address().to_string();
        assert!(shown.starts_with(&format!("BankClient {{ channel: Channel({address:?}) }} Server {{")), "{shown}");
        assert!(shown.contains("connections: 1") && !shown.contains("71f0aa") && !shown.contains("93d1c6"), "{shown}");
    });
}

#[test]
fn the_command_shows_a_token_and_never_prints_it() {
    let (_, server) = asking();
    let server = server.listen("tcp://127.0.0.1:0").wait().unwrap();
    let address = &server.address().to_string();
    let file = std::env::temp_dir().join(format!("farcall-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TELLER}\n")).unwrap();
    let file = file.to_str().unwrap();
    let runs = [
        (cli::run(&["call", address, "Bank.open"]), 1, "shown"),
        (cli::run(&["call", address, "Bank.open", "--token", GUEST]), 0, "true"),
        (cli::run_in(&["call", address, "Bank.whoami"], "FARCALL_TOKEN", GUEST), 0, "gus"),
        (cli::run_in(&["call", address, "Bank.whoami", "--token", TELLER], "FARCALL_TOKEN", GUEST), 0, "tom"),
        (cli::run(&["call", address, "Bank.pay", "5", "--token-file", file]), 0, "1"),
        // What he may not call he is not told of.
        (cli::run(&["call", address, "Bank.pay", "5", "--token", GUEST]), 2, "has no method \"pay\""),
        (cli::run(&["call", address, "Bank.pay", "5", "--token", "not-9d27e0-known"]), 1, "Unauthenticated"),
        (cli::run(&["describe", address, "--token", TELLER]), 0, "for the role teller"),
        (cli::run(&["describe", address, "--json", "--token", TELLER]), 0, "\"teller\""),
        (cli::run(&["schema", address, "Bank", "--token", GUEST]), 0, "whoami"),
        (cli::run(&["compat", address, address, "Bank", "--token", TELLER]), 0, "safe"),
        (cli::run(&["call", "tcp://192.0.2.1:9", "Bank.open", "--timeout", "100ms", "--token", TELLER]), 1, "192.0.2.1"),
        (cli::run(&["call", address, "Bank.open", "--tokn", TELLER]), 2, "did you mean --token?"),
        (cli::run(&["call", address, "Bank.open", "--token-file", "/no/such/file"]), 2, "/no/such/file"),
        (cli::run(&["call", address, "Bank.open", "--token", ""]), 2, "--token: the token is empty"),
        (cli::run(&["call", address, "Bank.open", "--token-file", "/dev/null"]), 2, "--token-file \"/dev/null\": the token is empty"),
    ];
    for (ran, code, says) in runs {
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let all = ran.out + &ran.err;
        assert!(all.contains(says), "{says}: {all}");
        for secret in ["93d1c6", "71f0aa", "9d27e0"] {
            assert!(!all.contains(secret), "{all}");
        }
    }
}

/// Writes down all that observers are told.
#[derive(Default)]
struct Notes(std::sync::Mutex<String>);

impl farcall::Observer for Notes {
    fn ended(&self, outcome: &farcall::Outcome<'_>) {
        self.0.lock().unwrap().push_str(&format!("{outcome:?}\n"));
    }
    fn warned(&self, warning: &str) {
        self.0.lock().unwrap().push_str(warning);
    }
    fn refused(&self, peer: &str, error: &RpcError) {
        self.0.lock().unwrap().push_str(&format!("refused {peer}: {error} {error:?}\n"));
    }
}

#[test]
fn no_output_of_a_session_has_a_secret_in_it() {
    run(async {
        let notes = Arc::new(Notes::default());
        let verify = |token: Secret| async move {
            let said = String::from_utf8_lossy(token.expose()).into_owned();
            Err::<Identity, _>(RpcError::new(Code::Internal, format!("cannot look up {said}")))
        };
        let (_, server) = asking();
        let server = server
            .authenticate(SignedTokens::new(key()).skew(Duration::ZERO))
            .authenticate(Verifier::bearer(verify))
            .observe(notes.clone());
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let mut seen = String::new();
        let signed = key().sign(&Identity::new("signe"), Duration::from_secs(60));
        let old = key().sign(&Identity::new("olaf"), Duration::ZERO);
        let tokens = [Secret::from(TELLER), Secret::from(GUEST), Secret::from("wrong-token-5f0c21"), signed.clone(), old.clone()];
        for token in &tokens {
            let connect = BankClient::connect(server.address()).credentials(Credentials::bearer(token.clone())).observe(notes.clone());
            match connect.await {
                Ok(client) => {
                    seen += &format!("{:?} {:?}", client.channel().peer(), client.pay(1).await);
                    seen += &format!("{:?}", client.whoami().await);
                }
                Err(e) => seen += &format!("{e} {e:?} {e:#?}"),
            }
            seen += &format!("{token:?} {:?}", Credentials::bearer(token.clone()));
        }
        seen += &format!("{:?} {:?}", self::tokens(), key());
        let hello = Hello { auth: Some(Credentials::bearer(TELLER)), ..Hello::new([0; 16], 0, &Limits::default()) };
        seen += &format!("{hello:?} {hello:#?}");
        drop(server);
        seen += &notes.0.lock().unwrap();
        assert!(seen.contains("cannot look up (secret)") && seen.contains("expired"), "{seen}");
        let signatures = [&signed, &old].map(|t| String::from_utf8_lossy(t.expose()).rsplit('.').next().unwrap().to_owned());
        for secret in ["93d1c6", "71f0aa", "5f0c21", "fct1.", "0123456789abcdef", &signatures[0], &signatures[1]] {
            assert!(!seen.contains(secret), "{secret}: {seen}");
        }
    });
}
