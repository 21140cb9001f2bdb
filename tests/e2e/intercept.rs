//! Interceptors on both sides, the ready-made ones, and the testing module.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::auth::Tokens;
use farcall::intercept::{AccessLog, AdaptiveLimit, CallInfo, ConcurrencyLimit, Faults, Next, RateLimit, Traced};
use farcall::testing::{Mock, pair, pair_as};
use farcall::{CodecId, Credentials, Ended, Identity, Key, Limits, ServerBuilder, Side, prelude::*};
use farcall_tests::{PayError, Payment_notes, Payment_pay, Payment_status, PaymentClient, PaymentServer, Receipt, Status, Till, order};

use crate::support::{Provider, run, until};

const MS: Duration = Duration::from_millis(1);

/// A service with what flows.
#[farcall::service]
trait Tap {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>>;
    async fn tag(&self) -> Reply<String>;
    async fn left(&self) -> Reply<Option<u64>>;
    #[farcall(cancel)]
    async fn wait(&self, ms: u64) -> Reply<()>;
    async fn bytes(&self, len: u32) -> Reply<Vec<u8>>;
    #[farcall(oneway)]
    async fn drip(&self);
}

#[derive(Default)]
struct Well(AtomicUsize);

impl Tap for Well {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>> {
        Ok(Streaming::items(1..=to))
    }
    async fn tag(&self) -> Reply<String> {
        Ok(farcall::context().metadata("tag").unwrap_or("none").to_owned())
    }
    async fn left(&self) -> Reply<Option<u64>> {
        Ok(farcall::context().remaining().map(|left| left.as_millis() as u64))
    }
    async fn wait(&self, ms: u64) -> Reply<()> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    }
    async fn bytes(&self, len: u32) -> Reply<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    async fn drip(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// An interceptor that writes down what comes by.
    fn named(&self, name: &'static str) -> impl farcall::intercept::Interceptor + use<> {
        let diary = self.clone();
        move |call: CallInfo, next: Next| {
            let diary = diary.clone();
            async move {
                diary.note(format!("{name} {}", call.method_name()));
                let ended = next.run(call).await;
                diary.note(format!("{name} {ended:?}"));
                ended
            }
        }
    }
}

fn well() -> ServerBuilder {
    Server::builder().serve(TapServer::new(Well::default()))
}

async fn client(server: &Server) -> TapClient {
    TapClient::connect(server.address()).await.unwrap()
}

#[test]
fn they_stand_in_their_order_on_both_sides() {
    run(async {
        let diary = Diary::default();
        let server = well().intercept(diary.named("s1")).intercept(diary.named("s2")).listen("tcp://127.0.0.1:0").await.unwrap();
        let connect = TapClient::connect(server.address()).intercept(diary.named("c1")).intercept(diary.named("c2"));
        let tap = connect.intercept_attempts(diary.named("a")).await.unwrap();
        assert_eq!(tap.tag().await.unwrap(), "none");
        let names = ["c1", "c2", "a", "s1", "s2"];
        let there = names.iter().map(|n| format!("{n} Tap.tag"));
        let back = names.iter().rev().map(|n| format!("{n} Ok(Ok)"));
        assert_eq!(diary.take(), there.chain(back).collect::<Vec<_>>());
    });
}

async fn tagged(mut call: CallInfo, next: Next) -> Result<Ended, RpcError> {
    let before = call.metadata("tag").unwrap_or("").to_owned();
    call.set_metadata("tag", format!("{before}+{}", if call.side() == Side::Client { "c" } else { "s" }))?;
    next.run(call).await
}

