//! The helper for users that compares a schema with serde: it passes what agrees, and names the place of what does not.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::CString;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroI128, NonZeroU8, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farcall_core::check::schema_of;
use farcall_core::codec::{Made, Shape};
use farcall_core::schema::{Kind, Schema, SchemaBuilder, Ty};
use farcall_core::{CodecId, Plan, TypeSchema, codec, compact, plan};
use serde::{Deserialize, Serialize};

macro_rules! data {
    ($($item:item)*) => {$(
        #[farcall_core::data(crate = farcall_core)]
        #[derive(Debug, Clone, PartialEq)]
        $item
    )*};
}

data! {
    struct Line {
        sku: String,
        #[serde(default, alias = "quantity")]
        qty: u32,
        data: Vec<u8>,
    }
    #[serde(rename_all = "camelCase")]
    struct Order {
        id: u64,
        the_lines: Vec<Line>,
        #[serde(skip_serializing_if = "Option::is_none")]
        slice: Option<Bytes>,
        by_name: BTreeMap<String, Status>,
        status: Status,
        after: Option<Box<Order>>,
    }
    enum Status {
        New,
        Paid(u64),
        #[serde(alias = "Shipped")]
        Sent { to: String, parts: [u8; 3] },
        Split(u8, char),
    }
    struct Tree(Vec<Tree>);
    struct Chain(Option<Box<Chain>>);
    struct Nested { tree: Tree, chains: (Chain, Chain) }
    #[serde(transparent)]
    struct Wide { inner: BTreeMap<u8, Wide> }
    struct One(Two);
    struct Two(Vec<One>);
    struct Between(Vec<Holds>);
    struct Holds { between: Between }
    struct Page<T>(Vec<T>);
}

fn order() -> Order {
    let line = Line { sku: "a".into(), qty: 3, data: vec![1, 2] };
    let inner = Order {
        id: 1 << 60,
        the_lines: vec![line.clone(), line],
        slice: Some(Bytes::from_static(b"abc")),
        by_name: [("x".into(), Status::Split(1, 'é')), ("y".into(), Status::Paid(2))].into(),
        status: Status::Sent { to: "me".into(), parts: [1, 2, 3] },
        after: None,
    };
    Order { slice: None, status: Status::New, after: Some(inner.clone().into()), ..inner }
}

fn agrees<T: Schema + Serialize + serde::de::DeserializeOwned>(samples: &[T]) {
    assert_eq!(schema_of(samples).unwrap(), Vec::<String>::new());
}

fn differs<T: Schema + Serialize + serde::de::DeserializeOwned>(sample: T, expected: &[&str]) {
    let error = schema_of(&[sample]).unwrap_err();
    let found: Vec<String> = error.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
    assert!(error.to_string().starts_with("the schema and serde do not agree\n  "));
}

#[test]
fn what_data_makes_agrees() {
    agrees(&[order()]);
    agrees(&[Some((1u8, "x")).map(|(a, b)| (a, b.to_owned())), None]);
    assert_eq!(schema_of(&[Status::Paid(1)]).unwrap(), ["Status::New", "Status::Sent", "Status::Split"], "what was not shown");
}

