//! Protobuf that nobody vouches for: it is refused or read, none panics, overflows the stack, or makes us allocate or
//! loop more than its length allows.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use farcall_core::protobuf::{MAX_DEPTH, MAX_PARTS, Messages, decode, encode_into};
use farcall_core::schema::{Def, Field, Kind, MAX_DEFS, Payload, SchemaBuilder, Ty, Variant};
use farcall_core::{Schema, TypeSchema};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    counts: BTreeMap<String, i32>,
    state: State,
    data: Vec<u8>,
    packed: Vec<f32>,
    next: Option<Box<Order>>,
    wide: (u128, char, [u8; 3], Option<Vec<bool>>),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u8,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Paid(u64),
    Sent { to: String },
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum Colour {
    Red,
    Green,
}

fn order() -> Order {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty };
    let inner = Order {
        id: 1,
        lines: vec![line("abc", 1), line("d", 255)],
        counts: [("k".into(), -1), ("l".into(), 7)].into(),
        state: State::Sent { to: "x".into() },
        data: vec![0, 1, 255],
        packed: vec![1.0, 2.0],
        next: None,
        wide: (7, '€', [1, 2, 3], Some(vec![true, false])),
    };
    Order { state: State::Paid(300), next: Some(inner.clone().into()), ..inner }
}

fn messages<T: Schema>() -> Messages {
    Messages::of(&TypeSchema::of::<T>()).unwrap()
}

fn encode<T: Serialize + Schema>(value: &T) -> Result<Vec<u8>, String> {
    let mut out = vec![9];
    match encode_into(value, &messages::<T>(), &mut out) {
        Ok(()) => Ok(out.split_off(1)),
        Err(error) => {
            assert_eq!(out, [9], "a failed encode leaves the buffer as it was");
            Err(error.to_string())
        }
    }
}

fn read<T: DeserializeOwned + Schema>(bytes: &[u8]) -> Result<T, String> {
    decode(&messages::<T>(), bytes).map_err(|error| error.to_string())
}

#[track_caller]
fn refused<T: DeserializeOwned + Schema + Debug>(bytes: &[u8], why: &str) {
    let error = read::<T>(bytes).unwrap_err();
    assert!(error.contains(why), "{error}, expected {why}");
}

/// Where a message is cut between two fields what follows is missing, which is zero; elsewhere it is refused.
#[test]
fn truncations_are_read_or_refused() {
    let (bytes, messages) = (encode(&order()).unwrap(), messages::<Order>());
    let whole = (0..bytes.len()).filter(|&end| decode::<Order>(&messages, &bytes[..end]).is_ok()).count();
    // `state` and the array in `wide` cannot be made up, so most cuts are refused.
    assert!(whole <= 3, "{whole}");
}

/// What a mutant is read as is written and read again as the same.
#[test]
fn mutants_are_read_or_refused() {
    let (bytes, messages) = (encode(&order()).unwrap(), messages::<Order>());
    let mut count = 0;
    for at in 0..bytes.len() {
        for byte in [0, 1, 2, 0x08, 0x0a, 0x12, 0x7f, 0x80, 0xff] {
            let mut mutant = bytes.clone();
            mutant[at] = byte;
            let Ok(value) = decode::<Order>(&messages, &mutant) else { continue };
            let mut again = Vec::new();
            encode_into(&value, &messages, &mut again).unwrap();
            let value_again: Order = decode(&messages, &again).unwrap();
            let mut third = Vec::new();
            encode_into(&value_again, &messages, &mut third).unwrap();
            assert_eq!(again, third, "byte {at}: {byte}");
            count += 1;
        }
    }
    assert!((300..bytes.len() * 8).contains(&count), "{count} were read: the mutants test nothing");
}

#[test]
fn what_is_wrong_is_named() {
    refused::<Order>(&[0x12, 3, 0x0a, 5, b'a'], "lines[0]: the message ends early");
    refused::<Order>(&[0x12, 2, 0x10, 1, 0x12, 3, 0x10, 0xac, 2], "lines[1].qty: invalid value: integer `300`, expected u8");
    refused::<Order>(&[0x0a, 0], "id: a number cannot be read from bytes with a length");
    refused::<Order>(&[0x10, 7], "lines[0]: a message cannot be read from a varint");
    refused::<Order>(&[0x12, 3, 0x0a, 1, 0xff], "lines[0].sku: a string is not UTF-8");
    refused::<Order>(&[0x1a, 2, 0x08, 1], "counts[0]: text or bytes cannot be read from a varint");
    refused::<Order>(&[], "state: no variant is set");
    refused::<Order>(&[0x22, 2, 0x78, 1], "state: no variant has the number 15");
    refused::<Order>(&[0x22, 3, 0x1a, 1, 0xff], "state::Sent: the message ends early");
    refused::<Order>(&[0x22, 2, 0x10, 1, 0x32, 3, 0, 0, 0], "packed[0]: the message ends early");
    refused::<Order>(&[0x22, 2, 0x10, 1, 0x42, 2, 0x0a, 0], "wide.2: 3 bytes are wanted, there are 0");
    refused::<Order>(&[0x22, 2, 0x10, 1, 0x42, 3, 0x0a, 1, 0], "wide.0: a number of 16 bytes has 1");
    refused::<(char,)>(&[0x08, 0x80, 0xb0, 3], "0: a number is no character");
    refused::<Colour>(&[0x08, 5], "no variant has the number 5");
    refused::<(u8,)>(&[0x0b], "the field 1 is a group");
    refused::<(u8,)>(&[0x0e], "the field 1 has the wire type 6");
    refused::<(u8,)>(&[0x00, 0], "0 is no field number");
    refused::<(u8,)>(&[0xff, 0xff, 0xff, 0xff, 0x7f, 0], "is no field number");
    refused::<(u8,)>(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], "longer than 64 bits");
    refused::<(u8,)>(&[0x80], "ends early");
}

