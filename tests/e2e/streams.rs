//! Streams in every direction, bodies in fragments, and who is held back by whom.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farcall::{Limits, StreamSender, prelude::*};
use farcall_tests::Order;

use crate::support::{TempDir, run, until};

/// What ends a stream of numbers.
#[farcall::error]
#[derive(Debug, PartialEq)]
pub(crate) enum Refused {
    /// A number that is not wanted.
    Unwanted(u64),
}

#[farcall::service]
pub(crate) trait Feed {
    /// Numbers from 0 on.
    async fn count(&self, to: u64) -> Reply<Streaming<u64>>;
    /// The sum of what is sent.
    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Reply<u64, Refused>;
    /// Each line in capitals, as it comes.
    async fn shout(&self, lines: Streaming<String>) -> Reply<Streaming<String>>;
    /// Numbers from 0 on, until the unwanted one.
    async fn picky(&self, unwanted: u64) -> Reply<Streaming<u64, Refused>, Refused>;
    /// The orders that are sent, until one of more lines than that.
    async fn check(&self, most: u64, orders: Streaming<Order, Refused>) -> Reply<Streaming<Order, Refused>>;
    /// So many pieces of so many bytes.
    async fn pieces(&self, count: u64, bytes: u64) -> Reply<Streaming<Bytes>>;
    /// The bytes of what is sent.
    async fn swallow(&self, pieces: Streaming<Bytes>) -> Reply<u64>;
    /// What it is given.
    async fn echo(&self, body: Bytes) -> Reply<Bytes>;
    /// As much text.
    async fn text(&self, bytes: u64) -> Reply<String>;
    #[farcall(oneway)]
    async fn keep(&self, body: Bytes);
    /// What was kept.
    #[farcall(idempotent)]
    async fn kept(&self) -> Reply<u64>;
    /// What the test sends.
    async fn fed(&self) -> Reply<Streaming<u64>>;
    /// The first item of what is sent, without reading on.
    async fn first(&self, numbers: Streaming<u64>) -> Reply<Option<u64>>;
    /// The same as a blocking handler.
    fn total(&self, numbers: Streaming<u64>) -> Reply<u64>;
}

#[derive(Default)]
pub(crate) struct Source {
    kept: AtomicU64,
    /// Numbers that `count` produced.
    produced: Arc<AtomicU64>,
    feeding: Mutex<Vec<StreamSender<u64>>>,
    open: Arc<AtomicUsize>,
}

impl Feed for Source {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>> {
        let produced = Arc::clone(&self.produced);
        let count = move |_: &u64| {
            produced.fetch_add(1, Ordering::Relaxed);
        };
        Ok(Streaming::items((0..to).inspect(count)))
    }
    async fn sum(&self, start: u64, mut numbers: Streaming<u64>) -> Reply<u64, Refused> {
        let mut sum = start;
        while let Some(n) = numbers.next().await {
            match n? {
                13 => return Err(Refused::Unwanted(13).into()),
                n => sum += n,
            }
        }
        Ok(sum)
    }
    async fn shout(&self, mut lines: Streaming<String>) -> Reply<Streaming<String>> {
        Ok(Streaming::produce(|out| async move {
            while let Some(line) = lines.next().await {
                out.send(line?.to_uppercase()).await?;
            }
            Ok(())
        }))
    }
    async fn picky(&self, unwanted: u64) -> Reply<Streaming<u64, Refused>, Refused> {
        if unwanted == 0 {
            return Err(Refused::Unwanted(0).into());
        }
        Ok(Streaming::produce(move |out| async move {
            for n in 0..unwanted {
                out.send(n).await?;
            }
            Err(Refused::Unwanted(unwanted).into())
        }))
    }
    async fn check(&self, most: u64, mut orders: Streaming<Order, Refused>) -> Reply<Streaming<Order, Refused>> {
        Ok(Streaming::produce(move |out| async move {
            while let Some(order) = orders.next().await {
                match order? {
                    order if order.lines.len() as u64 > most => return Err(Refused::Unwanted(order.id).into()),
                    order => out.send(order).await?,
                }
            }
            Ok(())
        }))
    }
    async fn pieces(&self, count: u64, bytes: u64) -> Reply<Streaming<Bytes>> {
        let piece = Bytes::from(vec![7; bytes as usize]);
        Ok(Streaming::items((0..count).map(move |_| piece.clone())))
    }
    async fn swallow(&self, mut pieces: Streaming<Bytes>) -> Reply<u64> {
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            bytes += piece?.len() as u64;
        }
        Ok(bytes)
    }
    async fn echo(&self, body: Bytes) -> Reply<Bytes> {
        Ok(body)
    }
    async fn text(&self, bytes: u64) -> Reply<String> {
        Ok("x".repeat(bytes as usize))
    }
    async fn keep(&self, body: Bytes) {
        self.kept.fetch_add(body.len() as u64, Ordering::SeqCst);
    }
    async fn kept(&self) -> Reply<u64> {
        Ok(self.kept.load(Ordering::SeqCst))
    }
    async fn fed(&self) -> Reply<Streaming<u64>> {
        let (sender, stream) = Streaming::channel(4);
        self.feeding.lock().unwrap().push(sender.clone());
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Arc::clone(&self.open);
        tokio::spawn(async move {
            sender.closed().await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(stream)
    }
    async fn first(&self, mut numbers: Streaming<u64>) -> Reply<Option<u64>> {
        numbers.next().await.transpose()
    }
    fn total(&self, mut numbers: Streaming<u64>) -> Reply<u64> {
        let mut sum = 0;
        while let Some(n) = numbers.next().wait() {
            sum += n?;
        }
        Ok(sum)
    }
}

pub(crate) async fn feed_with(address: &str, limits: Limits) -> (Arc<Source>, Server, FeedClient) {
    let source = Arc::new(Source::default());
    let server = Server::builder().serve(FeedServer::shared(Arc::clone(&source))).limits(limits.clone()).listen(address).await.unwrap();
    let client = FeedClient::connect(server.address()).limits(limits).await.unwrap();
    (source, server, client)
}

pub(crate) async fn feed() -> (Arc<Source>, Server, FeedClient) {
    feed_with("tcp://127.0.0.1:0", Limits::default()).await
}

pub(crate) async fn all<T: Send + 'static>(mut stream: Streaming<T>) -> Vec<T> {
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(item.unwrap());
    }
    items
}

