//! Where few look: panics in odd places, foreign executors, links that buffer, files of others,
//! and what users plug in.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use farcall::schema::{Schema, SchemaBuilder, Ty};
use farcall::{Channel, Connect, Endpoint, Io, Limits, Observer, Outcome, Resolver, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Till};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncWrite, BufStream, DuplexStream, ReadBuf};

use crate::bad_peer::within;
use crate::support::{PATIENCE, TempDir, deaf, run, run_on, serve};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_panic_while_a_reply_is_encoded_costs_its_own_call_only() {
    run(async {
        let (_server, payment, bombs) = serve_bombs().await;
        // In one batch: the other reply is encoded already when the panic comes.
        let (status, bomb) = farcall::batch((payment.status(1), bombs.goes_off_encoded())).await;
        status.unwrap();
        let e = bomb.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Internal, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("boom in encoding"), "{e}");
    });
}

#[test]
fn a_panic_while_a_reply_is_dropped_costs_its_own_call_only() {
    run(async {
        let (_server, payment, bombs) = serve_bombs().await;
        let sure = payment.sure(100).send();
        let e = bombs.goes_off_dropped().await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Internal, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("boom in drop"), "{e}");
        sure.await.unwrap();
    });
}

#[test]
fn a_panicking_observer_costs_nothing() {
    struct Angry;
    impl Observer for Angry {
        fn ended(&self, o: &Outcome<'_>) {
            assert_ne!(o.method, "note", "no notes, please");
        }
    }
    run(async {
        let serving = Server::builder().serve(PaymentServer::new(Till::default())).observe(Arc::new(Angry));
        let server = serving.listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::connect(server.address()).await.unwrap();
        let sure = client.sure(100).send();
        client.note("x".into()).await.unwrap();
        sure.await.unwrap();
    });
}

#[test]
fn a_hedged_call_is_observed_once() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl Observer for Seen {
        fn ended(&self, o: &Outcome<'_>) {
            self.0.lock().unwrap().push(o.method.to_owned());
        }
    }
    run(async {
        let (_till, server, _client) = serve("tcp://127.0.0.1:0").await;
        let seen = Arc::new(Seen::default());
        let client = PaymentClient::connect(server.address()).observe(seen.clone()).await.unwrap();
        // The second attempt is made ready, but never started.
        client.slow(1).hedge(HOUR).await.unwrap();
        assert_eq!(*seen.0.lock().unwrap(), ["slow"]);
    });
}

#[test]
fn a_computation_before_a_call_does_not_eat_its_deadline() {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    // One thread: while the test computes, the connection's driver sees no time pass.
    run_on(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(), async {
        let client = PaymentClient::connect(server.address()).await.unwrap();
        client.status(1).await.unwrap();
        let _under_way = client.status(1).send();
        std::thread::sleep(Duration::from_millis(2500));
        client.slow(50).deadline(Duration::from_secs(2)).await.unwrap();
    });
}

#[test]
fn calls_run_on_an_executor_that_is_not_tokio() {
    within(PATIENCE, || {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
        let connected = PaymentClient::connect(server.address()).wait().unwrap();
        let connects = PaymentClient::connect(server.address()).lazy().unwrap();
        for client in [connected, connects, PaymentClient::local(Till::default())] {
            foreign_block_on(async { client.status(1).await }).unwrap();
            foreign_block_on(async { client.slow(1).await }).unwrap();
        }
    });
}

/// What a text-book executor does.
fn foreign_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn wait_in_a_runtime_on_the_blocking_pool_does_not_dead_lock() {
    within(PATIENCE, || {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
        let address = server.address().to_string();
        let nested = farcall::spawn_blocking(move || {
            // The thread may block, but here it is what drives this runtime.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { PaymentClient::connect(address).lazy().unwrap().status(1).deadline(200 * MS).wait() })
        });
        let e = farcall::block_on(nested).unwrap().unwrap().unwrap_err();
        assert_eq!(e.code(), Code::FailedPrecondition, "{e}");
    });
}

#[test]
fn a_waker_may_own_a_call_of_the_same_connection() {
    /// A task of a text-book executor: its last waker owns its future.
    struct Task {
        _call: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    }
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    within(PATIENCE, || {
        run(async {
            let (client, _theirs) = deaf().await;
            let other = client.clone();
            let mut other = Box::pin(async move { drop(other.slow(1).no_deadline().await) });
            let mut call = pin!(async move { client.slow(1).no_deadline().await });
            let mut asleep = Context::from_waker(Waker::noop());
            assert!(other.as_mut().poll(&mut asleep).is_pending());
            let waker = Waker::from(Arc::new(Task { _call: Mutex::new(Some(other)) }));
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            // Now the connection holds the last of it; polled in another task, it lets go of it, and
            // the other call cancels itself: on the connection that is just being used.
            drop(waker);
            assert!(call.as_mut().poll(&mut asleep).is_pending());
        });
    });
}

