//! Two versions of a type, both ways: old bytes into the new type and new bytes into the old one, through the plan.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytes::Bytes;
use farcall_core::compact::{decode, encode};
use farcall_core::plan::{Why, decode_with};
use farcall_core::{Plan, Schema, TypeSchema};
use serde::Serialize;
use serde::de::DeserializeOwned;

macro_rules! data {
    ($($item:item)*) => {$(
        #[farcall_core::data(crate = farcall_core)]
        #[derive(Debug, Clone, PartialEq)]
        $item
    )*};
}

fn plan<W: Schema, R: Schema>() -> Plan {
    Plan::compile(&TypeSchema::of::<W>(), &TypeSchema::of::<R>()).unwrap()
}

/// What the reader makes of the value, and the plan's notes.
#[track_caller]
fn reads<W: Schema + Serialize, R: Schema + DeserializeOwned + PartialEq + Debug>(written: W, expected: Result<R, &str>) {
    let bytes = encode(&written).unwrap();
    let plan = plan::<W, R>();
    let read = decode_with::<R>(&plan, &bytes).map_err(|error| error.to_string());
    assert_eq!(read, expected.map_err(str::to_owned));
    // Whatever the plan, a message cut short is refused and not misread.
    for end in 0..bytes.len() {
        assert!(decode_with::<R>(&plan, &bytes[..end]).is_err(), "cut to {end}");
    }
    let left_over = [bytes, vec![0]].concat();
    assert!(decode_with::<R>(&plan, &left_over).is_err());
}

#[track_caller]
fn notes<W: Schema, R: Schema>(expected: &[&str]) {
    let notes: Vec<String> = plan::<W, R>().notes().iter().map(ToString::to_string).collect();
    assert_eq!(notes, expected);
}

#[track_caller]
fn refused<W: Schema, R: Schema>(expected: &[&str]) {
    let error = Plan::compile(&TypeSchema::of::<W>(), &TypeSchema::of::<R>()).unwrap_err();
    let findings: Vec<String> = error.findings().iter().map(ToString::to_string).collect();
    assert_eq!(findings, expected);
}

#[test]
fn an_optional_field_was_added() {
    data! {
        struct Old { id: u64, qty: u32 }
        struct New { id: u64, note: Option<String>, qty: u32, data: Option<Vec<u8>> }
    }
    reads(Old { id: 7, qty: 300 }, Ok(New { id: 7, note: None, qty: 300, data: None }));
    reads(New { id: 7, note: Some("x".into()), qty: 300, data: None }, Ok(Old { id: 7, qty: 300 }));
    notes::<Old, New>(&[]);
    notes::<New, Old>(&[
        "`note`: the writer sends Option<String>, the reader does not know it and skips it",
        "`data`: the writer sends Option<Bytes>, the reader does not know it and skips it",
    ]);
}