#[test]
fn a_server_streams() {
    run(async {
        let (_source, _server, client) = feed().await;
        for to in [0, 1, 2, 1000, 100_000] {
            assert_eq!(all(client.count(to).await.unwrap()).await, (0..to).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_client_streams() {
    run(async {
        let (_source, _server, client) = feed().await;
        let sum = client.sum(5, Streaming::items((0..10_000).filter(|n| *n != 13))).await.unwrap();
        assert_eq!(sum, 5 + (0..10_000).sum::<u64>() - 13);
        assert_eq!(client.total(Streaming::items(0..100)).await.unwrap(), 4950);
    });
}

#[test]
fn both_stream_by_turns() {
    run(async {
        let (_source, _server, client) = feed().await;
        let (lines, sent) = Streaming::channel(1);
        let mut shouted = client.shout(sent).await.unwrap();
        for word in ["one", "two", "three"] {
            lines.send(word.to_owned()).await.unwrap();
            assert_eq!(shouted.next().await.unwrap().unwrap(), word.to_uppercase());
        }
        drop(lines);
        assert!(shouted.next().await.is_none());
    });
}

#[test]
fn a_stream_ends_with_its_own_error() {
    run(async {
        let (_source, _server, client) = feed().await;
        let mut numbers = client.picky(3).await.unwrap();
        for n in 0..3 {
            assert_eq!(numbers.next().await.unwrap().unwrap(), n);
        }
        match numbers.next().await {
            Some(Err(Error::App(error))) => assert_eq!(error, Refused::Unwanted(3)),
            other => panic!("{other:?}"),
        }
        assert!(numbers.next().await.is_none());
        // The opening has errors too.
        assert!(matches!(client.picky(0).await, Err(Error::App(Refused::Unwanted(0)))));
    });
}

#[test]
fn an_answer_before_the_end_stops_the_sender() {
    run(async {
        let (_source, _server, client) = feed().await;
        let (numbers, sent) = Streaming::channel(1);
        let sum = client.sum(0, sent).send();
        for n in [1, 2, 13] {
            numbers.send(n).await.unwrap();
        }
        assert!(matches!(sum.await, Err(Error::App(Refused::Unwanted(13)))));
        numbers.closed().await;
        // The same for one that does not read at all.
        let (numbers, sent) = Streaming::channel(1);
        numbers.send(8).await.unwrap();
        assert_eq!(client.first(sent).await.unwrap(), Some(8));
        numbers.closed().await;
    });
}

#[test]
fn a_stream_that_is_dropped_stops_its_sender() {
    run(async {
        let (source, _server, client) = feed().await;
        let mut numbers = client.count(u64::MAX).await.unwrap();
        assert_eq!(numbers.next().await.unwrap().unwrap(), 0);
        drop(numbers);
        // Nothing goes on: neither its items nor its place among the calls in flight.
        let fed = client.fed().await.unwrap();
        until("the feed is open", || source.open.load(Ordering::SeqCst) == 1).await;
        drop(fed);
        until("the feed is closed", || source.open.load(Ordering::SeqCst) == 0).await;
        let produced = source.produced.load(Ordering::SeqCst);
        assert!(produced < 100_000, "{produced} numbers for one that was read");
        // And an opening that is dropped.
        drop(client.fed().send());
        until("the next feed is closed too", || source.open.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn a_slow_reader_holds_its_sender_back_and_nobody_else() {
    run(async {
        let (source, _server, client) = feed().await;
        let mut slow = client.count(u64::MAX).await.unwrap();
        assert_eq!(slow.next().await.unwrap().unwrap(), 0);
        let mut heavy = client.pieces(u64::MAX, 50_000).await.unwrap();
        assert_eq!(heavy.next().await.unwrap().unwrap().len(), 50_000);
        // The others go on while nobody reads these.
        for n in 0..100 {
            assert_eq!(client.echo(Bytes::from(vec![n; 1000])).await.unwrap().len(), 1000);
        }
        assert_eq!(all(client.count(50_000).await.unwrap()).await.len(), 50_000);
        let window = Limits::default().stream_items as u64;
        let produced = source.produced.load(Ordering::SeqCst) - 50_000;
        // The reader takes a few at a time.
        assert!((1..=window + 34).contains(&produced), "{produced} items are ahead of a reader with credit for {window}");
        // Read on, they go on.
        for n in 1..10_000 {
            assert_eq!(slow.next().await.unwrap().unwrap(), n);
        }
        for _ in 0..100 {
            assert_eq!(heavy.next().await.unwrap().unwrap().len(), 50_000);
        }
    });
}

#[test]
fn items_of_any_size_arrive() {
    run(async {
        let small = Limits { stream_bytes: 64 << 10, stream_items: 16, ..Limits::default() };
        for limits in [Limits::default(), small] {
            let (_source, _server, client) = feed_with("tcp://127.0.0.1:0", limits).await;
            for bytes in [0, 1, 100, 16_384, 16_385, 65_536, 131_072, 131_073, 1_000_000, 16_000_000] {
                let pieces = all(client.pieces(3, bytes).await.unwrap()).await;
                assert!(pieces.len() == 3 && pieces.iter().all(|p| p.len() as u64 == bytes), "{bytes}");
                let piece = Bytes::from(vec![3; bytes as usize]);
                assert_eq!(client.swallow(Streaming::items(vec![piece; 3])).await.unwrap(), 3 * bytes);
            }
        }
    });
}

#[test]
fn bodies_of_any_size_arrive_both_ways() {
    run(async {
        let dir = TempDir::new("bodies");
        for address in ["tcp://127.0.0.1:0", &dir.socket(), "mem:bodies"] {
            let (_source, _server, client) = feed_with(address, Limits::default()).await;
            for bytes in [0, 1, 65_535, 65_536, 131_070, 131_073, 200_000, 1 << 20, (16 << 20) - 10] {
                let body: Bytes = (0..bytes).map(|n| n as u8).collect();
                assert!(client.echo(body.clone()).await.unwrap() == body, "{bytes}");
                assert_eq!(client.text(bytes as u64).await.unwrap().len(), bytes);
            }
            let before = client.kept().await.unwrap();
            client.keep(Bytes::from(vec![1; 3_000_000])).await.unwrap();
            while client.kept().await.unwrap() != before + 3_000_000 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    run(async {
        let limits = Limits { body: 1 << 20, ..Limits::default() };
        let (_source, _server, client) = feed_with("mem:too-large", limits).await;
        let e = client.echo(Bytes::from(vec![0; (1 << 20) + 1])).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotSent), "{e}");
        let e = client.text(1 << 20).await.unwrap_err();
        assert_eq!((e.code(), e.message().contains("`body`")), (Code::ResourceExhausted, true), "{e}");
        let mut pieces = client.pieces(1, 2 << 20).await.unwrap();
        let e = pieces.next().await.unwrap().unwrap_err();
        assert_eq!((e.code(), e.message().contains("`body`")), (Code::ResourceExhausted, true), "{e}");
        let e = client.swallow(Streaming::items([Bytes::from(vec![0; 2 << 20])])).await.unwrap_err();
        assert_eq!((e.code(), e.message().contains("`body`")), (Code::ResourceExhausted, true), "{e}");
    });
}

#[test]
fn a_cancelled_transfer_stops_and_its_connection_goes_on() {
    run(async {
        let (_source, _server, client) = feed().await;
        let body = Bytes::from(vec![9; 15 << 20]);
        for n in 0..50u64 {
            let call = client.echo(body.clone()).send();
            let text = client.text(15 << 20).send();
            tokio::time::sleep(Duration::from_micros(n * 100)).await;
            drop((call, text));
            assert_eq!(client.echo(Bytes::from_static(b"small")).await.unwrap(), "small");
        }
        let e = client.echo(body.clone()).deadline(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(e.code(), Code::DeadlineExceeded, "{e}");
        assert!(client.echo(body.clone()).await.unwrap() == body);
    });
}

#[test]
fn a_lost_provider_ends_every_stream_with_an_error() {
    run(async {
        let (_source, server, client) = feed().await;
        let mut numbers = client.fed().await.unwrap();
        let (lines, sent) = Streaming::channel(1);
        let mut shouted = client.shout(sent).await.unwrap();
        let (more, sent) = Streaming::channel(1);
        let sum = client.sum(0, sent).send();
        drop(server);
        let e = numbers.next().await.unwrap().unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        assert_eq!(e.method(), Some("Feed.fed"));
        assert!(numbers.next().await.is_none());
        assert_eq!(shouted.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(matches!(sum.await, Err(Error::Rpc(e)) if e.code() == Code::Unavailable));
        lines.closed().await;
        more.closed().await;
    });
}

#[test]
fn a_lost_caller_ends_its_streams() {
    run(async {
        let (source, server, client) = feed().await;
        let fed = client.fed().await.unwrap();
        until("the feed is open", || source.open.load(Ordering::SeqCst) == 1).await;
        // The stream keeps the connection, not the client.
        drop(client);
        let sender = source.feeding.lock().unwrap().pop().unwrap();
        sender.send(5).await.unwrap();
        let mut fed = fed;
        assert_eq!(fed.next().await.unwrap().unwrap(), 5);
        drop(fed);
        until("the feed is closed", || source.open.load(Ordering::SeqCst) == 0).await;
        until("the connection is closed", || server.connections() == 0).await;
    });
}

#[test]
fn too_many_streams_are_refused_by_name() {
    run(async {
        let limits = Limits { streams: 3, ..Limits::default() };
        let (_source, _server, client) = feed_with("tcp://127.0.0.1:0", limits).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(client.fed().await.unwrap());
        }
        let e = client.fed().await.unwrap_err();
        assert_eq!((e.code(), e.message().contains("`streams`")), (Code::ResourceExhausted, true), "{e}");
        assert!(matches!(e.certainty(), Certainty::NotSent | Certainty::NotExecuted));
        open.pop();
        assert_eq!(client.kept().await.unwrap(), 0);
        assert!(client.fed().await.is_ok(), "a place that is free again can be used again");
    });
}

#[test]
fn a_producer_that_panics_ends_its_own_stream() {
    run(async {
        let (_source, _server, client) = feed().await;
        let broken = Streaming::items((0..10).inspect(|n| assert_ne!(*n, 5, "the producer's own fault")));
        let e = match client.sum(0, broken).await {
            Err(Error::Rpc(e)) => e,
            other => panic!("{other:?}"),
        };
        assert!(e.message().contains("the producer's own fault"), "{e}");
        assert_eq!(client.kept().await.unwrap(), 0);
    });
}

#[test]
fn streams_work_without_a_runtime_and_in_this_process() {
    let source = Arc::new(Source::default());
    let server = Server::builder().serve(FeedServer::shared(source)).listen("tcp://127.0.0.1:0").wait().unwrap();
    for client in [FeedClient::connect(server.address()).wait().unwrap(), FeedClient::local(Source::default())] {
        let mut numbers = client.count(3).wait().unwrap();
        for n in 0..3 {
            assert_eq!(numbers.next().wait().unwrap().unwrap(), n);
        }
        assert!(numbers.next().wait().is_none());
        assert_eq!(client.sum(1, Streaming::items([2, 3])).wait().unwrap(), 6);
        assert_eq!(client.total(Streaming::items(0..10)).wait().unwrap(), 45);
    }
}

#[test]
fn a_provider_that_drains_lets_streams_end() {
    run(async {
        let (source, server, client) = feed().await;
        let mut fed = client.fed().await.unwrap();
        until("the feed is open", || source.open.load(Ordering::SeqCst) == 1).await;
        let sender = source.feeding.lock().unwrap().pop().unwrap();
        let draining = tokio::spawn(server.drain(Duration::from_secs(10)));
        while client.channel().peer().is_some() {
            tokio::task::yield_now().await;
        }
        sender.send(1).await.unwrap();
        assert_eq!(fed.next().await.unwrap().unwrap(), 1);
        sender.fail(RpcError::new(Code::Aborted, "over")).await.unwrap();
        assert_eq!(fed.next().await.unwrap().unwrap_err().message(), "over");
        assert!(fed.next().await.is_none());
        draining.await.unwrap().unwrap();
    });
}
