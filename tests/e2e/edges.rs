//! Streams and limits where peers, runtimes and users are at their worst.

use std::any::Any;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use farcall::schema::{Schema, SchemaBuilder, Ty};
use farcall::{Io, Limits, prelude::*};
use farcall_wire::{Bind, FRAGMENT, Failure, Frame, Kind, PREFACE_LEN, flags, get_frame, status};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;

use crate::bad_peer::{frame, opening, within};
use crate::support::{PATIENCE, run, until};

const MS: Duration = Duration::from_millis(1);
/// Longer than anything here takes that does not hang.
const SOON: Duration = Duration::from_secs(5);

#[farcall::service]
pub(crate) trait Lab {
    /// The sum; may be dropped when its caller goes away.
    #[farcall(cancel)]
    async fn gather(&self, numbers: Streaming<u64>) -> Reply<u64>;
    /// The sum; runs to its end.
    async fn collect(&self, numbers: Streaming<u64>) -> Reply<u64>;
    async fn swallow(&self, pieces: Streaming<Bytes>) -> Reply<u64>;
    /// Reads nothing before the gate opens.
    async fn ignore(&self, pieces: Streaming<Bytes>) -> Reply<u64>;
    /// Numbers from 0 on, for ever.
    async fn endless(&self) -> Reply<Streaming<u64>>;
    /// The same, once the gate is open.
    async fn later(&self) -> Reply<Streaming<u64>>;
    /// So many bytes an item, for ever.
    async fn heavy(&self, bytes: u64) -> Reply<Streaming<Bytes>>;
    /// The metadata `tenant` as the producer sees it.
    async fn tenant(&self) -> Reply<Streaming<String>>;
    /// A producer that panics.
    async fn broken(&self) -> Reply<Streaming<u64>>;
    /// Blocks the connection's thread, then streams.
    async fn block_and_stream(&self, ms: u64) -> Reply<Streaming<u64>>;
    /// Blocks the connection's thread.
    async fn block(&self, ms: u64) -> Reply<()>;
    /// Computes for so long.
    async fn spin(&self, us: u64) -> Reply<()>;
    /// Until the gate is open.
    #[farcall(idempotent)]
    async fn wait(&self, bytes: Vec<u8>) -> Reply<u64>;
    /// When the gate is open: a large result that panics when it is dropped.
    async fn grenade(&self) -> Reply<Grenade>;
    async fn give(&self, bytes: u64) -> Reply<Vec<u8>>;
    async fn large(&self, bytes: u64) -> Reply<Bytes>;
    async fn echo(&self, bytes: Bytes) -> Reply<u64>;
    async fn odd(&self, odd: Odd) -> Reply<()>;
    #[farcall(oneway)]
    async fn take(&self, bytes: Vec<u8>);
}

struct Bench {
    gate: Semaphore,
    begun: AtomicUsize,
    /// Handlers that ended or were dropped.
    ended: Arc<AtomicUsize>,
    pieces: AtomicUsize,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench { gate: Semaphore::new(0), begun: AtomicUsize::new(0), ended: Arc::default(), pieces: AtomicUsize::new(0) }
    }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bench {
    fn begin(&self) -> CountDrop {
        self.begun.fetch_add(1, Ordering::SeqCst);
        CountDrop(Arc::clone(&self.ended))
    }
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
    async fn pass(&self) {
        self.gate.acquire().await.unwrap().forget();
    }
}

