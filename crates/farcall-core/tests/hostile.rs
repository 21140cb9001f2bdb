//! Bytes and schemas that nobody vouches for: every one is refused or read, none panics, overflows the stack, or
//! makes us allocate or loop more than its length allows.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytes::Bytes;
use farcall_core::compact::{MAX_DEPTH, MAX_FREE_ELEMENTS, decode, encode};
use farcall_core::schema::{Def, Field, Kind, MAX_DEFS, MAX_NODES, MAX_TY_DEPTH, Payload, Schema, Ty, TypeSchema, Variant};
use farcall_core::{Codec, Compact, Json};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    attrs: BTreeMap<String, i64>,
    state: State,
    data: Vec<u8>,
    slice: Bytes,
    next: Option<Box<Order>>,
    wide: (u128, i128, f32, f64, char, bool),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u32,
    price: i16,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Paid(u16),
    Sent { to: String, parts: [u8; 3] },
    Pair(Option<u8>, ()),
}

fn order() -> Order {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty, price: -700 };
    let inner = Order {
        id: 1,
        lines: vec![line("abc", 1), line("d", 70_000)],
        attrs: [("k".into(), -1), ("l".into(), i64::MAX)].into(),
        state: State::Sent { to: "x".into(), parts: [1, 2, 3] },
        data: vec![0, 1, 255],
        slice: Bytes::from_static(b"slice"),
        next: None,
        wide: (u128::MAX, i128::MIN, 1.5, -0.0, '€', true),
    };
    Order { state: State::Pair(Some(1), ()), next: Some(inner.clone().into()), ..inner }
}

/// A small seeded generator (SplitMix64): a failing seed is enough to see the failure again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn mutant(bytes: &[u8], seed: u64) -> Vec<u8> {
    let (mut random, mut bytes) = (Random(seed), bytes.to_vec());
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, 0xff),
            _ => drop(bytes.drain(at..(at + 3).min(bytes.len() - 1).max(at))),
        }
    }
    bytes
}