#[test]
fn metadata_goes_along_on_every_way_to_call() {
    run(async {
        let server = well().intercept(tagged).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = TapClient::connect(server.address()).intercept(tagged).intercept_attempts(tagged).await.unwrap();
        assert_eq!(tap.tag().await.unwrap(), "+c+c+s");
        assert_eq!(tap.tag().metadata("tag", "x").send().await.unwrap(), "x+c+c+s");
        assert_eq!(tap.tag().codec(CodecId::Json).await.unwrap(), "+c+c+s");
        assert_eq!(tap.tag().key(&Key::new()).await.unwrap(), "+c+c+s");
        let (one, two) = farcall::batch((tap.tag(), tap.tag())).await;
        assert_eq!((one.unwrap(), two.unwrap()), ("+c+c+s".into(), "+c+c+s".into()));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tap.tag().then(|reply| drop(sender.send(reply)));
        assert_eq!(receiver.await.unwrap().unwrap(), "+c+c+s");
        let waited = tap.clone();
        assert_eq!(farcall::spawn_blocking(move || waited.tag().wait()).await.unwrap().unwrap(), "+c+c+s");
        // Without a stub.
        let call = farcall::RawCall {
            service: Arc::new(TapClient::descriptor().clone()),
            method: 1,
            codec: CodecId::Json,
            args: "[]".into(),
            metadata: Default::default(),
            deadline: None,
            key: None,
        };
        let farcall::RawReply::Ok(body) = farcall::Invoke::invoke(tap.channel(), call).await.unwrap() else { panic!("no result") };
        assert_eq!(body, "\"+c+c+s\"");
        tap.drip().await.unwrap();
        let large = tap.bytes(1 << 20).await.unwrap();
        assert_eq!(large.len(), 1 << 20);
        // In this process.
        let local = TapClient::local(Well::default()).channel().clone().intercept_local(tagged).unwrap();
        assert_eq!(TapClient::from(local).tag().await.unwrap(), "+c");
        assert!(tap.channel().clone().intercept_local(tagged).err().unwrap().message().contains(".intercept("));
    });
}

async fn closed(_: CallInfo, _: Next) -> Result<Ended, RpcError> {
    Err(RpcError::new(Code::Unavailable, "closed for lunch"))
}

async fn spoilt(call: CallInfo, next: Next) -> Result<Ended, RpcError> {
    next.run(call).await?;
    Err(RpcError::not_executed(Code::DataLoss, "spoilt on its way"))
}

async fn lazy(_: CallInfo, _: Next) -> Result<Ended, RpcError> {
    Ok(Ended::Ok)
}

async fn clumsy(_: CallInfo, _: Next) -> Result<Ended, RpcError> {
    panic!("dropped it")
}

#[test]
fn an_error_takes_the_place_of_the_call() {
    run(async {
        let diary = Diary::default();
        for (n, interceptor) in [0, 1, 2, 3].into_iter().enumerate() {
            let inner = diary.named("inner");
            let server = match interceptor {
                0 => well().intercept(closed),
                1 => well().intercept(spoilt),
                2 => well().intercept(lazy),
                _ => well().intercept(clumsy),
            };
            let server = server.intercept(inner).listen("tcp://127.0.0.1:0").await.unwrap();
            let (code, certainty, says) = [
                (Code::Unavailable, Certainty::NotExecuted, "closed for lunch"),
                (Code::DataLoss, Certainty::MaybeExecuted, "spoilt"),
                (Code::Internal, Certainty::NotExecuted, "must do one of the two"),
                (Code::Internal, Certainty::MaybeExecuted, "dropped it"),
            ][n];
            let tap = client(&server).await;
            for _ in 0..3 {
                let e = tap.tag().await.unwrap_err();
                assert_eq!((e.code(), e.certainty()), (code, certainty), "{e}");
                assert!(e.message().contains(says), "{e}");
                assert!(tap.bytes(1 << 20).await.is_err() && tap.count(3).await.is_err());
            }
            assert_eq!(diary.take().is_empty(), n != 1, "what is further in did not see it");
        }
        // And at a client.
        let server = well().listen("tcp://127.0.0.1:0").await.unwrap();
        let connect = || TapClient::connect(server.address());
        let e = connect().intercept(closed).await.unwrap().tag().await.unwrap_err();
        assert_eq!((e.code(), e.certainty(), e.method()), (Code::Unavailable, Certainty::NotSent, Some("Tap.tag")), "{e}");
        let e = connect().intercept_attempts(spoilt).await.unwrap().tag().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::DataLoss, Certainty::MaybeExecuted), "{e}");
        let e = connect().intercept(lazy).await.unwrap().tag().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Internal, Certainty::NotSent), "{e}");
    });
}

