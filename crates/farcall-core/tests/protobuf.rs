//! The protobuf codec's bytes are prost's and protoc's, for the same messages.

mod foreign;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use farcall_core::protobuf::{Messages, decode, encode_into};
use farcall_core::{MethodDescriptor, MethodTraits, Never, Schema, ServiceDescriptor, TypeSchema, export};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn messages<T: Schema>() -> Messages {
    Messages::of(&TypeSchema::of::<T>()).unwrap()
}

fn encode<T: Serialize + Schema>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &messages::<T>(), &mut out).unwrap();
    out
}

fn round_trip<T: Serialize + DeserializeOwned + Schema + PartialEq + Debug>(value: T) {
    let bytes = encode(&value);
    assert_eq!(decode::<T>(&messages::<T>(), &bytes).unwrap(), value, "{bytes:02x?}");
}

/// Both write the same bytes and each reads the other's.
fn check<T, P>(ours: T, theirs: P)
where
    T: Serialize + DeserializeOwned + Schema + PartialEq + Debug,
    P: Message + Default + PartialEq + Debug,
{
    let bytes = encode(&ours);
    assert_eq!(bytes, theirs.encode_to_vec(), "{ours:?}");
    assert_eq!(P::decode(&*bytes).unwrap(), theirs);
    assert_eq!(decode::<T>(&messages::<T>(), &theirs.encode_to_vec()).unwrap(), ours);
}

/// A line.
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Default)]
struct Line {
    /// What it is.
    sku: String,
    qty: u32,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, Copy, PartialEq)]
