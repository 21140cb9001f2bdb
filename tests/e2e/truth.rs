//! What a failed call says about itself is true: code, certainty, stage; and what a handler sees.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::{Ended, Limits, Observer, Outcome, Side, Stage, Trace, prelude::*};
use farcall_tests::{Payment, PaymentClient, PaymentServer, Till, order};

use crate::support::{Provider, run, serve, until};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_timeout_names_the_stage_that_ate_the_time() {
    run(async {
        let (till, server, client) = serve("tcp://127.0.0.1:0").await;
        let e = client.sure(3_600_000).deadline(60 * MS).await.unwrap_err();
        assert_eq!((e.code(), e.certainty(), e.stage()), (Code::DeadlineExceeded, Certainty::MaybeExecuted, Some(Stage::AwaitingReply)));
        let address = server.address().to_string();
        for part in ["deadline 60 ms", "client queue", "no reply from", &address, "after the request was written"] {
            assert!(e.message().contains(part), "{part:?} is not in: {e}");
        }
        assert_eq!(e.method(), Some("Payment.sure"));
        assert_eq!(till.begun.load(Ordering::SeqCst), 1);
        // The connection is as good as before.
        client.status(1).await.unwrap();
    });
}

#[test]
fn a_deadline_covers_connecting() {
    run(async {
        // It accepts and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(format!("tcp://{}", silent.local_addr().unwrap())).lazy().unwrap();
        let e = client.status(1).deadline(50 * MS).await.unwrap_err();
        assert_eq!((e.code(), e.certainty(), e.stage()), (Code::DeadlineExceeded, Certainty::NotSent, Some(Stage::Connect)), "{e}");
    });
}

