//! JSON as browsers need it, and errors that say where.

use std::collections::BTreeMap;
use std::fmt::Debug;

use farcall_core::json::{MAX_SAFE_INTEGER, decode, encode_into};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn encode<T: Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    encode_into(value, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Written as `text`, which is read as the same.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, text: &str) {
    assert_eq!(encode(&value), text);
    assert_eq!(decode::<T>(text.as_bytes()).unwrap(), value);
}

#[track_caller]
fn reads<T: DeserializeOwned + PartialEq + Debug>(text: &str, value: T) {
    assert_eq!(decode::<T>(text.as_bytes()).unwrap(), value, "{text}");
}

#[track_caller]
fn refused<T: DeserializeOwned + Debug>(text: &str, why: &str) {
    assert_eq!(decode::<T>(text.as_bytes()).unwrap_err().to_string(), why, "{text}");
}

/// Names say what is unknown; what a variant holds does not.
#[test]
fn an_unknown_variant_without_a_value_is_read_as_other() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    enum State {
        New,
        #[serde(other)]
        Unknown,
    }
    check(State::New, "\"New\"");
    reads("\"Lost\"", State::Unknown);
    assert!(decode::<State>(b"{\"Sent\":{\"to\":1}}").is_err());
}

#[test]
fn wide_integers_are_numbers_up_to_2_to_the_53() {
    check(MAX_SAFE_INTEGER, "9007199254740991");
    check(MAX_SAFE_INTEGER + 1, "\"9007199254740992\"");
    check(u64::MAX, "\"18446744073709551615\"");
    check(-(MAX_SAFE_INTEGER as i64), "-9007199254740991");
    check(-(MAX_SAFE_INTEGER as i64) - 1, "\"-9007199254740992\"");
    check(i64::MIN, "\"-9223372036854775808\"");
    check(i64::MAX, "\"9223372036854775807\"");
    check(0u128, "0");
    check(u128::MAX, "\"340282366920938463463374607431768211455\"");
    check(i128::MIN, "\"-170141183460469231731687303715884105728\"");
    check(u32::MAX, "4294967295");
}

#[test]
fn both_forms_are_read() {
    reads("18446744073709551615", u64::MAX);
    reads("\"7\"", 7u64);
    reads("\"-7\"", -7i64);
    reads("-9223372036854775808", i64::MIN);
    reads("340282366920938463463374607431768211455", u128::MAX);
    reads(" [ 1 , \"2\" ] ", vec![1u128, 2]);
    reads("\"18446744073709551615\"", usize::MAX);
    reads("{\"1\":\"2\"}", BTreeMap::from([(1u64, 2u64)]));
}

#[test]
fn what_is_no_integer_is_refused() {
    for text in
        ["\"\"", "\"x\"", "\"1.5\"", "\"+1\"", "\" 1\"", "\"1e3\"", "\"18446744073709551616\"", "\"-1\"", "1.5", "true", "null", "[1]"]
    {
        refused::<u64>(text, &format!("JSON: invalid value: {text}, expected u64"));
    }
    // Narrow ones fit into numbers, so they are numbers.
    assert!(decode::<u32>(b"\"1\"").is_err());
    assert!(decode::<f64>(b"\"1\"").is_err());
}

#[test]
fn numbers_that_are_not_finite_are_strings() {
    check(f64::INFINITY, "\"Infinity\"");
    check(Some(f32::NEG_INFINITY), "\"-Infinity\"");
    check(vec![f64::MAX, -0.5, 3.0], "[1.7976931348623157e+308,-0.5,3.0]");
    assert_eq!(encode(&f32::NAN), "\"NaN\"");
    assert!(decode::<f32>(b"\"NaN\"").unwrap().is_nan());
    reads("3", 3f64);
    for text in ["null", "\"1\"", "\"inf\"", "\"nan\"", "\"infinity\"", "\"+Infinity\"", "1e999", "true", "[1]"] {
        refused::<f64>(text, &format!("JSON: invalid value: {text}, expected f64"));
    }
    refused::<f32>("1e39", "JSON: invalid value: 1e39, expected f32");
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, PartialEq)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    by_name: BTreeMap<String, Line>,
    by_number: BTreeMap<u64, i64>,
    state: State,
    next: Option<Box<Order>>,
    pair: (u8, Wrapped),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, PartialEq)]
struct Line {
    #[serde(alias = "count")]
    qty: u8,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, PartialEq)]
struct Wrapped(i64);

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, PartialEq)]
enum State {
    New,
    Paid(u64),
    Sent { to: Line },
    Split(u8, u64),
}

#[test]
fn every_shape_goes_round() {
    let order = |state| Order {
        id: u64::MAX,
        lines: vec![Line { qty: 1 }],
        by_name: [("k".into(), Line { qty: 2 })].into(),
        by_number: [(u64::MAX, i64::MIN)].into(),
        state,
        next: None,
        pair: (1, Wrapped(i64::MAX)),
    };
    let text = r#"{"id":"18446744073709551615","lines":[{"qty":1}],"by_name":{"k":{"qty":2}},"by_number":{"18446744073709551615":"-9223372036854775808"},"state":{"Paid":"9007199254740992"},"next":null,"pair":[1,"9223372036854775807"]}"#;
    check(order(State::Paid(MAX_SAFE_INTEGER + 1)), text);
    for state in [State::New, State::Sent { to: Line { qty: 3 } }, State::Split(1, u64::MAX)] {
        let outer = Order { next: Some(order(state).into()), ..order(State::New) };
        assert_eq!(decode::<Order>(encode(&outer).as_bytes()).unwrap(), outer);
    }
}

