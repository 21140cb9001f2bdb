//! XDR that nobody vouches for: it is refused or read, none panics, overflows the stack, or makes us allocate or loop
//! more than its length allows.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytes::Bytes;
use farcall_core::xdr::{MAX_DEPTH, MAX_FREE_ELEMENTS, decode, encode, encode_into};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    attributes: BTreeMap<String, i64>,
    state: State,
    data: Vec<u8>,
    slice: Bytes,
    plain: Vec<Vec<u8>>,
    next: Option<Box<Order>>,
    wide: (u128, f64, char, bool),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u16,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Sent { to: String, parts: [u8; 3] },
    Pair(Option<u8>, ()),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
enum Lenient {
    Known,
    #[serde(other)]
    Unknown,
}

fn order() -> Order {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty };
    let inner = Order {
        id: 1,
        lines: vec![line("abc", 1), line("d", 60_000)],
        // One entry: more would be sorted.
        attributes: [("k".into(), -1)].into(),
        state: State::Sent { to: "x".into(), parts: [1, 2, 3] },
        data: vec![0, 1, 255],
        slice: Bytes::from_static(b"slice"),
        plain: vec![vec![1, 2], vec![3]],
        next: None,
        wide: (u128::MAX, -0.0, '€', true),
    };
    Order { state: State::Pair(Some(1), ()), next: Some(inner.clone().into()), ..inner }
}

fn refused<T: DeserializeOwned + Debug>(bytes: &[u8], why: &str) {
    let error = decode::<T>(bytes).unwrap_err().to_string();
    assert!(error.contains(why), "{error}, expected {why}");
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[test]
fn every_truncation_is_refused() {
    let bytes = encode(&order()).unwrap();
    for end in 0..bytes.len() {
        refused::<Order>(&bytes[..end], "ends early");
    }
    refused::<Order>(&[bytes, vec![0; 4]].concat(), "4 bytes are left over");
}

/// What a message with any one byte changed is read as, if it is read, is written as exactly that message: no two
/// messages mean the same.
#[test]
fn mutants_are_read_or_refused() {
    let bytes = encode(&order()).unwrap();
    let mut read = 0;
    for at in 0..bytes.len() {
        for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut mutant = bytes.clone();
            mutant[at] = byte;
            let Ok(value) = decode::<Order>(&mutant) else { continue };
            assert_eq!(encode(&value).unwrap(), mutant, "byte {at}: {byte}");
            read += 1;
        }
    }
    assert!((500..bytes.len() * 6).contains(&read), "{read} were read: the mutants test nothing");
}

#[test]
fn where_it_happened_is_said() {
    let bytes = encode(&order()).unwrap();
    refused::<Order>(&bytes[..14], "lines[0].sku: the message ends early");
    refused::<State>(&words(&[1, 0, 1, 2]), "Sent.parts.2: the message ends early");
}

#[test]
fn huge_lengths_are_refused() {
    for length in [u32::MAX, 1 << 31, 50_000_000] {
        refused::<Vec<u64>>(&words(&[length]), "elements");
        refused::<HashMap<u64, u64>>(&words(&[length]), "elements");
        refused::<Vec<()>>(&words(&[length]), "elements");
        refused::<String>(&words(&[length]), "ends early");
        refused::<Blob>(&words(&[length, 0]), "ends early");
    }
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug)]
struct Blob(Vec<u8>);

