//! The four styles of a call, and what each promises.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use farcall::prelude::*;
use farcall_tests::{PaymentClient, PaymentServer, Till, order};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{PATIENCE, Provider, run, serve, until};

#[test]
fn calls_are_futures_that_combine() {
    run(async {
        let (_till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let tasks: Vec<_> = (0..200u64)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move { client.pay(order(i, 2)).await.map(|r| r.order) })
            })
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap(), i as u64);
        }
    });
}

#[test]
fn wait_inside_a_runtime_is_an_error_and_runs_nothing() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let e = client.pay(order(1, 1)).wait().unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotSent));
        assert!(e.message().contains(".await"), "{e}");
        let e = PaymentClient::connect("tcp://127.0.0.1:9").wait().err().unwrap();
        assert_eq!(e.code(), Code::FailedPrecondition);
        let e = Server::builder().listen("mem:nobody").wait().err().unwrap();
        assert_eq!(e.code(), Code::FailedPrecondition);
        assert_eq!(till.paid.load(Ordering::SeqCst), 0);
        // On the blocking pool it is what a thread is for.
        let receipt = farcall::spawn_blocking(move || client.pay(order(1, 1)).wait()).await.unwrap();
        assert_eq!(receipt.unwrap().cents, 100);
    });
}

#[test]
fn many_threads_wait_at_once() {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let client = PaymentClient::connect(server.address()).wait().unwrap();
    std::thread::scope(|scope| {
        for i in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                for n in 0..50 {
                    assert_eq!(client.pay(order(i * 100 + n, 1)).wait().unwrap().order, i * 100 + n);
                }
            });
        }
    });
}

#[test]
fn a_callback_runs_once_with_the_reply() {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let client = PaymentClient::connect(server.address()).wait().unwrap();
    let (sender, replies) = mpsc::channel();
    for i in 0..100u64 {
        let sender = sender.clone();
        client.pay(order(i, (i % 3) as u32)).then(move |reply| sender.send((i, reply)).unwrap());
    }
    // The client may go: the calls are under way.
    drop((client, sender));
    let mut seen = [0; 100];
    for (i, reply) in replies.iter() {
        seen[i as usize] += 1;
        assert_eq!(reply.is_ok(), i % 3 != 0, "{reply:?}");
    }
    assert_eq!(seen, [1; 100]);
}

#[test]
fn a_callback_runs_once_when_the_provider_dies() {
    let mut provider = Provider::start("tcp://127.0.0.1:0");
    let client = PaymentClient::connect(&provider.address).wait().unwrap();
    let (sender, replies) = mpsc::channel();
    for _ in 0..50 {
        let sender = sender.clone();
        client.sure(3_600_000).no_deadline().then(move |reply| sender.send(reply).unwrap());
    }
    // An answered call says that the others have arrived: they share a connection, in order.
    client.status(1).wait().unwrap();
    provider.kill();
    drop(sender);
    let all: Vec<_> = std::iter::from_fn(|| replies.recv_timeout(PATIENCE).ok()).collect();
    assert_eq!(all.len(), 50);
    for reply in all {
        let e = reply.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        assert_eq!(e.method(), Some("Payment.sure"));
    }
}

#[test]
fn a_callback_runs_once_when_its_runtime_is_shut_down() {
    let provider = Provider::start("tcp://127.0.0.1:0");
    let (sender, replies) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = PaymentClient::connect(&provider.address).await.unwrap();
        client.sure(3_600_000).no_deadline().then(move |reply| sender.send(reply).unwrap());
    });
    runtime.shutdown_timeout(PATIENCE);
    let e = replies.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(e.certainty(), Certainty::MaybeExecuted, "{e}");
    assert!(replies.recv_timeout(PATIENCE).is_err(), "a second callback");
}

#[test]
fn a_callback_is_told_when_nobody_listens() {
    let client = PaymentClient::connect("tcp://127.0.0.1:1").lazy().unwrap();
    let (sender, replies) = mpsc::channel();
    client.status(1).then(move |reply| sender.send(reply).unwrap());
    let e = replies.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
}