async fn thorough(call: CallInfo, next: Next) -> Result<Ended, RpcError> {
    tokio::time::sleep(5 * MS).await;
    let ended = next.run(call).await;
    tokio::time::sleep(5 * MS).await;
    ended
}

#[test]
fn a_reply_waits_for_interceptors_that_take_their_time() {
    run(async {
        let diary = Diary::default();
        let server = well().intercept(diary.named("s")).intercept(thorough).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = client(&server).await;
        let calls: Vec<_> = (0..50).map(|n| tap.bytes(n).send()).collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), vec![7; n]);
        }
        assert_eq!(tap.bytes(1 << 20).await.unwrap().len(), 1 << 20);
        let mut stream = tap.count(3).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert_eq!(diary.take().iter().filter(|note| note.ends_with("Ok(Ok)")).count(), 52);
    });
}

async fn hasty(mut call: CallInfo, next: Next) -> Result<Ended, RpcError> {
    call.shorten_deadline(50 * MS);
    next.run(call).await
}

#[test]
fn a_deadline_may_be_shortened() {
    run(async {
        let plain = well().listen("tcp://127.0.0.1:0").await.unwrap();
        let short = well().intercept(hasty).listen("tcp://127.0.0.1:0").await.unwrap();
        let connect = TapClient::connect(plain.address()).intercept(hasty).await.unwrap();
        assert!(connect.left().await.unwrap().unwrap() <= 50);
        let e = connect.wait(5000).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        let at_server = client(&short).await;
        assert!(at_server.left().await.unwrap().unwrap() <= 50);
        let e = at_server.wait(5000).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::DeadlineExceeded, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("interceptor"), "{e}");
    });
}

