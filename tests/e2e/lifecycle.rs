//! How connections come and go: attempts with pauses, several connections, graceful ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farcall::{Limits, prelude::*};
use farcall_tests::PaymentClient;
use farcall_wire::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::bad_peer::{frame, opening};
use crate::support::{PATIENCE, Provider, run, serve, until};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Listens and does `with` each connection what it does; counts them.
async fn peer<F: Future<Output = ()> + Send>(with: impl Fn(TcpStream) -> F + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (format!("tcp://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (link, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            with(link).await;
        }
    });
    (address, accepted)
}

/// Pauses that never end within a test, and calls that do not wait for them.
fn no_second_attempt() -> Limits {
    Limits { reconnect_base: 10_000 * HOUR, reconnect_cap: 10_000 * HOUR, reconnect_wait: Duration::ZERO, ..Limits::default() }
}

#[test]
fn a_crowd_of_callers_does_not_storm_a_dead_provider() {
    storm(1);
}

#[test]
fn nor_does_it_over_several_connections() {
    storm(8);
}

fn storm(connections: usize) {
    run(async {
        let (address, accepted) = peer(|link| async { drop(link) }).await;
        let limits = Limits { reconnect_base: 50 * MS, reconnect_cap: 200 * MS, ..Limits::default() };
        let client = PaymentClient::connect(address).limits(limits).connections(connections).lazy().unwrap();
        let start = Instant::now();
        let callers = (0..50).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                while start.elapsed() < 1000 * MS {
                    let e = client.status(1).await.unwrap_err();
                    assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        // A pause takes a tenth of a second, on the average.
        let attempts = accepted.load(Ordering::SeqCst);
        assert!((3..50).contains(&attempts), "{attempts} attempts");
    });
}

#[test]
fn a_call_does_not_wait_for_an_attempt_that_is_too_far() {
    run(async {
        let (address, accepted) = peer(|link| async { drop(link) }).await;
        let client = PaymentClient::connect(&address).limits(no_second_attempt()).lazy().unwrap();
        let e = client.status(1).await.unwrap_err();
        assert!(!e.message().contains("next attempt"), "{e}");
        for _ in 0..100 {
            let e = client.status(1).await.unwrap_err();
            assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
            assert!(e.message().contains("without a hello") && e.message().contains("the next attempt is in"), "{e}");
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        // Nor does one whose deadline comes first, although it may wait.
        let patient = Limits { reconnect_wait: 10_000 * HOUR, ..no_second_attempt() };
        let client = PaymentClient::connect(&address).limits(patient).lazy().unwrap();
        client.status(1).await.unwrap_err();
        let e = client.status(1).deadline(HOUR).await.unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent), "{e}");
    });
}

#[test]
fn a_call_waits_for_an_attempt_that_is_near() {
    run(async {
        let address = format!("tcp://127.0.0.1:{}", crate::bad_peer::unused_port());
        let limits = Limits { reconnect_base: 300 * MS, reconnect_cap: 300 * MS, ..Limits::default() };
        let client = PaymentClient::connect(&address).limits(limits).lazy().unwrap();
        client.status(1).await.unwrap_err();
        let (_till, _server, _) = serve(&address).await;
        client.status(1).await.unwrap();
    });
}

#[test]
fn a_good_connection_is_replaced_at_once() {
    run(async {
        let (_till, server, _) = serve("tcp://127.0.0.1:0").await;
        let address = server.address().to_string();
        let limits = Limits { reconnect_base: MS, ..no_second_attempt() };
        let client = PaymentClient::connect(&address).limits(limits).await.unwrap();
        for _ in 0..3 {
            // So long it has to last to be good.
            tokio::time::sleep(2 * MS).await;
            client.status(1).await.unwrap();
        }
        server.drain(HOUR).await.unwrap();
        let (_till, _server, _) = serve(&address).await;
        client.status(1).await.unwrap();
    });
}

