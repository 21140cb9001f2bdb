//! The compact codec's bytes are postcard's, for every kind of field.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::compact::{decode, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Both write the same bytes and each reads the other's.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = encode(&value).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&value).unwrap(), "{value:?}");
    assert_eq!(decode::<T>(&bytes).unwrap(), value);
    assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value);
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Choice {
    Unit,
    Newtype(i16),
    Tuple(u8, char),
    Struct { x: Option<()>, y: f64 },
    Nested(Box<Choice>),
    Empty {},
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Unit;
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Newtype(u32);
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Pair(u8, String);

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct All {
    bool: bool,
    u8: u8,
    i8: i8,
    u16: u16,
    i16: i16,
    u32: u32,
    i32: i32,
    u64: u64,
    i64: i64,
    u128: u128,
    i128: i128,
    f32: f32,
    f64: f64,
    char: char,
    text: String,
    none: Option<u8>,
    some: Option<Option<u16>>,
    unit: (),
    unit_struct: Unit,
    newtype: Newtype,
    pair: Pair,
    choices: Vec<Choice>,
    array: [u16; 3],
    tuple: (u8, String),
    map: BTreeMap<u32, Vec<i64>>,
    set: BTreeSet<String>,
    deque: VecDeque<u8>,
    address: IpAddr,
    duration: Duration,
    non_zero: NonZeroU32,
    cow: Cow<'static, str>,
    result: Result<u8, String>,
}

#[test]
fn every_kind_of_field() {
    check(All {
        bool: true,
        u8: 200,
        i8: -5,
        u16: 60_000,
        i16: -30_000,
        u32: u32::MAX,
        i32: i32::MIN,
        u64: u64::MAX,
        i64: i64::MIN,
        u128: u128::MAX,
        i128: i128::MIN,
        f32: 1.5,
        f64: -0.0,
        char: '\u{20ac}',
        text: "ok".into(),
        none: None,
        some: Some(Some(7)),
        unit: (),
        unit_struct: Unit,
        newtype: Newtype(300),
        pair: Pair(1, "p".into()),
        choices: vec![
            Choice::Unit,
            Choice::Newtype(-300),
            Choice::Tuple(1, 'x'),
            Choice::Struct { x: Some(()), y: f64::INFINITY },
            Choice::Nested(Choice::Empty {}.into()),
        ],
        array: [1, 200, 40_000],
        tuple: (3, "z".into()),
        map: [(1, vec![-1]), (99_999, vec![i64::MAX, 0])].into(),
        set: ["a".into(), "b".into()].into(),
        deque: [1, 2, 3].into(),
        address: "10.1.2.3".parse().unwrap(),
        duration: Duration::new(5, 6),
        non_zero: NonZeroU32::MIN,
        cow: "moo".into(),
        result: Err("no".into()),
    });
}

/// Around every power of two, where a varint grows by a byte.
#[test]
fn integers_at_their_edges() {
    for bit in 0..128u32 {
        let power = 1u128 << bit;
        for value in [power - 1, power, power + 1] {
            check((value, value as i128, (value as i128).wrapping_neg()));
            check((value as u64, value as u32, value as u16));
            check((value as i64, value as i32, value as i16, (value as i64).wrapping_neg()));
        }
    }
}

#[test]
fn lengths_at_their_edges() {
    for count in [0, 1, 127, 128, 16_383, 16_384] {
        check("x".repeat(count));
        check(vec![7u8; count]);
        check(vec![(); count]);
        check((0..count as u32).map(|key| (key, ())).collect::<BTreeMap<_, _>>());
    }
}

/// postcard writes nothing for a field that is left out, and then misreads the message; we write one zero byte.
#[test]
fn where_we_differ() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u32>,
        b: u8,
    }
    let value = Sparse { a: None, b: 1 };
    assert_eq!(encode(&value).unwrap(), [0, 1]);
    assert_eq!(decode::<Sparse>(&[0, 1]).unwrap(), value);
    assert_eq!(postcard::to_stdvec(&value).unwrap(), [1]);
}

/// Text and bytes that are borrowed on both sides.
#[test]
fn borrowed_fields() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Lent<'a> {
        text: &'a str,
        #[serde(borrow)]
        cow: Cow<'a, str>,
        bytes: &'a [u8],
        list: Vec<&'a str>,
        may: Option<&'a str>,
    }
    let value = Lent { text: "tëxt", cow: "cow".into(), bytes: &[0, 255], list: vec!["", "b"], may: Some("c") };
    let bytes = encode(&value).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&value).unwrap());
    assert_eq!(decode::<Lent<'_>>(&bytes).unwrap(), value);
    assert_eq!(postcard::from_bytes::<Lent<'_>>(&bytes).unwrap(), value);
}

#[test]
fn further_types_of_the_standard_library() {
    use std::collections::{HashMap, LinkedList};
    use std::net::SocketAddr;
    use std::num::{NonZeroI64, NonZeroU128, Wrapping};
    use std::ops::{Bound, Range, RangeInclusive};
    use std::path::PathBuf;

    check((Range { start: 1u32, end: 300 }, RangeInclusive::new(-5i64, 5), [Bound::Unbounded, Bound::Included(7u16), Bound::Excluded(8)]));
    check(("10.1.2.3:80".parse::<SocketAddr>().unwrap(), "[::1]:80".parse::<SocketAddr>().unwrap(), PathBuf::from("/a/é")));
    check((NonZeroI64::MIN, NonZeroU128::MAX, Wrapping(300u16), LinkedList::from([1u64, 1 << 40]), std::cmp::Reverse('x')));
    check(HashMap::from([("one".to_owned(), Choice::Tuple(1, 'x'))]));
    check((std::time::SystemTime::UNIX_EPOCH + Duration::new(7, 8), [[1u16; 3]; 2], [0u8; 0], ((), ((), 1u8))));
    check((f32::MIN_POSITIVE, f64::MAX, f64::NEG_INFINITY, char::MAX, '\0', u128::MAX, i128::MAX));
}