#[test]
fn expired_work_never_starts() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let e = client.sure(1).deadline(Duration::ZERO).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::DeadlineExceeded, Certainty::NotSent));
        // The first call of the batch holds the provider up; meanwhile the second one's time runs out.
        let seen = Arc::new(Seen::default());
        let server =
            Server::builder().serve(PaymentServer::shared(till.clone())).observe(seen.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).await.unwrap();
        client.status(1).await.unwrap();
        let (held, late) = farcall::batch((client.hold(100), client.sure(1).deadline(20 * MS))).await;
        held.unwrap();
        let e = late.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        until("the provider to refuse it", || seen.all().len() == 3).await;
        assert_eq!(seen.all()[2], (Side::Server, "sure".into(), Ended::Failed(Code::DeadlineExceeded, Certainty::NotExecuted)));
        assert_eq!(till.begun.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_dropped_idempotent_call_stops_its_handler_and_another_does_not() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let (slow, sure) = (client.slow(200).send(), client.sure(200).send());
        until("both handlers to begin", || till.begun.load(Ordering::SeqCst) == 2).await;
        drop((slow, sure));
        until("the sure one to end", || till.ended.load(Ordering::SeqCst) >= 1).await;
        // Had the slow one gone on, it would have ended in the same millisecond or before.
        client.status(1).await.unwrap();
        tokio::time::sleep(20 * MS).await;
        assert_eq!(till.ended.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_handler_that_must_not_be_cut_off_outlives_its_connection() {
    run(async {
        let (till, server, client) = serve("tcp://127.0.0.1:0").await;
        let (slow, sure) = (client.slow(100).send(), client.sure(100).send());
        until("both handlers to begin", || till.begun.load(Ordering::SeqCst) == 2).await;
        drop((slow, sure, client));
        until("the connection to end", || server.connections() == 0).await;
        until("the sure one to end", || till.ended.load(Ordering::SeqCst) == 1).await;
        tokio::time::sleep(20 * MS).await;
        assert_eq!(till.ended.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_killed_provider_leaves_a_truthful_error_and_a_new_one_is_found() {
    run(async {
        let mut provider = Provider::start("tcp://127.0.0.1:0");
        let address = provider.address.clone();
        let client = PaymentClient::connect(&address).await.unwrap();
        let sure = client.sure(3_600_000).send();
        client.status(1).await.unwrap();
        provider.kill();
        let e = sure.await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        let e = client.status(1).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
        assert!(e.message().contains("nobody listens"), "{e}");
        // It comes back on the same address: the next call connects again.
        let _again = Provider::start(&address);
        client.status(1).await.unwrap();
    });
}

#[test]
fn draining_lets_running_calls_end_and_takes_no_new_ones() {
    run(async {
        let (till, server, client) = serve("tcp://127.0.0.1:0").await;
        let address = server.address().to_string();
        let running = client.sure(150).send();
        until("the handler to begin", || till.begun.load(Ordering::SeqCst) == 1).await;
        let drained = tokio::spawn(server.drain(Duration::from_secs(10)));
        assert_eq!(running.await.unwrap(), 1);
        drained.await.unwrap().unwrap();
        let e = client.status(1).await.unwrap_err();
        assert!(e.certainty().is_safe_to_retry(), "{e}");
        // The port is free again.
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen(address).await.unwrap();
        client.status(1).await.unwrap();
        drop(server);
    });
}

#[test]
fn draining_is_bounded() {
    run(async {
        let (till, server, client) = serve("tcp://127.0.0.1:0").await;
        let stuck = client.sure(3_600_000).no_deadline().send();
        until("the handler to begin", || till.begun.load(Ordering::SeqCst) == 1).await;
        let e = server.drain(50 * MS).await.unwrap_err();
        assert!(e.message().contains("1 connections"), "{e}");
        assert_eq!(stuck.await.unwrap_err().certainty(), Certainty::MaybeExecuted);
    });
}

#[test]
fn a_handler_sees_its_caller_metadata_deadline_and_trace() {
    run(async {
        let (_till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let trace = Trace { trace_id: [0xab; 16], span_id: [2; 8], flags: 1 };
        let call = client.seen().metadata("tenant", "blue").trace(trace).deadline(Duration::from_secs(3));
        let (software, tenant, left, seen) = call.await.unwrap();
        assert!(software.starts_with("farcall/"));
        assert_eq!(tenant, "blue");
        assert!((2000..=3000).contains(&left.unwrap()), "{left:?}");
        assert_eq!(seen.as_deref(), Some(trace.traceparent().as_str()));
        let (_, tenant, left, seen) = client.seen().no_deadline().await.unwrap();
        assert_eq!((tenant.as_str(), left, seen), ("nobody", None, None));
        let local = PaymentClient::local(Till::default());
        let (_, tenant, left, _) = local.seen().metadata("tenant", "red").await.unwrap();
        assert_eq!(tenant, "red");
        assert!(left.is_some());
        let e = client.seen().metadata("Tenant", "x").await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::InvalidArgument, Certainty::NotSent));
    });
}

/// Passes calls on to another provider.
#[farcall::service]
pub trait Relay {
    /// What the next provider sees when this one calls it, from the handler and from a task it spawns.
    async fn relay(&self) -> Reply<(Option<u64>, Option<String>, Option<u64>)>;
    /// From a blocking handler.
    fn relay_blocking(&self) -> Reply<Option<u64>>;
    /// Fails as the next provider fails.
    async fn fail(&self) -> Reply<u64>;
}

struct RelayTo(PaymentClient);

impl Relay for RelayTo {
    async fn relay(&self) -> Reply<(Option<u64>, Option<String>, Option<u64>)> {
        let (_, _, left, trace) = self.0.seen().await?;
        let next = self.0.clone();
        let (_, _, spawned, _) = farcall::spawn(async move { next.seen().await }).await.unwrap()?;
        Ok((left, trace, spawned))
    }
    fn relay_blocking(&self) -> Reply<Option<u64>> {
        Ok(self.0.seen().wait()?.2)
    }
    async fn fail(&self) -> Reply<u64> {
        let receipt = self.0.pay(order(1, 0)).await.map_err(Error::upstream)?;
        Ok(receipt.cents)
    }
}

#[test]
fn child_calls_inherit_deadline_and_trace() {
    run(async {
        let (_till, _server, next) = serve("tcp://127.0.0.1:0").await;
        let server = Server::builder().serve(RelayServer::new(RelayTo(next))).listen("tcp://127.0.0.1:0").await.unwrap();
        let relay = RelayClient::connect(server.address()).await.unwrap();
        let trace = Trace { trace_id: [3; 16], span_id: [4; 8], flags: 0 };
        let (left, seen, spawned) = relay.relay().deadline(Duration::from_secs(2)).trace(trace).await.unwrap();
        // Without inheritance it would be the default of ten seconds.
        assert!(left.is_some_and(|ms| ms <= 2000), "{left:?}");
        assert!(spawned.is_some_and(|ms| ms <= 2000), "{spawned:?}");
        assert_eq!(seen, Some(trace.traceparent()));
        let left = relay.relay_blocking().deadline(Duration::from_secs(2)).await.unwrap();
        assert!(left.is_some_and(|ms| ms <= 2000), "{left:?}");
        let e = relay.fail().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted));
        assert!(e.message().contains("upstream") && e.message().contains("Declined"), "{e}");
    });
}

#[test]
fn a_panic_answers_its_own_call_only() {
    run(async {
        let (_till, server, client) = serve("tcp://127.0.0.1:0").await;
        let sure = client.sure(30).send();
        let e = client.panics("boom 7".into()).await.unwrap_err();
        assert_eq!((e.code(), e.certainty(), e.stage()), (Code::Internal, Certainty::MaybeExecuted, Some(Stage::Handler)));
        assert!(e.message().contains("boom 7"), "{e}");
        sure.await.unwrap();
        assert_eq!(server.connections(), 1);
        let local = PaymentClient::local(Till::default());
        assert!(local.panics("boom 8".into()).await.unwrap_err().message().contains("boom 8"));
    });
}

#[test]
fn limits_are_named_and_refuse_before_sending() {
    run(async {
        let limits = Limits { body: 1000, in_flight: 3, metadata: 100, ..Limits::default() };
        let till = Arc::new(Till::default());
        let server = Server::builder().serve(PaymentServer::shared(till.clone())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).await.unwrap();
        let e = client.echo(vec![0; 2000]).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotSent));
        assert!(e.message().contains("`body`"), "{e}");
        let e = client.status(1).metadata("a", "x".repeat(200)).await.unwrap_err();
        assert!(e.message().contains("`metadata`") && e.certainty() == Certainty::NotSent, "{e}");
        let held: Vec<_> = (0..3).map(|_| client.sure(100).send()).collect();
        let e = client.status(1).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotSent));
        assert!(e.message().contains("`in_flight`"), "{e}");
        for call in held {
            call.await.unwrap();
        }
        client.status(1).await.unwrap();
        // A result too large for the caller.
        let small = PaymentClient::connect(server.address()).limits(Limits { body: 100, ..Limits::default() }).await.unwrap();
        let e = small.echo(vec![0; 500]).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::MaybeExecuted));
        assert!(e.message().contains("result") && e.message().contains("`body`"), "{e}");
        small.status(1).await.unwrap();
    });
}