impl Lab for Bench {
    async fn gather(&self, numbers: Streaming<u64>) -> Reply<u64> {
        self.collect(numbers).await
    }
    async fn collect(&self, mut numbers: Streaming<u64>) -> Reply<u64> {
        let _counted = self.begin();
        let mut sum = 0;
        while let Some(n) = numbers.next().await {
            sum += n?;
        }
        Ok(sum)
    }
    async fn swallow(&self, mut pieces: Streaming<Bytes>) -> Reply<u64> {
        let _counted = self.begin();
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            bytes += piece?.len() as u64;
            self.pieces.fetch_add(1, Ordering::SeqCst);
        }
        Ok(bytes)
    }
    async fn ignore(&self, pieces: Streaming<Bytes>) -> Reply<u64> {
        let _counted = self.begin();
        self.pass().await;
        drop(pieces);
        Ok(0)
    }
    async fn endless(&self) -> Reply<Streaming<u64>> {
        Ok(Streaming::items(0..u64::MAX))
    }
    async fn later(&self) -> Reply<Streaming<u64>> {
        let _counted = self.begin();
        self.pass().await;
        self.endless().await
    }
    async fn heavy(&self, bytes: u64) -> Reply<Streaming<Bytes>> {
        let item = Bytes::from(vec![7; bytes as usize]);
        Ok(Streaming::items(std::iter::repeat(item)))
    }
    async fn tenant(&self) -> Reply<Streaming<String>> {
        Ok(Streaming::produce(|out| async move {
            out.send(farcall::context().metadata("tenant").unwrap_or("nobody").to_owned()).await?;
            Ok(())
        }))
    }
    async fn broken(&self) -> Reply<Streaming<u64>> {
        Ok(Streaming::items((0..3).inspect(|n| assert_ne!(*n, 1, "the producer's own fault"))))
    }
    async fn block_and_stream(&self, ms: u64) -> Reply<Streaming<u64>> {
        self.block(ms).await?;
        self.endless().await
    }
    async fn block(&self, ms: u64) -> Reply<()> {
        let _counted = self.begin();
        std::thread::sleep(Duration::from_millis(ms));
        Ok(())
    }
    async fn spin(&self, us: u64) -> Reply<()> {
        let end = Instant::now() + Duration::from_micros(us);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        Ok(())
    }
    async fn wait(&self, bytes: Vec<u8>) -> Reply<u64> {
        let _counted = self.begin();
        self.pass().await;
        Ok(bytes.len() as u64)
    }
    async fn grenade(&self) -> Reply<Grenade> {
        let _counted = self.begin();
        self.pass().await;
        Ok(Grenade { armed: true })
    }
    async fn give(&self, bytes: u64) -> Reply<Vec<u8>> {
        Ok(vec![7; bytes as usize])
    }
    async fn large(&self, bytes: u64) -> Reply<Bytes> {
        Ok(Bytes::from(vec![7; bytes as usize]))
    }
    async fn echo(&self, bytes: Bytes) -> Reply<u64> {
        Ok(bytes.len() as u64)
    }
    async fn odd(&self, _: Odd) -> Reply<()> {
        Ok(())
    }
    async fn take(&self, _: Vec<u8>) {}
}

/// 200 kB that panic when they are dropped by their provider.
#[derive(Debug)]
pub(crate) struct Grenade {
    armed: bool,
}

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(!self.armed, "boom");
    }
}

impl Serialize for Grenade {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&"x".repeat(200_000))
    }
}

impl<'de> Deserialize<'de> for Grenade {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Grenade, D::Error> {
        String::deserialize(from).map(|_| Grenade { armed: false })
    }
}

impl Schema for Grenade {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        String::ty(builder)
    }
}

/// It says when it is about to be encoded, waits until it may be, and then cannot be.
pub(crate) struct Odd(Option<(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>)>);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        let (begun, go_on) = self.0.as_ref().unwrap();
        begun.send(()).unwrap();
        let _ = go_on.lock().unwrap().recv();
        Err(S::Error::custom("odd"))
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Odd, D::Error> {
        u8::deserialize(from).map(|_| Odd(None))
    }
}

impl Schema for Odd {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        u8::ty(builder)
    }
}

async fn lab_with(server: Limits, client: Limits) -> (Arc<Bench>, Server, LabClient) {
    let bench = Arc::new(Bench::default());
    let serving = Server::builder().serve(LabServer::shared(Arc::clone(&bench))).limits(server);
    let server = serving.listen("tcp://127.0.0.1:0").await.unwrap();
    let client = LabClient::connect(server.address()).limits(client).await.unwrap();
    (bench, server, client)
}

