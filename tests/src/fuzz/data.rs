//! Values of one's own types, in every codec.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use farcall::codec::{self, Made, Shape};
use farcall::{CodecId, TypeSchema, compact};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type of every kind.
#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    id: u64,
    lines: Vec<Line>,
    attrs: BTreeMap<String, i64>,
    #[serde(alias = "status")]
    state: State,
    data: Vec<u8>,
    slice: Option<Bytes>,
    next: Option<Box<Order>>,
    wide: (u128, i128, f32, f64, char, bool),
    tree: Tree,
    nothing: Vec<()>,
    from: std::net::IpAddr,
    #[serde(default)]
    note: String,
}

#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    sku: String,
    qty: u32,
    price: i16,
}

#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    New,
    Paid(u16),
    Sent {
        to: String,
        parts: [u8; 3],
    },
    Pair(Option<u8>, ()),
    Why(Result<u8, String>),
    #[serde(other)]
    Other,
}

#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree(Vec<Tree>);

pub(super) fn orders() -> Vec<Order> {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty, price: -700 };
    let inner = Order {
        id: 1,
        lines: vec![line("abc", 1), line("d", 70_000)],
        attrs: [("k".into(), -1), ("l".into(), i64::MAX)].into(),
        state: State::Sent { to: "x".into(), parts: [1, 2, 3] },
        data: vec![0, 1, 255],
        slice: Some(Bytes::from_static(b"slice")),
        next: None,
        wide: (u128::MAX, i128::MIN, 1.5, -0.0, '€', true),
        tree: Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])]),
        nothing: vec![(); 3],
        from: std::net::Ipv4Addr::LOCALHOST.into(),
        note: "noted".into(),
    };
    let outer = Order { state: State::Pair(Some(1), ()), next: Some(inner.clone().into()), slice: None, ..inner.clone() };
    let small = Order {
        lines: vec![],
        attrs: BTreeMap::new(),
        state: State::Why(Err("no".into())),
        from: std::net::Ipv6Addr::LOCALHOST.into(),
        tree: Tree(vec![]),
        ..inner.clone()
    };
    vec![inner, outer, small]
}

fn shape() -> Option<Shape<'static>> {
    static SCHEMA: OnceLock<(TypeSchema, Made)> = OnceLock::new();
    let (schema, made) = SCHEMA.get_or_init(|| (TypeSchema::of::<Order>(), Made::default()));
    Some(Shape::new(schema, made))
}

fn encoded<T: Serialize>(id: CodecId, value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode_into(id, value, shape, &mut out).expect("what was read can be written");
    out
}

/// What was read is written and read again, and then stays what it is.
fn stays<T: Serialize + DeserializeOwned>(id: CodecId, input: &[u8]) -> bool {
    let input = Bytes::copy_from_slice(input);
    let Ok(value) = codec::decode::<T>(id, &input, shape) else { return false };
    let once = encoded(id, &value);
    let again = codec::decode::<T>(id, &once.clone().into(), shape).expect("what was written can be read");
    assert_eq!(encoded(id, &again), once);
    true
}

fn seeds(id: CodecId) -> Vec<Vec<u8>> {
    orders().iter().map(|order| encoded(id, order)).collect()
}

pub(super) fn compact(input: &[u8]) -> bool {
    stays::<Order>(CodecId::Compact, input)
}

pub(super) fn compact_seeds() -> Vec<Vec<u8>> {
    seeds(CodecId::Compact)
}

pub(super) fn json(input: &[u8]) -> bool {
    // A float that is no number is null in JSON, and null is no float.
    let finite = |order: &Order| order.wide.2.is_finite() && order.wide.3.is_finite();
    match codec::decode::<Order>(CodecId::Json, &Bytes::copy_from_slice(input), shape) {
        Ok(order) => !finite(&order) || stays::<Order>(CodecId::Json, input),
        Err(_) => false,
    }
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    seeds(CodecId::Json)
}

pub(super) fn xdr(input: &[u8]) -> bool {
    stays::<Order>(CodecId::Xdr, input)
}

pub(super) fn xdr_seeds() -> Vec<Vec<u8>> {
    seeds(CodecId::Xdr)
}

pub(super) fn protobuf(input: &[u8]) -> bool {
    stays::<Order>(CodecId::Protobuf, input)
}

pub(super) fn protobuf_seeds() -> Vec<Vec<u8>> {
    seeds(CodecId::Protobuf)
}

/// Text and bytes that are lent from the message.
#[derive(Serialize, serde::Deserialize)]
struct Lent<'a> {
    id: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    bytes: &'a [u8],
    #[serde(borrow)]
    rest: Vec<&'a str>,
}

pub(super) fn borrowed(input: &[u8]) -> bool {
    let Ok(value) = compact::decode::<Lent<'_>>(input) else { return false };
    let lent = [value.name.as_bytes(), value.bytes].into_iter().chain(value.rest.iter().map(|text| text.as_bytes()));
    for part in lent.filter(|part| !part.is_empty()) {
        assert!(input.as_ptr_range().contains(&part.as_ptr()), "it was copied");
    }
    let once = compact::encode(&value).expect("what was read can be written");
    compact::decode::<Lent<'_>>(&once).expect("what was written can be read");
    true
}

pub(super) fn borrowed_seeds() -> Vec<Vec<u8>> {
    let lent = Lent { id: 7, name: "Gao Ming".into(), bytes: &[0, 1, 255], rest: vec!["a", "", "b"] };
    vec![compact::encode(&lent).unwrap()]
}

/// The order's schema, for plans.
pub(super) fn order_schema() -> &'static TypeSchema {
    static SCHEMA: OnceLock<TypeSchema> = OnceLock::new();
    SCHEMA.get_or_init(TypeSchema::of::<Order>)
}

/// Another version of the order.
#[farcall::data]
#[derive(Debug, PartialEq)]
pub(super) struct Later {
    lines: Vec<LaterLine>,
    #[serde(alias = "id")]
    number: u128,
    state: LaterState,
    data: Vec<u16>,
    next: Option<Box<Later>>,
    tree: Tree,
    #[serde(default)]
    note: Option<String>,
    added: Option<Vec<Line>>,
}

#[farcall::data]
#[derive(Debug, PartialEq)]
pub(super) struct LaterLine {
    qty: u16,
    sku: String,
    #[serde(default)]
    gift: bool,
}

#[farcall::data]
#[derive(Debug, PartialEq)]
pub(super) enum LaterState {
    Paid(u64),
    New,
    Sent {
        parts: Vec<u8>,
    },
    #[serde(other)]
    Unknown,
}

/// What the order's plans read it as.
pub(super) fn later_schema() -> &'static TypeSchema {
    static SCHEMA: OnceLock<TypeSchema> = OnceLock::new();
    SCHEMA.get_or_init(TypeSchema::of::<Later>)
}