#[test]
fn types_of_the_standard_library_agree() {
    agrees(&[(true, 1u8, 2u16, 3u32, 4u64, 5u128, 6usize)]);
    agrees(&[(-1i8, -2i16, -3i32, -4i64, -5i128, -6isize, 1.5f32, 2.5f64)]);
    agrees(&[('€', "text".to_owned(), (), PhantomData::<u8>, NonZeroU8::MAX, NonZeroI128::MIN)]);
    agrees(&[(Wrapping(3u8), Saturating(4i64), Reverse(5u16), Cell::new(6u8), RefCell::new("x".to_owned()))]);
    agrees(&[(Box::new(1u8), Rc::new(2u16), Arc::<str>::from("shared"), std::borrow::Cow::<'_, str>::Borrowed("cow"))]);
    agrees(&[(Mutex::new(7u32), std::sync::RwLock::new(8u64), AtomicU16::new(9))]);
    agrees(&[(VecDeque::from([1u8]), LinkedList::from([2u16]), BinaryHeap::from([3u32]), BTreeSet::from(['c']), HashSet::from([1i8]))]);
    agrees(&[(HashMap::from([(1u8, "x".to_owned())]), BTreeMap::from([("k".to_owned(), Some(-1i64))]), [[1u16; 3]; 2], [0u8; 0])]);
    agrees(&[(Range { start: 1u8, end: 2 }, RangeFrom { start: 3i64 }, RangeTo { end: 4u16 }, RangeInclusive::new(-1i32, 5))]);
    agrees(&[Bound::Unbounded, Bound::Included(7u32), Bound::Excluded(8)]);
    agrees(&[(Duration::new(1, 2), SystemTime::UNIX_EPOCH, PathBuf::from("/a/b"), CString::from(c"zero"))]);
    agrees(&[Ok::<u8, String>(1), Err("no".into())]);
    agrees::<IpAddr>(&["10.1.2.3".parse().unwrap(), "::1".parse().unwrap()]);
    agrees::<SocketAddr>(&["10.1.2.3:80".parse().unwrap(), "[::1]:80".parse().unwrap()]);
    agrees(&[(0u8, 1u8, 2u8, 3u8, 4u8, 5u8, 6u8, 7u8, 8u8, 9u8, 10u8, 11u8, 12u8, 13u8, 14u8, (15u8, 16u8))]);
}

/// In text an address is text; in the compact codec it is its bytes.
#[test]
fn addresses_have_two_forms() {
    let schema = TypeSchema::of::<(IpAddr, Ipv4Addr)>();
    assert_eq!(schema.type_name(), "(text(ip), text(ipv4))");
    let address: IpAddr = "10.1.2.3".parse().unwrap();
    assert_eq!(compact::encode(&address).unwrap(), [0, 10, 1, 2, 3]);
    let mut json = Vec::new();
    farcall_core::json::encode_into(&address, &mut json).unwrap();
    assert_eq!(json, b"\"10.1.2.3\"");
    // The layout decides the fingerprint, not the text.
    assert_eq!(TypeSchema::of::<Ipv4Addr>().fingerprint(), TypeSchema::of::<[u8; 4]>().fingerprint());
}

fn in_codec<T: Schema + Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(id: CodecId, value: T) {
    let (schema, made) = (TypeSchema::of::<T>(), Made::default());
    let shape = || Some(Shape::new(&schema, &made));
    let mut out = Vec::new();
    codec::encode_into(id, &value, shape, &mut out).unwrap();
    assert_eq!(codec::decode::<T>(id, &out.into(), shape).unwrap(), value, "{id}");
}

#[test]
fn recursive_types_have_an_end() {
    let tree = Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])]);
    let chain = Chain(Some(Chain(None).into()));
    agrees(std::slice::from_ref(&tree));
    agrees(&[Nested { tree, chains: (chain, Chain(None)) }]);
    agrees(&[Wide { inner: [(1, Wide { inner: BTreeMap::new() })].into() }]);
    agrees(&[One(Two(vec![One(Two(vec![]))]))]);
    agrees(&[Page(vec![Page(vec![1u8])])]);
    for id in [CodecId::Compact, CodecId::Json, CodecId::Xdr, CodecId::Protobuf] {
        in_codec(id, Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])]));
        in_codec(id, One(Two(vec![One(Two(vec![]))])));
        // JSON has one null for all the ways to have nothing.
        let inner = (id != CodecId::Json).then(|| Chain(None).into());
        in_codec(id, Nested { tree: Tree(vec![]), chains: (Chain(inner), Chain(None)) });
    }
    let shown = TypeSchema::of::<Nested>().describe();
    assert!(shown.contains("struct Tree(Vec<Tree>);") && shown.contains("struct Chain(Option<Chain>);"), "{shown}");
    // What leads back through a definition needs none of its own.
    let between = TypeSchema::of::<Between>();
    assert_eq!((between.type_name().as_str(), between.defs.len()), ("Vec<Holds>", 1));
    // Which of two is named depends on where one begins: both ways describe the same type.
    let (one, two) = (TypeSchema::of::<One>(), TypeSchema::of::<Two>());
    assert_eq!((one.type_name().as_str(), two.type_name().as_str()), ("One", "Two"));
    assert_eq!(one.fingerprint(), two.fingerprint());
    for schema in [one, two, between, TypeSchema::of::<Nested>()] {
        schema.validate().unwrap();
    }
}

