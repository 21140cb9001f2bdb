//! More than fits: full sockets, floods, spent budgets, memory bounds, and drains under way.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farcall::{CodecId, Invoke, Io, Limits, Metadata, RawCall, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Till, order};
use farcall_wire::{Bind, Header, Kind, PREFACE_LEN, flags, get_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;

use crate::bad_peer::{frame, opening};
use crate::support::{PATIENCE, deaf, run, run_on, serve, until};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_deadline_fires_while_the_socket_is_blocked() {
    run(async {
        let (client, _theirs) = deaf().await;
        let e = client.echo(vec![7; 100_000]).deadline(100 * MS).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
    });
}

#[test]
fn a_deadline_fires_while_a_call_waits_for_room() {
    run(async {
        let (client, _theirs) = deaf().await;
        let _full = fill(&client);
        let e = client.channel().invoke(raw_echo(100 * MS)).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::DeadlineExceeded, Certainty::NotSent), "{e}");
    });
}

#[test]
fn a_call_that_waits_for_room_ends_with_its_link() {
    run(async {
        let (client, theirs) = deaf().await;
        let _full = fill(&client);
        let mut call = pin!(client.channel().invoke(raw_echo(HOUR)));
        assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
        drop(theirs);
        let e = call.await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
    });
}

#[test]
fn a_deadline_fires_while_the_peer_never_stops_talking() {
    run(async {
        let (link, _unread) = Chatterbox::new(opening(), Header::new(Kind::Pong, 0, 0, 1).to_bytes().to_vec());
        let client = PaymentClient::from(farcall::Channel::over(Io::boxed(link), Limits::default()).await.unwrap());
        let e = client.status(1).deadline(100 * MS).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
    });
}

#[test]
fn a_dropped_server_lets_go_of_a_peer_that_does_not_read() {
    run(async {
        let (_load, server) = Provider::serve("mem:lets-go", Limits::default()).await;
        let mut link = peer(&server, 1000).await;
        link.write_all(&call("give", 0, 0, &[])).await.unwrap();
        // So much is more than hellos: the reply is half written.
        link.read_exact(&mut [0; 2000]).await.unwrap();
        drop(server);
        gone(&mut link).await;
    });
}

#[test]
fn a_dropped_client_lets_go_of_a_peer_that_does_not_read() {
    run(async {
        let (client, mut link) = deaf().await;
        let call = client.echo(vec![1; 100_000]).send();
        // So much is more than hellos: the request is half written.
        link.read_exact(&mut [0; 2000]).await.unwrap();
        drop((call, client));
        // It gives the peer five seconds to take the rest.
        gone(&mut link).await;
    });
}

#[test]
fn a_flood_of_one_way_calls_does_not_starve_replies() {
    run(async {
        let (_load, server) = Provider::serve("mem:flood", Limits::default()).await;
        let says = [opening(), bind(), call("pass", 0, 0, &[])].concat();
        let again = oneway("take", &farcall::compact::encode(&vec![7u8; 3000]).unwrap());
        let (link, mut replies) = Chatterbox::new(says, again);
        server.serve_link(Io::boxed(link));
        hear(&mut replies, 1).await;
    });
}

#[test]
fn one_way_calls_arrive_although_their_client_is_gone() {
    run(async {
        for _ in 0..50 {
            let (load, server) = Provider::serve("tcp://127.0.0.1:0", Limits::default()).await;
            let client = LoadClient::connect(server.address()).await.unwrap();
            let mut unread = Vec::new();
            for _ in 0..200 {
                client.take(vec![1; 20_000]).await.unwrap();
                client.take(vec![1; 20_000]).await.unwrap();
                unread.push(client.pass().send());
            }
            // Replies that arrive at a closed socket would reset it, and what is under way be lost.
            drop((unread, client));
            until("the connection to end", || server.connections() == 0).await;
            assert_eq!(load.begun(), 400);
        }
    });
}