#[test]
fn a_hedge_is_one_call_and_two_attempts() {
    run(async {
        let diary = Diary::default();
        let till = Arc::new(Till::default());
        let server = Server::builder().serve(PaymentServer::shared(till.clone())).listen("tcp://127.0.0.1:0").await.unwrap();
        let connect = PaymentClient::connect(server.address()).intercept(diary.named("call")).intercept_attempts(diary.named("attempt"));
        let payment = connect.await.unwrap();
        payment.slow(100).hedge(20 * MS).await.unwrap();
        let notes = diary.take();
        assert_eq!(notes.iter().filter(|n| *n == "call Payment.slow").count(), 1, "{notes:?}");
        assert_eq!(notes.iter().filter(|n| *n == "attempt Payment.slow").count(), 2, "{notes:?}");
        assert_eq!(till.begun.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn the_end_of_a_stream_is_seen_on_both_sides() {
    run(async {
        let diary = Diary::default();
        let watching = |name: &'static str| {
            let diary = diary.clone();
            move |mut call: CallInfo, next: Next| {
                let (opened, ended) = (diary.clone(), diary.clone());
                call.when_stream_ends(move |how| ended.note(format!("{name} ended {how:?}")));
                async move {
                    let opening = next.run(call).await;
                    opened.note(format!("{name} opened {opening:?}"));
                    opening
                }
            }
        };
        let server = well().intercept(watching("s")).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = TapClient::connect(server.address()).intercept(watching("c")).await.unwrap();
        let mut stream = tap.count(3).await.unwrap();
        while let Some(item) = stream.next().await {
            item.unwrap();
        }
        let mut notes = diary.take();
        notes.sort();
        assert_eq!(notes, ["c ended Ok", "c opened Ok(Ok)", "s ended Ok", "s opened Ok(Ok)"]);
        // One whose reader goes away.
        drop(tap.count(1_000_000).await.unwrap());
        let all = Diary::default();
        until("both have ended", || {
            diary.take().into_iter().for_each(|note| all.note(note));
            all.0.lock().unwrap().iter().filter(|note| note.contains("ended Failed(Cancelled")).count() == 2
        })
        .await;
        // No stream, no end.
        tap.tag().await.unwrap();
        assert!(!diary.take().iter().any(|note| note.contains("ended")));
    });
}

#[test]
fn limits_are_each_callers_own() {
    run(async {
        let tokens = Tokens::new().token("tom-1", Identity::new("tom")).token("tina-1", Identity::new("tina"));
        let server = well()
            .authenticate(tokens)
            .intercept(RateLimit::per_caller(0.001, 5))
            // One of two with its place in the call, the other with a future of its own.
            .intercept(ConcurrencyLimit::per_caller(3))
            .intercept(ConcurrencyLimit::per_caller(2))
            .listen("tcp://127.0.0.1:0")
            .await
            .unwrap();
        let connect = async |token: &str| TapClient::connect(server.address()).credentials(Credentials::bearer(token)).await.unwrap();
        let (tom, tina) = (connect("tom-1").await, connect("tina-1").await);
        let (one, two) = (tom.wait(10_000).send(), tom.wait(10_000).send());
        // The third, on the connection on which two came before it.
        let e = tom.wait(0).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
        tina.wait(0).await.unwrap();
        drop((one, two));
        // Three of five are used; on another connection he is the same.
        let again = connect("tom-1").await;
        let mut ended = Vec::new();
        for _ in 0..4 {
            ended.push(again.tag().await.map_err(|e| e.message().to_owned()));
        }
        assert!(ended[3].as_ref().is_err_and(|why| why.contains("in a second, the limit")), "{ended:?}");
        tina.tag().await.unwrap();
    });
}

#[test]
fn an_adaptive_limit_sheds_what_is_too_much() {
    run(async {
        let limit = AdaptiveLimit::between(1, 4);
        let server = well().intercept(limit.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = client(&server).await;
        let calls: Vec<_> = (0..40).map(|_| tap.wait(50).send()).collect();
        let mut shed = 0;
        for call in calls {
            match call.await {
                Ok(()) => {}
                Err(e) => {
                    assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
                    shed += 1;
                }
            }
        }
        assert!((30..40).contains(&shed), "{shed}");
        tap.tag().await.unwrap();
    });
}

/// What is written to it, for the test too.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_access_log_has_one_line_for_each_call() {
    run(async {
        let paper = Paper::default();
        let tokens = Tokens::new().token("eve-secret-1", Identity::new("eve l\nserver Fake"));
        let server = Server::builder()
            .serve(TapServer::new(Well::default()))
            .serve(PaymentServer::new(Till::default()))
            .authenticate(tokens)
            .intercept(AccessLog::to(paper.clone()));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = TapClient::connect(server.address()).credentials(Credentials::bearer("eve-secret-1")).await.unwrap();
        let payment = PaymentClient::from(tap.channel().clone());
        tap.tag().await.unwrap();
        let _ = payment.pay(order(1, 0)).await.unwrap_err();
        let _ = payment.panics("eve-secret-1".into()).await.unwrap_err();
        tap.drip().await.unwrap();
        let mut stream = tap.count(2).await.unwrap();
        while let Some(item) = stream.next().await {
            item.unwrap();
        }
        until("six lines", || paper.0.lock().unwrap().iter().filter(|b| **b == b'\n').count() >= 5).await;
        let log = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert!(!log.contains("secret"), "{log}");
        for line in log.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!(fields.len(), 8, "{line}");
            assert!(fields[0].len() == 24 && fields[0].ends_with('Z') && fields[1] == "server", "{line}");
            assert!(fields[3].starts_with("caller=id:eve\\u{20}l\\u{a}server\\u{20}Fake"), "{line}");
            assert!(fields[6].strip_prefix("ms=").unwrap().parse::<f64>().unwrap() >= 0.0, "{line}");
        }
        for expected in ["Tap.tag ", "outcome=ok ", "Payment.pay ", "outcome=app-error ", "Tap.count ", "outcome=stream-ok "] {
            assert!(log.contains(expected), "{expected}: {log}");
        }
    });
}

#[test]
fn an_access_log_has_a_line_for_calls_that_were_dropped() {
    run(async {
        let (there, here) = (Paper::default(), Paper::default());
        let server = well().intercept(AccessLog::to(there.clone())).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap: TapClient = TapClient::connect(server.address()).intercept(AccessLog::to(here.clone())).await.unwrap();
        let says = |paper: &Paper| String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let e = tap.wait(60_000).deadline(20 * MS).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded);
        until("the handler is dropped", || says(&there).contains(" Tap.wait caller=")).await;
        // The caller leaves.
        let _ = tokio::time::timeout(20 * MS, tap.wait(60_000)).await.unwrap_err();
        until("the handler is dropped", || says(&there).lines().count() > 1).await;
        let outcomes = |paper: &Paper| says(paper).lines().map(|line| line.split(' ').nth(5).unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(outcomes(&here), ["outcome=DeadlineExceeded", "outcome=Cancelled"]);
        // A provider that hears late of the call hears at once that its caller has given up, too.
        let late = |outcome: &str| matches!(outcome, "outcome=DeadlineExceeded" | "outcome=Cancelled");
        assert!(late(&outcomes(&there)[0]) && outcomes(&there)[1] == "outcome=Cancelled", "{}", says(&there));
    });
}

#[test]
fn faults_come_in_their_share() {
    run(async {
        let faults = Faults::seeded(7).fail(0.3, Code::Unavailable).abort(0.2).delay(0.1, MS).only("Tap.tag");
        let server = well().intercept(faults).listen("tcp://127.0.0.1:0").await.unwrap();
        let tap = client(&server).await;
        let (mut failed, mut aborted) = (0, 0);
        for _ in 0..400 {
            match tap.tag().await.map_err(|e| (e.code(), e.certainty())) {
                Ok(_) => {}
                Err((Code::Unavailable, Certainty::NotExecuted)) => failed += 1,
                Err((Code::Aborted, Certainty::MaybeExecuted)) => aborted += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!((90..150).contains(&failed) && (35..85).contains(&aborted), "{failed} {aborted}");
        tap.left().await.unwrap();
    });
}

#[test]
fn spans_are_joined_from_process_to_process() {
    run(async {
        let provider = Provider::start_with("tcp://127.0.0.1:0", &["traced"]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let spy = seen.clone();
        let look = move |call: CallInfo, next: Next| {
            spy.lock().unwrap().push(call.trace().unwrap());
            next.run(call)
        };
        let payment = PaymentClient::connect(&provider.address).intercept(Traced::new()).intercept(look).await.unwrap();
        let there = payment.seen().await.unwrap().3.unwrap();
        let here = seen.lock().unwrap()[0];
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (here.traceparent().split('-').map(str::to_owned).collect(), there.split('-').map(str::to_owned).collect());
        assert_eq!(ours[1], theirs[1], "one trace");
        assert_ne!(ours[2], theirs[2], "a span for each side");
        assert_eq!(theirs[3], "01");
        // A trace that is there already goes on.
        let trace = farcall::Trace { trace_id: [9; 16], span_id: [8; 8], flags: 0 };
        let there = payment.seen().trace(trace).await.unwrap().3.unwrap();
        assert!(there.starts_with("00-09090909") && !there.contains("0808080808080808") && there.ends_with("-00"), "{there}");
    });
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

#[test]
fn a_mock_answers_what_the_test_says() {
    run(async {
        let mock = Mock::of::<PaymentClient>()
            .on::<Payment_status>(|args| Ok(Status::Paid { cents: args.id * 100 }))
            .once::<Payment_pay>(|_| Err(RpcError::not_executed(Code::Unavailable, "the bank is closed").into()))
            .once::<Payment_pay>(|_| Err(PayError::Declined { reason: "no".into() }.into()))
            .on::<Payment_pay>(|args| Ok(Receipt { order: args.order.id, cents: 5 }));
        let (payment, _server) = pair::<PaymentClient>(Server::builder().serve(mock.clone())).await.unwrap();
        assert!(mock.finished().unwrap_err().message().contains("Payment.pay (2 more)"));
        assert_eq!(payment.status(3).await.unwrap(), Status::Paid { cents: 300 });
        let closed = payment.pay(order(1, 1)).await.unwrap_err();
        let known = closed.rpc().map(|e| (e.message(), e.certainty()));
        assert_eq!(known, Some(("the bank is closed", Certainty::NotExecuted)), "as the test said, so that it may be tried again");
        assert!(matches!(payment.pay(order(2, 1)).await, Err(Error::App(PayError::Declined { .. }))));
        assert_eq!(payment.pay(order(3, 1)).codec(CodecId::Json).await.unwrap().order, 3);
        let e = payment.notes().await.unwrap_err();
        assert!(e.code() == Code::Unimplemented && e.message().contains("Payment.notes"), "{e}");
        assert_eq!(mock.calls::<Payment_pay>().iter().map(|args| args.order.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(mock.calls::<Payment_notes>().len(), 0);
        mock.finished().unwrap();
    });
}

#[farcall::service]
#[farcall(role = "teller")]
trait Guarded {
    async fn open(&self) -> Reply<u64>;
}

struct Strict;

impl Guarded for Strict {
    async fn open(&self) -> Reply<u64> {
        Ok(1)
    }
}

#[test]
fn a_mock_asks_for_no_roles_and_a_pair_can_have_them() {
    run(async {
        let mock = Mock::of::<GuardedClient>().on::<Guarded_open>(|_| Ok(7));
        let (guarded, _server) = pair::<GuardedClient>(Server::builder().serve(mock)).await.unwrap();
        assert_eq!(guarded.open().await.unwrap(), 7);
        let strict = || {
            let ann = Tokens::new().token("ann-1", Identity::new("ann").role("teller")).token("bob-1", Identity::new("bob"));
            Server::builder().serve(GuardedServer::new(Strict)).authenticate(ann)
        };
        let (ann, _server) = pair_as::<GuardedClient>(strict(), Credentials::bearer("ann-1")).await.unwrap();
        assert_eq!(ann.open().await.unwrap(), 1);
        let (bob, _server) = pair_as::<GuardedClient>(strict(), Credentials::bearer("bob-1")).await.unwrap();
        assert_eq!(bob.open().await.unwrap_err().code(), Code::PermissionDenied);
        let e = pair::<GuardedClient>(strict()).await.map(|_| ()).unwrap_err();
        assert_eq!(e.code(), Code::Unauthenticated, "{e}");
    });
}

#[test]
fn hours_pass_at_once_under_virtual_time() {
    let real = std::time::Instant::now();
    paused(async {
        let hour = Duration::from_secs(3600);
        let mock = Mock::of::<PaymentClient>()
            .delay::<Payment_status>(hour)
            .on::<Payment_status>(|_| Ok(Status::Unknown))
            .on::<Payment_notes>(|_| Ok(Vec::new()));
        let (payment, server) = pair::<PaymentClient>(Server::builder().serve(mock)).await.unwrap();
        let start = tokio::time::Instant::now();
        let e = payment.status(1).deadline(hour / 2).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        assert_eq!(start.elapsed().as_secs(), 1800);
        assert_eq!(payment.status(1).deadline(hour * 2).await.unwrap(), Status::Unknown);
        assert_eq!(start.elapsed().as_secs(), 1800 + 3600, "heartbeats kept the link meanwhile");
        // Silence for a day.
        tokio::time::sleep(24 * hour).await;
        assert_eq!(payment.notes().await.unwrap(), Vec::<String>::new());
        drop(server);
        let e = payment.notes().await.unwrap_err();
        assert_eq!(e.code(), Code::Unavailable, "{e}");
    });
    assert!(real.elapsed() < Duration::from_secs(60));
}

#[test]
fn rates_follow_virtual_time() {
    paused(async {
        let server = well().intercept(RateLimit::per_caller(1.0, 1));
        let (tap, _server) = pair::<TapClient>(server).await.unwrap();
        for _ in 0..5 {
            tap.tag().await.unwrap();
            assert_eq!(tap.tag().await.unwrap_err().code(), Code::ResourceExhausted);
            tokio::time::sleep(Duration::from_millis(1001)).await;
        }
    });
}

#[test]
fn heartbeats_and_reconnects_follow_virtual_time() {
    paused(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        // A peer that says hello and nothing more.
        let mut theirs = theirs;
        tokio::io::AsyncWriteExt::write_all(&mut theirs, &crate::bad_peer::opening()).await.unwrap();
        let channel = farcall::Channel::over(farcall::Io::boxed(ours), Limits::default()).await.unwrap();
        let start = tokio::time::Instant::now();
        let e = PaymentClient::from(channel).status(1).no_deadline().await.unwrap_err();
        assert!(e.message().contains("no answer to a heartbeat"), "{e}");
        assert_eq!(start.elapsed().as_secs(), 20);
    });
}