#[test]
fn huge_lengths_are_refused() {
    for length in [&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1][..], &[255, 255, 255, 255, 15], &[3]] {
        let bytes = [&[0x0a][..], length, &[0, 0]].concat();
        refused::<(String,)>(&bytes, "ends early");
        refused::<(Vec<u8>,)>(&bytes, "ends early");
        refused::<(Vec<u64>,)>(&bytes, "ends early");
        refused::<(Vec<Line>,)>(&bytes, "ends early");
        refused::<(BTreeMap<u8, u8>,)>(&bytes, "ends early");
    }
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Chain {
    next: Option<Box<Chain>>,
}
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Tree {
    kids: Vec<Tree>,
}
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Maps {
    kids: BTreeMap<u8, Maps>,
}
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
enum Expr {
    Zero,
    Neg(Box<Expr>),
    Add { left: Box<Expr> },
    Mul(Box<Expr>, u8),
}

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

/// This field around itself, as often as lengths can be put before each other.
fn nested(keys: &[u8], times: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..times {
        let key = keys[at % keys.len()];
        let mut length = bytes.len();
        let mut head = vec![key];
        while length >= 0x80 {
            head.push(length as u8 | 0x80);
            length >>= 7;
        }
        head.push(length as u8);
        bytes.splice(0..0, head);
    }
    bytes
}

#[test]
fn deep_nesting_is_refused() {
    on_small_stack(|| {
        refused::<Chain>(&nested(&[0x0a], 5000), "deeper than 100");
        refused::<Tree>(&nested(&[0x0a], 5000), "deeper than 100");
        refused::<Maps>(&nested(&[0x12, 0x0a], 5000), "deeper than 100");
        refused::<Expr>(&nested(&[0x12], 5000), "deeper than 100");
        refused::<Expr>(&nested(&[0x0a, 0x1a], 5000), "deeper than 100");
        refused::<Expr>(&nested(&[0x0a, 0x22], 5000), "deeper than 100");
    });
}

/// What the encoder lets pass the decoder reads, up to the last level.
#[test]
fn both_sides_stop_at_the_same_depth() {
    fn check<T: Serialize + DeserializeOwned + Schema>(grow: impl Fn(Option<T>) -> T, each: u32) {
        let (mut value, mut depth) = (grow(None), 1);
        while let Ok(bytes) = encode(&value) {
            assert!(read::<T>(&bytes).is_ok());
            value = grow(Some(value));
            depth += 1;
        }
        assert_eq!(depth, (MAX_DEPTH - 1) / each + 2);
        let error = encode(&value).unwrap_err();
        assert!(error.contains("deeper than 100"), "{error}");
    }
    on_small_stack(|| {
        check(|inner| Chain { next: inner.map(Box::new) }, 1);
        check(|inner| Tree { kids: inner.into_iter().collect() }, 1);
        check(|inner| Maps { kids: inner.into_iter().map(|inner| (0, inner)).collect() }, 2);
        check(|inner: Option<Expr>| inner.map_or(Expr::Zero, |inner| Expr::Mul(inner.into(), 1)), 2);
    });
}

/// Depth is given back: a long list of shallow values is not deep.
#[test]
fn siblings_do_not_nest() {
    type Shallow = (Option<u8>, Vec<Vec<u8>>, Expr, BTreeMap<u8, Line>);
    let line = || Line { sku: String::new(), qty: 1 };
    let value: Vec<Shallow> =
        (0..1000).map(|_| (Some(1), vec![vec![]], Expr::Neg(Expr::Mul(Expr::Zero.into(), 0).into()), [(1, line())].into())).collect();
    assert_eq!(read::<Vec<Shallow>>(&encode(&value).unwrap()).unwrap().len(), 1000);
}

#[test]
fn a_message_in_very_many_parts_is_refused() {
    let parts = |count: usize| [0x0a, 2, 0x10, 1].repeat(count);
    assert_eq!(read::<(Line,)>(&parts(MAX_PARTS)).unwrap().0.qty, 1);
    refused::<(Line,)>(&parts(MAX_PARTS + 1), "0: one message is sent in 1025 parts");
    // A number may come as often as it likes.
    assert_eq!(read::<(u32,)>(&[0x08, 5].repeat(MAX_PARTS * 2)).unwrap().0, 5);
}