#[test]
fn handlers_past_their_deadline_are_dropped_however_many_they_are() {
    run(async {
        let (load, server) = Provider::serve("mem:expire", Limits::default()).await;
        let mut link = peer(&server, 64 << 10).await;
        // More than one turn's budget has room for; and this caller never cancels.
        let calls: Vec<u8> = (0..300).flat_map(|id| call("wait", id, 1000, &[])).collect();
        link.write_all(&calls).await.unwrap();
        until("all handlers to begin", || load.begun() == 300).await;
        until("all handlers to be dropped", || load.ended() == 300).await;
    });
}

#[test]
fn blocking_work_that_expires_in_the_queue_never_starts() {
    let pool_of_one = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    run_on(pool_of_one, async {
        let (load, server) = Provider::serve("tcp://127.0.0.1:0", Limits::default()).await;
        let client = LoadClient::connect(server.address()).await.unwrap();
        let first = client.block().send();
        until("the first to begin", || load.begun() == 1).await;
        let e = client.block().deadline(50 * MS).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        let third = client.block().send();
        load.unblock();
        first.await.unwrap();
        // The pool keeps the order: the second one's turn came before this.
        third.await.unwrap();
        assert_eq!(load.begun(), 2);
    });
}

/// The peer has made calls and does not read: no more than a few replies may be made for it. All
/// of them arrive once it reads.
async fn check_bounded(load: &Provider, mut link: DuplexStream, replies: usize) {
    until("a reply to be made", || load.ended() > 0).await;
    let made = settled(|| load.ended()).await;
    assert!(made < 10, "{made} replies of 100 kB for a peer that does not read");
    hear(&mut link, replies).await;
    assert_eq!(load.ended(), replies);
}

#[test]
fn waiting_handlers_make_no_replies_for_a_peer_that_does_not_read() {
    run(async {
        let (load, server) = Provider::serve("mem:give-later", Limits { out_buffer: 64 << 10, ..Limits::default() }).await;
        let mut link = peer(&server, 64 << 10).await;
        let calls: Vec<u8> = (0..100).flat_map(|id| call("give_later", id, 0, &[])).collect();
        link.write_all(&calls).await.unwrap();
        until("all handlers to begin", || load.begun() == 100).await;
        load.gate.add_permits(100);
        check_bounded(&load, link, 100).await;
    });
}

#[test]
fn no_calls_are_begun_for_a_peer_that_does_not_read() {
    run(async {
        let (load, server) = Provider::serve("mem:give", Limits { out_buffer: 64 << 10, ..Limits::default() }).await;
        let mut link = peer(&server, 64 << 10).await;
        // A handler that is always awake, and with it the driver.
        let mut calls = call("spin", 1000, 0, &[]);
        calls.extend((0..100).flat_map(|id| call("give", id, 0, &[])));
        link.write_all(&calls).await.unwrap();
        check_bounded(&load, link, 100).await;
    });
}

