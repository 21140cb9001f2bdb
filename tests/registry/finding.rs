//! Found, lost, withdrawn, unfit: what a client does with the instances of its service.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use farcall::prelude::*;
use farcall::registry::{BoxFuture, GuardSettings, Memory, Registration};
use farcall::{Address, Announce, ServiceDescriptor};
use farcall_tests::{PayError, PaymentClient, Receipt, Till, order};
use tokio::sync::Notify;

use crate::faulty::{Fault, Faulty};
use crate::support::{TempDir, find, payment, provide, provide_as, quick, run, serving, until, written};

#[test]
fn a_client_finds_a_server_by_the_name_of_its_service() {
    run(async {
        let registry = Memory::new();
        let (till, server) = provide(&registry, "tcp://127.0.0.1:0").await;
        let client = find(&registry).await.unwrap();
        client.pay(order(1, 1)).await.unwrap();
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
        server.drain(Duration::from_secs(5)).await.unwrap();
        let e = client.pay(order(2, 1)).await.unwrap_err();
        let e = e.rpc().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent));
        assert!(e.message().contains("Payment at a registry in this process: no provider is registered"), "{e}");
    });
}

#[test]
fn without_a_runtime() {
    let registry = Memory::new();
    let till = std::sync::Arc::default();
    let server = serving(&till).register(&registry).listen("tcp://127.0.0.1:0").wait().unwrap();
    let client = find(&registry).wait().unwrap();
    client.pay(order(1, 1)).wait().unwrap();
    farcall::block_on(server.drain(Duration::from_secs(5))).unwrap().unwrap();
    assert_eq!(till.paid.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_that_drains_loses_no_call_of_clients_that_have_another() {
    run(async {
        let registry = Memory::new();
        let (_, first) = provide(&registry, "tcp://127.0.0.1:0").await;
        let (_, second) = provide(&registry, "tcp://127.0.0.1:0").await;
        let clients = [find(&registry).await.unwrap(), find(&registry).await.unwrap(), find(&registry).connections(4).await.unwrap()];
        let calling = clients.map(|client| {
            tokio::spawn(async move {
                for n in 0..300 {
                    client.pay(order(n, 1)).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.drain(Duration::from_secs(5)).await.unwrap();
        let (till, third) = provide(&registry, "tcp://127.0.0.1:0").await;
        second.drain(Duration::from_secs(5)).await.unwrap();
        for task in calling {
            task.await.unwrap();
        }
        assert!(till.paid.load(Ordering::SeqCst) > 0, "the last server is found, too");
        drop(third);
    });
}

/// Start, ready, register: who asks not to be called is found by nobody.
#[test]
fn a_server_that_warms_up_is_found_when_it_is_ready() {
    run(async {
        let registry = Memory::new();
        let registration = Registration::at(&registry).guard(quick());
        let status = registration.status();
        let till = Arc::new(Till::default());
        let server = serving(&till).unready().register(registration).listen("tcp://127.0.0.1:0").await.unwrap();
        assert!(status.borrow().is_empty(), "it has begun to register");
        let nobody = find(&registry).await.map(drop).unwrap_err();
        assert!(nobody.message().contains("no provider is registered"), "{nobody}");
        server.readiness().set(true);
        until("it is registered", || status.borrow().iter().any(|s| s.held)).await;
        find(&registry).await.unwrap().pay(order(1, 1)).await.unwrap();
        server.drain(Duration::from_secs(5)).await.unwrap();
        assert!(find(&registry).await.is_err(), "it was withdrawn");
    });
}

/// One that is ended before it ever was ready was never registered, and does not register afterwards.
#[test]
fn a_server_that_ends_while_it_warms_up_was_never_found() {
    run(async {
        let registry = Memory::new();
        let registration = Registration::at(&registry).guard(quick());
        let status = registration.status();
        let server = serving(&Arc::default()).unready().register(registration).listen("tcp://127.0.0.1:0").await.unwrap();
        let readiness = server.readiness();
        server.drain(Duration::from_secs(5)).await.unwrap();
        readiness.set(true);
        assert!(find(&registry).await.is_err());
        assert!(status.borrow().is_empty());
    });
}

/// An announcement that takes its time to be withdrawn.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<Notify>,
    done: Arc<Notify>,
}

impl Announce for Slow {
    fn ready<'a>(&'a self, _: &'a [Address], _: &'a [&'a ServiceDescriptor]) -> BoxFuture<'a, Result<(), RpcError>> {
        Box::pin(async { Ok(()) })
    }

    fn leaving(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.begun.notify_one();
            self.done.notified().await;
        })
    }
}

/// Withdraw, then GoAway: while not everybody knows yet, those who do not are answered, on old connections and on new ones.
#[test]
fn a_server_answers_until_it_is_withdrawn_everywhere() {
    run(async {
        let slow = Slow::default();
        let server = serving(&Arc::default()).announce(slow.clone()).listen("tcp://127.0.0.1:0").await.unwrap();
        let address = server.address().to_string();
        let known = PaymentClient::connect(&address).await.unwrap();
        let draining = tokio::spawn(server.drain(Duration::from_secs(20)));
        slow.begun.notified().await;
        known.pay(order(1, 1)).await.unwrap();
        let came = PaymentClient::connect(&address).await.unwrap();
        came.pay(order(2, 1)).await.unwrap();
        slow.done.notify_one();
        draining.await.unwrap().unwrap();
        assert!(PaymentClient::connect(&address).await.is_err(), "the port is free");
    });
}

/// A connection to an instance that lives is left, too, and what runs on it ends there.
#[test]
fn a_withdrawn_instance_that_lives_is_left_at_once() {
    run(async {
        let registry = Faulty::new();
        let (till, server) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let client = find(registry.open()).await.unwrap();
        let running = client.sure(300).send();
        until("the call runs", || till.begun.load(Ordering::SeqCst) == 1).await;
        let entry = registry.entries(&payment()).await.pop().unwrap();
        registry.withdraw(entry.key());
        until("the client leaves", || client_is_alone(&client)).await;
        assert!(client.pay(order(1, 1)).await.is_err());
        assert_eq!(running.await.unwrap(), 1);
        until("the connection closes", || server.connections() == 0).await;
    });
}

fn client_is_alone(client: &PaymentClient) -> bool {
    client.channel().peer().is_none()
}

#[test]
fn a_killed_server_is_suspect_and_the_next_call_goes_to_another() {
    run(async {
        let registry = Faulty::new();
        let (_, first) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (client, directory) = find(registry.open()).with_directory().await.unwrap();
        let (till, _second) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        until("both are known", || directory.instances().len() == 2).await;
        client.pay(order(1, 1)).await.unwrap();
        let dead = first.address().to_string();
        // The registry sees nothing of it.
        registry.set(Fault::Hang);
        drop(first);
        until("the first is suspect", || directory.instances().iter().any(|i| i.suspect && i.entry.addresses[0].address == dead)).await;
        for n in 2..20 {
            client.pay(order(n, 1)).await.unwrap();
        }
        assert!(till.paid.load(Ordering::SeqCst) >= 18);
    });
}

#[test]
fn a_registry_that_goes_down_hangs_or_is_wiped_costs_no_call() {
    run(async {
        let registry = Faulty::new();
        let (_, _first) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (_, _second) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (client, directory) = find(registry.open()).with_directory().await.unwrap();
        until("both are known", || directory.instances().len() == 2).await;
        for fault in [Fault::Down, Fault::Wiped, Fault::Down, Fault::None, Fault::Hang, Fault::Down, Fault::Refuse, Fault::None] {
            registry.set(fault);
            for n in 0..60 {
                client.pay(order(n, 1)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(directory.instances().len(), 2, "{fault:?}");
        }
        until("nothing is in doubt any more", || directory.instances().iter().all(|i| i.listed && !i.suspect)).await;
    });
}

#[test]
fn a_server_starts_while_its_registry_is_down_and_is_found_afterwards() {
    run(async {
        let registry = Faulty::new();
        registry.set(Fault::Hang);
        let registration = Registration::at(registry.open()).wait_for_first(Duration::from_millis(50));
        let status = registration.status();
        let (_, server) = provide_as(registration, "tcp://127.0.0.1:0").await;
        assert!(!status.borrow()[0].held);
        registry.set(Fault::Down);
        until("the server has tried again", || status.borrow()[0].error.as_ref().is_some_and(|e| e.message().contains("down"))).await;
        registry.set(Fault::None);
        until("it is registered", || status.borrow()[0].held).await;
        find(registry.open()).await.unwrap().pay(order(1, 1)).await.unwrap();
        // And it ends in time although the registry does not answer.
        registry.set(Fault::Hang);
        server.drain(Duration::from_secs(1)).await.unwrap();
    });
}

/// What is lost is published again, by itself and not too often; what a wipe took is found missing.
#[test]
fn a_server_registers_again_whenever_its_entry_may_be_lost() {
    run(async {
        let registry = Faulty::new();
        let registration = Registration::at(registry.open());
        let status = registration.status();
        let (_, _server) = provide_as(registration, "tcp://127.0.0.1:0").await;
        registry.set(Fault::Down);
        until("it is lost", || !status.borrow()[0].held).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Full jitter of 20 to 200 ms: half of a hundred milliseconds on average, never a busy loop.
        assert!(registry.publishes() < 100, "{} attempts", registry.publishes());
        registry.set(Fault::None);
        until("it is there again", || status.borrow()[0].held).await;
        registry.set(Fault::Wiped);
        until("it is found missing", || !status.borrow()[0].held || status.borrow()[0].published > 2).await;
        registry.set(Fault::None);
        until("it is there again", || status.borrow()[0].held).await;
    });
}

#[test]
fn a_registration_that_is_refused_everywhere_is_an_error_of_listen() {
    run(async {
        let registry = Faulty::new();
        registry.set(Fault::Refuse);
        let till = std::sync::Arc::default();
        let e = serving(&till).register(registry.open()).listen("tcp://127.0.0.1:0").await.err().unwrap();
        assert_eq!((e.code(), e.message()), (Code::PermissionDenied, "you may not use this registry"));
        let (_, _fine) = provide(vec![registry.open(), Faulty::new().open()], "tcp://127.0.0.1:0").await;
    });
}

#[test]
fn an_unknown_list_says_which_registry_does_not_answer_and_why() {
    run(async {
        let registry = Faulty::new();
        registry.set(Fault::Down);
        let e = find(registry.open()).wait_for_first(Duration::from_millis(100)).await.err().unwrap();
        let wanted = "Payment at faulty: which providers there are is not known, and there is no cached list: the registry is down";
        assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::NotSent));
        assert_eq!(e.message(), wanted);
    });
}

/// Whoever has no watcher learns it here.
#[test]
fn a_damaged_cache_file_is_named_where_it_is_missed() {
    run(async {
        let folder = TempDir::new("damaged");
        let registry = Faulty::new();
        let (_, provider) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let discover =
            || PaymentClient::discover(registry.open()).guard(quick()).cache_in(&folder.0).wait_for_first(Duration::from_millis(300));
        let first = discover().await.unwrap();
        let (file, _) = written(&folder.0).await;
        drop((first, provider));
        std::fs::write(&file, b"fcall-l\x01 and nothing else").unwrap();
        registry.set(Fault::Down);
        let e = discover().await.err().unwrap();
        let named = format!("there is no cached list (cache file {}: it is not used: ", file.display());
        assert!(e.message().contains(&named) && e.message().ends_with("the registry is down"), "{e}");
    });
}

#[test]
fn a_wrong_url_is_an_error_before_anything_is_done() {
    run(async {
        for (url, why) in [
            ("127.0.0.1:7400", "the scheme is missing; did you mean \"farcall://127.0.0.1:7400\"?"),
            ("consul://a:1", "there is no kind of registry \"consul\""),
        ] {
            let e = PaymentClient::discover(url).without_cache().await.err().unwrap();
            assert!(e.code() == Code::InvalidArgument && e.message().contains(why), "{e}");
            let till = std::sync::Arc::default();
            let e = serving(&till).register(url).listen("tcp://127.0.0.1:0").await.err().unwrap();
            assert!(e.code() == Code::InvalidArgument && e.message().contains(why), "{e}");
        }
    });
}

/// Each client draws for itself, by weight; weight 0 is never called.
#[test]
fn clients_spread_over_the_instances_by_weight() {
    run(async {
        let registry = Memory::new();
        let mut servers = Vec::new();
        for weight in [300, 100, 0] {
            servers.push(provide_as(Registration::at(&registry).weight(weight), "tcp://127.0.0.1:0").await);
        }
        for n in 0..80 {
            find(&registry).await.unwrap().pay(order(n, 1)).await.unwrap();
        }
        let paid: Vec<u64> = servers.iter().map(|(till, _)| till.paid.load(Ordering::SeqCst)).collect();
        assert_eq!((paid.iter().sum::<u64>(), paid[2]), (80, 0));
        // Of 80 draws with 3 : 1, fewer than 4 or more than 40 for the lighter one do not happen in a lifetime.
        assert!((4..=40).contains(&paid[1]), "{paid:?}");
    });
}

#[test]
fn a_client_prefers_its_zone() {
    run(async {
        let registry = Memory::new();
        let (_, _far) = provide_as(Registration::at(&registry).label("zone", "a").weight(10_000), "tcp://127.0.0.1:0").await;
        let (near, _near) = provide_as(Registration::at(&registry).label("zone", "b"), "tcp://127.0.0.1:0").await;
        for n in 0..10 {
            find(&registry).zone("b").await.unwrap().pay(order(n, 1)).await.unwrap();
        }
        assert_eq!(near.paid.load(Ordering::SeqCst), 10);
    });
}

/// On one host the unix socket is taken, and the other address if there is no such socket.
#[test]
fn on_one_host_the_local_path_is_taken_if_it_works() {
    run(async {
        let registry = Memory::new();
        let folder = TempDir::new("local");
        let socket = folder.0.join("till.sock");
        let till = std::sync::Arc::default();
        let building = serving(&till).register(&registry).also(format!("unix:{}", socket.display()));
        let _server = building.listen("tcp://127.0.0.1:0").await.unwrap();
        let client = find(&registry).await.unwrap();
        assert_eq!(client.channel().peer().unwrap().address, format!("unix:{}", socket.display()));
        std::fs::remove_file(&socket).unwrap();
        let (client, directory) = find(&registry).with_directory().await.unwrap();
        assert!(client.channel().peer().unwrap().address.starts_with("tcp://"));
        client.pay(order(1, 1)).await.unwrap();
        assert!(directory.instances().iter().all(|i| !i.suspect), "the instance is none the worse for it");
    });
}

mod other {
    //! The same service, as somebody understood it who did not look.
    use farcall::prelude::*;

    #[farcall::service]
    pub(crate) trait Payment {
        async fn pay(&self, order: bool) -> Reply<String>;
    }

    pub(crate) struct Wrong;

    impl Payment for Wrong {
        async fn pay(&self, _: bool) -> Reply<String> {
            Ok("odd".into())
        }
    }
}

#[test]
fn an_instance_that_does_not_understand_is_avoided_and_said_so() {
    run(async {
        let registry = Memory::new();
        let odd = Server::builder().serve(other::PaymentServer::new(other::Wrong)).register(Registration::at(&registry).weight(1_000_000));
        let odd = odd.listen("tcp://127.0.0.1:0").await.unwrap();
        let e = find(&registry).await.err().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotSent), "{e}");
        for part in [&odd.address().to_string()[..], "no provider understands this program", "pay:", "bool", "status:"] {
            assert!(e.message().contains(part), "{part:?} in {e}");
        }
        let (till, _server) = provide(&registry, "tcp://127.0.0.1:0").await;
        for n in 0..5 {
            let receipt: Result<Receipt, Error<PayError>> = find(&registry).await.unwrap().pay(order(n, 1)).await;
            receipt.unwrap();
        }
        assert_eq!(till.paid.load(Ordering::SeqCst), 5);
    });
}

mod half {
    //! The same service of which `pay` became something else.
    use farcall::prelude::*;

    #[farcall::service]
    pub(crate) trait Payment {
        async fn pay(&self, order: bool) -> Reply<String>;
        async fn sure(&self, ms: u64) -> Reply<u64>;
    }

    pub(crate) struct Half;

    impl Payment for Half {
        async fn pay(&self, _: bool) -> Reply<String> {
            Ok("odd".into())
        }

        async fn sure(&self, _: u64) -> Reply<u64> {
            Ok(77)
        }
    }
}

/// An instance that understands some calls is better than none, and is left as soon as there is one that understands all.
#[test]
fn an_instance_that_understands_in_part_is_left_for_one_that_understands_all() {
    run(async {
        let registry = Memory::new();
        let half = Server::builder().serve(half::PaymentServer::new(half::Half)).register(Registration::at(&registry).weight(1_000_000));
        let _half = half.listen("tcp://127.0.0.1:0").await.unwrap();
        let client = find(&registry).await.unwrap();
        assert_eq!(client.sure(0).await.unwrap(), 77);
        assert_eq!(client.pay(order(1, 1)).await.unwrap_err().rpc().unwrap().code(), Code::FailedPrecondition);
        let (till, whole) = provide(&registry, "tcp://127.0.0.1:0").await;
        let address = whole.address().to_string();
        until("the client leaves", || client.channel().peer().is_none_or(|peer| peer.address == address)).await;
        client.pay(order(2, 1)).await.unwrap();
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
        // Back to it, as there is nobody else.
        drop(whole);
        while client.sure(0).await.ok() != Some(77) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Everybody in the cache file has gone while the program was away, and the registry takes its time to say who is there.
#[test]
fn a_program_starts_with_a_cache_file_older_than_everybody_in_it() {
    run(async {
        // Another folder for the later program: the earlier one may write its file once more while it ends.
        let (folder, later) = (TempDir::new("older"), TempDir::new("later"));
        let registry = Faulty::new();
        let at = registry.clone();
        let cached = move |folder: &TempDir| {
            PaymentClient::discover(at.open()).guard(GuardSettings { call: Duration::from_secs(5), ..quick() }).cache_in(&folder.0)
        };
        let (_, gone) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (client, directory) = cached(&folder).with_directory().await.unwrap();
        client.pay(order(1, 1)).await.unwrap();
        let (file, list) = written(&folder.0).await;
        let copy = later.0.join(file.strip_prefix(&folder.0).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, list).unwrap();
        drop((client, directory));
        drop(gone);
        let (till, _server) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        registry.set(Fault::Wait);
        let starting = cached(&later);
        let starting = tokio::spawn(async move { starting.await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!starting.is_finished(), "it has nobody yet");
        registry.set(Fault::None);
        starting.await.unwrap().unwrap().pay(order(2, 1)).await.unwrap();
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
    });
}