thread_local! {
    /// What lists were told to set aside.
    static SET_ASIDE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A list that counts what it is told to set aside.
#[derive(Debug)]
struct Hinted<T>(PhantomData<T>);

impl<T: Schema> Schema for Hinted<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        Ty::Seq(T::ty(builder).into())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Hinted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Count<T> {
            type Value = usize;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
                SET_ASIDE.set(SET_ASIDE.get() + seq.size_hint().unwrap_or(0));
                let mut count = 0;
                while seq.next_element::<T>()?.is_some() {
                    count += 1;
                }
                Ok(count)
            }
        }
        deserializer.deserialize_seq(Count::<T>(PhantomData)).map(|_| Hinted(PhantomData))
    }
}

/// Lists are told exactly how long they are, which the message's own bytes prove.
#[test]
fn lists_set_aside_what_comes() {
    fn check<T: DeserializeOwned + Schema + Debug>(bytes: &[u8], expected: usize) {
        SET_ASIDE.set(0);
        let _ = read::<(Hinted<T>,)>(bytes);
        assert_eq!(SET_ASIDE.get(), expected);
    }
    check::<u32>(&[0x0a, 3, 1, 2, 3, 0x08, 4], 4);
    check::<u32>(&[0x0a, 4, 0x80, 0x80, 0x80, 0x80], 0);
    check::<f64>(&[0x0a, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2);
    check::<Line>(&[0x0a, 0, 0x0a, 0], 2);
}

fn def(name: &str, kind: Kind) -> Def {
    Def { name: name.into(), foreign: None, docs: String::new(), kind }
}

fn field(name: &str, ty: Ty) -> Field {
    Field { name: name.into(), aliases: vec![], default: false, must_understand: false, docs: String::new(), tag: None, foreign: None, ty }
}

/// Schemas that passed `validate` are compiled or refused, in bounded time and stack.
#[test]
fn hostile_schemas_are_compiled_or_refused() {
    on_small_stack(|| {
        let compile = |root: Ty, defs: Vec<Def>| {
            let schema = TypeSchema { root, defs };
            schema.validate().unwrap();
            Messages::of(&schema).map(drop).map_err(|error| error.to_string())
        };
        let link = |n: u32| def(&n.to_string(), Kind::Struct(vec![field("next", Ty::Ref((n + 1) % MAX_DEFS as u32))]));
        compile(Ty::Ref(0), (0..MAX_DEFS as u32).map(link).collect()).unwrap();
        let deep = (0..60).fold(Ty::Bool, |ty, _| Ty::Option(ty.into()));
        compile(deep, vec![]).unwrap();
        compile(Ty::Ref(0), vec![def("", Kind::Tuple(vec![Ty::Array(Ty::U8.into(), u32::MAX)])), def("<é>", Kind::Unit)]).unwrap();
        let variant = |name: &str, tag| Variant {
            name: name.into(),
            aliases: vec![],
            other: false,
            docs: String::new(),
            tag,
            foreign: None,
            payload: Payload::Unit,
        };
        let numbered = Kind::Enum(vec![variant("a", Some(u32::MAX))]);
        let error = compile(Ty::Ref(0), vec![def("E", numbered)]).unwrap_err();
        assert_eq!(error, "E: the variant `a` has the number 4294967295, protobuf takes 0 to 2147483647");
        compile(Ty::Ref(0), vec![def("Never", Kind::Enum(vec![]))]).unwrap();
    });
}

/// serde and the schema are asserted side by side: where they differ, nothing is made up.
#[test]
fn a_schema_that_does_not_fit_is_an_error() {
    let as_schema = |schema: TypeSchema| Messages::of(&schema).unwrap();
    let mut out = Vec::new();
    let error = encode_into(&7u8, &as_schema(TypeSchema::of::<String>()), &mut out).unwrap_err().to_string();
    assert_eq!(error, "serde writes an unsigned number, which is not what the type's schema says");
    assert!(encode_into(&(1u8, 2u8), &as_schema(TypeSchema::of::<(u8,)>()), &mut out).is_err());
    assert!(encode_into(&(1u8,), &as_schema(TypeSchema::of::<(u8, u8)>()), &mut out).is_err());
    assert!(encode_into(&Some(1u8), &as_schema(TypeSchema::of::<u8>()), &mut out).is_err());
    assert!(encode_into(&State::Paid(1), &as_schema(TypeSchema::of::<Colour>()), &mut out).is_err());
    assert!(encode_into(&[1u8, 2], &as_schema(TypeSchema::of::<[u8; 3]>()), &mut out).is_err());
    assert!(encode_into(&vec![1u8], &as_schema(TypeSchema::of::<BTreeMap<u8, u8>>()), &mut out).is_err());
    assert!(out.is_empty());
    assert!(decode::<String>(&as_schema(TypeSchema::of::<u8>()), &[0x08, 1]).is_err());
    assert!(decode::<State>(&as_schema(TypeSchema::of::<Colour>()), &[0x08, 1]).is_err());
    assert!(decode::<Colour>(&as_schema(TypeSchema::of::<State>()), &[0x10, 1]).is_err());
}