async fn lab(limits: Limits) -> (Arc<Bench>, Server, LabClient) {
    lab_with(limits.clone(), limits).await
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long for: {what}"),
    }
}

/// A peer whose bytes a test writes by hand: hello is said and `Lab` bound.
struct Peer {
    link: DuplexStream,
    read: BytesMut,
}

impl Peer {
    async fn of(server: &Server) -> Peer {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_link(Io::boxed(theirs));
        let mut peer = Peer { link: ours, read: BytesMut::new() };
        peer.say(&[opening(), frame(Kind::Bind, 0, 0, 1, &Bind::of(LabClient::descriptor()).encode())].concat()).await;
        peer
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.link.write_all(bytes).await.unwrap();
    }

    /// Where the hello begins.
    async fn skip_preface(&mut self) {
        self.link.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
    }

    async fn hear(&mut self) -> Frame {
        loop {
            if let Some(frame) = get_frame(&mut self.read, 1 << 24).unwrap() {
                return frame;
            }
            assert!(self.link.read_buf(&mut self.read).await.unwrap() > 0, "the link was closed");
        }
    }

    async fn reply(&mut self, id: u32) -> Frame {
        loop {
            let frame = self.hear().await;
            if frame.header.kind == Kind::Reply && frame.header.id == id {
                return frame;
            }
        }
    }
}

fn row(method: &str) -> u16 {
    LabClient::descriptor().method(method).unwrap().0 as u16
}

fn call(method: &str, id: u32, bits: u8, args: &[u8]) -> Vec<u8> {
    frame(Kind::Call, bits, row(method), id, &[&[0; 4], args].concat())
}

fn args<T: Serialize>(value: &T) -> Vec<u8> {
    farcall::compact::encode(value).unwrap()
}

// Cancelled calls with streams.

#[test]
fn calls_that_are_cancelled_in_their_streams_leave_nothing() {
    run(async {
        let (bench, server, client) = lab(Limits { streams: 4, ..Limits::default() }).await;
        for n in 1..=50 {
            let (numbers, sent) = Streaming::channel(1);
            let call = client.gather(sent).send();
            if numbers.send(1).await.is_err() {
                panic!("call {n}: {}", call.await.unwrap_err());
            }
            until("the handler to begin", || bench.begun() == n).await;
            drop(call);
            until("the handler to be dropped", || bench.ended() == n).await;
        }
        assert_eq!(soon("a call", client.gather(Streaming::items([1, 2]))).await.unwrap(), 3);
        drop(client);
        server.drain(SOON).await.unwrap();
    });
}

#[test]
fn a_cancel_that_crosses_an_opening_hits_nobody_else() {
    run(async {
        let (bench, server, _client) = lab(Limits::default()).await;
        let mut peer = Peer::of(&server).await;
        peer.skip_preface().await;
        peer.say(&call("later", 0, 0, &[])).await;
        until("the first to begin", || bench.begun() == 1).await;
        bench.gate.add_permits(1);
        assert_eq!(peer.reply(0).await.header.flags, flags::STREAM);
        peer.say(&call("wait", 1, 0, &args(&vec![1u8, 2]))).await;
        until("the second to begin", || bench.begun() == 2).await;
        // The caller of the first gave up before it read the reply.
        peer.say(&frame(Kind::Cancel, 0, 0, 0, &[])).await;
        peer.say(&call("give", 2, 0, &[1])).await;
        // Heard: the cancel was handled.
        let mut early = None;
        loop {
            let heard = peer.hear().await;
            match (heard.header.kind, heard.header.id) {
                (Kind::Reply, 1) => early = Some(heard),
                (Kind::Reply, 2) => break,
                _ => {}
            }
        }
        assert!(early.is_none(), "{:?}", early.map(|f| Failure::decode(&f.payload)));
        bench.gate.add_permits(1);
        assert_eq!(soon("the second's reply", peer.reply(1)).await.header.aux, status::OK);
    });
}

