//! Servers with threads of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use farcall::{Io, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Till, order};

use crate::support::{TempDir, run, until};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Where handlers run.
#[farcall::service]
trait Place {
    /// The name of the thread, at the start and after having waited.
    async fn thread(&self) -> Reply<(String, String)>;
    /// The name of the thread that a plain `fn` runs on.
    fn pool(&self) -> Reply<String>;
}

struct Here;

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

impl Place for Here {
    async fn thread(&self) -> Reply<(String, String)> {
        let before = thread_name();
        tokio::time::sleep(MS).await;
        Ok((before, thread_name()))
    }

    fn pool(&self) -> Reply<String> {
        Ok(thread_name())
    }
}

async fn open(address: &str, threads: usize) -> (Arc<Till>, Server) {
    let till = Arc::new(Till::default());
    let builder = Server::builder().serve(PlaceServer::new(Here)).serve(PaymentServer::shared(till.clone()));
    (till, builder.threads(threads).listen(address).await.unwrap())
}

/// Until nothing of a server is left but the test's own hold on its provider.
async fn all_gone(till: &Arc<Till>) {
    until("the server's threads to end", || Arc::strong_count(till) == 1).await;
}

#[test]
fn connections_are_dealt_out_and_stay() {
    let folder = TempDir::new("threads");
    for address in ["tcp://127.0.0.1:0", "mem:threads", &folder.socket()] {
        run(async {
            let (_till, server) = open(address, 3).await;
            let mut connections = BTreeMap::new();
            for _ in 0..6 {
                let place = PlaceClient::connect(server.address()).await.unwrap();
                let (name, _) = place.thread().await.unwrap();
                for _ in 0..10 {
                    assert_eq!(place.thread().await.unwrap(), (name.clone(), name.clone()));
                }
                *connections.entry(name).or_insert(0) += 1;
            }
            let expected = [("farcall-0", 2), ("farcall-1", 2), ("farcall-2", 2)];
            assert_eq!(connections, expected.map(|(name, n)| (name.to_owned(), n)).into());
        });
    }
}

#[test]
fn handlers_of_every_kind_run_there() {
    run(async {
        let (till, server) = open("tcp://127.0.0.1:0", 2).await;
        let payment = PaymentClient::connect(server.address()).connections(2).await.unwrap();
        let (a, b) = farcall::batch((payment.sure(5), payment.slow(5))).await;
        assert_eq!(a.unwrap() + b.unwrap(), 3);
        assert_eq!(payment.sum(vec![order(1, 2)]).await.unwrap(), 300);
        payment.note("n".into()).await.unwrap();
        payment.panics("x".into()).await.unwrap_err();
        assert_eq!(payment.echo(vec![1; 1 << 20]).await.unwrap().len(), 1 << 20);
        let place = PlaceClient::connect(server.address()).await.unwrap();
        let pool = place.pool().await.unwrap();
        assert!(!pool.is_empty() && !["farcall-0", "farcall-1"].contains(&pool.as_str()), "{pool}");
        drop((payment, place, server));
        all_gone(&till).await;
    });
}

#[test]
fn a_link_that_is_given_runs_where_it_is_given() {
    run(async {
        let (_till, server) = open("tcp://127.0.0.1:0", 2).await;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        server.serve_link(Io::boxed(theirs));
        let place = PlaceClient::from(farcall::Channel::over(Io::boxed(ours), farcall::Limits::default()).await.unwrap());
        assert!(!place.thread().await.unwrap().0.starts_with("farcall-"));
    });
}

#[test]
fn draining_lets_running_calls_end_on_all_threads() {
    run(async {
        let (till, server) = open("tcp://127.0.0.1:0", 2).await;
        let address = server.address().to_string();
        let mut sent = Vec::new();
        for _ in 0..4 {
            let payment = PaymentClient::connect(&address).await.unwrap();
            sent.push((payment.sure(100).send(), payment));
        }
        until("all to begin", || till.begun.load(Ordering::SeqCst) == 4).await;
        server.drain(HOUR).await.unwrap();
        for (sure, payment) in sent {
            sure.await.unwrap();
            assert!(payment.status(1).await.unwrap_err().certainty().is_safe_to_retry());
        }
        all_gone(&till).await;
    });
}

#[test]
fn a_dropped_server_with_threads_cuts_off_calls_but_no_handler_that_must_end() {
    run(async {
        let (till, server) = open("tcp://127.0.0.1:0", 2).await;
        let payment = PaymentClient::connect(server.address()).await.unwrap();
        let (slow, sure) = (payment.slow(3_600_000).send(), payment.sure(100).send());
        until("both to begin", || till.begun.load(Ordering::SeqCst) == 2).await;
        drop(server);
        for call in [slow.await, sure.await] {
            assert_eq!(call.unwrap_err().certainty(), Certainty::MaybeExecuted);
        }
        all_gone(&till).await;
        assert_eq!(till.ended.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn connections_go_on_while_the_runtime_that_accepts_stands_still() {
    let accepting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run(async {
        let calling = tokio::runtime::Handle::current();
        let (accepting, server, place) = thread::spawn(move || {
            let (server, place) = accepting.block_on(async {
                let (_till, server) = open("tcp://127.0.0.1:0", 1).await;
                let connect = PlaceClient::connect(server.address());
                let place = calling.spawn(async move { connect.await.unwrap() }).await.unwrap();
                (server, place)
            });
            (accepting, server, place)
        })
        .join()
        .unwrap();
        // From here on nobody drives the runtime that accepted.
        for _ in 0..10 {
            place.thread().await.unwrap();
        }
        drop(server);
        accepting.shutdown_background();
    });
}

#[test]
fn threads_do_without_a_runtime() {
    let listen = Server::builder().serve(PlaceServer::new(Here)).threads(1).listen("tcp://127.0.0.1:0");
    let server = listen.wait().unwrap();
    let place = PlaceClient::connect(server.address()).wait().unwrap();
    assert_eq!(place.thread().wait().unwrap().1, "farcall-0");
    farcall::block_on(server.drain(HOUR)).unwrap().unwrap();
}

#[test]
fn no_threads_are_refused() {
    let e = run(async { Server::builder().threads(0).listen("tcp://127.0.0.1:0").await.err().unwrap() });
    assert_eq!(e.code(), Code::InvalidArgument);
    assert!(e.message().contains("threads(0)"), "{e}");
}
