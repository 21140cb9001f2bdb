//! `farcall schema` against a provider: what it prints, and how it ends.

use farcall::prelude::*;

use crate::cli::run;
use crate::streams::{FeedServer, Source};

/// What is bought.
#[farcall::data]
pub(crate) struct Order {
    /// Its number.
    #[farcall(tag = 5)]
    pub id: u64,
    pub state: State,
    pub next: Option<Box<Order>>,
}

#[farcall::data]
pub(crate) enum State {
    New,
    Paid { cents: u64 },
}

#[farcall::error]
#[derive(Debug)]
pub(crate) enum Refused {
    Closed,
}

/// Sells.
#[farcall::service(name = "org.example.Shop")]
pub(crate) trait Shop {
    /// Sells an order.
    async fn sell(&self, order: Order, note: Option<String>) -> Reply<u64, Refused>;
    #[farcall(oneway)]
    async fn list(&self);
}

#[farcall::data]
pub(crate) struct Twice {
    #[farcall(tag = 2)]
    pub first: u8,
    pub second: u8,
}

#[farcall::service]
pub(crate) trait Wrong {
    async fn wrong(&self, twice: Twice) -> Reply<()>;
}

struct Nothing;

impl Shop for Nothing {
    async fn sell(&self, order: Order, _: Option<String>) -> Reply<u64, Refused> {
        Ok(order.id)
    }
    async fn list(&self) {}
}

impl Wrong for Nothing {
    async fn wrong(&self, _: Twice) -> Reply<()> {
        Ok(())
    }
}

fn shop() -> (Server, String) {
    let server = Server::builder().serve(ShopServer::new(Nothing)).listen("tcp://127.0.0.1:0").wait().unwrap();
    let address = server.address().to_string();
    (server, address)
}

#[test]
fn types_are_shown_as_rust_writes_them() {
    let (_server, address) = shop();
    let ran = run(&["schema", &address]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let expected = "\
org.example.Shop
  Sells.

  sell(order: Order, note: Option<String>) -> Reply<u64, Refused>
    Sells an order.

  list()

  /// What is bought.
  struct Order {
      /// Its number.
      id: u64, // number 5
      state: State,
      next: Option<Order>,
  }

  enum State {
      New,
      Paid {
          cents: u64,
      },
  }

  enum Refused {
      Closed,
  }
";
    assert_eq!(ran.out, expected);
}

#[test]
fn a_proto_file() {
    let (_server, address) = shop();
    let ran = run(&["schema", &address, "org.example.Shop", "--proto"]);
    let expected = "\
syntax = \"proto3\";

package org.example;

// Sells.
service Shop {
  // Sells an order.
  // Its own error: SellError
  rpc sell(ShopSellArgs) returns (SellResult);
  // One-way: there is no reply.
  rpc list(ShopListArgs) returns (Unit);
}

message ShopSellArgs {
  Order order = 1;
  optional string note = 2;
}

message SellResult {
  uint64 value = 1;
}

message SellError {
  Refused value = 1;
}

message ShopListArgs {
}

message Unit {
}

// What is bought.
message Order {
  // Its number.
  uint64 id = 5;
  State state = 2;
  optional Order next = 3;
}

message State {
  oneof variant {
    Unit new = 1;
    StatePaid paid = 2;
  }
}

message StatePaid {
  uint64 cents = 1;
}

enum Refused {
  REFUSED_CLOSED = 0;
}
";
    assert_eq!((ran.code, ran.err.as_str(), ran.out.as_str()), (Some(0), "", expected), "{ran:?}");
}

#[test]
fn a_json_schema_document() {
    let (_server, address) = shop();
    let ran = run(&["schema", "--json-schema", &address]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let schema: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let arguments = schema["methods"]["sell"]["arguments"]["$ref"].as_str().unwrap().strip_prefix("#/$defs/").unwrap();
    assert_eq!(schema["$defs"][arguments]["required"], serde_json::json!(["order"]));
    assert_eq!(schema["$defs"]["Order"]["properties"]["id"]["description"], "Its number.");
    assert_eq!(schema["methods"]["sell"]["error"]["$ref"], "#/$defs/Refused");
}

#[test]
fn streams_are_shown_as_what_they_carry() {
    let server = Server::builder().serve(FeedServer::new(Source::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let address = server.address().to_string();
    let text = run(&["schema", &address]);
    text.check(0, &["  check(most: u64, orders: Streaming<Order, Refused>) -> ", "enum Refused {", "struct Order {"], &[]);
    assert!(!text.out.contains("_Args"), "{text:?}");
    let proto = [
        "// Behind the arguments follows a stream of: Order\n",
        "// The stream behind the arguments may end with: Refused\n",
        "// The stream of results may end with: Refused\n",
        "rpc check(FeedCheckArgs) returns (stream Order);",
    ];
    run(&["schema", &address, "--proto"]).check(0, &proto, &[]);
    let ran = run(&["schema", &address, "--json-schema"]);
    let schema: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(schema["methods"]["check"]["result_item"]["$ref"], "#/$defs/Order");
    assert_eq!(schema["methods"]["check"]["arguments_stream_error"]["$ref"], "#/$defs/Refused");
}

/// The built-in service describes itself in the same way.
#[test]
fn the_service_that_describes_has_types_too() {
    let (_server, address) = shop();
    run(&["schema", &address, "farcall.Meta"]).check(0, &["struct TypeSchema", "enum Ty {", "Ref(u32)"], &[]);
    run(&["schema", &address, "farcall.Meta", "--proto"]).check(0, &["package farcall;", "service Meta {", "message Ty {"], &[]);
}

#[test]
fn what_cannot_be_is_said() {
    let (_server, address) = shop();
    run(&["schema", &address, "Shp"]).check(
        2,
        &[],
        &["there is no service \"Shp\"", "services: org.example.Shop, farcall.Health, farcall.Meta"],
    );
    run(&["schema", &address, "org.example.Shop", "--group", "eu"]).check(2, &[], &["no org.example.Shop in that group"]);
    let two = Server::builder().serve(ShopServer::new(Nothing)).serve(WrongServer::new(Nothing));
    let two = two.listen("tcp://127.0.0.1:0").wait().unwrap();
    let address = two.address().to_string();
    run(&["schema", &address]).check(2, &[], &["which service?", "services: org.example.Shop, Wrong"]);
    let says = ["Wrong cannot be written as a .proto file", "Twice: the fields `first` and `second` both have the number 2"];
    run(&["schema", &address, "Wrong", "--proto"]).check(1, &[], &says);
    run(&["schema", &address, "Wrong", "--json-schema"]).check(0, &["Twice"], &[]);
}

/// What the exported file says is what travels: the same numbers, by the same rules.
#[test]
fn numbers_that_collide_are_refused_when_called() {
    crate::support::run(async {
        let server = Server::builder().serve(WrongServer::new(Nothing)).listen("tcp://127.0.0.1:0").await.unwrap();
        let client = WrongClient::connect(server.address()).await.unwrap();
        client.wrong(Twice { first: 1, second: 2 }).await.unwrap();
        let error = client.wrong(Twice { first: 1, second: 2 }).codec(farcall::CodecId::Protobuf).await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotSent);
        assert!(error.message().contains("both have the number 2"), "{error}");
    });
}