#[test]
fn a_call_refused_for_its_stream_is_over() {
    run(async {
        let (_bench, server, _client) = lab(Limits { streams: 0, in_flight: 8, ..Limits::default() }).await;
        let mut peer = Peer::of(&server).await;
        peer.skip_preface().await;
        for id in 0..10 {
            peer.say(&call("endless", id, 0, &[])).await;
            assert_eq!(peer.reply(id).await.header.aux, status::FAILURE);
        }
        peer.say(&call("give", 20, 0, &[1])).await;
        let reply = peer.reply(20).await;
        assert_eq!(reply.header.aux, status::OK, "{:?}", Failure::decode(&reply.payload));
    });
}

// Large things that nobody reads.

#[test]
fn large_items_that_nobody_reads_hold_up_nobody_else() {
    run(async {
        let limits = Limits { held: 2 << 20, body: 1 << 20, ..Limits::default() };
        let (_bench, _server, client) = lab(limits).await;
        let mut unread = Vec::new();
        for _ in 0..4 {
            unread.push(client.heavy(1_000_000).await.unwrap());
        }
        // Time for their first items to fill what they may.
        tokio::time::sleep(100 * MS).await;
        let e = soon("a small call", client.echo(Bytes::from_static(b"x")).no_deadline()).await;
        assert_eq!(e.unwrap(), 1);
    });
}