#[test]
fn errors_say_where() {
    let with = |member: &str, value: &str| {
        let whole = r#"{"id":1,"lines":[],"by_name":{},"by_number":{},"state":"New","next":null,"pair":[1,2]}"#;
        let from = whole.find(&format!("\"{member}\":")).unwrap() + member.len() + 3;
        let to = from + whole[from..].find(",\"").unwrap_or(whole.len() - 1 - from);
        format!("{}{value}{}", &whole[..from], &whole[to..])
    };
    let says = |member: &str, value: &str, why: &str| {
        let error = decode::<Order>(with(member, value).as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
        assert!(error.contains(" at line 1 column "), "{error}");
    };
    says("id", "true", "id: invalid value: true, expected u64");
    says("lines", r#"[{"qty":1},{"qty":300}]"#, "lines[1].qty: invalid value: integer `300`, expected u8");
    says("lines", r#"[{"count":"x"}]"#, "lines[0].count: invalid type: string \"x\", expected u8");
    says("lines", "[{}]", "lines[0]: missing field `qty`");
    says("lines", "7", "lines: invalid type: integer `7`, expected a sequence");
    says("by_name", r#"{"a\nb":{"qty":-1}}"#, "by_name.a\nb.qty: invalid value: integer `-1`, expected u8");
    says("by_number", r#"{"5":"y"}"#, "by_number[0]: invalid value: \"y\", expected i64");
    says("state", r#"{"Sent":{"to":{"qty":256}}}"#, "state::Sent.to.qty: invalid value: integer `256`, expected u8");
    says("state", r#"{"Split":[1,"z"]}"#, "state::Split[1]: invalid value: \"z\", expected u64");
    says("state", r#"{"Paid":null}"#, "state::Paid: invalid value: null, expected u64");
    says("state", r#""Lost""#, "state: unknown variant `Lost`");
    says("next", r#"{"id":1,"lines":[{"qty":true}]}"#, "next.lines[0].qty: invalid type: boolean `true`, expected u8");
    says("pair", "[1,[]]", "pair[1]: invalid value: [], expected i64");
    refused::<Order>("{", "JSON: EOF while parsing an object at line 1 column 1");
    refused::<u8>("1 2", "JSON: trailing characters at line 1 column 3");
    let long = format!("\"{}\"", "é".repeat(1000));
    assert!(decode::<u64>(long.as_bytes()).unwrap_err().to_string().len() < 200);
}

#[test]
fn deep_nesting_is_refused_on_a_small_stack() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Tree(Vec<Tree>);
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    enum Expr {
        Neg(Box<Expr>),
        Add { left: Option<Box<Expr>> },
    }
    let test = || {
        assert!(decode::<Tree>(&vec![b'['; 1 << 20]).unwrap_err().to_string().ends_with(": the value nests deeper than 128"));
        assert!(decode::<Expr>("{\"Neg\":".repeat(1 << 18).as_bytes()).is_err());
        assert!(decode::<Expr>("{\"Add\":{\"left\":".repeat(1 << 18).as_bytes()).is_err());
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

/// Whoever writes learns of it before anything is sent, and on whatever stack: a value is what a program says it is.
#[test]
fn what_nests_too_deep_is_not_written() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct List {
        next: Option<Box<List>>,
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Wrapped(Option<Box<Wrapped>>);
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Tree {
        Many(Vec<Tree>),
        One { tree: Box<Tree> },
    }
    let list = |depth| (0..depth).fold(List { next: None }, |next, _| List { next: Some(next.into()) });
    let wrapped = |depth| (0..depth).fold(Wrapped(None), |next, _| Wrapped(Some(next.into())));
    let tree = |depth| (0..depth).fold(Tree::Many(vec![]), |tree, _| Tree::One { tree: tree.into() });
    fn round<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        assert_eq!(decode::<T>(encode(&value).as_bytes()).unwrap(), value);
    }
    fn too_deep<T: Serialize>(value: T) {
        let written = encode_into(&value, &mut Vec::new());
        // Dropping it would need a stack, too.
        std::mem::forget(value);
        let error = written.unwrap_err().to_string();
        assert!(error.ends_with(": the value nests deeper than 128"), "{error}");
    }
    let test = move || {
        round(list(126));
        too_deep(list(127));
        too_deep(list(100_000));
        round(tree(62));
        too_deep(tree(63));
        too_deep(wrapped(100_000));
        // Text without an end to what is in it.
        refused::<Wrapped>("7", "JSON: the value nests deeper than 128");
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn what_cannot_be_written_says_where() {
    #[derive(serde::Serialize)]
    struct Outer {
        lines: Vec<Inner>,
    }
    #[derive(serde::Serialize)]
    enum Inner {
        Keys { by_pair: BTreeMap<(u8, u8), u8> },
    }
    let inner = || Inner::Keys { by_pair: [((1, 2), 3)].into() };
    let error = encode_into(&Outer { lines: vec![inner()] }, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "lines[0]::Keys.by_pair[0]: key must be a string");
}

#[test]
fn a_failed_encode_leaves_the_buffer_as_it_was() {
    let mut out = vec![1];
    assert!(encode_into(&vec![BTreeMap::from([((1, 2), 3)])], &mut out).is_err());
    assert_eq!(out, [1]);
}