fn refused<T: DeserializeOwned + Debug>(bytes: &[u8], why: &str) {
    let error = decode::<T>(bytes).unwrap_err().to_string();
    assert!(error.contains(why), "{error}, expected {why}");
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[test]
fn every_truncation_is_refused() {
    let bytes = encode(&order()).unwrap();
    for end in 0..bytes.len() {
        refused::<Order>(&bytes[..end], "ends early");
    }
    let schema = encode(&TypeSchema::of::<Order>()).unwrap();
    for end in 0..schema.len() {
        assert!(decode::<TypeSchema>(&schema[..end]).is_err());
    }
}

/// What a mutant decodes to must encode and decode to itself: the decoder accepts nothing the encoder cannot say.
#[test]
fn mutants_are_read_or_refused() {
    let bytes = encode(&order()).unwrap();
    let mut read = 0;
    for seed in 0..20_000 {
        let mutant = mutant(&bytes, seed);
        if let Ok(value) = Compact::decode::<Order>(&mutant.into(), || None) {
            let again = encode(&value).unwrap();
            let value_again = decode::<Order>(&again).unwrap();
            assert_eq!(encode(&value_again).unwrap(), again, "seed {seed}");
            read += 1;
        }
    }
    assert!((100..19_000).contains(&read), "{read} of 20000 were read: the mutants test nothing");
}

#[test]
fn mutants_of_a_schema_are_read_or_refused() {
    let bytes = encode(&TypeSchema::of::<Order>()).unwrap();
    let mut valid = 0;
    for seed in 0..20_000 {
        let Ok(schema) = decode::<TypeSchema>(&mutant(&bytes, seed)) else { continue };
        valid += usize::from(schema.validate().is_ok());
        // These three work on what was not checked, too.
        schema.fingerprint();
        schema.describe();
        schema.type_name();
    }
    assert!(valid > 100, "only {valid} were valid: the mutants test nothing");
}

#[test]
fn huge_lengths_are_refused() {
    for length in [u64::MAX, 1 << 63, 1 << 40, 50_000_000] {
        let bytes = leb(length);
        refused::<Vec<u64>>(&bytes, "elements");
        refused::<HashMap<u64, u64>>(&bytes, "elements");
        refused::<Vec<()>>(&bytes, "elements");
        refused::<String>(&bytes, "ends early");
        refused::<Blob>(&bytes, "ends early");
        refused::<Slice>(&bytes, "ends early");
    }
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Blob(Vec<u8>);
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Slice(Bytes);

#[test]
fn numbers_out_of_range_are_refused() {
    refused::<u16>(&leb(65_536), "out of range for u16");
    refused::<u32>(&leb(1 << 32), "out of range for u32");
    refused::<i16>(&leb(65_536), "out of range for i16");
    refused::<u64>(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2], "longer than its type");
    refused::<u64>(&[255; 11], "longer than its type");
    refused::<u64>(&[255; 9], "ends early");
    refused::<u128>(&[255; 20], "longer than its type");
    refused::<bool>(&[2], "a bool must begin with 0 or 1, not 2");
    refused::<Option<u8>>(&[7], "an option must begin with 0 or 1, not 7");
    refused::<char>(&[2, b'a', b'b'], "exactly one");
    refused::<char>(&[0], "exactly one");
    refused::<String>(&[1, 0xff], "UTF-8");
    refused::<State>(&[4], "no variant number 4");
    refused::<State>(&leb(1 << 32), "out of range for a variant");
    refused::<u8>(&[1, 2], "1 bytes are left over");
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}
#[derive(Debug, Serialize, Deserialize)]
struct Tree(Vec<Tree>);
#[derive(Debug, Serialize, Deserialize)]
enum Expr {
    Zero,
    Neg(Box<Expr>),
    Add { left: Box<Expr> },
    Mul(Box<Expr>, u8),
}
#[derive(Debug, Serialize, Deserialize)]
struct Maps(HashMap<u8, Maps>);

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn deep_nesting_is_refused() {
    on_small_stack(|| {
        refused::<Chain>(&vec![1; 1 << 20], "deeper than 128");
        refused::<Tree>(&vec![1; 1 << 20], "deeper than 128");
        refused::<Maps>(&vec![1; 1 << 20], "deeper than 128");
        refused::<Expr>(&vec![1; 1 << 20], "deeper than 128");
        refused::<Expr>(&vec![2; 1 << 20], "deeper than 128");
        refused::<Expr>(&vec![3; 1 << 20], "deeper than 128");
        assert!(Json::decode::<Tree>(&vec![b'['; 1 << 20].into(), || None).is_err());
    });
}

/// What the encoder lets pass the decoder reads, up to the last level.
#[test]
fn both_sides_stop_at_the_same_depth() {
    fn check<T: Serialize + DeserializeOwned>(grow: impl Fn(Option<T>) -> T, each: u32) {
        let mut value = grow(None);
        let mut depth = 1;
        while let Ok(bytes) = encode(&value) {
            assert!(decode::<T>(&bytes).is_ok());
            value = grow(Some(value));
            depth += 1;
        }
        assert_eq!(depth, MAX_DEPTH / each + 1);
        let mut out = vec![9];
        let error = farcall_core::compact::encode_into(&value, &mut out).unwrap_err().to_string();
        assert!(error.contains("deeper than 128"), "{error}");
        assert_eq!(out, [9], "a failed encode leaves the buffer as it was");
    }
    on_small_stack(|| {
        check(|inner| Chain { next: inner.map(Box::new) }, 2);
        check(|inner| Tree(inner.into_iter().collect()), 1);
        check(|inner| Maps(inner.into_iter().map(|inner| (0, inner)).collect()), 1);
    });
}

/// Depth is given back: a long list of shallow values is not deep.
#[test]
fn siblings_do_not_nest() {
    type Shallow = (Option<u8>, [u8; 1], Vec<u8>, Expr);
    let value: Vec<Shallow> = (0..1000).map(|_| (Some(1), [1], vec![1], Expr::Neg(Expr::Zero.into()))).collect();
    let bytes = encode(&value).unwrap();
    assert_eq!(decode::<Vec<Shallow>>(&bytes).unwrap().len(), 1000);
}

#[test]
fn floods_of_elements_without_bytes_are_refused() {
    let most = MAX_FREE_ELEMENTS as u64;
    assert_eq!(decode::<Vec<()>>(&leb(most)).unwrap().len(), MAX_FREE_ELEMENTS);
    refused::<Vec<()>>(&leb(most + 1), "elements");
    // The limit holds for the whole message, not for each of its lists.
    let two = [leb(2), leb(most), leb(1)].concat();
    refused::<Vec<Vec<()>>>(&two, "[1]: a list claims 1 elements");
    let many = [leb(1000), leb(most).repeat(1000)].concat();
    refused::<Vec<Vec<()>>>(&many, "[1]: a list claims 65536 elements");
    // Bytes that follow make the claim possible, but no element takes them.
    refused::<Vec<()>>(&[leb(most + 2), vec![0, 0]].concat(), "more than 65536 elements take no bytes");
    refused::<BTreeMap<(), ()>>(&[leb(most + 2), vec![0, 0]].concat(), "more than 65536 elements take no bytes");
}

/// Sums up what its lists were told to set aside.
#[derive(Debug, Default)]
struct Hints(usize);

impl<'de> Deserialize<'de> for Hints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hints, D::Error> {
        struct Sum;
        impl<'de> Visitor<'de> for Sum {
            type Value = Hints;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("lists")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hints, A::Error> {
                let mut sum = seq.size_hint().unwrap_or(0);
                SET_ASIDE.set(SET_ASIDE.get() + sum);
                while let Some(Hints(inner)) = seq.next_element()? {
                    sum += inner;
                }
                Ok(Hints(sum))
            }
        }
        deserializer.deserialize_seq(Sum)
    }
}