#[test]
fn large_items_that_nobody_reads_do_not_end_the_connection() {
    run(async {
        let limits = Limits { held: 2 << 20, body: 1 << 20, heartbeat: Some(200 * MS), ..Limits::default() };
        let (_bench, _server, client) = lab(limits).await;
        let mut unread = Vec::new();
        // At once, so that none waits for the others' items.
        let calls: Vec<_> = (0..4).map(|_| client.heavy(1_000_000).send()).collect();
        for call in calls {
            unread.push(call.await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        for stream in &mut unread {
            for _ in 0..3 {
                assert_eq!(soon("an item", stream.next()).await.unwrap().unwrap().len(), 1_000_000);
            }
        }
    });
}

#[test]
fn large_items_on_their_way_up_hold_up_nobody_else() {
    run(async {
        let limits = Limits { held: 2 << 20, body: 1 << 20, ..Limits::default() };
        let (bench, _server, client) = lab(limits).await;
        let item = Bytes::from(vec![1; 1_000_000]);
        let unread: Vec<_> = (0..4).map(|_| client.ignore(Streaming::items(std::iter::repeat(item.clone()))).send()).collect();
        until("the readers to begin", || bench.begun() == 4).await;
        tokio::time::sleep(100 * MS).await;
        assert_eq!(soon("a small call", client.echo(Bytes::from_static(b"x")).no_deadline()).await.unwrap(), 1);
        drop(unread);
    });
}

// Peers that never read.

/// How much memory a peer makes its provider take that says `first`, and then `again` for 64 MiB, and
/// never reads; the provider's credit is 1 MiB and its other limits are small.
async fn flooded(in_flight: usize, first: &[u8], again: &[u8]) -> usize {
    let limits = Limits { out_buffer: 64 << 10, credit: 1 << 20, in_flight, ..Limits::default() };
    let (_bench, server, _client) = lab(limits).await;
    let mut peer = Peer::of(&server).await;
    peer.say(first).await;
    let before = resident();
    let mut said = 0;
    // Whether it is hung up on or no more is taken of it: either will do.
    while said < 64 << 20 && matches!(tokio::time::timeout(Duration::from_secs(1), peer.link.write_all(again)).await, Ok(Ok(()))) {
        said += again.len();
    }
    resident().saturating_sub(before)
}

#[test]
fn refusals_for_a_peer_that_does_not_read_are_bounded() {
    alone("refusals_for_a_peer_that_does_not_read_are_bounded", || {
        // A call that waits; then each further one is one too many.
        let again: Vec<u8> = (0..1000).flat_map(|n| call("wait", 1 + n % 60, 0, &args(&vec![1u8]))).collect();
        let grown = run(flooded(1, &call("wait", 0, 0, &args(&vec![1u8])), &again));
        assert!(grown < 16 << 20, "{} KiB of refusals", grown >> 10);
    });
}

#[test]
fn bindings_for_a_peer_that_does_not_read_are_bounded() {
    alone("bindings_for_a_peer_that_does_not_read_are_bounded", || {
        let rows = LabClient::descriptor().methods.len() as u16;
        let empty = Bind { rows: Vec::new(), ..Bind::of(LabClient::descriptor()) }.encode();
        let grown = run(flooded(1, &[], &frame(Kind::Bind, 0, rows, 2, &empty).repeat(1000)));
        assert!(grown < 16 << 20, "{} KiB of answers to empty bindings", grown >> 10);
    });
}

#[test]
fn calls_beyond_the_credit_are_not_kept() {
    alone("calls_beyond_the_credit_are_not_kept", || {
        let first: Vec<u8> = (0..3).flat_map(|id| call("give", id, 0, &args(&100_000u64))).collect();
        let grown = run(flooded(1 << 16, &first, &call("take", 0, flags::ONEWAY, &args(&vec![1u8; 50_000]))));
        assert!(grown < 16 << 20, "{} KiB of calls that wait, the limit `credit` is 1 MiB", grown >> 10);
    });
}

#[test]
fn bodies_that_wait_for_dispatch_are_bounded() {
    run(async {
        let limits = Limits { out_buffer: 64 << 10, credit: 1 << 20, held: 2 << 20, body: 2 << 20, ..Limits::default() };
        let (_bench, server, _client) = lab(limits).await;
        let mut peer = Peer::of(&server).await;
        for id in 0..3 {
            peer.say(&call("give", id, 0, &args(&100_000u64))).await;
        }
        // Bodies in fragments, all within the credit of connection and flow.
        let body = args(&vec![1u8; 2_000_000]);
        for id in 10..22 {
            let (first, rest) = body.split_at(FRAGMENT);
            let mut frames = call("echo", id, flags::MORE, first);
            let pieces: Vec<_> = rest.chunks(FRAGMENT).collect();
            for (n, piece) in pieces.iter().enumerate() {
                let more = if n + 1 < pieces.len() { flags::MORE } else { 0 };
                frames.extend(frame(Kind::Data, more, 0, id, piece));
            }
            soon("a body to be taken", peer.say(&frames)).await;
        }
        peer.skip_preface().await;
        let mut run = 0;
        let mut waiting: std::collections::HashSet<u32> = (10..22).collect();
        while !waiting.is_empty() {
            let header = soon("a reply", peer.hear()).await.header;
            if header.kind == Kind::Reply && waiting.remove(&header.id) {
                run += usize::from(header.aux == status::OK);
            }
        }
        assert!(run <= 3, "{run} bodies of 2 MB were kept; the limits `held` and `credit` are 2 and 1 MiB");
    });
}

// Ends.

#[test]
fn a_runtime_may_be_shut_down_while_a_stream_begins() {
    within(PATIENCE, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
        let bench = Arc::new(Bench::default());
        let serving = Server::builder().serve(LabServer::shared(Arc::clone(&bench)));
        let server = runtime.block_on(async { serving.listen("tcp://127.0.0.1:0").await.unwrap() });
        let client = LabClient::connect(server.address()).wait().unwrap();
        let call = client.block_and_stream(500).send();
        while bench.begun() == 0 {
            std::thread::sleep(MS);
        }
        drop(runtime);
        // Whether it was opened or not, it has come to its end.
        if let Ok(mut numbers) = call.wait() {
            while numbers.next().wait().unwrap().is_ok() {}
        }
        drop(server);
    });
}

#[test]
fn a_drain_waits_for_a_reply_that_is_being_read() {
    run(async {
        let (_bench, server, _client) = lab(Limits::default()).await;
        let mut peer = Peer::of(&server).await;
        peer.say(&call("large", 0, 0, &args(&(8u64 << 20)))).await;
        peer.skip_preface().await;
        peer.reply(0).await;
        let draining = tokio::spawn(server.drain(PATIENCE));
        let started = Instant::now();
        // It reads on all the time, a little every second.
        let mut received = 0;
        loop {
            let data = peer.hear().await;
            if data.header.kind != Kind::Data {
                continue;
            }
            received += data.payload.len();
            if data.header.flags & flags::MORE == 0 {
                break;
            }
            let credit = [(received as u64 + (256 << 10)).to_le_bytes(), [0; 8]].concat();
            peer.say(&frame(Kind::Credit, flags::RESULTS, 1, 0, &credit)).await;
            tokio::time::sleep(60 * MS).await;
        }
        assert!(received > 7 << 20 && started.elapsed() > SOON);
        drop(peer);
        draining.await.unwrap().unwrap();
    });
}

#[test]
fn a_provider_with_much_to_do_does_not_take_its_caller_for_dead() {
    run(async {
        let (_bench, server, _client) = lab_with(Limits { heartbeat: Some(50 * MS), ..Limits::default() }, Limits::default()).await;
        let mut peer = Peer::of(&server).await;
        let calls: Vec<u8> = (0..2500).flat_map(|id| call("spin", id, 0, &args(&200u64))).collect();
        peer.say(&calls).await;
        peer.skip_preface().await;
        let mut replies = 0;
        while replies < 2500 {
            let heard = peer.hear().await;
            match heard.header.kind {
                Kind::Reply => replies += 1,
                // It lives, and says so at once.
                Kind::Ping => peer.say(&frame(Kind::Pong, 0, 0, heard.header.id, &[])).await,
                Kind::GoAway => panic!("{replies} replies, then {heard:?}"),
                _ => {}
            }
        }
    });
}

#[test]
fn many_slow_calls_of_one_connection_do_not_hold_up_another() {
    run(async {
        let (_bench, server, slow) = lab(Limits::default()).await;
        let quick = LabClient::connect(server.address()).await.unwrap();
        quick.give(1).await.unwrap();
        // They prove slow.
        for _ in 0..3 {
            slow.spin(1000).await.unwrap();
        }
        let calls: Vec<_> = (0..900).map(|_| slow.spin(2000).send()).collect();
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let start = Instant::now();
            quick.give(1).await.unwrap();
            worst = worst.max(start.elapsed());
        }
        drop(calls);
        assert!(worst < 200 * MS, "a quick call of another connection took {worst:?}");
    });
}