#[test]
fn recursive_newtypes_evolve_and_are_skipped() {
    data! {
        struct Leaf { n: u32, more: Forest }
        struct Forest(Vec<Leaf>);
        struct Leaf2 { more: Forest2, n: u64, note: Option<String> }
        struct Forest2(Vec<Leaf2>);
        struct Old { tree: Tree, last: u8 }
        struct New { last: u8 }
        struct Kept { last: u16, tree: Tree }
    }
    let forest = Forest(vec![Leaf { n: 1, more: Forest(vec![]) }, Leaf { n: 2, more: Forest(vec![Leaf { n: 3, more: Forest(vec![]) }]) }]);
    let plan = Plan::compile(&TypeSchema::of::<Forest>(), &TypeSchema::of::<Forest2>()).unwrap();
    let read: Forest2 = plan::decode_with(&plan, &compact::encode(&forest).unwrap()).unwrap();
    assert_eq!((read.0[1].n, read.0[1].more.0[0].n), (2, 3));
    let deep = (0..126).fold(Tree(vec![]), |tree, _| Tree(vec![tree]));
    let old = compact::encode(&Old { tree: deep.clone(), last: 9 }).unwrap();
    let plan = Plan::compile(&TypeSchema::of::<Old>(), &TypeSchema::of::<New>()).unwrap();
    assert_eq!(plan::decode_with::<New>(&plan, &old).unwrap(), New { last: 9 }, "all that can be written can be skipped");
    let plan = Plan::compile(&TypeSchema::of::<Old>(), &TypeSchema::of::<Kept>()).unwrap();
    assert_eq!(plan::decode_with::<Kept>(&plan, &old).unwrap(), Kept { last: 9, tree: deep });
    let error = Plan::compile(&TypeSchema::of::<Tree>(), &TypeSchema::of::<Vec<u8>>()).unwrap_err().to_string();
    assert!(error.contains("Tree"), "{error}");
}

/// A newtype that is written as itself would be walked without end.
#[test]
fn rings_of_newtypes_are_refused() {
    let ring = |to| {
        let def = |n| farcall_core::schema::Def { name: "X".into(), foreign: None, docs: String::new(), kind: Kind::Newtype(Ty::Ref(n)) };
        TypeSchema { root: Ty::Ref(0), defs: vec![def(to), def(0)] }
    };
    for schema in [ring(0), ring(1)] {
        assert_eq!(schema.validate().unwrap_err().to_string(), "bad schema: X: it is written as another definition: that goes without one");
        schema.fingerprint();
        schema.describe();
        assert!(Plan::compile(&schema, &TypeSchema::of::<u8>()).is_err());
    }
}

/// Hand-written schemas that are wrong, each in its own way.
#[test]
fn a_wrong_schema_is_named_by_path() {
    data! {
        struct Sku(u32);
        struct Outer { id: u8, lines: Vec<Inner> }
        struct Inner { #[schema(as = u64)] #[serde(with = "as_text")] cents: u64 }
    }
    mod as_text {
        pub(super) fn serialize<S: serde::Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
            s.collect_str(value)
        }
        pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
            let text: String = serde::Deserialize::deserialize(d)?;
            text.parse().map_err(serde::de::Error::custom)
        }
    }
    agrees(&[Sku(1)]);
    differs(
        Outer { id: 1, lines: vec![Inner { cents: 1 }, Inner { cents: 2 }] },
        &["lines[0].cents: the schema says u64, serde writes a string", "lines[1].cents: the schema says u64, serde writes a string"],
    );
}

macro_rules! says {
    ($ty:ty, $builder:ident, $says:expr) => {
        impl Schema for $ty {
            fn ty($builder: &mut SchemaBuilder) -> Ty {
                $says
            }
        }
    };
}

/// The schema of another type.
macro_rules! says_it_is {
    ($ty:ty, $other:ty) => {
        says!($ty, builder, <$other>::ty(builder));
    };
}

