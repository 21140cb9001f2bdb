//! Idempotency keys over real sockets: whatever is cut when, a call with a key runs once, and who
//! cannot be told whether it ran is told that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::{CodecId, Ended, Key, Limits, Observer, Outcome, prelude::*};
use farcall_tests::{PayError, PaymentClient, order};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::cli;
use crate::support::{Provider, run, serve, until};

/// Why nobody gets in.
#[farcall::error]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shut {
    /// Number 13.
    Unlucky,
}

/// Counts who gets in.
#[farcall::service]
pub(crate) trait Vault {
    /// Waits at the gate; the number of those who got in so far. Not for number 13.
    async fn enter(&self, n: u64) -> Reply<u64, Shut>;
    /// The same, but a caller who goes away is not waited for.
    #[farcall(cancel)]
    async fn enter_if_wanted(&self, n: u64) -> Reply<u64, Shut>;
    /// The same, on the blocking pool and without a gate.
    fn enter_by_thread(&self) -> Reply<u64>;
    /// Panics, at once or at the gate.
    async fn trip(&self, at_the_gate: bool) -> Reply<()>;
    /// So many bytes.
    async fn carry(&self, bytes: Vec<u8>) -> Reply<Vec<u8>>;
    /// Those who got in, without a gate.
    #[farcall(idempotent)]
    async fn look(&self) -> Reply<u64>;
    /// Nobody listens.
    #[farcall(oneway)]
    async fn shout(&self);
}

struct Hall {
    gate: Semaphore,
    begun: AtomicU64,
    entered: AtomicU64,
}

impl Hall {
    fn shut() -> Arc<Hall> {
        Arc::new(Hall { gate: Semaphore::new(0), begun: AtomicU64::new(0), entered: AtomicU64::new(0) })
    }

    fn open() -> Arc<Hall> {
        let hall = Hall::shut();
        hall.unlock();
        hall
    }