// The provider in this process.

#[test]
fn a_producer_knows_its_call_wherever_it_runs() {
    run(async {
        let (_bench, _server, remote) = lab(Limits::default()).await;
        for client in [remote, LabClient::local(Bench::default())] {
            let mut tenants = client.tenant().metadata("tenant", "blue").await.unwrap();
            assert_eq!(tenants.next().await.unwrap().unwrap(), "blue");
        }
    });
}

#[test]
fn a_producer_that_panics_is_an_error_wherever_it_runs() {
    run(async {
        let (_bench, _server, remote) = lab(Limits::default()).await;
        for client in [remote, LabClient::local(Bench::default())] {
            let mut numbers = client.broken().await.unwrap();
            assert_eq!(numbers.next().await.unwrap().unwrap(), 0);
            let e = tokio::spawn(async move { numbers.next().await }).await.expect("no panic of the reader").unwrap().unwrap_err();
            assert_eq!(e.code(), Code::Internal, "{e}");
        }
    });
}

// Wake-ups and locks.

#[test]
fn a_batch_that_fails_leaves_nobody_asleep() {
    run(async {
        let (bench, _server, client) = lab(Limits::default()).await;
        let (pieces, sent) = Streaming::channel(1);
        let _call = client.swallow(sent).send();
        pieces.send(Bytes::from_static(b"x")).await.unwrap();
        until("the first piece", || bench.pieces.load(Ordering::SeqCst) == 1).await;
        tokio::time::sleep(50 * MS).await;
        let (begun, corked) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let batch = {
            let client = client.clone();
            std::thread::spawn(move || farcall::block_on(farcall::batch(vec![client.odd(Odd(Some((begun, Mutex::new(go_on)))))])))
        };
        corked.recv().unwrap();
        pieces.send(Bytes::from(vec![1; 100_000])).await.unwrap();
        tokio::time::sleep(100 * MS).await;
        go.send(()).unwrap();
        assert!(batch.join().unwrap().unwrap()[0].is_err());
        soon("the second piece", async { until("it", || bench.pieces.load(Ordering::SeqCst) == 2).await }).await;
    });
}