#[test]
fn each_kind_of_mistake_is_found() {
    #[derive(Serialize, Deserialize)]
    struct Swapped {
        b: u8,
        a: u8,
    }
    data! { struct InOrder { a: u8, b: u8 } }
    says_it_is!(Swapped, InOrder);
    differs(
        Swapped { b: 1, a: 2 },
        &["field number 0: the schema has `a`, serde writes `b`", "field number 1: the schema has `b`, serde writes `a`"],
    );

    #[derive(Serialize, Deserialize)]
    struct Short {
        a: u8,
    }
    says_it_is!(Short, InOrder);
    differs(Short { a: 1 }, &["the schema has the field `b`, serde does not write it"]);

    #[derive(Serialize, Deserialize)]
    enum Colour {
        Red,
        Green(u8),
    }
    data! { enum Numbered { Red, Blue(u8) } }
    data! { enum Held { Red(u8), Green } }
    says_it_is!(Colour, Numbered);
    differs(Colour::Green(1), &["variant number 1: the schema has `Blue`, serde writes `Green`"]);
    struct Wrapped(Colour);
    impl Serialize for Wrapped {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(s)
        }
    }
    impl<'de> Deserialize<'de> for Wrapped {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            Colour::deserialize(d).map(Wrapped)
        }
    }
    says_it_is!(Wrapped, Held);
    differs(Wrapped(Colour::Red), &["::Red: the schema says that the variant holds something else than serde writes: nothing"]);
    differs(Wrapped(Colour::Green(1)), &["::Green: the schema says that the variant holds something else than serde writes: one value"]);

    #[derive(Serialize, Deserialize)]
    struct Fixed([u16; 2]);
    says_it_is!(Fixed, Vec<u16>);
    differs(Fixed([1, 2]), &["the schema says Vec<u16>, serde writes a tuple or array of 2"]);

    #[derive(Serialize, Deserialize)]
    struct Both(BTreeMap<u8, u16>);
    says_it_is!(Both, BTreeMap<u16, u32>);
    differs(Both([(1, 2)].into()), &["[0]: the schema says u32, serde writes u16", "[0].key: the schema says u16, serde writes u8"]);
}

#[test]
fn a_field_that_may_or_may_not_be_missing_is_tried() {
    #[derive(Serialize, Deserialize)]
    struct Needed {
        a: u8,
    }
    data! { struct May { #[serde(default, alias = "first")] a: u8 } }
    says_it_is!(Needed, May);
    differs(
        Needed { a: 1 },
        &[
            "a: the schema says that it is read under the name `first`, serde does not read it",
            "a: the schema says that it may be missing, serde does not read a value without it",
        ],
    );
    #[derive(Serialize, Deserialize)]
    struct Lax {
        #[serde(default)]
        a: u8,
    }
    data! { struct Must { a: u8 } }
    says_it_is!(Lax, Must);
    differs(Lax { a: 1 }, &["a: the schema says that it is always there, serde reads a value without it"]);
}

/// It writes a struct with names and reads a tuple: a plan, which goes by names, could not read it.
#[test]
fn what_reads_otherwise_than_it_writes_is_found() {
    #[derive(Serialize)]
    struct Mixed {
        a: u8,
        b: u8,
    }
    impl<'de> Deserialize<'de> for Mixed {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            <(u8, u8)>::deserialize(d).map(|(a, b)| Mixed { a, b })
        }
    }
    data! { struct Plain { a: u8, b: u8 } }
    says_it_is!(Mixed, Plain);
    differs(
        Mixed { a: 1, b: 2 },
        &["what was written cannot be read: the type reads something else than its schema says: correct its #[schema(as = Type)]"],
    );
}

#[test]
fn a_bad_schema_is_said_to_be_one() {
    #[derive(Serialize, Deserialize)]
    struct Nowhere;
    says!(Nowhere, _builder, Ty::Ref(7));
    differs(Nowhere, &["bad schema: definition 7 is not there"]);
}

/// Whatever the stack: the sample is what a test says it is.
#[test]
fn a_sample_that_nests_too_deep_is_said_to() {
    data! { struct List { next: Option<Box<List>> } }
    let list = (0..100_000).fold(List { next: None }, |next, _| List { next: Some(next.into()) });
    let found = schema_of(std::slice::from_ref(&list));
    // Dropping it would need a stack, too.
    std::mem::forget(list);
    let found = found.unwrap_err().to_string();
    assert!(found.ends_with(".next: the value nests deeper than 128"), "{found}");
}