#[test]
fn a_field_with_a_default_was_added() {
    fn four() -> u8 {
        4
    }
    data! {
        struct Old { id: u64 }
        struct AtEnd { id: u64, #[serde(default = "four")] wheels: u8 }
        struct Before { #[serde(default = "four")] wheels: u8, id: u64 }
    }
    reads(Old { id: 7 }, Ok(AtEnd { id: 7, wheels: 4 }));
    reads(Old { id: 7 }, Ok(Before { wheels: 4, id: 7 }));
    reads(AtEnd { id: 7, wheels: 3 }, Ok(Old { id: 7 }));
    reads(Before { id: 7, wheels: 3 }, Ok(Old { id: 7 }));
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    #[serde(default)]
    struct All {
        id: u64,
        name: String,
        tags: Vec<u8>,
    }
    impl Default for All {
        fn default() -> All {
            All { id: 1, name: "none".into(), tags: vec![1] }
        }
    }
    reads(Old { id: 7 }, Ok(All { id: 7, ..All::default() }));
    reads((), Ok(All::default()));
}

#[test]
fn a_required_field_was_added() {
    data! {
        struct Old { id: u64 }
        struct New { id: u64, cents: u32 }
    }
    refused::<Old, New>(&[
        "`cents`: the reader needs it (u32) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
    reads(New { id: 7, cents: 1 }, Ok(Old { id: 7 }));
}

#[test]
fn a_field_was_removed() {
    data! {
        struct Part { a: Vec<(u8, Option<String>)>, b: [i128; 2], c: BTreeMap<char, f32>, d: Kind, e: (bool, f64) }
        enum Kind { A, B(u16), C(u8, String), D { x: Bytes } }
        struct Old { id: u64, part: Part, parts: Vec<Part>, end: u32 }
        struct New { id: u64, end: u32 }
    }
    let part = |d| Part { a: vec![(1, None), (2, Some("x".into()))], b: [-1, i128::MAX], c: [('€', 1.5)].into(), d, e: (true, 2.5) };
    let kinds = [Kind::A, Kind::B(700), Kind::C(1, "c".into()), Kind::D { x: Bytes::from_static(b"dd") }];
    let old = Old { id: 7, part: part(Kind::A), parts: kinds.map(part).into(), end: 300 };
    reads(old, Ok(New { id: 7, end: 300 }));
    refused::<New, Old>(&[
        "`part`: the reader needs it (struct Part) and the writer does not send it: make it an Option or give it #[serde(default)]",
        "`parts`: the reader needs it (Vec<Part>) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
}

#[test]
fn fields_were_reordered() {
    data! {
        struct Old { a: u8, b: String, c: Option<u64> }
        struct New { c: Option<u64>, a: u8, b: String }
    }
    reads(Old { a: 1, b: "b".into(), c: Some(3) }, Ok(New { c: Some(3), a: 1, b: "b".into() }));
    reads(New { c: None, a: 1, b: "b".into() }, Ok(Old { a: 1, b: "b".into(), c: None }));
    notes::<Old, New>(&[]);
}

#[test]
fn a_field_was_renamed() {
    data! {
        struct Old { customer: String, n: u8 }
        struct New { #[serde(alias = "client", alias = "customer")] buyer: String, n: u8 }
        struct Moved { n: u8, #[serde(alias = "customer")] buyer: String }
        struct Bare { buyer: String, n: u8 }
    }
    reads(Old { customer: "c".into(), n: 1 }, Ok(New { buyer: "c".into(), n: 1 }));
    reads(New { buyer: "c".into(), n: 1 }, Ok(Old { customer: "c".into(), n: 1 }));
    reads(Old { customer: "c".into(), n: 1 }, Ok(Moved { buyer: "c".into(), n: 1 }));
    assert!(plan::<Old, New>().is_same(), "only the name changed: the compact codec reads it");
    refused::<Old, Bare>(&[
        "`buyer`: the reader needs it (String) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
}

/// While a rename goes on, a type may have both names: the field itself wins over its alias.
#[test]
fn two_fields_never_become_one() {
    data! {
        struct Both { a: u8, b: u8 }
        struct New { #[serde(alias = "a", alias = "c")] b: u8 }
        struct Aliases { a: u8, c: u8 }
    }
    reads(Both { a: 1, b: 2 }, Ok(New { b: 2 }));
    reads(Aliases { a: 1, c: 2 }, Ok(New { b: 1 }));
    notes::<Aliases, New>(&["`c`: the writer sends u8, the reader does not know it and skips it"]);
}

#[test]
fn numbers_were_widened_and_narrowed() {
    data! {
        struct Old { a: u8, b: i16, c: u32, d: u64, e: i64, f: f32, g: u16 }
        struct New { a: u128, b: i64, c: i64, d: i128, e: i128, f: f64, g: f32 }
        struct Narrow { a: u8, b: i16, c: u32, d: u64, e: i64 }
        struct Wide { a: u128, b: i64, c: i64, d: i128, e: i128 }
    }
    let old = Old { a: 255, b: -300, c: u32::MAX, d: u64::MAX, e: i64::MIN, f: 1.5, g: 65535 };
    let new = New { a: 255, b: -300, c: u32::MAX.into(), d: u64::MAX.into(), e: i64::MIN.into(), f: 1.5, g: 65535.0 };
    reads(old, Ok(new));
    notes::<Old, New>(&[]);
    let wide = Wide { a: 255, b: -300, c: u32::MAX.into(), d: u64::MAX.into(), e: i64::MIN.into() };
    let narrow = Narrow { a: 255, b: -300, c: u32::MAX, d: u64::MAX, e: i64::MIN };
    reads(wide.clone(), Ok(narrow));
    let check = |wide: Wide, error| reads::<_, Narrow>(wide, Err(error));
    check(Wide { a: 256, ..wide.clone() }, "a: the number 256 does not fit u8; the writer's type is u128: widen it here");
    check(
        Wide { a: u128::MAX, ..wide.clone() },
        "a: the number 340282366920938463463374607431768211455 does not fit u8; the writer's type is u128: widen it here",
    );
    check(Wide { b: -32769, ..wide.clone() }, "b: the number -32769 does not fit i16; the writer's type is i64: widen it here");
    check(Wide { c: -1, ..wide.clone() }, "c: the number -1 does not fit u32; the writer's type is i64: widen it here");
    check(Wide { d: -1, ..wide.clone() }, "d: the number -1 does not fit u64; the writer's type is i128: widen it here");
    check(
        Wide { e: i128::from(i64::MIN) - 1, ..wide },
        "e: the number -9223372036854775809 does not fit i64; the writer's type is i128: widen it here",
    );
    notes::<(u64, bool), (u32, bool)>(&["`0`: the writer sends u64, the reader reads u32: what does not fit is refused when it comes"]);
    refused::<f64, f32>(&["the writer sends f64, the reader reads f32: give what changed a new name"]);
    refused::<f32, u64>(&["the writer sends f32, the reader reads u64: give what changed a new name"]);
    refused::<u32, f32>(&["the writer sends u32, the reader reads f32: give what changed a new name"]);
    // Numbers that their own type does not hold are refused as ever.
    let error = decode_with::<u32>(&plan::<u16, u32>(), &[0xff, 0xff, 0x7f]).unwrap_err();
    assert_eq!(error.to_string(), "a number is out of range for u16");
}

#[test]
fn a_field_became_optional_and_back() {
    data! {
        struct Old { a: String, b: u8, c: Vec<u8> }
        struct New { a: Option<String>, b: Option<Option<u16>>, c: Option<Vec<u8>> }
        struct Default { a: String, #[serde(default)] b: u8, #[serde(default)] c: Vec<u8> }
    }
    let old = |b, c: &[u8]| Old { a: "a".into(), b, c: c.into() };
    let new = |b, c: Option<&[u8]>| New { a: Some("a".into()), b: Some(b), c: c.map(<[u8]>::to_vec) };
    reads(old(2, &[3]), Ok(new(Some(2), Some(&[3]))));
    reads(new(Some(2), Some(&[3])), Ok(old(2, &[3])));
    let needed = "the writer sent None, this side needs a value: make it an Option or give it #[serde(default)]";
    reads::<_, Old>(new(None, Some(&[3])), Err(&format!("b: {needed}")));
    reads::<_, Old>(New { a: None, ..new(Some(2), None) }, Err(&format!("a: {needed}")));
    reads(New { b: None, ..new(None, None) }, Ok(Default { a: "a".into(), b: 0, c: vec![] }));
    reads(new(Some(9), Some(&[1])), Ok(Default { a: "a".into(), b: 9, c: vec![1] }));
    notes::<New, Default>(&[
        "`a`: the writer sends Option<String>, the reader needs String: a None is refused when it comes",
        "`b`: the writer sends Option<u16>, the reader needs u8: a None is refused when it comes",
        "`b`: the writer sends u16, the reader reads u8: what does not fit is refused when it comes",
    ]);
    reads(Some(300u16), Ok(300u32));
    reads(300u16, Ok(Some(Some(300u32))));
}

#[test]
fn a_variant_was_added() {
    data! {
        enum Old { New, Paid(u16), Sent { to: String } }
        enum AtEnd { New, Paid(u16), Sent { to: String }, Lost }
        enum Between { New, Held(Vec<u8>), Paid(u16), Sent { by: Option<u8>, to: String } }
    }
    reads(Old::Paid(700), Ok(AtEnd::Paid(700)));
    assert!(plan::<Old, AtEnd>().is_same());
    for (old, new) in [(Old::New, Between::New), (Old::Paid(7), Between::Paid(7))] {
        reads(old.clone(), Ok(new.clone()));
        reads(new, Ok(old));
    }
    reads(Old::Sent { to: "x".into() }, Ok(Between::Sent { by: None, to: "x".into() }));
    reads(Between::Sent { by: Some(1), to: "x".into() }, Ok(Old::Sent { to: "x".into() }));
    reads::<_, Old>(
        AtEnd::Lost,
        Err("the writer sent the variant `Lost`, Old has none of that name here: add it, or one with #[serde(other)]"),
    );
    reads::<_, Vec<Old>>(
        vec![Between::New, Between::Held(vec![1])],
        Err("[1]: the writer sent the variant `Held`, Old has none of that name here: add it, or one with #[serde(other)]"),
    );
    notes::<AtEnd, Old>(&[
        "`::Lost`: the writer may send a variant without a value, the reader does not know it: refused when it comes, as there is no #[serde(other)]",
    ]);
}

#[test]
fn an_unknown_variant_is_read_as_other() {
    data! {
        enum OldState { New, #[serde(other)] Unknown }
        enum NewState { Held { by: String }, New, Unknown, Paid(u16, Vec<u8>) }
        struct OldOrder { state: Vec<OldState>, end: u8 }
        struct NewOrder { state: Vec<NewState>, end: u8 }
    }
    let state = vec![NewState::Held { by: "me".into() }, NewState::New, NewState::Paid(700, vec![1, 2]), NewState::Unknown];
    let old = vec![OldState::Unknown, OldState::New, OldState::Unknown, OldState::Unknown];
    reads(NewOrder { state, end: 9 }, Ok(OldOrder { state: old, end: 9 }));
    notes::<NewOrder, OldOrder>(&[
        "`state[]::Held`: the writer may send a variant with named fields, the reader does not know it and reads `Unknown`",
        "`state[]::Paid`: the writer may send a variant with 2 values, the reader does not know it and reads `Unknown`",
    ]);
    reads(OldState::Unknown, Ok(NewState::Unknown));
}

#[test]
fn a_variant_was_renamed_moved_and_changed() {
    data! {
        enum Old { A, B(u8), C { x: u8 }, D }
        enum New { C { y: Option<u8>, x: u16 }, #[serde(alias = "A")] Z, B(u32), D { z: Option<u8> } }
        enum Changed { A(u8), B(String), C(u8), D }
    }
    reads(Old::A, Ok(New::Z));
    reads(New::Z, Ok(Old::A));
    reads(Old::B(3), Ok(New::B(3)));
    reads::<_, Old>(New::B(300), Err("::B: the number 300 does not fit u8; the writer's type is u32: widen it here"));
    reads(Old::C { x: 3 }, Ok(New::C { y: None, x: 3 }));
    reads(Old::D, Ok(New::D { z: None }));
    reads(New::D { z: Some(1) }, Ok(Old::D));
    refused::<Old, Changed>(&[
        "`::A`: the writer sends a variant without a value, the reader reads a variant with u8: give what changed a new name",
        "`::B`: the writer sends u8, the reader reads String: give what changed a new name",
        "`::C`: the writer sends a variant with named fields, the reader reads a variant with u8: give what changed a new name",
    ]);
}

#[test]
fn a_type_was_changed() {
    data! {
        struct Line { qty: u32 }
        enum Kind { A }
        struct Old { items: Vec<Line>, by: HashMap<String, Line>, kind: Kind, flag: bool, text: String }
        struct NewLine { qty: String }
        struct New { items: Vec<NewLine>, by: HashMap<u8, NewLine>, kind: NewLine, flag: u8, text: Vec<u8> }
    }
    refused::<Old, New>(&[
        "`by[key]`: the writer sends String, the reader reads u8: give what changed a new name",
        "`flag`: the writer sends bool, the reader reads u8: give what changed a new name",
        "`text`: the writer sends String, the reader reads Bytes: give what changed a new name",
        "`items[].qty`: the writer sends u32, the reader reads String: give what changed a new name",
        "`kind`: the writer sends enum Kind, the reader reads struct NewLine: give what changed a new name",
    ]);
    refused::<New, Old>(&[
        "`by[key]`: the writer sends u8, the reader reads String: give what changed a new name",
        "`flag`: the writer sends u8, the reader reads bool: give what changed a new name",
        "`text`: the writer sends Bytes, the reader reads String: give what changed a new name",
        "`items[].qty`: the writer sends String, the reader reads u32: give what changed a new name",
        "`kind`: the writer sends struct NewLine, the reader reads enum Kind: give what changed a new name",
    ]);
    refused::<Line, u32>(&["the writer sends struct Line, the reader reads u32: give what changed a new name"]);
}

#[test]
fn a_nested_type_was_changed() {
    data! {
        struct OldLine { sku: String, qty: u32, legacy: bool }
        struct NewLine { qty: u64, sku: String, gift: Option<bool> }
        struct Old { lines: HashMap<u8, Vec<(u8, Option<OldLine>)>>, end: u8 }
        struct New { lines: BTreeMap<u16, Vec<(u8, Option<NewLine>)>>, end: u8 }
    }
    let old = OldLine { sku: "a".into(), qty: 300, legacy: true };
    let new = NewLine { qty: 300, sku: "a".into(), gift: None };
    reads(
        Old { lines: [(7, vec![(1, Some(old.clone())), (2, None)])].into(), end: 9 },
        Ok(New { lines: [(7, vec![(1, Some(new.clone())), (2, None)])].into(), end: 9 }),
    );
    refused::<New, Old>(&[
        "`lines[][].1.legacy`: the reader needs it (bool) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
    data! { struct Narrow { lines: BTreeMap<u8, Vec<(u8, Option<Tiny>)>>, end: u8 }  struct Tiny { qty: u8 } }
    let many = New { lines: [(7, vec![(0, None), (1, Some(new))])].into(), end: 9 };
    reads::<_, Narrow>(many, Err("lines[0][1].1.qty: the number 300 does not fit u8; the writer's type is u64: widen it here"));
}

#[test]
fn a_recursive_type_was_changed() {
    data! {
        struct Old { v: u8, kids: Vec<Old>, next: Option<Box<Old>>, of: OldOf }
        enum OldOf { Leaf, Node(Box<Old>) }
        struct New { next: Option<Box<New>>, kids: Vec<New>, v: u64, of: NewOf, extra: Option<u8> }
        enum NewOf { Node(Box<New>), Leaf }
    }
    fn old(v: u8, kids: Vec<Old>, next: Option<Old>, of: OldOf) -> Old {
        Old { v, kids, next: next.map(Box::new), of }
    }
    fn new(v: u64, kids: Vec<New>, next: Option<New>, of: NewOf) -> New {
        New { v, kids, next: next.map(Box::new), of, extra: None }
    }
    let old_leaf = |v| old(v, vec![], None, OldOf::Leaf);
    let new_leaf = |v| new(v, vec![], None, NewOf::Leaf);
    let before = old(1, vec![old_leaf(2), old_leaf(3)], Some(old_leaf(4)), OldOf::Node(old_leaf(5).into()));
    let after = new(1, vec![new_leaf(2), new_leaf(3)], Some(new_leaf(4)), NewOf::Node(new_leaf(5).into()));
    reads(before.clone(), Ok(after.clone()));
    reads(after, Ok(before));
    let deep = |levels: u8| (0..levels).fold(new_leaf(0), |inner, v| new(v.into(), vec![], Some(inner), NewOf::Leaf));
    reads::<_, Vec<Old>>(vec![deep(3)], Ok(vec![(0..3).fold(old_leaf(0), |inner, v| old(v, vec![], Some(inner), OldOf::Leaf))]));
}

/// The same type on both sides, if only its name differs, goes the quick way; also where it is recursive.
#[test]
fn the_same_type_needs_no_plan() {
    data! {
        struct One { kids: Vec<One>, other: Option<Box<Two>>, n: Leaf }
        struct Two { one: Box<[One]>, text: BTreeMap<String, [u8; 3]> }
        struct Leaf { a: u8 }
        struct Uno { kids: Vec<Uno>, other: Option<Box<Due>>, n: Foglia }
        struct Due { one: Vec<Uno>, text: HashMap<String, [u8; 3]> }
        struct Foglia { a: u8 }
        struct Tre { kids: Vec<Tre>, other: Option<Box<Quattro>>, n: Foglia }
        struct Quattro { one: Vec<Tre>, text: HashMap<String, [u16; 3]> }
    }
    assert!(plan::<One, Uno>().is_same());
    assert!(!plan::<One, Tre>().is_same(), "a difference deep inside a cycle is seen from its root");
    let one = One { kids: vec![], other: Some(Two { one: [].into(), text: [("k".into(), [1, 2, 3])].into() }.into()), n: Leaf { a: 1 } };
    reads(
        one,
        Ok(Tre { kids: vec![], other: Some(Quattro { one: vec![], text: [("k".into(), [1, 2, 3])].into() }.into()), n: Foglia { a: 1 } }),
    );
}

#[test]
fn lists_arrays_and_tuples_were_changed() {
    reads(vec![1u8, 2, 255], Ok(vec![1u32, 2, 255]));
    reads(vec![1u32, 2, 300], Ok(vec![1u16, 2, 300]));
    reads([1u16, 700], Ok(vec![1u32, 700]));
    reads([1u16, 700], Ok([1u32, 700]));
    reads(vec![1u16, 700], Ok([1u16, 700]));
    reads::<_, [u16; 2]>(vec![1u16], Err("the writer sent 1 elements, this side has an array of 2: make it a Vec"));
    notes::<Vec<u16>, [u16; 2]>(&["the writer sends Vec<u16>, the reader reads [u16; 2]: another length is refused when it comes"]);
    refused::<[u8; 2], [u8; 3]>(&[
        "the writer sends [u8; 2], the reader reads [u8; 3]: tuples and arrays cannot grow, use a struct or a Vec",
    ]);
    refused::<(u8, u8), (u8, u8, u8)>(&[
        "the writer sends (u8, u8), the reader reads (u8, u8, u8): tuples and arrays cannot grow, use a struct or a Vec",
    ]);
    data! {
        struct Pair(u8, u16);
        struct Wide(u16, u32);
        struct Three(u8, u16, u8);
        enum Shape { Pair(u8, u16) }
        enum Grown { Pair(u8, u16, u8) }
        struct Bytes1 { a: Vec<u8>, b: Bytes, c: Option<Vec<u8>>, d: [u8; 2] }
        struct Bytes2 { d: Vec<u8>, a: Bytes, b: Vec<u8>, c: Option<Bytes> }
        struct Words { a: Vec<u16>, b: Vec<u16> }
        struct Narrow { b: Bytes, a: Vec<u8> }
    }
    reads(Pair(1, 700), Ok(Wide(1, 700)));
    refused::<Three, Pair>(&[
        "the writer sends struct Three of 3 fields, the reader reads struct Pair of 2 fields: tuples and arrays cannot grow, use a struct or a Vec",
    ]);
    refused::<Shape, Grown>(&[
        "`::Pair`: the writer sends a variant with 2 values, the reader reads a variant with 3 values: tuples and arrays cannot grow, use a struct or a Vec",
    ]);
    let (a, b, c) = (vec![1], Bytes::from_static(&[2, 255]), Some(vec![3]));
    let one = Bytes1 { a, b, c, d: [4, 5] };
    reads(one, Ok(Bytes2 { d: vec![4, 5], a: vec![1].into(), b: vec![2, 255], c: Some(vec![3].into()) }));
    reads(Words { a: vec![1], b: vec![2, 255] }, Ok(Narrow { b: vec![2, 255].into(), a: vec![1] }));
}

#[test]
fn nothing_and_a_struct_are_read_as_each_other() {
    data! {
        struct Unit;
        struct Empty {}
        struct Full { a: Option<u8>, #[serde(default)] b: String }
        struct Needs { a: u8 }
    }
    let full = || Full { a: Some(1), b: "x".into() };
    reads((), Ok(Unit));
    reads(Unit, Ok(()));
    reads(Unit, Ok(Empty {}));
    reads(Empty {}, Ok(()));
    reads((), Ok(Full { a: None, b: String::new() }));
    reads(Empty {}, Ok(Full { a: None, b: String::new() }));
    reads(full(), Ok(()));
    reads(full(), Ok(Unit));
    reads((full(), 7u8), Ok((Empty {}, 7u8)));
    refused::<(), Needs>(&[
        "`a`: the reader needs it (u8) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
    refused::<u8, ()>(&["the writer sends u8, the reader reads (): give what changed a new name"]);
}

#[test]
fn what_must_be_understood_is_not_skipped() {
    data! {
        struct Old { cents: u64 }
        struct New { cents: u64, #[farcall(must_understand)] dry_run: Option<bool> }
        enum OldEnum { Pay { cents: u64 } }
        enum NewEnum { Pay { cents: u64, #[farcall(must_understand)] dry_run: bool } }
    }
    refused::<New, Old>(&[
        "`dry_run`: the writer sends Option<bool> that must be understood, the reader does not know it: upgrade the reader first",
    ]);
    refused::<NewEnum, OldEnum>(&[
        "`::Pay.dry_run`: the writer sends bool that must be understood, the reader does not know it: upgrade the reader first",
    ]);
    refused::<New, ()>(&[
        "`dry_run`: the writer sends Option<bool> that must be understood, the reader does not know it: upgrade the reader first",
    ]);
    reads(Old { cents: 5 }, Ok(New { cents: 5, dry_run: None }));
}

#[test]
fn std_types_are_read_inside_other_versions() {
    use std::time::{Duration, SystemTime};
    data! {
        struct Old { r: Result<u8, String>, d: Duration, t: SystemTime, u: () }
        struct New { t: SystemTime, r: Result<u16, Option<String>>, d: Duration, u: (), m: () }
    }
    let t = SystemTime::UNIX_EPOCH + Duration::new(5, 6);
    let old = |r| Old { r, d: Duration::new(1, 2), t, u: () };
    let new = |r| New { t, r, d: Duration::new(1, 2), u: (), m: () };
    reads(old(Ok(3)), Ok(new(Ok(3))));
    reads(old(Err("e".into())), Ok(new(Err(Some("e".into())))));
}

#[test]
fn newtypes_are_what_they_hold() {
    data! {
        struct Id(u32);
        struct Big(u64);
        struct Note(Option<String>);
        struct Old { id: Id }
        struct New { id: Big, note: Note, sparse: Sparse }
        #[derive(Default)]
        struct Sparse { #[serde(default, skip_serializing_if = "Vec::is_empty")] tags: Vec<String>, last: Option<u8> }
        struct Newer { sparse: Option<Sparse>, note: String, id: u64 }
    }
    refused::<Old, New>(&[
        "`sparse`: the reader needs it (struct Sparse) and the writer does not send it: make it an Option or give it #[serde(default)]",
    ]);
    data! { struct Some1 { id: Big, note: Note } }
    reads(Old { id: Id(7) }, Ok(Some1 { id: Big(7), note: Note(None) }));
    let new = New { id: Big(7), note: Note(Some("n".into())), sparse: Sparse::default() };
    reads(new, Ok(Newer { sparse: Some(Sparse::default()), note: "n".into(), id: 7 }));
}

/// What a plan translates and what it leaves to the compact codec is one path.
#[test]
fn errors_are_named_by_the_schema() {
    data! {
        struct Leaf { #[serde(alias = "x", alias = "y")] a: u8, b: String }
        enum Part { Pair(u8, Leaf) }
        struct Old { n: u8, parts: Vec<(u8, Part)> }
        struct New { parts: Vec<(u16, Part)>, n: u8 }
    }
    let old = Old { n: 1, parts: vec![(2, Part::Pair(3, Leaf { a: 4, b: "b".into() }))] };
    let bytes = encode(&old).unwrap();
    let error = decode_with::<New>(&plan::<Old, New>(), &bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(error.path(), "parts[0].1::Pair.1.x", "serde lists aliases among the names");
    assert_eq!(error.named_by(&TypeSchema::of::<New>()).path(), "parts[0].1::Pair.1.b");
}

/// Large bytes are slices of the frame by a plan, too.
#[test]
fn bytes_are_not_copied() {
    data! {
        struct Old { n: u8, data: Bytes }
        struct New { data: Bytes, n: u64 }
    }
    let frame = Bytes::from(encode(&Old { n: 1, data: vec![7; 4096].into() }).unwrap());
    let read: New = plan::<Old, New>().decode(&frame).unwrap();
    assert_eq!(read, New { data: vec![7; 4096].into(), n: 1 });
    assert!(frame.as_ptr_range().contains(&read.data.as_ptr()));
}

#[test]
fn the_whole_schema_is_named_when_it_is_bad() {
    let bad = TypeSchema { root: farcall_core::schema::Ty::Ref(3), defs: vec![] };
    let good = TypeSchema::of::<u8>();
    let check = |error: farcall_core::Incompatible, expected: &str| {
        assert_eq!((error.to_string().as_str(), error.findings()[0].why), (expected, Why::BadSchema));
    };
    check(Plan::compile(&bad, &good).unwrap_err(), "the writer's schema: bad schema: definition 3 is not there");
    check(Plan::compile(&good, &bad).unwrap_err(), "the reader's schema: bad schema: definition 3 is not there");
}

#[test]
fn a_type_that_is_not_its_schema_is_told_so() {
    #[derive(Debug, Serialize, serde::Deserialize, Schema)]
    #[schema(crate = farcall_core)]
    struct Liar {
        #[serde(with = "as_option")]
        #[schema(as = u8)]
        n: Option<u8>,
    }
    mod as_option {
        pub(super) fn serialize<S: serde::Serializer>(value: &Option<u8>, to: S) -> Result<S::Ok, S::Error> {
            serde::Serialize::serialize(value, to)
        }
        pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
            serde::Deserialize::deserialize(from)
        }
    }
    data! { struct Old { n: u16 } }
    let error = decode_with::<Liar>(&plan::<Old, Liar>(), &[1]).unwrap_err().to_string();
    assert!(error.contains("n: the type reads something else than its schema says"), "{error}");
    assert!(decode::<Liar>(&encode(&Liar { n: Some(1) }).unwrap()).is_ok());
}
