//! Borrowed parameters: `&str`, `&[u8]`, `&[T]`, `&T`, `Option`s of them, `Cow`, and types with a lifetime.
#![allow(clippy::too_many_arguments, reason = "one method has a parameter of every kind")]

use std::borrow::Cow;
use std::sync::Mutex;

use farcall::prelude::*;
use farcall::{CodecId, TypeSchema};

use crate::run;

#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u32,
}

/// An order whose text stays in the message.
#[farcall::data]
#[derive(Debug, PartialEq)]
struct Order<'a> {
    id: u64,
    customer: Cow<'a, str>,
    note: Option<Cow<'a, str>>,
    scan: Cow<'a, [u8]>,
    lines: Vec<OrderLine<'a>>,
}

#[farcall::data]
#[derive(Debug, PartialEq)]
struct OrderLine<'a> {
    sku: Cow<'a, str>,
    qty: u32,
}

#[farcall::service]
trait Shop {
    #[farcall(idempotent)]
    async fn find(&self, name: &str) -> Reply<String>;
    async fn everything(
        &self,
        text: &str,
        bytes: &[u8],
        lines: &[Line],
        line: &Line,
        may: Option<&str>,
        be: Option<&[u8]>,
        cow: Cow<'_, str>,
        owned: u32,
    ) -> Reply<String>;
    /// The sum of its quantities, and whether its text was borrowed.
    async fn order(&self, order: Order<'_>) -> Reply<(u32, bool)>;
    fn blocking(&self, name: &str, order: &Order<'_>) -> Reply<String>;
    #[farcall(oneway)]
    async fn note(&self, text: &str);
    #[farcall(oneway)]
    fn note_blocking(&self, args: &str, up: &str);
    async fn sum(&self, unit: &str, numbers: Streaming<u32>) -> Reply<String>;
    async fn later(&self, name: &str) -> Reply<usize>;
}

#[derive(Default)]
struct Counter {
    notes: Mutex<Vec<String>>,
}

impl Shop for Counter {
    async fn find(&self, name: &str) -> Reply<String> {
        match name {
            "" => Err(RpcError::new(Code::NotFound, "nobody has no name")),
            name => Ok(format!("found {name}")),
        }
    }

    async fn everything(
        &self,
        text: &str,
        bytes: &[u8],
        lines: &[Line],
        line: &Line,
        may: Option<&str>,
        be: Option<&[u8]>,
        cow: Cow<'_, str>,
        owned: u32,
    ) -> Reply<String> {
        // What is borrowed is still there after a wait.
        tokio::task::yield_now().await;
        let skus: Vec<&str> = lines.iter().map(|line| line.sku.as_str()).collect();
        Ok(format!("{text} {bytes:?} {skus:?} {} {may:?} {be:?} {cow} {owned}", line.qty))
    }

    async fn order(&self, order: Order<'_>) -> Reply<(u32, bool)> {
        let is_lent = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        let lent = is_lent(&order.customer) && order.note.iter().all(is_lent) && order.lines.iter().all(|line| is_lent(&line.sku));
        Ok((order.lines.iter().map(|line| line.qty).sum(), lent && matches!(order.scan, Cow::Borrowed(_))))
    }

    fn blocking(&self, name: &str, order: &Order<'_>) -> Reply<String> {
        std::thread::yield_now();
        Ok(format!("{name} for {}", order.customer))
    }

    async fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn note_blocking(&self, args: &str, up: &str) {
        self.notes.lock().unwrap().push(format!("{args}{up}"));
    }

    async fn sum(&self, unit: &str, mut numbers: Streaming<u32>) -> Reply<String> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(format!("{sum} {unit}"))
    }

    async fn later(&self, name: &str) -> Reply<usize> {
        tokio::task::yield_now().await;
        Ok(name.len())
    }
}

fn order(customer: &str) -> Order<'_> {
    let lines = vec![OrderLine { sku: "a".into(), qty: 2 }, OrderLine { sku: "b".into(), qty: 3 }];
    Order { id: 7, customer: customer.into(), note: Some("soon".into()), scan: (&[1u8, 2][..]).into(), lines }
}

async fn serve(name: &str) -> (Server, ShopClient) {
    let server = Server::builder().serve(ShopServer::new(Counter::default())).listen(format!("mem:{name}")).await.unwrap();
    let client = ShopClient::connect(server.address()).await.unwrap();
    (server, client)
}