thread_local! {
    /// The same, for values that end in an error.
    static SET_ASIDE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A hundred lists inside each other, each claiming as many elements as the message has bytes left: what is set
/// aside adds up to no more elements than the message has bytes.
#[test]
fn nested_lists_cannot_multiply_what_is_set_aside() {
    let mut bytes = leb(9000).repeat(100);
    bytes.extend([0; 20_000]);
    assert!(decode::<Hints>(&bytes).is_err());
    let sum = SET_ASIDE.get();
    assert!((9000..=bytes.len()).contains(&sum), "{sum}");
    let tidy = [leb(3), leb(2), vec![0, 0], leb(0), leb(1), vec![0]].concat();
    assert_eq!(decode::<Hints>(&tidy).unwrap().0, 6, "honest lists get what they ask for");
}

#[test]
fn self_describing_types_are_refused_not_misread() {
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Any {
        _A,
    }
    refused::<Any>(&[1], "use JSON");
    refused::<serde_json::Value>(&[1], "use JSON");
}

fn def(name: &str, kind: Kind) -> Def {
    Def { name: name.into(), foreign: None, docs: String::new(), kind }
}

fn field(name: &str, ty: Ty) -> Field {
    Field { name: name.into(), aliases: vec![], default: false, must_understand: false, docs: String::new(), tag: None, foreign: None, ty }
}

fn check_schema(root: Ty, defs: Vec<Def>, expected: Result<(), &str>) {
    on_small_stack({
        let expected = expected.map_err(|why| format!("bad schema: {why}"));
        move || {
            let schema = TypeSchema { root, defs };
            assert_eq!(schema.validate().map_err(|error| error.to_string()), expected);
            schema.fingerprint();
            schema.describe();
        }
    });
}

#[test]
fn hostile_schemas_are_refused() {
    let names = |count: usize| (0..count).map(|n| field(&n.to_string(), Ty::U8)).collect::<Vec<_>>();
    check_schema(Ty::Ref(0), vec![], Err("definition 0 is not there"));
    check_schema(Ty::Ref(u32::MAX), vec![def("A", Kind::Unit)], Err("definition 4294967295 is not there"));
    let bad = Kind::Struct(vec![field("a", Ty::Map(Ty::U8.into(), Ty::Ref(1).into()))]);
    check_schema(Ty::Unit, vec![def("A", bad)], Err("A: definition 1 is not there"));
    let twice = Kind::Struct(vec![field("a", Ty::U8), field("a", Ty::U8)]);
    check_schema(Ty::Ref(0), vec![def("A", twice)], Err("A: two things are called `a`"));
    let variant = || Variant {
        name: "v".into(),
        aliases: vec![],
        other: false,
        docs: String::new(),
        tag: None,
        foreign: None,
        payload: Payload::Unit,
    };
    check_schema(Ty::Ref(0), vec![def("A", Kind::Enum(vec![variant(), variant()]))], Err("A: two things are called `v`"));
    let other = |name: &str, payload| Variant { name: name.into(), other: true, payload, ..variant() };
    let holds = Kind::Enum(vec![other("v", Payload::Newtype(Ty::U8))]);
    check_schema(Ty::Ref(0), vec![def("A", holds)], Err("A: `v` stands for unknown variants, so it cannot hold anything"));
    let two = Kind::Enum(vec![other("v", Payload::Unit), other("w", Payload::Unit)]);
    check_schema(Ty::Ref(0), vec![def("A", two)], Err("A: more than one variant stands for unknown ones"));
    let aliases = Field { aliases: vec![String::new(); MAX_NODES], ..field("a", Ty::U8) };
    check_schema(Ty::Ref(0), vec![def("A", Kind::Struct(vec![aliases]))], Err("A: more than 16384 types, fields, variants and aliases"));
    let large = Kind::Struct(names(MAX_NODES));
    check_schema(Ty::Ref(0), vec![def("A", large)], Err("A: more than 16384 types, fields, variants and aliases"));
    let many = vec![def("A", Kind::Unit); MAX_DEFS + 1];
    check_schema(Ty::Unit, many, Err("1025 definitions, at most 1024"));
    let nest = |levels: usize| (0..levels).fold(Ty::U8, |ty, _| Ty::Seq(ty.into()));
    check_schema(nest(MAX_TY_DEPTH), vec![], Ok(()));
    check_schema(nest(MAX_TY_DEPTH + 1), vec![], Err("a type nests deeper than 64"));
}

/// A chain of as many definitions as are allowed is sound, and its fingerprint uses no stack.
#[test]
fn a_long_chain_of_definitions_is_fine() {
    let link = |n: u32| def(&n.to_string(), Kind::Struct(vec![field("next", Ty::Ref((n + 1) % MAX_DEFS as u32))]));
    check_schema(Ty::Ref(0), (0..MAX_DEFS as u32).map(link).collect(), Ok(()));
}

#[test]
fn a_deep_schema_is_refused_while_it_is_read() {
    on_small_stack(|| {
        // The number of Option in Ty, over and over.
        let option = encode(&Ty::Option(Ty::Unit.into())).unwrap()[0];
        refused::<TypeSchema>(&vec![option; 1 << 20], "deeper than 128");
    });
}

#[test]
fn a_schema_error_shows_little_of_a_long_name() {
    let schema = TypeSchema { root: Ty::Unit, defs: vec![def(&"x".repeat(1 << 20), Kind::Tuple(vec![Ty::Ref(9)]))] };
    assert!(schema.validate().unwrap_err().to_string().len() < 200);
}

#[test]
fn all_builtin_schemas_are_valid() {
    fn check<T: Schema>() {
        TypeSchema::of::<T>().validate().unwrap();
    }
    check::<Order>();
    check::<Result<std::time::Duration, std::time::SystemTime>>();
    check::<(u8, (i8, [u16; 4]), HashMap<String, Option<Box<[f32]>>>)>();
}