    fn unlock(&self) {
        self.gate.add_permits(1000);
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn entered(&self) -> u64 {
        self.entered.load(Ordering::SeqCst)
    }

    async fn pass(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.entered.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Vault for Hall {
    async fn enter(&self, n: u64) -> Reply<u64, Shut> {
        match (self.pass().await, n) {
            (_, 13) => Err(Shut::Unlucky)?,
            (entered, _) => Ok(entered),
        }
    }
    async fn enter_if_wanted(&self, n: u64) -> Reply<u64, Shut> {
        Vault::enter(self, n).await
    }
    fn enter_by_thread(&self) -> Reply<u64> {
        Ok(self.entered.fetch_add(1, Ordering::SeqCst) + 1)
    }
    async fn trip(&self, at_the_gate: bool) -> Reply<()> {
        if at_the_gate {
            self.pass().await;
        } else {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        panic!("tripped")
    }
    async fn carry(&self, bytes: Vec<u8>) -> Reply<Vec<u8>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(bytes)
    }
    async fn look(&self) -> Reply<u64> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(self.entered())
    }
    async fn shout(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
}

async fn serve_hall(hall: &Arc<Hall>, limits: Limits) -> Server {
    Server::builder().serve(VaultServer::shared(hall.clone())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap()
}

async fn client(address: impl std::fmt::Display) -> VaultClient {
    VaultClient::connect(address).await.unwrap()
}

/// A way to a provider that can be cut, and that can lose what the provider says before.
struct Wire {
    address: String,
    cut: watch::Sender<u64>,
    lose_replies: Arc<AtomicBool>,
}

impl Wire {
    async fn to(provider: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let (cut, lose_replies) = (watch::Sender::new(0), Arc::new(AtomicBool::new(false)));
        let (cuts, losing) = (cut.subscribe(), Arc::clone(&lose_replies));
        let provider = provider.strip_prefix("tcp://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&provider).await.unwrap();
                let (mut cuts, losing) = (cuts.clone(), losing.clone());
                cuts.mark_unchanged();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let there = tokio::spawn(pass(near_in, far_out, Arc::default()));
                let back = tokio::spawn(pass(far_in, near_out, losing));
                tokio::spawn(async move {
                    let _ = cuts.changed().await;
                    there.abort();
                    back.abort();
                });
            }
        });
        Wire { address, cut, lose_replies }
    }

    fn lose_replies(&self, lose: bool) {
        self.lose_replies.store(lose, Ordering::SeqCst);
    }

    fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, lose: Arc<AtomicBool>) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if !lose.load(Ordering::SeqCst) && to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_lost_reply_is_had_by_calling_again_and_nothing_runs_twice() {
    run(async {
        let (till, server, _direct) = serve("tcp://127.0.0.1:0").await;
        let wire = Wire::to(&server.address().to_string()).await;
        // Cut so often, it would soon be let alone for seconds.
        let again = Duration::from_millis(1);
        let limits = Limits { reconnect_base: again, reconnect_cap: again, ..Limits::default() };
        let payment = PaymentClient::connect(&wire.address).limits(limits).await.unwrap();
        let key = Key::new();
        for round in 1..=5 {
            payment.status(7).await.unwrap();
            wire.lose_replies(true);
            let lost = payment.pay(order(7, 2)).key(&key).send();
            // In the first round it runs; in the others nothing tells when it was answered, nor
            // does it matter.
            until("the order to be paid", || till.paid.load(Ordering::SeqCst) == 1).await;
            wire.cut();
            let e = lost.await.unwrap_err();
            let e = e.rpc().unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "round {round}: {e}");
            wire.lose_replies(false);
        }
        let receipt = payment.pay(order(7, 2)).key(&key).await.unwrap();
        assert_eq!((receipt.order, receipt.cents), (7, 300));
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
        // The same without a key, to see that the test sees it.
        wire.lose_replies(true);
        let lost = payment.pay(order(8, 2)).send();
        until("the order to be paid", || till.paid.load(Ordering::SeqCst) == 2).await;
        wire.cut();
        lost.await.unwrap_err();
        wire.lose_replies(false);
        payment.pay(order(8, 2)).await.unwrap();
        assert_eq!(till.paid.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_call_cut_off_in_its_handler_goes_on_and_the_next_attempt_waits_for_it() {
    run(async {
        let hall = Hall::shut();
        let server = serve_hall(&hall, Limits::default()).await;
        let wire = Wire::to(&server.address().to_string()).await;
        let (vault, key) = (client(&wire.address).await, Key::new());
        let cut_off = vault.enter(1).key(&key).send();
        until("it to begin", || hall.begun() == 1).await;
        wire.cut();
        assert_eq!(cut_off.await.unwrap_err().rpc().unwrap().certainty(), Certainty::MaybeExecuted);
        until("the connection to end", || server.connections() == 0).await;
        let again = vault.enter(1).key(&key).send();
        until("it to be connected again", || server.connections() == 1).await;
        // Waiting is given up by deadline and by dropping, and what runs goes on.
        let e = vault.enter(1).key(&key).deadline(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(e.rpc().unwrap().code(), Code::DeadlineExceeded, "{e}");
        drop(vault.enter(1).key(&key).send());
        vault.look().await.unwrap();
        hall.unlock();
        assert_eq!(again.await.unwrap(), 1);
        assert_eq!(hall.entered(), 1);
    });
}

#[test]
fn fifty_attempts_at_once_are_one_run_and_fifty_equal_replies() {
    run(async {
        let hall = Hall::shut();
        let server = serve_hall(&hall, Limits::default()).await;
        let (one, two, key) = (client(server.address()).await, client(server.address()).await, Key::named("order-17").unwrap());
        let attempts: Vec<_> = (0..50).map(|n| if n % 2 == 0 { &one } else { &two }.enter(3).key(&key).send()).collect();
        // Calls are handled in their order: when these are answered, all attempts have arrived.
        one.look().await.unwrap();
        two.look().await.unwrap();
        assert_eq!(hall.begun(), 3, "one attempt and two looks");
        hall.unlock();
        for attempt in attempts {
            assert_eq!(attempt.await.unwrap(), 1);
        }
        assert_eq!(hall.entered(), 1);
        // Also for a program that knows nothing but the key's name; and another key runs.
        assert_eq!(one.enter(3).key(&Key::named(b"order-17").unwrap()).await.unwrap(), 1);
        assert_eq!(one.enter(3).key(&Key::new()).await.unwrap(), 2);
    });
}

#[test]
fn a_caller_who_drops_a_call_with_a_key_does_not_stop_it() {
    run(async {
        let hall = Hall::shut();
        let server = serve_hall(&hall, Limits::default()).await;
        let (vault, key) = (client(server.address()).await, Key::new());
        let dropped = vault.enter_if_wanted(1).key(&key).send();
        until("it to begin", || hall.begun() == 1).await;
        drop(dropped);
        // Had the Cancel dropped the handler, it would have by now.
        vault.look().await.unwrap();
        hall.unlock();
        assert_eq!(vault.enter_if_wanted(1).key(&key).await.unwrap(), 1);
        assert_eq!(hall.entered(), 1);
    });
}

#[test]
fn every_kind_of_reply_is_kept() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let vault = client(server.address()).await;
        let key = Key::new();
        for _ in 0..3 {
            assert_eq!(vault.enter(13).key(&key).await.unwrap_err().app(), Some(&Shut::Unlucky));
            assert_eq!(vault.enter_by_thread().key(&key).await.unwrap(), 2);
            assert_eq!(vault.carry(vec![5; 100_000]).key(&key).await.unwrap(), [5; 100_000]);
        }
        assert_eq!((hall.begun(), hall.entered()), (2, 2));
        for (begun, at_the_gate) in [(3, false), (4, true)] {
            let key = Key::new();
            for _ in 0..3 {
                let e = vault.trip(at_the_gate).key(&key).await.unwrap_err();
                assert_eq!((e.code(), e.certainty()), (Code::Internal, Certainty::MaybeExecuted));
                assert!(e.message().contains("tripped"), "{e}");
                assert_eq!(hall.begun(), begun);
            }
        }
        // The slot that the panic left behind is as good as new.
        assert_eq!(vault.enter(1).await.unwrap(), 4);
    });
}

#[test]
fn a_key_is_for_one_call() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let (vault, key) = (client(server.address()).await, Key::new());
        vault.enter(1).key(&key).await.unwrap();
        for other in [vault.enter(2).key(&key), vault.enter(1).key(&key).codec(CodecId::Json)] {
            let e = other.await.unwrap_err();
            let e = e.rpc().unwrap();
            assert_eq!(e.code(), Code::InvalidArgument, "{e}");
            assert!(e.message().contains("other arguments"), "{e}");
        }
        assert_eq!(hall.entered(), 1);
        // A key that never ran may be used for anything.
        let e = vault.enter(1).key(&Key::named(key.bytes()).unwrap()).codec(CodecId::Json).await.unwrap_err();
        assert_eq!(e.rpc().unwrap().certainty(), Certainty::NotExecuted);
    });
}