async fn check(client: &ShopClient) {
    // The borrow ends with the call of the stub's method: the call is sent later.
    let call = {
        let name = "Ada".to_owned();
        client.find(&name)
    };
    assert_eq!(call.await.unwrap(), "found Ada");
    assert_eq!(client.find("").await.unwrap_err().code(), Code::NotFound);
    let line = Line { sku: "x".into(), qty: 9 };
    let (lines, may) = ([line.clone(), line.clone()], "may".to_owned());
    let all = client.everything("te\"xt", b"by", &lines, &line, Some(&may), None, "cow".into(), 5).await.unwrap();
    assert_eq!(all, r#"te"xt [98, 121] ["x", "x"] 9 Some("may") None cow 5"#);
    assert_eq!(client.order(order("Ada")).await.unwrap().0, 5);
    assert_eq!(client.blocking("parcel", &order("Ada")).await.unwrap(), "parcel for Ada");
    let numbers = Streaming::items([1, 2, 3]);
    assert_eq!(client.sum("pieces", numbers).await.unwrap(), "6 pieces");
}

#[test]
fn they_are_taken_by_stub_trait_and_handler() {
    run(async {
        let (_server, client) = serve("borrowed").await;
        check(&client).await;
        check(&ShopClient::local(Counter::default())).await;
        assert!(client.order(order("Ada")).await.unwrap().1, "the handler borrows from the message");
        // The same code over provider and client.
        async fn generic(shop: &impl Shop) -> usize {
            shop.later("four").await.unwrap()
        }
        assert_eq!((generic(&client).await, generic(&Counter::default()).await), (4, 4));
    });
}

#[test]
fn in_every_codec() {
    run(async {
        let (_server, client) = serve("borrowed-codecs").await;
        for codec in [CodecId::Compact, CodecId::Json, CodecId::Xdr, CodecId::Protobuf] {
            assert_eq!(client.find("A\nda").codec(codec).await.unwrap(), "found A\nda", "{codec}");
            // Text with an escape in it is nowhere to be borrowed in JSON.
            let sum = client.order(order("A\nda")).codec(codec).await.unwrap();
            assert_eq!(sum, (5, codec != CodecId::Json), "{codec}");
        }
    });
}

#[test]
fn one_way_and_large_ones() {
    run(async {
        let counter = std::sync::Arc::new(Counter::default());
        let server = Server::builder().serve(ShopServer::shared(counter.clone())).listen("mem:borrowed-oneway").await.unwrap();
        let client = ShopClient::connect(server.address()).await.unwrap();
        client.note("first").await.unwrap();
        client.note_blocking("sec", "ond").await.unwrap();
        assert_eq!(client.later(&"x".repeat(100_000)).await.unwrap(), 100_000);
        assert_eq!(client.later(&"x".repeat(1_000_000)).await.unwrap(), 1_000_000);
        let error = client.later(&"x".repeat(20 << 20)).await.unwrap_err();
        assert_eq!((error.code(), error.certainty()), (Code::ResourceExhausted, farcall::Certainty::NotSent));
        server.drain(std::time::Duration::from_secs(10)).await.unwrap();
        let mut notes = counter.notes.lock().unwrap().clone();
        notes.sort();
        assert_eq!(notes, ["first", "second"]);
    });
}

#[test]
fn without_a_runtime_and_hedged() {
    let (_server, client) = farcall::block_on(serve("borrowed-wait")).unwrap();

    assert_eq!(client.find("Ada").wait().unwrap(), "found Ada");
    assert_eq!(client.find("Ada").hedge(std::time::Duration::from_secs(1)).wait().unwrap(), "found Ada");
}

/// Borrowing is each side's own affair: the other may own.
#[test]
fn it_changes_nothing_on_the_wire() {
    #[farcall::service(name = "Shop")]
    trait Owned {
        async fn find(&self, name: String) -> Reply<String>;
    }
    let (lent, owned) = (&ShopClient::descriptor().methods[0], &OwnedClient::descriptor().methods[0]);
    assert_eq!(lent.prints, owned.prints);
    assert_eq!(lent.signature, "find(name: &str) -> Reply<String>");
    assert_eq!(TypeSchema::of::<Order<'_>>().type_name(), "Order");
}

/// The parameter's own name is in the error also where serde knows an alias before it, and where a stream follows.
#[test]
fn errors_name_the_parameter() {
    #[farcall::service(name = "Named")]
    trait Old {
        async fn sum(&self, #[serde(alias = "label")] unit: &str, line: Line, numbers: Streaming<u32>) -> Reply<u32>;
    }
    let method = &OldClient::descriptor().methods[0];
    let message = farcall::compact::encode(&("pieces", Line { sku: "x".into(), qty: 1 })).unwrap();
    let error = farcall::compact::decode::<Old_sum_Args<'_>>(&message[..message.len() - 1]).err().unwrap();
    assert_eq!(method.name_args_steps(error).path(), "line.qty");
}
