//! Calls whose types differ between caller and provider, in every style and with everything that goes beside a call.
//! What each change of a type means is in `evolution`; how it is said on the wire, in `bad_peer`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use farcall::prelude::*;
use farcall::{CodecId, Key, Limits, batch};

use crate::support::{TempDir, run, until};

mod old {
    use farcall::prelude::*;

    #[farcall::data]
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Item {
        pub n: u16,
        pub bytes: bytes::Bytes,
    }

    #[farcall::service]
    pub(crate) trait Shop {
        #[farcall(idempotent)]
        async fn echo(&self, item: Item) -> Reply<Item>;
        async fn pay(&self, item: Item) -> Reply<u16>;
        #[farcall(oneway)]
        async fn note(&self, item: Item);
        async fn same(&self, n: u32) -> Reply<u32>;
    }

    pub(super) struct Till;

    impl Shop for Till {
        async fn echo(&self, item: Item) -> Reply<Item> {
            Ok(item)
        }
        async fn pay(&self, item: Item) -> Reply<u16> {
            Ok(item.n)
        }
        async fn note(&self, _: Item) {}
        async fn same(&self, n: u32) -> Reply<u32> {
            Ok(n)
        }
    }
}

mod new {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use farcall::prelude::*;

    #[farcall::data]
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Item {
        pub note: Option<String>,
        pub bytes: bytes::Bytes,
        pub n: u64,
    }

    #[farcall::service]
    pub(crate) trait Shop {
        async fn same(&self, n: u32) -> Reply<u32>;
        #[farcall(idempotent)]
        async fn echo(&self, item: Item) -> Reply<Item>;
        async fn pay(&self, item: Item) -> Reply<u64>;
        #[farcall(oneway)]
        async fn note(&self, item: Item);
    }

    #[derive(Default)]
    pub(super) struct Till {
        pub(super) paid: AtomicUsize,
        pub(super) noted: AtomicUsize,
    }

    impl Shop for Till {
        async fn same(&self, n: u32) -> Reply<u32> {
            Ok(n)
        }
        async fn echo(&self, item: Item) -> Reply<Item> {
            assert_eq!(item.note, None, "an old caller knows of no note");
            Ok(Item { note: Some("seen".into()), ..item })
        }
        async fn pay(&self, item: Item) -> Reply<u64> {
            self.paid.fetch_add(1, Ordering::SeqCst);
            Ok(item.n)
        }
        async fn note(&self, item: Item) {
            self.noted.fetch_add(item.n as usize, Ordering::SeqCst);
        }
    }
}

fn item(n: u16) -> old::Item {
    old::Item { n, bytes: vec![n as u8; 10].into() }
}

async fn new_server(address: &str) -> (Arc<new::Till>, Server) {
    let till = Arc::new(new::Till::default());
    let server = Server::builder().serve(new::ShopServer::shared(till.clone())).listen(address).await.unwrap();
    (till, server)
}

#[test]
fn every_style_of_call_meets_another_version() {
    let (till, server) = farcall::block_on(new_server("tcp://127.0.0.1:0")).unwrap();
    let connect = || old::ShopClient::connect(server.address()).wait().unwrap();
    // Each time the first call of a connection: it waits until both sides can read each other.
    assert_eq!(connect().echo(item(1)).wait().unwrap(), item(1));
    assert_eq!(connect().echo(item(2)).send().wait().unwrap(), item(2));
    assert_eq!(connect().echo(item(3)).hedge(std::time::Duration::from_secs(5)).wait().unwrap(), item(3));
    let (sender, receiver) = mpsc::channel();
    let client = connect();
    client.echo(item(4)).then(move |reply| sender.send(reply).unwrap());
    assert_eq!(receiver.recv().unwrap().unwrap(), item(4));
    connect().note(item(500)).wait().unwrap();
    let (two, client) = (old::ShopClient::connect(server.address()).connections(2).wait().unwrap(), connect());
    run(async {
        until("the note", || till.noted.load(Ordering::SeqCst) == 500).await;
        let (a, b, c) = batch((client.echo(item(5)), client.same(6), client.pay(item(7)))).await;
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (item(5), 6, 7));
        for n in 0..20 {
            assert_eq!(two.echo(item(n)).await.unwrap(), item(n));
        }
    });
}

#[test]
fn large_bodies_and_their_bytes_pass_through_a_plan() {
    let (_, server) = farcall::block_on(new_server("tcp://127.0.0.1:0")).unwrap();
    let client = old::ShopClient::connect(server.address()).wait().unwrap();
    for len in [1 << 10, 100 << 10, 3 << 20] {
        let sent = old::Item { n: 9, bytes: vec![7; len].into() };
        assert_eq!(client.echo(sent.clone()).wait().unwrap(), sent);
    }
}

#[test]
fn a_key_covers_attempts_on_several_connections() {
    let (till, server) = farcall::block_on(new_server("tcp://127.0.0.1:0")).unwrap();
    let key = Key::new();
    for _ in 0..3 {
        let client = old::ShopClient::connect(server.address()).wait().unwrap();
        assert_eq!(client.pay(item(8)).key(&key).wait().unwrap(), 8);
    }
    assert_eq!(till.paid.load(Ordering::SeqCst), 1);
}

#[test]
fn json_goes_by_names_and_positional_codecs_are_refused() {
    let (_, server) = farcall::block_on(new_server("tcp://127.0.0.1:0")).unwrap();
    let client = old::ShopClient::connect(server.address()).wait().unwrap();
    assert_eq!(client.echo(item(1)).codec(CodecId::Json).wait().unwrap(), item(1));
    for codec in [CodecId::Xdr, CodecId::Protobuf] {
        let e = client.echo(item(1)).codec(codec).wait().unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotExecuted), "{e}");
        assert!(e.message().contains("only compact and JSON are read in another version"), "{e}");
        assert_eq!(client.same(3).codec(codec).wait().unwrap(), 3, "where the types are alike any codec does");
    }
}

#[test]
fn a_provider_that_comes_back_in_another_version_is_read_again() {
    let dir = TempDir::new("another-version");
    run(async {
        let address = dir.socket();
        let server = Server::builder().serve(old::ShopServer::new(old::Till)).listen(&*address).await.unwrap();
        let client = old::ShopClient::connect(&*address).await.unwrap();
        assert_eq!(client.echo(item(1)).await.unwrap(), item(1));
        server.drain(crate::support::PATIENCE).await.unwrap();
        let (_, server) = new_server(&address).await;
        // The first may still meet the old link.
        let mut reply = client.echo(item(2)).await;
        while reply.as_ref().is_err_and(|e| e.code() == Code::Unavailable) {
            reply = client.echo(item(2)).await;
        }
        assert_eq!(reply.unwrap(), item(2));
        drop(server);
    });
}

#[test]
fn a_side_that_does_not_resolve_is_refused_as_ever() {
    let (_, server) = farcall::block_on(new_server("tcp://127.0.0.1:0")).unwrap();
    let limits = Limits { schemas: 0, ..Limits::default() };
    let client = old::ShopClient::connect(server.address()).limits(limits).wait().unwrap();
    let e = client.echo(item(1)).wait().unwrap_err();
    assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotExecuted), "{e}");
    assert!(e.message().contains("Shop.echo: the arguments and result differ between caller and provider"), "{e}");
    assert_eq!(client.same(3).wait().unwrap(), 3);
}
