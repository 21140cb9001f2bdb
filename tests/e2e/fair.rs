//! Neighbours on one connection: what is slow or large for one must not be for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall::{Limits, prelude::*};

use crate::support::{run, until};

#[farcall::service]
trait Mixed {
    #[farcall(idempotent)]
    async fn quick(&self, n: u64) -> Reply<u64>;
    /// Computes for so long, in place.
    async fn compute(&self, us: u64) -> Reply<String>;
    /// Waits until the test lets it go.
    async fn hold(&self, bytes: Bytes) -> Reply<usize>;
    /// So many bytes.
    async fn large(&self, bytes: u64) -> Reply<Bytes>;
}

struct Works {
    gate: tokio::sync::Semaphore,
    held: AtomicUsize,
}

impl Default for Works {
    fn default() -> Works {
        Works { gate: tokio::sync::Semaphore::new(0), held: AtomicUsize::new(0) }
    }
}

impl Mixed for Works {
    async fn quick(&self, n: u64) -> Reply<u64> {
        Ok(n)
    }
    async fn compute(&self, us: u64) -> Reply<String> {
        let end = Instant::now() + Duration::from_micros(us);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        Ok(std::thread::current().name().unwrap_or_default().to_owned())
    }
    async fn hold(&self, bytes: Bytes) -> Reply<usize> {
        self.held.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await);
        Ok(bytes.len())
    }
    async fn large(&self, bytes: u64) -> Reply<Bytes> {
        Ok(Bytes::from(vec![1; bytes as usize]))
    }
}

async fn works(limits: Limits) -> (Arc<Works>, Server, MixedClient) {
    let works = Arc::new(Works::default());
    let server =
        Server::builder().serve(MixedServer::shared(works.clone())).limits(limits.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
    let client = MixedClient::connect(server.address()).limits(limits).await.unwrap();
    (works, server, client)
}

/// The middle of the times that `calls` quick calls take, one after the other.
async fn quick(client: &MixedClient, calls: u64) -> Duration {
    let mut times = Vec::new();
    for n in 0..calls {
        let start = Instant::now();
        assert_eq!(client.quick(n).await.unwrap(), n);
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_slow_handler_does_not_hold_up_its_neighbours() {
    run(async {
        let (_works, _server, client) = works(Limits::default()).await;
        // It proves slow.
        for _ in 0..3 {
            client.compute(2000).await.unwrap();
        }
        // From now on it is somewhere else: a quick call overtakes it.
        let slow = client.compute(300_000).send();
        let start = Instant::now();
        client.quick(1).await.unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_millis(250), "a quick call behind a slow one took {took:?}");
        slow.await.unwrap();
    });
}

#[test]
fn small_calls_pass_large_replies() {
    run(async {
        let limits = Limits { body: 128 << 20, ..Limits::default() };
        let (_works, _server, client) = works(limits).await;
        let large = client.large(100 << 20).send();
        let done = Arc::new(AtomicUsize::new(0));
        let all = tokio::spawn({
            let done = Arc::clone(&done);
            async move {
                let reply = large.await;
                done.store(1, Ordering::SeqCst);
                reply
            }
        });
        let mut passed = 0;
        while done.load(Ordering::SeqCst) == 0 {
            assert_eq!(client.quick(7).await.unwrap(), 7);
            passed += 1;
        }
        let reply = all.await.unwrap();
        assert_eq!(reply.unwrap().len(), 100 << 20);
        assert!(passed >= 10, "only {passed} quick calls passed a reply of 100 MiB");
    });
}

#[test]
fn arguments_that_are_held_are_bounded_and_the_rest_is_shed() {
    run(async {
        let limits = Limits { held: 4 << 20, body: 2 << 20, ..Limits::default() };
        let (works, _server, client) = works(limits).await;
        for bytes in [100 << 10, 1 << 20] {
            works.held.store(0, Ordering::SeqCst);
            let calls: Vec<_> = (0..60).map(|_| client.hold(Bytes::from(vec![0; bytes])).send()).collect();
            let fits = (4 << 20) / (bytes + 16);
            until("as many as fit are held", || works.held.load(Ordering::SeqCst) >= fits).await;
            assert_eq!(client.quick(1).await.unwrap(), 1);
            works.gate.add_permits(fits);
            let (mut held, mut shed) = (0, 0);
            for call in calls {
                match call.await {
                    Ok(_) => held += 1,
                    Err(e) => {
                        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
                        assert!(e.message().contains("`held`"), "{e}");
                        shed += 1;
                    }
                }
            }
            assert!(held >= fits && held + shed == 60, "{held} held, {shed} shed of {bytes} bytes each");
            let left = works.gate.available_permits();
            works.gate.forget_permits(left);
        }
    });
}

#[test]
fn two_sides_that_flood_each_other_do_not_stall() {
    run(async {
        // Both ends of one pair of links call each other without reading a reply before all is sent.
        let (_a, server_a, client_a) = works(Limits { out_buffer: 64 << 10, ..Limits::default() }).await;
        let calls: Vec<_> = (0..2000).map(|_| client_a.large(60_000).send()).collect();
        let more: Vec<_> = (0..2000).map(|n| client_a.quick(n).send()).collect();
        for call in calls {
            assert_eq!(call.await.unwrap().len(), 60_000);
        }
        for (n, call) in more.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), n as u64);
        }
        assert_eq!(server_a.connections(), 1);
        assert!(quick(&client_a, 11).await < Duration::from_secs(1));
    });
}