#[test]
fn a_sent_call_is_on_its_way_before_it_is_awaited() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let pending = client.pay(order(5, 1)).send();
        until("the handler to run unasked", || till.paid.load(Ordering::SeqCst) == 1).await;
        assert_eq!(pending.await.unwrap().order, 5);
        // Also when it has to connect first.
        let lazy = PaymentClient::connect(client.channel().peer().unwrap().address).lazy().unwrap();
        let pending = lazy.pay(order(6, 1)).send();
        until("the handler to run unasked", || till.paid.load(Ordering::SeqCst) == 2).await;
        assert_eq!(pending.await.unwrap().order, 6);
        let pending = PaymentClient::local(Till::default()).pay(order(7, 1)).send();
        assert_eq!(pending.await.unwrap().order, 7);
    });
}

#[test]
fn a_call_that_is_not_started_does_nothing() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        drop(client.pay(order(1, 1)));
        client.status(1).await.unwrap();
        assert_eq!(till.paid.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn one_way_calls_keep_their_order_with_others() {
    run(async {
        let (_till, _server, client) = serve("tcp://127.0.0.1:0").await;
        for i in 0..100 {
            client.note(i.to_string()).await.unwrap();
        }
        let notes = client.notes().await.unwrap();
        assert_eq!(notes, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
    });
}

/// Counts the writes of a link.
struct Counted<L>(L, Arc<AtomicUsize>);

impl<L: AsyncRead + Unpin> AsyncRead for Counted<L> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<L: AsyncWrite + Unpin> AsyncWrite for Counted<L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn a_batch_leaves_in_one_write() {
    run(async {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("mem:batch").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_link(farcall::Io::boxed(theirs));
        let writes = Arc::new(AtomicUsize::new(0));
        let link = farcall::Io::boxed(Counted(ours, writes.clone()));
        let client = PaymentClient::from(farcall::Channel::over(link, farcall::Limits::default()).await.unwrap());
        client.status(1).await.unwrap();
        let before = writes.load(Ordering::SeqCst);
        let (receipt, status, sum) = farcall::batch((client.pay(order(1, 1)), client.status(7), client.sum(vec![order(1, 3)]))).await;
        assert_eq!(receipt.unwrap().cents, 100);
        assert_eq!(status.unwrap(), farcall_tests::Status::Paid { cents: 250 });
        assert_eq!(sum.unwrap(), 1400 - 800);
        assert_eq!(writes.load(Ordering::SeqCst) - before, 1);
        let all = farcall::batch((0..100).map(|i| client.pay(order(i, 1))).collect::<Vec<_>>()).await;
        assert!(all.into_iter().all(|r| r.is_ok()));
        assert_eq!(writes.load(Ordering::SeqCst) - before, 2);
        // Each has its own reply: one that fails does not spoil the others.
        let (bad, good) = farcall::batch((client.pay(order(2, 0)), client.status(7))).await;
        assert!(bad.is_err() && good.is_ok());
    });
}

#[test]
fn a_hedged_call_runs_again_when_it_takes_long_and_only_then() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let hour = Duration::from_secs(3600);
        assert_eq!(client.slow(1).hedge(hour).await.unwrap(), 1);
        assert_eq!(till.begun.load(Ordering::SeqCst), 1);
        // Both attempts run; the first reply counts and the other handler is dropped.
        client.slow(50).hedge(Duration::from_millis(5)).await.unwrap();
        until("both attempts to begin", || till.begun.load(Ordering::SeqCst) == 3).await;
        client.status(1).await.unwrap();
        assert!(till.ended.load(Ordering::SeqCst) <= 3);
        // A failure is not repeated.
        let nobody = PaymentClient::connect("tcp://127.0.0.1:1").lazy().unwrap();
        let e = nobody.slow(1).hedge(hour).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent));
        assert_eq!(PaymentClient::local(Till::default()).status(7).hedge(hour).await.unwrap(), farcall_tests::Status::Paid { cents: 250 });
    });
}