#[test]
fn methods_that_need_no_key_and_methods_that_cannot_have_one() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let (vault, key) = (client(server.address()).await, Key::new());
        vault.look().key(&key).await.unwrap();
        vault.look().key(&key).await.unwrap();
        assert_eq!(hall.begun(), 2, "an idempotent method runs each time");
        let e = vault.shout().key(&key).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::InvalidArgument, Certainty::NotSent));
        assert!(e.message().contains("one-way"), "{e}");
        // In this process nothing is lost on the way, and nothing remembered.
        let local = VaultClient::local(Arc::into_inner(Hall::open()).unwrap());
        assert_eq!(local.enter(1).key(&key).await.unwrap(), 1);
        let e = local.enter(1).key(&key).await.unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted), "{e}");
        assert_eq!(local.look().await.unwrap(), 1);
    });
}

#[test]
fn a_restarted_provider_is_seen_in_the_error_and_runs_nothing_twice() {
    run(async {
        let mut provider = Provider::start("tcp://127.0.0.1:0");
        let address = provider.address.clone();
        let payment = PaymentClient::connect(&address).await.unwrap();
        let (key, unused) = (Key::new(), Key::new());
        let paying = payment.sure(3_600_000).key(&key).send();
        payment.status(1).await.unwrap();
        provider.kill();
        assert_eq!(paying.await.unwrap_err().certainty(), Certainty::MaybeExecuted);
        // This attempt was not even sent, but the one before may have run.
        let e = payment.sure(3_600_000).key(&key).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        let e = payment.sure(1).key(&unused).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
        let _again = Provider::start(&address);
        let e = payment.sure(3_600_000).key(&key).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted), "{e}");
        for part in ["started again", &address, "forget()"] {
            assert!(e.message().contains(part), "{part:?} is not in: {e}");
        }
        assert_eq!(payment.sure(1).key(&unused).await.unwrap(), 1, "the first that runs there");
        key.forget();
        assert_eq!(payment.sure(1).key(&key).await.unwrap(), 2);
    });
}

#[test]
fn a_server_started_again_in_the_same_process_is_another_one() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let address = server.address().to_string();
        let (vault, key) = (client(&address).await, Key::new());
        vault.enter(1).key(&key).await.unwrap();
        server.drain(Duration::from_secs(10)).await.unwrap();
        let _server = Server::builder().serve(VaultServer::shared(hall.clone())).listen(&address).await.unwrap();
        let e = vault.enter(1).key(&key).await.unwrap_err();
        assert!(e.rpc().unwrap().message().contains("started again"), "{e}");
        assert_eq!(hall.entered(), 1);
    });
}

#[test]
fn what_had_to_be_forgotten_is_refused_and_not_run_again() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits { keys: 1, ..Limits::default() }).await;
        let (vault, key) = (client(server.address()).await, Key::new());
        assert_eq!(vault.enter(1).key(&key).await.unwrap(), 1);
        assert_eq!(vault.enter(1).key(&Key::new()).await.unwrap(), 2, "it pushes the first one out");
        let e = vault.enter(1).key(&key).await.unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("forgotten") && e.message().contains("`keys`"), "{e}");
        assert_eq!(hall.entered(), 2);
    });
}