#[test]
fn a_provider_that_dies_of_each_connection_is_a_dead_one() {
    run(async {
        let (address, accepted) = peer(|mut link| async move {
            link.write_all(&opening()).await.unwrap();
            // The hello is read, or closing would reset the connection.
            link.read_exact(&mut [0; 20]).await.unwrap();
        })
        .await;
        let client = PaymentClient::connect(&address).limits(no_second_attempt()).lazy().unwrap();
        let start = Instant::now();
        while !client.status(1).await.unwrap_err().message().contains("lost soon after it was made") {
            assert!(start.elapsed() < PATIENCE);
        }
        for _ in 0..100 {
            assert_eq!(client.status(1).await.unwrap_err().certainty(), Certainty::NotSent);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_client_told_to_go_away_closes_when_it_waits_for_nothing() {
    run(async {
        let (connected, closed) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (go, gone) = (connected.clone(), closed.clone());
        let (address, _) = peer(move |mut link| {
            let (go, gone) = (go.clone(), gone.clone());
            async move {
                link.write_all(&opening()).await.unwrap();
                go.acquire().await.unwrap().forget();
                let away = [&[0; 8][..], &[Code::Unavailable as u8], b"going"].concat();
                link.write_all(&frame(Kind::GoAway, 0, 0, 0, &away)).await.unwrap();
                // To its end, while ours stays open.
                link.read_to_end(&mut Vec::new()).await.unwrap();
                gone.add_permits(1);
                std::future::pending::<()>().await;
            }
        })
        .await;
        let _client = PaymentClient::connect(address).await.unwrap();
        connected.add_permits(1);
        closed.acquire().await.unwrap().forget();
    });
}

/// Whose connection a call came over.
#[farcall::service]
trait Seats {
    /// The caller's address.
    async fn seat(&self) -> Reply<String>;
    /// As `seat`, when the test lets it.
    #[farcall(idempotent)]
    async fn stay(&self) -> Reply<String>;
    /// As `stay`, also when nobody waits for it.
    async fn remain(&self) -> Reply<String>;
}

struct Hall {
    seats: Mutex<Vec<String>>,
    leave: Semaphore,
}

impl Hall {
    fn take_seat(&self) -> String {
        let seat = farcall::context().peer().map_or_else(String::new, |peer| peer.address.clone());
        self.seats.lock().unwrap().push(seat.clone());
        seat
    }

    fn taken(&self) -> usize {
        self.seats.lock().unwrap().len()
    }

    /// How many sit on each.
    fn per_connection(&self) -> Vec<usize> {
        let seats = self.seats.lock().unwrap();
        let different: BTreeSet<_> = seats.iter().collect();
        different.into_iter().map(|one| seats.iter().filter(|seat| *seat == one).count()).collect()
    }
}

impl Seats for Hall {
    async fn seat(&self) -> Reply<String> {
        Ok(self.take_seat())
    }

    async fn stay(&self) -> Reply<String> {
        let seat = self.take_seat();
        self.leave.acquire().await.map_err(|_| RpcError::new(Code::Internal, "closed"))?.forget();
        Ok(seat)
    }

    async fn remain(&self) -> Reply<String> {
        self.stay().await
    }
}

async fn open_hall() -> (Arc<Hall>, Server) {
    let hall = Arc::new(Hall { seats: Mutex::default(), leave: Semaphore::new(0) });
    let server = Server::builder().serve(SeatsServer::shared(hall.clone())).listen("tcp://127.0.0.1:0").await.unwrap();
    (hall, server)
}

/// A client with all its connections up and nothing in flight.
async fn seated(hall: &Hall, server: &Server, connections: usize) -> SeatsClient {
    let client = SeatsClient::connect(server.address()).connections(connections).await.unwrap();
    hall.seats.lock().unwrap().clear();
    let mut staying = Vec::new();
    while server.connections() < connections {
        staying.push(client.stay().send());
        until("it to stay", || hall.taken() == staying.len()).await;
    }
    hall.leave.add_permits(staying.len());
    for stay in staying {
        stay.await.unwrap();
    }
    // The client has them all when they take turns.
    let mut turns = BTreeSet::new();
    while turns.len() < connections {
        turns.clear();
        for _ in 0..connections {
            turns.insert(client.seat().await.unwrap());
        }
    }
    hall.seats.lock().unwrap().clear();
    client
}

#[test]
fn several_connections_are_made_as_they_are_needed_and_share_the_calls() {
    run(async {
        let (hall, server) = open_hall().await;
        let client = SeatsClient::connect(server.address()).connections(3).await.unwrap();
        for _ in 0..10 {
            client.seat().await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        drop(client);
        until("it to leave", || server.connections() == 0).await;
        let client = seated(&hall, &server, 3).await;
        let staying: Vec<_> = (0..30).map(|_| client.stay().send()).collect();
        until("all to stay", || hall.taken() == 30).await;
        assert_eq!(hall.per_connection(), [10, 10, 10]);
        assert_eq!(server.connections(), 3);
        hall.leave.add_permits(30);
        for stay in staying {
            stay.await.unwrap();
        }
        // Idle ones take turns.
        hall.seats.lock().unwrap().clear();
        for _ in 0..30 {
            client.seat().await.unwrap();
        }
        assert_eq!(hall.per_connection(), [10, 10, 10]);
    });
}

#[test]
fn a_batch_keeps_to_one_of_several_connections() {
    run(async {
        let (hall, server) = open_hall().await;
        let client = seated(&hall, &server, 3).await;
        for _ in 0..10 {
            farcall::batch((0..10).map(|_| client.seat()).collect::<Vec<_>>()).await;
            assert_eq!(hall.per_connection(), [10]);
            let (a, b) = farcall::batch((client.seat(), client.seat())).await;
            assert_eq!(a.unwrap(), b.unwrap());
            hall.seats.lock().unwrap().clear();
        }
    });
}

#[test]
fn a_hedged_call_takes_another_connection() {
    run(async {
        let (hall, server) = open_hall().await;
        let client = seated(&hall, &server, 2).await;
        let others = tokio::spawn(farcall::batch((0..5).map(|_| client.stay()).collect::<Vec<_>>()));
        until("one connection to be busy", || hall.taken() == 5).await;
        let hedged = tokio::spawn(client.stay().hedge(10 * MS));
        until("both attempts", || hall.taken() == 7).await;
        // The first attempt has the idle connection; the second takes the busy one all the same.
        let seats = hall.seats.lock().unwrap().clone();
        assert!(seats[5] != seats[0] && seats[6] == seats[0], "{seats:?}");
        hall.leave.add_permits(7);
        hedged.await.unwrap().unwrap();
        others.await.unwrap();
    });
}

#[test]
fn a_connection_told_to_go_away_is_replaced_while_it_drains() {
    for connections in [1, 2] {
        run(async {
            let ((old, going), (new, staying)) = (open_hall().await, open_hall().await);
            let addresses = format!("{},{}", going.address(), staying.address());
            let client = SeatsClient::connect(addresses).connections(connections).await.unwrap();
            let stay = client.stay().send();
            until("it to stay", || old.taken() == 1).await;
            let drained = tokio::spawn(going.drain(HOUR));
            while new.taken() == 0 {
                // Until the word is out, the old one may still answer.
                if let Err(e) = client.seat().await {
                    assert!(e.certainty().is_safe_to_retry(), "{e}");
                }
            }
            client.seat().await.unwrap();
            old.leave.add_permits(1);
            stay.await.unwrap();
            drained.await.unwrap().unwrap();
        });
    }
}

#[test]
fn a_server_takes_only_so_many_calls_on_all_its_connections() {
    run(async {
        let hall = Arc::new(Hall { seats: Mutex::default(), leave: Semaphore::new(0) });
        let limits = Limits { server_in_flight: 3, ..Limits::default() };
        let server = Server::builder().serve(SeatsServer::shared(hall.clone())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let (one, other) = (SeatsClient::connect(server.address()).await.unwrap(), SeatsClient::connect(server.address()).await.unwrap());
        for _ in 0..2 {
            hall.seats.lock().unwrap().clear();
            let staying = [one.stay().send(), one.stay().send(), other.stay().send()];
            until("three to stay", || hall.taken() == 3).await;
            for client in [&one, &other] {
                let e = client.seat().await.unwrap_err();
                assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
                assert!(e.message().contains("3 calls") && e.message().contains("`server_in_flight`"), "{e}");
            }
            hall.leave.add_permits(3);
            for stay in staying {
                stay.await.unwrap();
            }
            one.seat().await.unwrap();
        }
        // A handler that is dropped with its caller counts no more; one that is not goes on counting.
        hall.seats.lock().unwrap().clear();
        let (idempotent, not) = ([one.stay().send(), one.stay().send()], other.remain().send());
        until("three to stay", || hall.taken() == 3).await;
        drop((idempotent, not, other));
        until("its connection to end", || server.connections() == 1).await;
        one.seat().await.unwrap();
        let staying = [one.stay().send(), one.stay().send()];
        until("both to stay", || hall.taken() == 6).await;
        assert_eq!(one.seat().await.unwrap_err().code(), Code::ResourceExhausted);
        hall.leave.add_permits(3);
        for stay in staying {
            stay.await.unwrap();
        }
        server.drain(HOUR).await.unwrap();
        assert_eq!(hall.leave.available_permits(), 0);
    });
}

#[test]
fn a_channel_without_connections_is_refused() {
    for connections in [0, 65] {
        let e = run(async move { PaymentClient::connect("tcp://127.0.0.1:1").connections(connections).await.err().unwrap() });
        assert_eq!(e.code(), Code::InvalidArgument);
        assert!(e.message().contains("1 to 64") && e.message().contains(&connections.to_string()), "{e}");
    }
}

/// A provider that is patient for so long when it is told to end, its client, and a call in flight that
/// takes so long.
async fn busy_provider(patience_ms: u64, call_ms: u64, more: &[&str]) -> (Provider, PaymentClient, impl Future<Output = Reply<u64>>) {
    let patience_ms = patience_ms.to_string();
    let args = [&[patience_ms.as_str()], more].concat();
    let provider = Provider::start_with("tcp://127.0.0.1:0", &args);
    let client = PaymentClient::connect(&provider.address).await.unwrap();
    let sure = client.sure(call_ms).no_deadline().send();
    // Calls of one connection start in their order.
    client.status(1).await.unwrap();
    (provider, client, sure)
}

/// Calls until the provider takes no more; no call is left in the dark.
async fn until_it_drains(client: &PaymentClient) {
    let start = Instant::now();
    while let Ok(_status) = client.status(1).await.map_err(|e| assert!(e.certainty().is_safe_to_retry(), "{e}")) {
        assert!(start.elapsed() < PATIENCE);
    }
}

/// Waits for its end, and tells whether that was a good one.
async fn ended_well(mut provider: Provider) -> bool {
    until("the process to end", || provider.ended().is_some()).await;
    provider.ended().unwrap().success()
}

#[test]
fn a_process_told_to_end_lets_running_calls_end() {
    for (signal, more) in [("-TERM", &[][..]), ("-INT", &[]), ("-TERM", &["2"])] {
        run(async {
            let (provider, client, sure) = busy_provider(3_600_000, 300, more).await;
            provider.signal(signal);
            until_it_drains(&client).await;
            assert_eq!(sure.await.unwrap(), 1);
            assert!(ended_well(provider).await);
        });
    }
}

#[test]
fn a_process_told_to_end_does_so_in_its_time() {
    run(async {
        let (provider, _client, sure) = busy_provider(100, 3_600_000, &[]).await;
        provider.signal("-TERM");
        assert!(!ended_well(provider).await);
        assert_eq!(sure.await.unwrap_err().certainty(), Certainty::MaybeExecuted);
    });
}

#[test]
fn a_second_signal_ends_a_process_at_once() {
    run(async {
        let (provider, client, sure) = busy_provider(3_600_000, 3_600_000, &[]).await;
        provider.signal("-TERM");
        until_it_drains(&client).await;
        provider.signal("-INT");
        assert!(!ended_well(provider).await);
        assert_eq!(sure.await.unwrap_err().certainty(), Certainty::MaybeExecuted);
    });
}

#[test]
fn calls_go_elsewhere_when_a_process_is_told_to_end() {
    run(async {
        let (first, second) = (Provider::start_with("tcp://127.0.0.1:0", &["3600000"]), Provider::start("tcp://127.0.0.1:0"));
        let client = PaymentClient::connect(format!("{},{}", first.address, second.address)).await.unwrap();
        client.status(1).await.unwrap();
        first.signal("-TERM");
        // Whatever was under way in that moment is told apart by its certainty.
        while client.channel().peer().is_none_or(|peer| peer.address == first.address) {
            let _ = client.status(1).await.map_err(|e| assert!(e.certainty().is_safe_to_retry(), "{e}"));
        }
        assert!(ended_well(first).await);
        for _ in 0..10 {
            client.status(1).await.unwrap();
        }
    });
}