#[test]
fn a_drain_waits_for_handlers_whose_caller_is_gone() {
    run(async {
        let (till, server, client) = serve("tcp://127.0.0.1:0").await;
        let sure = client.sure(300).send();
        until("the handler to begin", || till.begun.load(Ordering::SeqCst) == 1).await;
        drop((sure, client));
        until("the connection to end", || server.connections() == 0).await;
        server.drain(PATIENCE).await.unwrap();
        assert_eq!(till.ended.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_drain_does_not_wait_for_a_peer_that_never_says_hello() {
    run(async {
        let (_load, server) = Provider::serve("mem:silent", Limits { handshake: HOUR, ..Limits::default() }).await;
        let (mut ours, theirs) = tokio::io::duplex(1000);
        server.serve_link(Io::boxed(theirs));
        ours.write_all(&opening()[..PREFACE_LEN]).await.unwrap();
        // Its hello says that it waits for ours.
        ours.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
        server.drain(PATIENCE / 2).await.unwrap();
    });
}

#[test]
fn a_drain_under_load_leaves_no_call_in_doubt() {
    run(async {
        for _ in 0..30 {
            let (till, server, client) = serve("tcp://127.0.0.1:0").await;
            let callers: Vec<_> = (0..32).map(|_| tokio::spawn(pay_until_refused(client.clone()))).collect();
            until("the load to be on", || till.paid.load(Ordering::SeqCst) > 100).await;
            server.drain(PATIENCE).await.unwrap();
            for caller in callers {
                let e = caller.await.unwrap();
                assert!(e.certainty().is_safe_to_retry(), "{e}");
            }
        }
    });
}

async fn pay_until_refused(client: PaymentClient) -> RpcError {
    loop {
        match client.pay(order(1, 30)).await {
            Ok(_) => {}
            Err(Error::Rpc(e)) => return e,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_port_is_free_when_a_drain_returns() {
    run(async {
        let serving = || Server::builder().serve(PaymentServer::new(Till::default()));
        for _ in 0..100 {
            let server = serving().listen("tcp://127.0.0.1:0").await.unwrap();
            let address = server.address().to_string();
            server.drain(PATIENCE).await.unwrap();
            serving().listen(address).await.unwrap();
        }
    });
}

/// Puts load on its provider.
#[farcall::service]
pub(crate) trait Load {
    #[farcall(oneway)]
    async fn take(&self, bytes: Vec<u8>);
    async fn pass(&self) -> Reply<()>;
    /// 100 kB.
    async fn give(&self) -> Reply<Vec<u8>>;
    /// 100 kB, when the gate opens.
    async fn give_later(&self) -> Reply<Vec<u8>>;
    /// Is always ready to go on and never done.
    #[farcall(idempotent)]
    async fn spin(&self) -> Reply<()>;
    /// Waits for ever, having drawn on the task's budget.
    #[farcall(idempotent)]
    async fn wait(&self) -> Reply<()>;
    /// Blocks its thread until the test allows it.
    #[farcall(idempotent)]
    fn block(&self) -> Reply<()>;
}

/// It counts what really happened.
struct Provider {
    begun: AtomicUsize,
    ended: Arc<AtomicUsize>,
    gate: Semaphore,
    /// Blocking handlers wait for the end of this channel.
    unblock: Mutex<Option<mpsc::Sender<()>>>,
    blocked: Mutex<mpsc::Receiver<()>>,
}

impl Provider {
    async fn serve(address: &str, limits: Limits) -> (Arc<Provider>, Server) {
        let (unblock, blocked) = mpsc::channel();
        let provider = Arc::new(Provider {
            begun: AtomicUsize::default(),
            ended: Arc::default(),
            gate: Semaphore::new(0),
            unblock: Mutex::new(Some(unblock)),
            blocked: Mutex::new(blocked),
        });
        let server = Server::builder().serve(LoadServer::shared(provider.clone())).limits(limits).listen(address).await.unwrap();
        (provider, server)
    }

    /// Calls of `take`, `give_later`, `wait` and `block` that began.
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Calls of `give` and `give_later` that made their reply, and of `wait` that were dropped.
    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    fn unblock(&self) {
        *self.unblock.lock().unwrap() = None;
    }
}

impl Load for Provider {
    async fn take(&self, _: Vec<u8>) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
    async fn pass(&self) -> Reply<()> {
        Ok(())
    }
    async fn give(&self) -> Reply<Vec<u8>> {
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(vec![7; 100_000])
    }
    async fn give_later(&self) -> Reply<Vec<u8>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.give().await
    }
    async fn spin(&self) -> Reply<()> {
        loop {
            tokio::task::yield_now().await;
        }
    }
    async fn wait(&self) -> Reply<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _counted = CountDrop(self.ended.clone());
        consume_budget().await;
        std::future::pending().await
    }
    fn block(&self) -> Reply<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.blocked.lock().unwrap().recv().unwrap_err();
        Ok(())
    }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A link to this server whose bytes a test writes by hand: hello is said and `Load` bound.
async fn peer(server: &Server, room: usize) -> DuplexStream {
    let (mut ours, theirs) = tokio::io::duplex(room);
    server.serve_link(Io::boxed(theirs));
    ours.write_all(&[opening(), bind()].concat()).await.unwrap();
    ours
}

fn bind() -> Vec<u8> {
    frame(Kind::Bind, 0, 0, 1, &Bind::of(LoadClient::descriptor()).encode())
}

/// A call of `Load`; a deadline of 0 is none.
fn call(method: &str, id: u32, deadline_ms: u32, args: &[u8]) -> Vec<u8> {
    let (row, _) = LoadClient::descriptor().method(method).unwrap();
    frame(Kind::Call, 0, row as u16, id, &[&deadline_ms.to_le_bytes(), args].concat())
}

fn oneway(method: &str, args: &[u8]) -> Vec<u8> {
    let (row, _) = LoadClient::descriptor().method(method).unwrap();
    frame(Kind::Call, flags::ONEWAY, row as u16, 0, &[&[0; 4], args].concat())
}

/// Reads from the other side's first byte on until so many replies have come.
async fn hear(link: &mut (impl AsyncRead + Unpin), mut replies: usize) {
    let mut read = BytesMut::new();
    link.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
    while replies > 0 {
        match get_frame(&mut read, 1 << 20).unwrap() {
            Some(frame) => replies -= usize::from(frame.header.kind == Kind::Reply),
            None => assert!(link.read_buf(&mut read).await.unwrap() > 0, "closed, {replies} replies are missing"),
        }
    }
}

/// Waits until the other end of this link is dropped, without reading from it.
async fn gone(link: &mut DuplexStream) {
    while link.write_all(&frame(Kind::Void, 0, 0, 0, b"")).await.is_ok() {
        tokio::time::sleep(10 * MS).await;
    }
}

/// The count once it has stood still for a while: only time can show that no more comes.
async fn settled(count: impl Fn() -> usize) -> usize {
    loop {
        let before = count();
        tokio::time::sleep(300 * MS).await;
        if count() == before {
            return before;
        }
    }
}

/// More requests than the socket and the queue before it have room for.
fn fill(client: &PaymentClient) -> Vec<impl Sized> {
    // Whole frames: of larger bodies only the first piece is queued at once.
    (0..40).map(|_| client.echo(vec![1; 100_000]).no_deadline().send()).collect()
}

/// A call of `Payment.echo` by bytes.
fn raw_echo(deadline: Duration) -> RawCall {
    let service = Arc::new(PaymentClient::descriptor().clone());
    let (method, _) = service.method("echo").unwrap();
    RawCall {
        service,
        method,
        codec: CodecId::Compact,
        args: Bytes::from_static(&[0]),
        metadata: Metadata::default(),
        deadline: Some(deadline),
        key: None,
    }
}

/// A link that always has something to read, and never asks the task's budget.
struct Chatterbox {
    says: Vec<u8>,
    /// What it says when all is said.
    again: Vec<u8>,
    hears: DuplexStream,
}

impl Chatterbox {
    /// The link, and where what is written to it can be read.
    fn new(says: Vec<u8>, again: Vec<u8>) -> (Chatterbox, DuplexStream) {
        let (hears, heard) = tokio::io::duplex(64 << 10);
        (Chatterbox { says, again, hears }, heard)
    }
}

impl AsyncRead for Chatterbox {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.says.is_empty() {
            self.says = self.again.clone();
        }
        let len = self.says.len().min(buf.remaining());
        buf.put_slice(&self.says[..len]);
        self.says.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chatterbox {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.hears).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.hears).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.hears).poll_shutdown(cx)
    }
}