#[derive(Default)]
struct Seen(Mutex<Vec<(Side, String, Ended)>>);

impl Observer for Seen {
    fn ended(&self, o: &Outcome<'_>) {
        self.0.lock().unwrap().push((o.side, o.method.to_owned(), o.ended));
    }
}

impl Seen {
    fn all(&self) -> Vec<(Side, String, Ended)> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn an_observer_is_told_the_truth_in_the_corners() {
    run(async {
        let seen = Arc::new(Seen::default());
        // A call dropped while it connects was never sent.
        let nobody = PaymentClient::connect("tcp://127.0.0.1:1").observe(seen.clone()).lazy().unwrap();
        drop(nobody.status(1).send());
        until("the drop to be seen", || seen.all().len() == 1).await;
        let Ended::Failed(_, certainty) = seen.all()[0].2 else { panic!("{:?}", seen.all()) };
        assert_eq!(certainty, Certainty::NotSent);
        // A handler that outlives its connection is seen to end, and it ran.
        let seen = Arc::new(Seen::default());
        let till = Arc::new(Till::default());
        let server =
            Server::builder().serve(PaymentServer::shared(till.clone())).observe(seen.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).await.unwrap();
        let sure = client.sure(50).send();
        until("the handler to begin", || till.begun.load(Ordering::SeqCst) == 1).await;
        drop((sure, client));
        until("its end to be seen", || seen.all().len() == 1).await;
        assert_eq!(seen.all(), [(Side::Server, "sure".to_owned(), Ended::Ok)]);
        // A handler may fail with any code: it ran all the same.
        let relay =
            Server::builder().serve(RelayServer::new(RelayTo(nobody))).observe(seen.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = RelayClient::connect(relay.address()).await.unwrap();
        client.relay().await.unwrap_err();
        assert_eq!(seen.all()[1].2, Ended::Failed(Code::Unavailable, Certainty::MaybeExecuted));
    });
}

#[test]
fn an_observer_sees_both_sides_of_every_call() {
    run(async {
        let seen = Arc::new(Seen::default());
        let server =
            Server::builder().serve(PaymentServer::new(Till::default())).observe(seen.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).observe(seen.clone()).await.unwrap();
        client.pay(order(1, 1)).await.unwrap();
        client.pay(order(1, 0)).await.unwrap_err();
        client.panics("x".into()).await.unwrap_err();
        client.note("n".into()).await.unwrap();
        client.slow(1).await.unwrap();
        let mut all = seen.all();
        all.sort_by_key(|(side, _, _)| *side == Side::Server);
        let of = |side| all.iter().filter(|s| s.0 == side).map(|s| (s.1.as_str(), s.2)).collect::<Vec<_>>();
        let internal = Ended::Failed(Code::Internal, Certainty::MaybeExecuted);
        let expected = vec![("pay", Ended::Ok), ("pay", Ended::AppError), ("panics", internal), ("note", Ended::Ok), ("slow", Ended::Ok)];
        assert_eq!(of(Side::Client), expected);
        assert_eq!(of(Side::Server), expected);
    });
}

#[test]
fn the_trait_is_object_free_but_generic_code_takes_it() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    run(async {
        let client = PaymentClient::local(Till::default());
        let call = assert_send(client.status(7));
        assert_send(call.await).unwrap();
        assert_send(Payment::status(&client, 7)).await.unwrap();
    });
}

/// A request that is half written when something else is to be sent: the peer must not see the two
/// mixed up.
#[test]
fn a_pong_does_not_land_inside_a_half_written_request() {
    use farcall_wire::{Header, Kind, PREFACE_LEN, Session, get_frame};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    run(async {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let session = Session::<()>::new([1; 16], 1, &Limits::default());
        theirs.write_all(&Session::<()>::opening(&session.hello)).await.unwrap();
        let client = PaymentClient::from(farcall::Channel::over(farcall::Io::boxed(ours), Limits::default()).await.unwrap());
        let large = client.echo(vec![7; 100_000]).send();
        let mut read = bytes::BytesMut::new();
        let mut kinds = Vec::new();
        while kinds.last() != Some(&Kind::Pong) {
            assert!(theirs.read_buf(&mut read).await.unwrap() > 0, "{kinds:?}");
            if kinds.is_empty() && read.len() > PREFACE_LEN {
                let _ = read.split_to(PREFACE_LEN);
                kinds.push(Kind::Void);
            }
            while !kinds.is_empty()
                && let Some(frame) = get_frame(&mut read, 1 << 20).unwrap()
            {
                if frame.header.kind == Kind::Call {
                    assert_eq!(frame.payload[frame.payload.len() - 100_000..], [7; 100_000]);
                }
                kinds.push(frame.header.kind);
                if frame.header.kind == Kind::Bind {
                    // The pipe is full of the request behind it; now a Ping comes the other way.
                    theirs.write_all(&Header::new(Kind::Ping, 0, 0, 5).to_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        }
        assert_eq!(kinds[1..], [Kind::Hello, Kind::Bind, Kind::Call, Kind::Pong]);
        drop(large);
    });
}