enum Colour {
    Red,
    Green,
    #[farcall(tag = 7)]
    DeepBlue,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Paid(u64),
    #[farcall(tag = 9)]
    Sent {
        town: String,
        door: u8,
    },
    Boxed(Box<Order>),
    Several(Vec<u32>),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Order {
    open: bool,
    small: u8,
    negative: i8,
    id: u64,
    balance: i64,
    word: i32,
    weight: f32,
    ratio: f64,
    note: String,
    photo: Vec<u8>,
    paint: Colour,
    line: Line,
    maybe_line: Option<Line>,
    maybe_number: Option<u32>,
    maybe_text: Option<String>,
    maybe_bytes: Option<Vec<u8>>,
    maybe_paint: Option<Colour>,
    lines: Vec<Line>,
    numbers: Vec<i64>,
    ratios: Vec<f64>,
    texts: Vec<String>,
    blobs: Vec<Vec<u8>>,
    paints: Vec<Colour>,
    grid: [u16; 3],
    counts: BTreeMap<String, i64>,
    by_number: BTreeMap<u32, Line>,
    state: State,
    states: Vec<State>,
    #[farcall(tag = 1000)]
    far: u32,
    next: Option<Box<Order>>,
}

/// The same for prost, written by hand from the table in the codec's docs.
mod theirs {
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Line {
        #[prost(string, tag = "1")]
        pub(super) sku: String,
        #[prost(uint32, tag = "2")]
        pub(super) qty: u32,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Colour {
        Red = 0,
        Green = 1,
        DeepBlue = 7,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Nothing {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sent {
        #[prost(string, tag = "1")]
        pub(super) town: String,
        #[prost(uint32, tag = "2")]
        pub(super) door: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Numbers {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) value: Vec<u32>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Variant {
        #[prost(message, tag = "1")]
        New(Nothing),
        #[prost(uint64, tag = "2")]
        Paid(u64),
        #[prost(message, tag = "9")]
        Sent(Sent),
        #[prost(message, tag = "4")]
        Boxed(Box<Order>),
        #[prost(message, tag = "5")]
        Several(Numbers),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct State {
        #[prost(oneof = "Variant", tags = "1, 2, 4, 5, 9")]
        pub(super) variant: Option<Variant>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Order {
        #[prost(bool, tag = "1")]
        pub(super) open: bool,
        #[prost(uint32, tag = "2")]
        pub(super) small: u32,
        #[prost(int32, tag = "3")]
        pub(super) negative: i32,
        #[prost(uint64, tag = "4")]
        pub(super) id: u64,
        #[prost(int64, tag = "5")]
        pub(super) balance: i64,
        #[prost(int32, tag = "6")]
        pub(super) word: i32,
        #[prost(float, tag = "7")]
        pub(super) weight: f32,
        #[prost(double, tag = "8")]
        pub(super) ratio: f64,
        #[prost(string, tag = "9")]
        pub(super) note: String,
        #[prost(bytes = "vec", tag = "10")]
        pub(super) photo: Vec<u8>,
        #[prost(enumeration = "Colour", tag = "11")]
        pub(super) paint: i32,
        #[prost(message, optional, tag = "12")]
        pub(super) line: Option<Line>,
        #[prost(message, optional, tag = "13")]
        pub(super) maybe_line: Option<Line>,
        #[prost(uint32, optional, tag = "14")]
        pub(super) maybe_number: Option<u32>,
        #[prost(string, optional, tag = "15")]
        pub(super) maybe_text: Option<String>,
        #[prost(bytes = "vec", optional, tag = "16")]
        pub(super) maybe_bytes: Option<Vec<u8>>,
        #[prost(enumeration = "Colour", optional, tag = "17")]
        pub(super) maybe_paint: Option<i32>,
        #[prost(message, repeated, tag = "18")]
        pub(super) lines: Vec<Line>,
        #[prost(int64, repeated, tag = "19")]
        pub(super) numbers: Vec<i64>,
        #[prost(double, repeated, tag = "20")]
        pub(super) ratios: Vec<f64>,
        #[prost(string, repeated, tag = "21")]
        pub(super) texts: Vec<String>,
        #[prost(bytes = "vec", repeated, tag = "22")]
        pub(super) blobs: Vec<Vec<u8>>,
        #[prost(enumeration = "Colour", repeated, tag = "23")]
        pub(super) paints: Vec<i32>,
        #[prost(uint32, repeated, tag = "24")]
        pub(super) grid: Vec<u32>,
        #[prost(btree_map = "string, int64", tag = "25")]
        pub(super) counts: BTreeMap<String, i64>,
        #[prost(btree_map = "uint32, message", tag = "26")]
        pub(super) by_number: BTreeMap<u32, Line>,
        #[prost(message, optional, tag = "27")]
        pub(super) state: Option<State>,
        #[prost(message, repeated, tag = "28")]
        pub(super) states: Vec<State>,
        // Declared before it in the type, so it is written before it; both orders mean the same.
        #[prost(message, optional, boxed, tag = "30")]
        pub(super) next: Option<Box<Order>>,
        #[prost(uint32, tag = "1000")]
        pub(super) far: u32,
    }
}

fn zero_order() -> Order {
    Order {
        open: false,
        small: 0,
        negative: 0,
        id: 0,
        balance: 0,
        word: 0,
        weight: 0.0,
        ratio: 0.0,
        note: String::new(),
        photo: vec![],
        paint: Colour::Red,
        line: Line::default(),
        maybe_line: None,
        maybe_number: None,
        maybe_text: None,
        maybe_bytes: None,
        maybe_paint: None,
        lines: vec![],
        numbers: vec![],
        ratios: vec![],
        texts: vec![],
        blobs: vec![],
        paints: vec![],
        grid: [0; 3],
        counts: BTreeMap::new(),
        by_number: BTreeMap::new(),
        state: State::New,
        states: vec![],
        far: 0,
        next: None,
    }
}

fn zero_theirs() -> theirs::Order {
    let new = theirs::State { variant: Some(theirs::Variant::New(theirs::Nothing {})) };
    theirs::Order { line: Some(theirs::Line::default()), grid: vec![0; 3], state: Some(new), ..Default::default() }
}

fn order() -> Order {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty };
    Order {
        open: true,
        small: 200,
        negative: -5,
        id: u64::MAX,
        balance: i64::MIN,
        word: -1,
        weight: -1.5,
        ratio: 1e300,
        note: "grüße".into(),
        photo: vec![0, 255],
        paint: Colour::DeepBlue,
        line: line("a", 1),
        maybe_line: Some(Line::default()),
        maybe_number: Some(0),
        maybe_text: Some(String::new()),
        maybe_bytes: Some(vec![]),
        maybe_paint: Some(Colour::Red),
        lines: vec![line("b", 300), Line::default()],
        numbers: vec![0, -1, 1 << 40],
        ratios: vec![0.5, 0.0],
        texts: vec!["x".into(), String::new(), "long ".repeat(100)],
        blobs: vec![vec![], vec![1, 2, 3]],
        paints: vec![Colour::Green, Colour::Red, Colour::DeepBlue],
        grid: [1, 0, 60_000],
        counts: [("".into(), 7), ("k".into(), 0), ("l".into(), -1)].into(),
        by_number: [(0, line("z", 0)), (5, Line::default())].into(),
        state: State::Sent { town: "x".into(), door: 9 },
        states: vec![State::New, State::Paid(0), State::Several(vec![]), State::Several(vec![1, 2]), State::Boxed(zero_order().into())],
        far: 0,
        next: Some(zero_order().into()),
    }
}

fn theirs_order() -> theirs::Order {
    use theirs::{Numbers, Sent, State, Variant};
    let line = |sku: &str, qty| theirs::Line { sku: sku.into(), qty };
    let state = |variant| State { variant: Some(variant) };
    theirs::Order {
        open: true,
        small: 200,
        negative: -5,
        id: u64::MAX,
        balance: i64::MIN,
        word: -1,
        weight: -1.5,
        ratio: 1e300,
        note: "grüße".into(),
        photo: vec![0, 255],
        paint: 7,
        line: Some(line("a", 1)),
        maybe_line: Some(theirs::Line::default()),
        maybe_number: Some(0),
        maybe_text: Some(String::new()),
        maybe_bytes: Some(vec![]),
        maybe_paint: Some(0),
        lines: vec![line("b", 300), theirs::Line::default()],
        numbers: vec![0, -1, 1 << 40],
        ratios: vec![0.5, 0.0],
        texts: vec!["x".into(), String::new(), "long ".repeat(100)],
        blobs: vec![vec![], vec![1, 2, 3]],
        paints: vec![1, 0, 7],
        grid: vec![1, 0, 60_000],
        counts: [("".into(), 7), ("k".into(), 0), ("l".into(), -1)].into(),
        by_number: [(0, line("z", 0)), (5, theirs::Line::default())].into(),
        state: Some(state(Variant::Sent(Sent { town: "x".into(), door: 9 }))),
        states: vec![
            state(Variant::New(theirs::Nothing {})),
            state(Variant::Paid(0)),
            state(Variant::Several(Numbers { value: vec![] })),
            state(Variant::Several(Numbers { value: vec![1, 2] })),
            state(Variant::Boxed(zero_theirs().into())),
        ],
        far: 0,
        next: Some(zero_theirs().into()),
    }
}

#[test]
fn every_kind_of_field_is_prosts() {
    check(zero_order(), zero_theirs());
    check(order(), theirs_order());
    // Fields stand in the order of the type, prost's in the order of their numbers: each reads the other's.
    let (ours, theirs) = (Order { far: 5, ..order() }, theirs::Order { far: 5, ..theirs_order() });
    assert_eq!(theirs::Order::decode(&*encode(&ours)).unwrap(), theirs);
    assert_eq!(decode::<Order>(&messages::<Order>(), &theirs.encode_to_vec()).unwrap(), ours);
}

#[test]
fn integers_at_their_edges_are_prosts() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Ours {
        a: u64,
        b: i64,
        c: u32,
        d: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Theirs {
        #[prost(uint64, tag = "1")]
        a: u64,
        #[prost(int64, tag = "2")]
        b: i64,
        #[prost(uint32, tag = "3")]
        c: u32,
        #[prost(int32, tag = "4")]
        d: i32,
    }
    for bit in 0..64 {
        for a in [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1] {
            let (b, c, d) = (a as i64, a as u32, a as i32);
            check(Ours { a, b, c, d }, Theirs { a, b, c, d });
            let (b, d) = (b.wrapping_neg(), d.wrapping_neg());
            check(Ours { a, b, c, d }, Theirs { a, b, c, d });
        }
    }
}

/// What proto3 has no place for goes round all the same.
#[test]
fn everything_else_goes_round() {
    round_trip(vec![vec![1u32, 2], vec![], vec![3]]);
    round_trip((Some(None::<u8>), None::<Option<u8>>, Some(Some(0u8))));
    round_trip((Some(Vec::<u8>::new()), Some(vec![0u16]), None::<Vec<u16>>));
    round_trip(vec![Some(1u8), None, Some(0)]);
    round_trip(BTreeMap::from([((1u8, "a".to_owned()), vec![Some(2u8), None]), ((0, String::new()), vec![])]));
    round_trip(BTreeMap::from([('a', BTreeMap::from([(true, ())]))]));
    round_trip((0u128, u128::MAX, i128::MIN, -1i128, 'é', '\0'));
    round_trip(((), [1u8, 2, 3], [0u8; 0], [[1u8; 2]; 2], [(1u8, 2u8); 2]));
    round_trip((vec![(); 3], Some(()), None::<()>));
    round_trip(7u64);
    round_trip(0u64);
    round_trip(());
    round_trip("text".to_owned());
    round_trip(Some(5u8));
    round_trip(None::<u8>);
    round_trip(vec![1u8, 2, 3]);
    round_trip(Colour::DeepBlue);
    round_trip(State::New);
    round_trip(std::time::Duration::new(5, 6));
    round_trip(Ok::<u8, String>(0));
    round_trip(Err::<u8, String>("no".into()));
}

#[test]
fn bytes_in_every_spelling() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Blobs {
        a: Vec<u8>,
        b: Option<Bytes>,
        #[serde(default, skip_serializing_if = "std::collections::BTreeSet::is_empty")]
        c: std::collections::BTreeSet<u8>,
        d: [u8; 4],
        e: Vec<Vec<u8>>,
    }
    let big = vec![7; 300];
    let blobs = |c: &[u8]| Blobs {
        a: big.clone(),
        b: Some(big.clone().into()),
        c: c.iter().copied().collect(),
        d: [1, 0, 0, 4],
        e: vec![vec![], big.clone()],
    };
    round_trip(blobs(&[1, 2]));
    round_trip(blobs(&[]));
    assert_eq!(encode(&blobs(&[9]))[303 * 2..][..9], [0x1a, 1, 9, 0x22, 4, 1, 0, 0, 4]);
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_are_zero() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Narrow {
        #[farcall(tag = 4)]
        id: u64,
        #[farcall(tag = 18)]
        lines: Vec<Line>,
        #[farcall(tag = 99)]
        more: Option<String>,
        #[farcall(tag = 98)]
        line: Line,
    }
    let narrow: Narrow = decode(&messages::<Narrow>(), &encode(&order())).unwrap();
    assert_eq!(narrow, Narrow { id: u64::MAX, lines: order().lines, more: None, line: Line::default() });
}

#[test]
fn packed_or_not_and_in_any_order() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Lists {
        a: Vec<u32>,
        b: Vec<f32>,
        c: String,
    }
    let bytes = [
        &[0x08, 1][..],                         // a, unpacked
        &[0x1a, 1, b'x'],                       // c
        &[0x0a, 2, 2, 3],                       // a, packed
        &[0x15, 0, 0, 128, 63],                 // b, unpacked
        &[0x12, 8, 0, 0, 0, 64, 0, 0, 128, 64], // b, packed
        &[0x1a, 1, b'y'],                       // c again: the last holds
        &[0x08, 4],                             // a
        &[0x0a, 0],                             // a, packed, empty
    ]
    .concat();
    let read: Lists = decode(&messages::<Lists>(), &bytes).unwrap();
    assert_eq!(read, Lists { a: vec![1, 2, 3, 4], b: vec![1.0, 2.0, 4.0], c: "y".into() });
}

/// A message sent in parts is one, a `oneof` is its last variant.
#[test]
fn parts_are_merged_as_prost_does() {
    let first = theirs::Order { line: Some(theirs::Line { sku: "a".into(), qty: 0 }), ..theirs_order() };
    let part = theirs::Order {
        line: Some(theirs::Line { sku: String::new(), qty: 9 }),
        next: Some(theirs::Order { numbers: vec![5], id: 1, ..Default::default() }.into()),
        state: Some(theirs::State { variant: Some(theirs::Variant::Sent(theirs::Sent { town: String::new(), door: 1 })) }),
        ..Default::default()
    };
    let other = theirs::Order {
        state: Some(theirs::State { variant: Some(theirs::Variant::Several(theirs::Numbers { value: vec![4] })) }),
        ..Default::default()
    };
    // In the last, what was sent of the variant before another one was is forgotten.
    let orders: [&[&theirs::Order]; 5] =
        [&[&first, &part], &[&part, &first], &[&first, &other], &[&other, &first], &[&first, &other, &part, &part]];
    for parts in orders {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.encode_to_vec()).collect();
        let merged = theirs::Order::decode(&*bytes).unwrap().encode_to_vec();
        let ours: Order = decode(&messages::<Order>(), &bytes).unwrap();
        assert_eq!(ours, decode::<Order>(&messages::<Order>(), &merged).unwrap());
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_by_name() {
    fn refused<T: Schema>(why: &str) {
        let error = Messages::of(&TypeSchema::of::<T>()).unwrap_err().to_string();
        assert_eq!(error, why);
    }
    #[farcall_core::data(crate = farcall_core)]
    struct Twice {
        #[farcall(tag = 2)]
        _a: u8,
        _b: u8,
    }
    refused::<Vec<Twice>>("Twice: the fields `_a` and `_b` both have the number 2: give each its own, `#[farcall(tag = n)]`");
    #[farcall_core::data(crate = farcall_core)]
    struct Reserved {
        #[farcall(tag = 19_500)]
        _a: u8,
    }
    refused::<Reserved>("Reserved: the field `_a` has the number 19500: protobuf keeps 19000 to 19999 for itself");
    #[farcall_core::data(crate = farcall_core)]
    enum Zero {
        #[farcall(tag = 0)]
        _A(u8),
    }
    refused::<Zero>("Zero: the variant `_A` has the number 0, protobuf takes 1 to 536870911");
    #[farcall_core::data(crate = farcall_core)]
    enum Plain {
        #[farcall(tag = 1)]
        _A,
        _B,
    }
    refused::<(u8, Plain)>("Plain: the variants `_A` and `_B` both have the number 1: give each its own, `#[farcall(tag = n)]`");
}

#[farcall_core::error(crate = farcall_core)]
#[derive(Debug)]
enum Refused {
    Closed,
    TooLarge(u64),
}

#[farcall_core::data(crate = farcall_core)]
struct PayArgs {
    order: Order,
    codes: BTreeMap<(u8, u8), Vec<u128>>,
    initial: Option<char>,
}

fn service() -> ServiceDescriptor {
    let traits = MethodTraits::default();
    ServiceDescriptor {
        name: "Till".into(),
        foreign_name: Some("org.example.Till".into()),
        docs: "Takes money.\n\nAnd gives it back.".into(),
        version: String::new(),
        group: String::new(),
        methods: vec![
            MethodDescriptor::build::<PayArgs, u64, Refused>("pay", None, "Charges an order.", &[], "", traits),
            MethodDescriptor::build::<(), Vec<Order>, Never>("all", Some("listAll"), "", &[], "", MethodTraits { oneway: true, ..traits }),
        ],
    }
}

#[test]
fn the_proto_file_is_as_expected() {
    assert_eq!(export::proto(&service()).unwrap(), include_str!("protobuf/till.proto"));
}

/// protoc reads our bytes by the exported file, and writes the same bytes again.
#[test]
fn protoc_reads_and_writes_the_same() {
    if !foreign::have("protobuf against protoc", &["protoc"], &[]) {
        return;
    }
    let protoc = |what: &[&str], input: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protobuf");
        foreign::pipe(Command::new("protoc").args(what).arg("till.proto").current_dir(folder), input).0
    };
    // protoc writes defaults into entries of maps, which we leave out.
    let order = Order { counts: [("k".into(), 1)].into(), by_number: [(5, order().line)].into(), ..order() };
    // prost takes minus zero for zero, which loses its sign.
    let order = Order { weight: -0.0, ..order };
    let bytes = encode(&order);
    let shown = String::from_utf8(protoc(&["--decode=org.example.Order"], &bytes)).unwrap();
    for part in [
        "id: 18446744073709551615\n",
        "paint: COLOUR_DEEP_BLUE\n",
        "sent {\n    town: \"x\"\n    door: 9\n",
        "negative: -5\n",
        "weight: -0\n",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.lines().any(|line| line.trim().starts_with(|c: char| c.is_ascii_digit())), "a field that protoc does not know: {shown}");
    let again = protoc(&["--encode=org.example.Order", "--deterministic_output"], shown.as_bytes());
    assert_eq!(again, bytes);
    assert_eq!(decode::<Order>(&messages::<Order>(), &again).unwrap(), order);
}