/// Bytes with something to drop.
struct Owner {
    bytes: Vec<u8>,
    _more: Mutex<Box<dyn Any + Send>>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[test]
fn bytes_may_own_a_call_of_the_same_connection() {
    within(PATIENCE, || {
        run(async {
            let (bench, _server, client) = lab(Limits::default()).await;
            let owned = client.wait(vec![1]).send();
            until("it to begin", || bench.begun() == 1).await;
            // While the provider is held up, no credit comes: most of the item stays where it is.
            let _block = client.block(3000).send();
            until("it to block", || bench.begun() == 2).await;
            let owner = Owner { bytes: vec![1; 1 << 20], _more: Mutex::new(Box::new(owned)) };
            let call = client.ignore(Streaming::items([Bytes::from_owner(owner)])).send();
            tokio::time::sleep(100 * MS).await;
            let dropping = std::thread::spawn(move || drop(call));
            soon("the call to be dropped", async { until("it", || dropping.is_finished()).await }).await;
        });
    });
}

#[test]
fn a_result_that_panics_does_not_answer_another_call() {
    run(async {
        let (bench, _server, client) = lab(Limits::default()).await;
        let grenade = client.grenade().send();
        let wait = client.wait(vec![1; 3]).send();
        until("both to wait", || bench.begun() == 2).await;
        let block = client.block(100).send();
        until("the driver to be held up", || bench.begun() == 3).await;
        bench.gate.add_permits(2);
        block.await.unwrap();
        assert_eq!(grenade.await.unwrap_err().code(), Code::Internal);
        assert_eq!(wait.await.unwrap(), 3);
        assert_eq!(client.echo(Bytes::from_static(b"xy")).await.unwrap(), 2);
    });
}

// Memory.

/// Runs a test in a process of its own, where memory is its own.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os("FARCALL_ALONE").is_some() {
        return test();
    }
    let test = format!("review::{name}");
    let out = Command::new(std::env::current_exe().unwrap()).args(["--exact", &test, "--nocapture"]).env("FARCALL_ALONE", "1").output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_small_call_that_waits_keeps_little() {
    alone("a_small_call_that_waits_keeps_little", || {
        run(async {
            let (bench, _server, client) = lab(Limits::default()).await;
            let mut waiting = Vec::new();
            let mut before = 0;
            for n in 0..450 {
                if n == 50 {
                    before = resident();
                }
                waiting.push(client.wait(vec![1; 10]).no_deadline().send());
                until("it to begin", || bench.begun() == n + 1).await;
                for _ in 0..5 {
                    client.take(vec![1; 60_000]).await.unwrap();
                }
                client.echo(Bytes::from_static(b"x")).await.unwrap();
            }
            let grown = resident().saturating_sub(before);
            assert!(grown < 20 << 20, "400 waiting calls of 10 bytes keep {} KiB each", (grown >> 10) / 400);
        });
    });
}

#[test]
fn a_flood_of_cancels_costs_little() {
    run(async {
        let (_bench, server, _client) = lab(Limits { out_buffer: 64 << 10, ..Limits::default() }).await;
        let mut peer = Peer::of(&server).await;
        // Nobody reads, so the calls behind these wait.
        for id in 0..3 {
            peer.say(&call("give", id, 0, &args(&100_000u64))).await;
        }
        let calls: Vec<u8> = (100..60_000).flat_map(|id| call("spin", id, 0, &args(&0u64))).collect();
        peer.say(&calls).await;
        let cancels = frame(Kind::Cancel, 0, 0, 9, &[]).repeat(20_000);
        soon("20 000 cancels of nothing", peer.say(&cancels)).await;
    });
}