#[test]
fn limits_of_the_record_are_named() {
    run(async {
        let hall = Hall::shut();
        let server = serve_hall(&hall, Limits { keys: 2, key_bytes: 1600, ..Limits::default() }).await;
        let vault = client(server.address()).await;
        let running: Vec<_> = (0..2).map(|n| vault.enter(n).key(&Key::new()).send()).collect();
        let e = vault.enter(3).key(&Key::new()).await.unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
        assert!(e.message().contains("2 calls with a key") && e.message().contains("`keys`"), "{e}");
        hall.unlock();
        for call in running {
            call.await.unwrap();
        }
        let key = Key::new();
        assert_eq!(vault.carry(vec![1; 500]).key(&key).await.unwrap().len(), 500, "the first caller gets all of it");
        let e = vault.carry(vec![1; 500]).key(&key).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("ran and ended with a result") && e.message().contains("`key_bytes`"), "{e}");
        let none = serve_hall(&hall, Limits { keys: 0, ..Limits::default() }).await;
        let e = client(none.address()).await.enter(1).key(&Key::new()).await.unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::Unimplemented, Certainty::NotSent), "{e}");
    });
}

#[test]
fn a_kept_result_that_is_too_large_for_this_caller_is_said_to_be() {
    run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let key = Key::new();
        client(server.address()).await.carry(vec![1; 500]).key(&key).await.unwrap();
        let small = VaultClient::connect(server.address()).limits(Limits { body: 100, ..Limits::default() }).await.unwrap();
        let e = small.carry(vec![1; 500]).key(&key).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("the caller's limit `body` is 100"), "{e}");
        small.look().await.unwrap();
    });
}

#[test]
fn a_first_call_that_has_to_connect_and_a_blocking_caller() {
    let (address, entered) = run(async {
        let hall = Hall::open();
        let server = serve_hall(&hall, Limits::default()).await;
        let key = Key::new();
        let lazy = VaultClient::connect(server.address()).lazy().unwrap();
        assert_eq!(lazy.enter(1).key(&key).await.unwrap(), 1);
        // Refused before it is sent; the attempt before may have run, and did.
        let e = lazy.enter(1).key(&key).wait().unwrap_err();
        assert_eq!(e.rpc().unwrap().certainty(), Certainty::MaybeExecuted, "{e}");
        let (address, again) = (server.address().to_string(), key.clone());
        let thread = std::thread::spawn(move || VaultClient::connect(address).wait().unwrap().enter(1).key(&again).wait().unwrap());
        until("the thread to end", || thread.is_finished()).await;
        (thread.join().unwrap(), hall.entered())
    });
    assert_eq!((address, entered), (1, 1));
}

#[derive(Default)]
struct Heard(Mutex<Vec<Ended>>);

impl Observer for Heard {
    fn ended(&self, outcome: &Outcome<'_>) {
        self.0.lock().unwrap().push(outcome.ended);
    }
}

#[test]
fn an_observer_can_tell_what_ran_from_what_was_repeated() {
    run(async {
        let (heard, hall) = (Arc::new(Heard::default()), Hall::open());
        let server = Server::builder().serve(VaultServer::shared(hall)).observe(heard.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let (vault, key) = (client(server.address()).await, Key::new());
        for _ in 0..2 {
            vault.enter(13).key(&key).await.unwrap_err();
        }
        assert_eq!(*heard.0.lock().unwrap(), [Ended::AppError, Ended::Replayed]);
    });
}

#[test]
fn the_command_takes_a_key() {
    let provider = Provider::start("tcp://127.0.0.1:0");
    let call = |more: &[&str]| cli::run(&[&["call", &provider.address, "Payment.sure", "1"], more].concat());
    for (more, out) in [(&["--key", "a"][..], "1\n"), (&["--key", "a"], "1\n"), (&["--key", "b"], "2\n"), (&[], "3\n")] {
        call(more).check(0, &[out], &[]);
    }
    call(&["--key", ""]).check(2, &[], &["--key: an idempotency key is 1 to 64 bytes, not 0"]);
    let late = cli::run(&["call", &provider.address, "Payment.sure", "--key", "c", "--deadline", "50ms", "3600000"]);
    late.check(1, &[], &["calling again with this key cannot run it twice"]);
}

#[test]
fn a_declined_card_stays_declined() {
    run(async {
        let (till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        let key = Key::new();
        for _ in 0..2 {
            let e = payment.pay(order(1, 0)).key(&key).await.unwrap_err();
            assert!(matches!(e.app(), Some(PayError::Declined { .. })), "{e}");
        }
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
    });
}