#[test]
fn hands_are_shaken_over_a_link_that_buffers() {
    run(async {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("mem:buffers").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_link(Io::boxed(BufStream::new(theirs)));
        let channel = Channel::over(Io::boxed(BufStream::new(ours)), Limits::default()).await.unwrap();
        PaymentClient::from(channel).status(1).await.unwrap();
    });
}

#[test]
fn a_flush_that_has_to_wait_is_gone_on_with() {
    run(async {
        let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("mem:flush").await.unwrap();
        let (ours, theirs) = tokio::io::duplex(1000);
        server.serve_link(Io::boxed(theirs));
        let link = Io::boxed(Hoarder { link: ours, held: Vec::new() });
        let client = PaymentClient::from(Channel::over(link, Limits::default()).await.unwrap());
        assert_eq!(client.echo(vec![1; 10_000]).no_deadline().await.unwrap().len(), 10_000);
    });
}

#[test]
fn a_server_leaves_the_socket_file_of_its_successor() {
    let dir = TempDir::new("successor");
    run(async {
        let serving = || Server::builder().serve(PaymentServer::new(Till::default())).listen(dir.socket());
        let old = serving().await.unwrap();
        std::fs::remove_file(dir.0.join("s")).unwrap();
        let _new = serving().await.unwrap();
        old.drain(PATIENCE).await.unwrap();
        PaymentClient::connect(dir.socket()).await.unwrap();
    });
}

#[test]
fn connections_may_be_unlimited() {
    run(async {
        let limits = Limits { connections: usize::MAX, ..Limits::default() };
        let serving = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits);
        let server = serving.listen("mem:unlimited").await.unwrap();
        PaymentClient::connect(server.address()).await.unwrap();
    });
}

#[test]
fn connecting_is_bounded_although_its_resolver_is_not() {
    struct Never;
    impl Resolver for Never {
        fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Vec<Endpoint>, RpcError>> + Send + '_>> {
            Box::pin(std::future::pending())
        }
        fn describe(&self) -> String {
            "never".into()
        }
    }
    run(async {
        let limits = Limits { handshake: 100 * MS, ..Limits::default() };
        let e = Connect::<PaymentClient>::with_resolver(Never).limits(limits).await.err().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
    });
}

/// Its results go off.
#[farcall::service]
pub(crate) trait Bombs {
    async fn goes_off_encoded(&self) -> Reply<Bomb>;
    /// After it had to wait.
    async fn goes_off_dropped(&self) -> Reply<Bomb>;
}

struct Arsenal;

impl Bombs for Arsenal {
    async fn goes_off_encoded(&self) -> Reply<Bomb> {
        Ok(Bomb(Fuse::Encoding))
    }
    async fn goes_off_dropped(&self) -> Reply<Bomb> {
        tokio::task::yield_now().await;
        Ok(Bomb(Fuse::Drop))
    }
}

/// A provider of two services, and a client of each on one connection.
async fn serve_bombs() -> (Server, PaymentClient, BombsClient) {
    let serving = Server::builder().serve(PaymentServer::new(Till::default())).serve(BombsServer::new(Arsenal));
    let server = serving.listen("tcp://127.0.0.1:0").await.unwrap();
    let payment = PaymentClient::connect(server.address()).await.unwrap();
    let bombs = BombsClient::from(payment.channel().clone());
    (server, payment, bombs)
}

#[derive(Debug, PartialEq)]
pub(crate) enum Fuse {
    Out,
    Encoding,
    Drop,
}

/// What arrives of it is harmless.
#[derive(Debug)]
pub(crate) struct Bomb(Fuse);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert_ne!(self.0, Fuse::Drop, "boom in drop");
    }
}

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, Fuse::Encoding, "boom in encoding");
        to.serialize_u8(0)
    }
}

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bomb, D::Error> {
        u8::deserialize(from).map(|_| Bomb(Fuse::Out))
    }
}

impl Schema for Bomb {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        u8::ty(builder)
    }
}

/// A link that holds back what is written to it; to flush it may have to wait.
struct Hoarder {
    link: DuplexStream,
    held: Vec<u8>,
}

impl AsyncRead for Hoarder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hoarder {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Hoarder { link, held } = &mut *self;
        while !held.is_empty() {
            let written = ready!(Pin::new(&mut *link).poll_write(cx, held))?;
            held.drain(..written);
        }
        Pin::new(link).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