#[test]
fn a_blocking_call_ends_by_its_deadline_even_if_its_runtime_stands_still() {
    let provider = Provider::start("tcp://127.0.0.1:0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { PaymentClient::connect(&provider.address).await.unwrap() });
    // Nobody drives the connection now.
    let started = std::time::Instant::now();
    let e = client.status(1).deadline(Duration::from_millis(50)).wait().unwrap_err();
    assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
    let e = client.status(1).deadline(Duration::from_millis(50)).send().wait().unwrap_err();
    assert_eq!((e.code(), e.certainty()), (Code::DeadlineExceeded, Certainty::NotSent), "{e}");
    assert!(started.elapsed() < PATIENCE);
    // Driven again, it is as good as before.
    runtime.block_on(async { client.status(1).await.unwrap() });
}

#[test]
fn what_is_async_only_can_be_waited_for_too() {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let client = PaymentClient::connect(server.address()).wait().unwrap();
    let (a, b) = farcall::block_on(farcall::batch((client.status(1), client.status(7)))).unwrap();
    assert!(a.is_ok() && b.is_ok());
    farcall::block_on(server.drain(PATIENCE)).unwrap().unwrap();
    run(async { assert_eq!(farcall::block_on(async {}).unwrap_err().code(), Code::FailedPrecondition) });
}

#[test]
fn a_deadline_longer_than_can_be_said_is_none() {
    run(async {
        let (_till, _server, client) = serve("tcp://127.0.0.1:0").await;
        for client in [client, PaymentClient::local(Till::default())] {
            client.status(1).deadline(Duration::MAX).await.unwrap();
            let (_, _, left, _) = client.seen().deadline(Duration::MAX).await.unwrap();
            assert_eq!(left, None);
        }
    });
}

#[test]
fn many_waiting_handlers_share_a_connection_fairly() {
    run(async {
        let (till, _server, client) = serve("tcp://127.0.0.1:0").await;
        let calls = 20_000u64;
        let all = farcall::batch((0..calls).map(|_| client.sure(20)).collect::<Vec<_>>()).await;
        assert!(all.iter().all(|r| r.is_ok()));
        assert_eq!(till.ended.load(Ordering::SeqCst), calls);
    });
}

/// A number that takes its time to be encoded.
struct Slow(u64);

impl serde::Serialize for Slow {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        std::thread::sleep(Duration::from_millis(50));
        to.serialize_u64(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Slow {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Slow)
    }
}

impl farcall::Schema for Slow {
    fn ty(builder: &mut farcall::schema::SchemaBuilder) -> farcall::schema::Ty {
        u64::ty(builder)
    }
}

/// Takes what is slow to send.
#[farcall::service]
trait Slowly {
    /// Gives the number back.
    async fn take(&self, slow: Slow) -> Reply<u64>;
}

struct Taker;

impl Slowly for Taker {
    async fn take(&self, slow: Slow) -> Reply<u64> {
        Ok(slow.0)
    }
}

#[test]
fn a_batch_waits_for_its_slowest_part_before_it_is_written() {
    run(async {
        let server = Server::builder().serve(SlowlyServer::new(Taker)).listen("mem:slow-batch").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_link(farcall::Io::boxed(theirs));
        let writes = Arc::new(AtomicUsize::new(0));
        let link = farcall::Io::boxed(Counted(ours, writes.clone()));
        let client = SlowlyClient::from(farcall::Channel::over(link, farcall::Limits::default()).await.unwrap());
        client.take(Slow(0)).await.unwrap();
        let before = writes.load(Ordering::SeqCst);
        // While the second is encoded the driver, on the other thread, has time to write the first.
        let replies = farcall::batch((client.take(Slow(1)), client.take(Slow(2)), client.take(Slow(3)))).await;
        assert_eq!((replies.0.unwrap(), replies.1.unwrap(), replies.2.unwrap()), (1, 2, 3));
        assert_eq!(writes.load(Ordering::SeqCst) - before, 1);
    });
}
