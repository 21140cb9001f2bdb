//! The same service in every codec, over a real socket.

use std::sync::atomic::Ordering;

use farcall::prelude::*;
use farcall::{Certainty, Code, CodecId, Key};
use farcall_tests::{PayError, PaymentClient, Receipt, Status, order};

use crate::streams::{Refused, all, feed};
use crate::support::{run, serve, until};

const CODECS: [CodecId; 4] = [CodecId::Compact, CodecId::Json, CodecId::Xdr, CodecId::Protobuf];

#[test]
fn every_codec_carries_arguments_results_and_errors() {
    run(async {
        let (till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        for codec in CODECS {
            let receipt = payment.pay(order(u64::MAX, 3)).codec(codec).await.unwrap();
            assert_eq!(receipt, Receipt { order: u64::MAX, cents: 600 }, "{codec}");
            match payment.pay(order(7, 0)).codec(codec).await {
                Err(Error::App(PayError::Declined { reason })) => assert_eq!(reason, "nothing to pay", "{codec}"),
                other => panic!("{codec}: {other:?}"),
            }
            assert_eq!(payment.status(7).codec(codec).await.unwrap(), Status::Paid { cents: 250 }, "{codec}");
            assert_eq!(payment.status(8).codec(codec).await.unwrap(), Status::Unknown, "{codec}");
            assert_eq!(payment.sum(vec![order(1, 2), order(2, 0)]).codec(codec).await.unwrap(), 300, "{codec}");
            payment.hold(0).codec(codec).await.unwrap();
            let seen = payment.seen().codec(codec).metadata("tenant", "blue").await.unwrap();
            assert_eq!(seen.1, "blue", "{codec}");
        }
        assert_eq!(till.paid.load(Ordering::SeqCst), 2 * CODECS.len() as u64);
    });
}

#[test]
fn every_codec_carries_bytes() {
    run(async {
        let (_till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        for codec in CODECS {
            for length in [0, 1, 5, 1024, 100_000] {
                let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
                assert_eq!(payment.echo(bytes.clone()).codec(codec).await.unwrap(), bytes, "{codec}, {length}");
            }
        }
    });
}

#[test]
fn every_codec_carries_streams() {
    run(async {
        let (_source, _server, client) = feed().await;
        for codec in CODECS {
            assert_eq!(all(client.count(300).codec(codec).await.unwrap()).await, (0..300).collect::<Vec<_>>(), "{codec}");
            assert_eq!(client.sum(5, Streaming::items(0..10)).codec(codec).await.unwrap(), 50, "{codec}");
            let pieces = all(client.pieces(2, 100_000).codec(codec).await.unwrap()).await;
            assert_eq!(pieces, vec![vec![7; 100_000]; 2], "{codec}");
            assert_eq!(client.swallow(Streaming::items(pieces)).codec(codec).await.unwrap(), 200_000, "{codec}");
            assert!(matches!(client.picky(0).codec(codec).await, Err(Error::App(Refused::Unwanted(0)))), "{codec}");
            let lines = Streaming::items(["ä".to_owned(), String::new()]);
            assert_eq!(all(client.shout(lines).codec(codec).await.unwrap()).await, ["Ä", ""], "{codec}");
        }
    });
}

/// Both streams end with errors of their own, and structs go through them.
#[test]
fn every_codec_carries_what_ends_a_stream() {
    run(async {
        let (_source, _server, client) = feed().await;
        for codec in CODECS {
            let (first, second) = (order(1, 2), order(u64::MAX, 3));
            let orders = Streaming::items([first.clone(), second]);
            let mut checked = client.check(2, orders).codec(codec).await.unwrap();
            assert_eq!(checked.next().await.unwrap().unwrap(), first, "{codec}");
            assert!(matches!(checked.next().await, Some(Err(Error::App(Refused::Unwanted(u64::MAX))))), "{codec}");
            let orders = Streaming::produce(|_| async { Err(Refused::Unwanted(5).into()) });
            let mut checked = client.check(2, orders).codec(codec).await.unwrap();
            assert!(matches!(checked.next().await, Some(Err(Error::App(Refused::Unwanted(5))))), "{codec}");
        }
    });
}

#[test]
fn one_way_calls_have_a_codec_too() {
    run(async {
        let (_till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        for codec in CODECS {
            payment.note(codec.to_string()).codec(codec).await.unwrap();
        }
        // One connection handles them in order.
        let notes = payment.notes().await.unwrap();
        assert_eq!(notes, CODECS.map(|codec| codec.to_string()));
    });
}

/// A type that says how it was written.
#[farcall::data]
#[derive(Debug, PartialEq)]
pub(crate) struct Spy {
    #[serde(with = "how")]
    #[schema(as = String)]
    written: String,
}

mod how {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(_: &str, to: S) -> Result<S::Ok, S::Error> {
        let how = if to.is_human_readable() { "as text" } else { "as bytes" };
        to.serialize_str(how)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        String::deserialize(from)
    }
}

#[farcall::service]
pub(crate) trait Spying {
    async fn look(&self, spy: Spy) -> Reply<(String, Spy)>;
    #[farcall(oneway)]
    async fn nothing(&self, spy: Spy);
}

struct Spies;

impl Spying for Spies {
    async fn look(&self, spy: Spy) -> Reply<(String, Spy)> {
        Ok((spy.written, Spy { written: String::new() }))
    }
    async fn nothing(&self, _: Spy) {}
}

#[test]
fn a_client_may_have_a_codec_of_its_own() {
    run(async {
        let server = Server::builder().serve(SpyingServer::new(Spies)).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = SpyingClient::connect(server.address()).default_codec(CodecId::Json).await.unwrap();
        let check = |seen: (String, Spy), how: &str| assert_eq!((seen.0.as_str(), seen.1.written.as_str()), (how, how));
        let spy = || Spy { written: String::new() };
        check(client.look(spy()).await.unwrap(), "as text");
        check(client.look(spy()).metadata("tenant", "blue").await.unwrap(), "as text");
        check(client.look(spy()).codec(CodecId::Compact).await.unwrap(), "as bytes");
        check(client.look(spy()).key(&Key::new()).await.unwrap(), "as text");
        check(client.look(spy()).codec(CodecId::Xdr).send().await.unwrap(), "as bytes");
        client.nothing(spy()).await.unwrap();
        let plain = SpyingClient::connect(server.address()).await.unwrap();
        check(plain.look(spy()).await.unwrap(), "as bytes");
        check(plain.look(spy()).codec(CodecId::Json).await.unwrap(), "as text");
    });
}

/// Calls of different codecs stand side by side on one connection.
#[test]
fn codecs_mix_on_one_connection() {
    run(async {
        let (till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        let pending: Vec<_> = CODECS.iter().cycle().take(400).map(|&codec| payment.pay(order(1, 1)).codec(codec).send()).collect();
        for call in pending {
            assert_eq!(call.await.unwrap().cents, 100);
        }
        until("all ran", || till.paid.load(Ordering::SeqCst) == 400).await;
    });
}

/// What does not fit is refused before the handler runs, in words.
#[test]
fn arguments_that_do_not_fit_are_named() {
    use farcall::{Invoke, RawCall};
    run(async {
        let (till, _server, payment) = serve("tcp://127.0.0.1:0").await;
        let cases: [(CodecId, &'static [u8], &str); 3] = [
            (CodecId::Xdr, &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1], "order.lines[0].sku: the message ends early"),
            (CodecId::Protobuf, &[0x0a, 4, 0x12, 2, 0x10, 0x80], "order.lines[0]: the message ends early"),
            (CodecId::Json, b"{}", "order"),
        ];
        for (codec, args, says) in cases {
            let call = RawCall {
                service: PaymentClient::descriptor().clone().into(),
                method: 0,
                codec,
                args: args.into(),
                metadata: Default::default(),
                deadline: None,
                key: None,
            };
            let error = payment.channel().invoke(call).await.unwrap_err();
            assert_eq!((error.code(), error.certainty()), (Code::InvalidArgument, Certainty::NotExecuted), "{error}");
            assert!(error.message().contains(says), "{error}");
        }
        assert_eq!(till.paid.load(Ordering::SeqCst), 0);
    });
}