#[test]
fn values_out_of_range_are_refused() {
    refused::<bool>(&words(&[2]), "a bool must be 0 or 1, not 2");
    refused::<Option<u8>>(&words(&[7]), "whether an option is there must be 0 or 1, not 7");
    refused::<u8>(&words(&[256]), "256 is out of range for u8");
    refused::<u16>(&words(&[65_536]), "65536 is out of range for u16");
    refused::<i8>(&words(&[u32::MAX - 128]), "-129 is out of range for i8");
    refused::<i16>(&words(&[32_768]), "32768 is out of range for i16");
    refused::<char>(&words(&[0xd800]), "55296 is out of range for char");
    refused::<State>(&words(&[3]), "no variant number 3");
    refused::<State>(&words(&[u32::MAX]), "no variant number 4294967295");
    // What an unknown variant holds has a length that nobody here knows.
    refused::<Lenient>(&words(&[2]), "no variant number 2");
    refused::<String>(&[0, 0, 0, 1, 0xff, 0, 0, 0], "UTF-8");
    refused::<String>(&[0, 0, 0, 1, b'a', 0, 0, 1], "not zero");
    refused::<Vec<u8>>(&[0, 0, 0, 1, 7, 0, 0, 1], "not zero");
    refused::<Blob>(&[0, 0, 0, 1, 7, 1, 0, 0], "not zero");
    refused::<serde_json::Value>(&words(&[1]), "use JSON");
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}
#[derive(Debug, Serialize, Deserialize)]
struct Tree(Vec<Tree>);
#[derive(Debug, Serialize, Deserialize)]
struct Maps(BTreeMap<u8, Maps>);
#[derive(Debug, Serialize, Deserialize)]
enum Expr {
    Zero,
    Neg(Box<Expr>),
    Add { left: Box<Expr> },
    Mul(Box<Expr>, u8),
}

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn deep_nesting_is_refused() {
    on_small_stack(|| {
        let deep = |number: u32| words(&vec![number; 1 << 18]);
        refused::<Chain>(&deep(1), "deeper than 128");
        refused::<Tree>(&deep(1), "deeper than 128");
        refused::<Maps>(&deep(1), "deeper than 128");
        refused::<Expr>(&deep(1), "deeper than 128");
        refused::<Expr>(&deep(2), "deeper than 128");
        refused::<Expr>(&deep(3), "deeper than 128");
    });
}

/// What the encoder lets pass the decoder reads, up to the last level.
#[test]
fn both_sides_stop_at_the_same_depth() {
    fn check<T: Serialize + DeserializeOwned>(grow: impl Fn(Option<T>) -> T, each: u32) {
        let (mut value, mut depth) = (grow(None), 1);
        while let Ok(bytes) = encode(&value) {
            assert!(decode::<T>(&bytes).is_ok());
            value = grow(Some(value));
            depth += 1;
        }
        assert_eq!(depth, MAX_DEPTH / each + 1);
        let mut out = vec![9];
        let error = encode_into(&value, &mut out).unwrap_err().to_string();
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
    assert_eq!(decode::<Vec<Shallow>>(&encode(&value).unwrap()).unwrap().len(), 1000);
}

#[test]
fn floods_of_elements_without_bytes_are_refused() {
    let most = MAX_FREE_ELEMENTS as u32;
    assert_eq!(decode::<Vec<()>>(&words(&[most])).unwrap().len(), MAX_FREE_ELEMENTS);
    refused::<Vec<()>>(&words(&[most + 1]), "elements");
    // The limit holds for the whole message, not for each of its lists.
    refused::<Vec<Vec<()>>>(&words(&[2, most, 1]), "[1]: a list claims 1 elements");
    // Bytes that follow make the claim possible, but no element takes them.
    refused::<Vec<()>>(&words(&[most + 4, 0]), "more than 65536 elements take no bytes");
    refused::<BTreeMap<(), ()>>(&words(&[most + 4, 0]), "more than 65536 elements take no bytes");
}

thread_local! {
    /// What lists were told to set aside.
    static SET_ASIDE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Lists inside lists; each counts what it is told to set aside.
#[derive(Debug)]
struct Hints;

impl<'de> Deserialize<'de> for Hints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hints, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Hints;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("lists")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hints, A::Error> {
                SET_ASIDE.set(SET_ASIDE.get() + seq.size_hint().unwrap_or(0));
                while seq.next_element::<Hints>()?.is_some() {}
                Ok(Hints)
            }
        }
        deserializer.deserialize_seq(Count)
    }
}

/// A hundred lists inside each other, each claiming as many elements as the message has bytes left: what is set
/// aside adds up to no more elements than the message has bytes.
#[test]
fn nested_lists_cannot_multiply_what_is_set_aside() {
    let bytes = words(&[vec![9000; 100], vec![0; 5000]].concat());
    refused::<Hints>(&bytes, "ends early");
    assert!((9000..=bytes.len()).contains(&SET_ASIDE.get()), "{}", SET_ASIDE.get());
}
