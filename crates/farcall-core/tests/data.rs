//! What `#[data]`, `#[error]` and `derive(Schema)` make of types.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farcall_core::compact::{decode, encode};
use farcall_core::schema::{Field, Kind, Payload, Schema, Ty, TypeSchema};
use farcall_core::{AppError, Codec, CodecId, Compact, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A line of an order.
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u32,
}

/// An order,
/// as the shop sees it.
#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
#[farcall(name = "org.example.Order")]
struct Order {
    /// Given by the shop.
    #[farcall(tag = 1)]
    id: u64,
    #[farcall(tag = 2, name = "lineItems")]
    lines: Vec<Line>,
    #[serde(default)]
    note: Option<String>,
    attrs: BTreeMap<String, String>,
    status: Status,
    parent: Option<Box<Order>>,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Status {
    New,
    ShippedAway {
        tracking_code: String,
    },
    #[farcall(tag = 7)]
    Lost(u32),
    Split(u8, char),
    #[serde(rename = "else")]
    Odd(),
}

fn order() -> Order {
    let line = |sku: &str, qty| Line { sku: sku.into(), qty };
    let inner = Order {
        id: 7,
        lines: vec![line("a", 1), line("b", 300)],
        note: None,
        attrs: [("k".into(), "v".into())].into(),
        status: Status::ShippedAway { tracking_code: "T".into() },
        parent: None,
    };
    Order { id: 8, status: Status::Split(1, 'é'), parent: Some(inner.clone().into()), ..inner }
}

/// Through every codec, and both ways.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    for id in [CodecId::Compact, CodecId::Json, CodecId::Xdr] {
        let mut out = Vec::new();
        codec::encode_into(id, &value, || None, &mut out).unwrap();
        assert_eq!(codec::decode::<T>(id, &out.into(), || None).unwrap(), value, "{id}");
    }
}

fn field<'a>(schema: &'a TypeSchema, def: &str, name: &str) -> &'a Field {
    let def = schema.defs.iter().find(|found| found.name == def).unwrap();
    let Kind::Struct(fields) = &def.kind else { panic!("{def:?}") };
    fields.iter().find(|field| field.name == name).unwrap()
}

#[test]
fn values_go_round() {
    round_trip(order());
    for status in [Status::New, Status::Lost(4), Status::Odd()] {
        round_trip(status);
    }
}

/// What an evolving type says is in its schema, and changes neither its bytes nor its fingerprint.
#[test]
fn what_evolution_needs_is_in_the_schema() {
    mod old {
        #[farcall_core::data(crate = farcall_core)]
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(super) enum State {
            New,
            Unknown,
        }
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct Pay {
            pub(super) dry_run: bool,
            pub(super) state: State,
        }
    }
    mod new {
        #[farcall_core::data(crate = farcall_core)]
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(super) enum State {
            #[serde(alias = "Fresh")]
            New = 5,
            #[serde(other)]
            Unknown = 3,
        }
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct Pay {
            #[farcall(must_understand)]
            #[serde(default)]
            pub(super) dry_run: bool,
            pub(super) state: State,
        }
    }
    let (old, new) = (TypeSchema::of::<old::Pay>(), TypeSchema::of::<new::Pay>());
    assert_eq!(old.fingerprint(), new.fingerprint());
    assert!(field(&new, "Pay", "dry_run").must_understand && !field(&old, "Pay", "dry_run").must_understand);
    assert_eq!(
        new.describe(),
        "struct Pay {\n    dry_run: bool, // may be missing, must be understood\n    state: State,\n}\n\n\
         enum State {\n    New, // was `Fresh`\n    Unknown, // stands for unknown ones\n}\n"
    );
    let bytes = encode(&new::Pay { dry_run: true, state: new::State::Unknown }).unwrap();
    assert_eq!(bytes, encode(&old::Pay { dry_run: true, state: old::State::Unknown }).unwrap());
    assert_eq!(bytes, [1, 1], "variants travel by place, not by discriminant");
    for state in [new::State::New, new::State::Unknown] {
        round_trip(state);
    }
    // What stands for unknown variants stands for names, not for broken numbers.
    assert_eq!(decode::<new::State>(&[7]).unwrap_err().to_string(), "the enum has no variant number 7");
    assert_eq!(serde_json::from_str::<new::State>("\"Later\"").unwrap(), new::State::Unknown);
    let _ = |pay: old::Pay| (pay.dry_run, pay.state);
}

#[test]
fn schemas_go_round() {
    round_trip(TypeSchema::of::<Order>());
    TypeSchema::of::<Order>().validate().unwrap();
    round_trip(TypeSchema::of::<Order>().fingerprint());
    assert_eq!(encode(&TypeSchema::of::<Order>().fingerprint()).unwrap().len(), 16);
}

#[test]
fn a_schema_describes_itself() {
    let schema = TypeSchema::of::<Vec<Order>>();
    assert_eq!(schema.type_name(), "Vec<Order>");
    assert_eq!(
        schema.describe(),
        r#"/// An order,
/// as the shop sees it.
#[farcall(name = "org.example.Order")]
struct Order {
    /// Given by the shop.
    id: u64, // number 1
    lines: Vec<Line>, // number 2, elsewhere `lineItems`
    note: Option<String>, // may be missing
    attrs: Map<String, String>,
    status: Status,
    parent: Option<Order>,
}

/// A line of an order.
struct Line {
    sku: String,
    qty: u32,
}

enum Status {
    new,
    shipped_away {
        trackingCode: String,
    },
    lost(u32), // number 7
    split(u8, char),
    else(),
}
"#
    );
}

#[test]
fn generic_types_are_told_apart() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Page<T> {
        items: Vec<T>,
        next: Option<Box<Page<T>>>,
    }
    #[farcall_core::data(crate = farcall_core)]
    struct Both {
        lines: Page<Line>,
        numbers: Page<Vec<u64>>,
    }
    let schema = TypeSchema::of::<Both>();
    let names: Vec<&str> = schema.defs.iter().map(|def| def.name.as_str()).collect();
    assert_eq!(names, ["Both", "Page<Line>", "Line", "Page<Vec<u64>>"]);
    round_trip(Page { items: vec![1u8, 2], next: Some(Page { items: vec![3], next: None }.into()) });
}

#[test]
fn types_of_one_name_are_told_apart() {
    mod a {
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct X {
            pub(super) a: u8,
        }
    }
    mod b {
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct X {
            pub(super) b: String,
        }
    }
    let schema = TypeSchema::of::<(a::X, b::X)>();
    assert_eq!(schema.root, Ty::Tuple(vec![Ty::Ref(0), Ty::Ref(1)]));
    let _ = (a::X { a: 1 }.a, b::X { b: String::new() }.b);
}

#[test]
fn generics_over_consts_and_where_clauses() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Grid<T, const N: usize>
    where
        T: Clone,
    {
        cells: Vec<T>,
        #[serde(skip)]
        _size: std::marker::PhantomData<[u8; N]>,
    }
    let one = TypeSchema::of::<Grid<u8, 1>>();
    assert_eq!(one.type_name(), "Grid<u8>");
    let value = Grid::<u16, 2> { cells: vec![1, 700], _size: std::marker::PhantomData };
    round_trip(value);
}

#[test]
fn the_fingerprint_sees_the_layout_only() {
    mod a {
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct X {
            #[serde(alias = "q", default)]
            #[farcall(tag = 3, name = "other")]
            pub(super) a: u32,
            /// Docs.
            pub(super) b: Option<Box<X>>,
        }
    }
    mod b {
        #[farcall_core::data(crate = farcall_core)]
        #[farcall(name = "org.Named")]
        #[serde(rename_all = "camelCase")]
        pub(super) struct Named {
            pub(super) a: u32,
            #[serde(rename = "b")]
            pub(super) next_one: Option<Box<Named>>,
        }
    }
    mod c {
        #[farcall_core::data(crate = farcall_core)]
        pub(super) struct X {
            pub(super) a: u64,
            pub(super) b: Option<Box<X>>,
        }
    }
    let print = |schema: TypeSchema| schema.fingerprint().to_string();
    assert_eq!(print(TypeSchema::of::<a::X>()), print(TypeSchema::of::<b::Named>()));
    assert_ne!(print(TypeSchema::of::<a::X>()), print(TypeSchema::of::<c::X>()));
    let _ = |x: a::X, y: b::Named, z: c::X| (x.a, x.b.is_some(), y.a, y.next_one.is_some(), z.a, z.b.is_some());
}

/// These are on the wire: a change here breaks calls between versions. It must never follow from a new compiler,
/// a new dependency or a renamed type.
#[test]
fn fingerprints_are_pinned() {
    let pins = [
        (TypeSchema::of::<()>(), "dac6b4b55b81454e672db2f84b934b9e"),
        (TypeSchema::of::<u64>(), "741e00871976560e0c6bd7d6857a302d"),
        (TypeSchema::of::<HashMap<String, Vec<Option<i32>>>>(), "a8c744990a0c219f62ac874afbe0172a"),
        (TypeSchema::of::<(f64, [char; 3], Bytes)>(), "ca4c77764f57f28d99f2ddf5b82ad041"),
        (TypeSchema::of::<Status>(), "814e940ec62ebb90885e48987367b58b"),
        (TypeSchema::of::<Order>(), "52eedc028d64d4f5afeb768b29c69775"),
        (TypeSchema::of::<Result<Duration, SystemTime>>(), "0887980682eb8b15434860f3365fa233"),
        // The layout of section 13.3 of the protocol: schemas travel.
        (TypeSchema::of::<TypeSchema>(), "4a0c7456979feedf41679f0a30e7220d"),
    ];
    for (schema, pin) in pins {
        assert_eq!(schema.fingerprint().to_string(), pin, "{}", schema.type_name());
    }
}

/// Written by hand from the module's grammar, not by the code under test.
#[test]
fn the_canonical_layout_is_as_documented() {
    #[farcall_core::data(crate = farcall_core)]
    struct Node {
        v: u8,
        kids: Vec<Node>,
        of: Kind,
    }
    #[farcall_core::data(crate = farcall_core)]
    enum Kind {
        A,
        B(Vec<Vec<u8>>),
    }
    let mut expected = vec![1, 18, 23, 0, 0, 0, 0]; // version, option of, definition 0
    expected.extend([1, 3, 0, 0, 0]); // definition 0: a struct of 3 fields
    expected.extend([1, 0, 0, 0, b'v', 2]);
    expected.extend([4, 0, 0, 0, b'k', b'i', b'd', b's', 19, 23, 0, 0, 0, 0]);
    expected.extend([2, 0, 0, 0, b'o', b'f', 23, 1, 0, 0, 0]);
    expected.extend([3, 2, 0, 0, 0]); // definition 1: an enum of 2 variants
    expected.extend([1, 0, 0, 0, b'A', 0]);
    expected.extend([1, 0, 0, 0, b'B', 1, 19, 16]);
    assert_eq!(TypeSchema::of::<Option<Node>>().canonical(), expected);
}

#[test]
fn bytes_have_one_layout() {
    #[farcall_core::data(crate = farcall_core)]
    struct Fast {
        data: Vec<u8>,
    }
    #[derive(serde::Serialize, farcall_core::Schema)]
    #[schema(crate = farcall_core)]
    struct Slow {
        data: Vec<u8>,
    }
    #[farcall_core::data(crate = farcall_core)]
    struct Slice {
        data: Bytes,
    }
    let (fast, slow, slice) = (TypeSchema::of::<Fast>(), TypeSchema::of::<Slow>(), TypeSchema::of::<Slice>());
    assert_eq!(field(&fast, "Fast", "data").ty, Ty::Bytes);
    assert_eq!(field(&slice, "Slice", "data").ty, Ty::Bytes);
    assert_eq!(field(&slow, "Slow", "data").ty, Ty::Seq(Ty::U8.into()));
    assert_eq!(fast.fingerprint(), slow.fingerprint());
    assert_eq!(fast.fingerprint(), slice.fingerprint());
    let data = vec![0, 1, 200, 255];
    let bytes = encode(&Fast { data: data.clone() }).unwrap();
    assert_eq!(bytes, encode(&Slow { data: data.clone() }).unwrap());
    assert_eq!(bytes, encode(&Slice { data: data.into() }).unwrap());
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, PartialEq, Default)]
struct Blobs {
    a: Vec<u8>,
    b: Option<Vec<u8>>,
    c: Bytes,
    d: Option<bytes::Bytes>,
    e: Vec<Vec<u8>>,
    f: Vec<Bytes>,
}

#[test]
fn bytes_go_round_in_every_shape() {
    round_trip(Blobs::default());
    let big = Bytes::from(vec![7; 5000]);
    round_trip(Blobs { a: vec![1, 255], b: Some(vec![]), c: big.clone(), d: Some(big.clone()), e: vec![vec![1]], f: vec![big] });
}

#[test]
fn bytes_are_base64_in_json() {
    let blobs = Blobs { a: vec![1, 255], d: Some(Bytes::from_static(b"hi")), ..Blobs::default() };
    let text = serde_json::to_string(&blobs).unwrap();
    assert_eq!(text, r#"{"a":"Af8=","b":null,"c":"","d":"aGk=","e":[],"f":[]}"#);
    // Numbers are read too, and what may be absent may be missing.
    let text = r#"{"a":[1,255],"c":[],"d":[104,105],"e":[],"f":[]}"#;
    assert_eq!(serde_json::from_str::<Blobs>(text).unwrap(), blobs);
    let error = serde_json::from_str::<Blobs>(r#"{"a":"A"}"#).unwrap_err().to_string();
    assert!(error.contains("not base64"), "{error}");
}

fn lies_in(frame: &Bytes, part: &Bytes) -> bool {
    frame.as_ptr_range().contains(&part.as_ptr())
}

#[test]
fn large_bytes_are_slices_of_the_frame() {
    let value = Blobs {
        a: vec![1; 2000],
        c: vec![2; 1024].into(),
        d: Some(vec![3; 1023].into()),
        f: vec![vec![4; 2000].into()],
        ..Blobs::default()
    };
    let frame = Bytes::from(encode(&value).unwrap());
    let read: Blobs = Compact::decode(&frame, || None).unwrap();
    assert_eq!(read, value);
    assert!(lies_in(&frame, &read.c), "1024 bytes are worth a slice");
    assert!(!lies_in(&frame, read.d.as_ref().unwrap()), "1023 are not");
    assert!(!lies_in(&frame, &read.f[0]), "bytes inside a list are copied");
    let copied: Blobs = decode(&frame).unwrap();
    assert!(!lies_in(&frame, &copied.c), "without a frame there is nothing to slice");
}

#[test]
fn schema_of_options_and_newtypes() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Id(u64);
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Blob(Vec<u8>);
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    #[serde(transparent)]
    struct Clear {
        id: Id,
        #[serde(skip)]
        _note: (),
    }
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Nothing;
    assert_eq!(TypeSchema::of::<Id>().root, Ty::U64);
    assert_eq!(TypeSchema::of::<Blob>().root, Ty::Bytes);
    assert_eq!(TypeSchema::of::<Clear>().root, Ty::U64);
    assert_eq!(TypeSchema::of::<Nothing>().defs[0].kind, Kind::Unit);
    assert_eq!(TypeSchema::of::<HashSet<Box<str>>>().type_name(), "Vec<String>");
    let blobs = TypeSchema::of::<Blobs>();
    assert_eq!(field(&blobs, "Blobs", "b").ty, Ty::Option(Ty::Bytes.into()));
    assert_eq!(field(&blobs, "Blobs", "d").ty, Ty::Option(Ty::Bytes.into()));
    round_trip((Id(1), Blob(vec![2]), Clear { id: Id(3), _note: () }, Nothing));
}

#[test]
fn a_field_may_be_left_out() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq, Default)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        b: Vec<u8>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        c: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        d: bool,
        #[serde(default, skip_serializing_if = "HashMap::is_empty")]
        f: HashMap<u8, u8>,
        e: u8,
    }
    assert_eq!(serde_json::to_string(&Sparse { e: 7, ..Sparse::default() }).unwrap(), r#"{"e":7}"#);
    round_trip(Sparse { e: 7, ..Sparse::default() });
    round_trip(Sparse { a: Some(1), b: vec![2], c: "3".into(), d: true, f: [(4, 5)].into(), e: 6 });
    assert!(field(&TypeSchema::of::<Sparse>(), "Sparse", "c").default);
}

#[test]
fn a_field_written_as_another_type() {
    mod as_text {
        pub(super) fn serialize<S: serde::Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(&value.to_string())
        }
        pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
            let text: String = serde::Deserialize::deserialize(from)?;
            text.parse().map_err(serde::de::Error::custom)
        }
    }
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq, Clone)]
    #[serde(from = "String", into = "String")]
    #[schema(as = String)]
    struct Name(String);
    impl From<String> for Name {
        fn from(name: String) -> Name {
            Name(name)
        }
    }
    impl From<Name> for String {
        fn from(name: Name) -> String {
            name.0
        }
    }
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Row {
        #[serde(with = "as_text")]
        #[schema(as = String)]
        number: u64,
        name: Name,
    }
    let schema = TypeSchema::of::<Row>();
    assert_eq!((&field(&schema, "Row", "number").ty, &field(&schema, "Row", "name").ty), (&Ty::Str, &Ty::Str));
    round_trip(Row { number: 7, name: Name("n".into()) });
}

#[test]
fn raw_names_are_plain() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Raw {
        r#type: u8,
    }
    let schema = TypeSchema::of::<Raw>();
    assert_eq!(field(&schema, "Raw", "type").ty, Ty::U8);
    assert_eq!(serde_json::to_string(&Raw { r#type: 1 }).unwrap(), r#"{"type":1}"#);
}

#[test]
fn fields_may_depend_on_features() {
    #[farcall_core::data(crate = farcall_core)]
    struct Gated {
        _a: u8,
        #[cfg(any())]
        _b: NotThere,
    }
    let Kind::Struct(fields) = &TypeSchema::of::<Gated>().defs[0].kind else { panic!() };
    assert_eq!(fields.len(), 1);
}

#[test]
fn errors_are_data_and_app_errors() {
    #[farcall_core::error(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    enum Declined {
        Funds { missing: u64 },
        Card(String),
    }
    fn is_app_error<E: AppError + Schema>() -> TypeSchema {
        TypeSchema::of::<E>()
    }
    let Kind::Enum(variants) = &is_app_error::<Declined>().defs[0].kind else { panic!() };
    assert_eq!(variants[1].payload, Payload::Newtype(Ty::Str));
    round_trip(Declined::Funds { missing: 5 });
    round_trip(Declined::Card("x".into()));
}

/// The names in a schema are serde's: JSON made by serde has exactly those keys.
#[test]
fn names_are_serdes() {
    let json = serde_json::to_value(order()).unwrap();
    let keys: HashSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let schema = TypeSchema::of::<Order>();
    let Kind::Struct(fields) = &schema.defs[0].kind else { panic!() };
    assert_eq!(fields.iter().map(|field| field.name.as_str()).collect::<HashSet<_>>(), keys);
    assert_eq!(json["parent"]["status"]["shipped_away"]["trackingCode"], "T");
}

/// Paths name the field, the element and the variant.
#[test]
fn errors_say_where() {
    let bytes = encode(&order()).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(decode::<Order>(bytes).unwrap_err().to_string(), expected);
    };
    check(&bytes[..3], "lines[0].sku: the message ends early");
    check(&bytes[..7], "lines[1].qty: the message ends early");
    let at = bytes.len() - 2;
    check(&bytes[..at], "parent.status::shipped_away.trackingCode: the message ends early");
    check(&[bytes.clone(), vec![0]].concat(), "1 bytes are left over after the value");
}

/// serde lists aliases among the names: the schema says which name it is.
#[test]
fn errors_are_named_by_the_schema() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug)]
    struct Outer {
        #[serde(alias = "a", alias = "z")]
        m: u8,
        list: BTreeMap<u8, Vec<Option<(u8, Inner)>>>,
    }
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug)]
    enum Inner {
        #[serde(alias = "A", alias = "Z")]
        M,
        Sent {
            #[serde(alias = "b")]
            n: u8,
            to: String,
        },
        Pair(u8, [Line; 1]),
    }
    let check = |bytes: &[u8], expected: &str| {
        let error = decode::<Outer>(bytes).unwrap_err().named_by(&TypeSchema::of::<Outer>());
        assert_eq!(error.path(), expected);
    };
    check(&[], "m");
    check(&[1], "list");
    check(&[1, 1, 9, 2, 0, 1, 7, 1, 5], "list[0][1].1::Sent.to");
    check(&[1, 1, 9, 1, 1, 7, 2, 5, 1, b'x'], "list[0][0].1::Pair.1.0.qty");
    // A schema of something else changes nothing for the worse.
    let error = decode::<Outer>(&[1]).unwrap_err();
    assert_eq!(error.clone().named_by(&TypeSchema::of::<u8>()), error);
}

#[test]
fn bytes_in_variants_and_from_macros() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    enum Part {
        Raw(Vec<u8>),
        Both(Bytes, Option<Vec<u8>>),
        Named { data: Option<Bytes> },
    }
    let text = serde_json::to_string(&Part::Raw(vec![1])).unwrap();
    assert_eq!(text, r#"{"Raw":"AQ=="}"#);
    round_trip(Part::Raw(vec![1]));
    round_trip(Part::Both(Bytes::from_static(b"x"), Some(vec![2])));
    round_trip(Part::Named { data: None });

    macro_rules! make {
        ($name:ident { $($field:ident: $ty:ty),* }) => {
            #[farcall_core::data(crate = farcall_core)]
            #[derive(Debug, PartialEq)]
            struct $name {
                $($field: $ty),*
            }
        };
    }
    make!(Made { a: Vec<u8>, b: Option<Bytes>, c: Option<Vec<u64>> });
    let schema = TypeSchema::of::<Made>();
    assert_eq!(field(&schema, "Made", "a").ty, Ty::Bytes);
    assert_eq!(field(&schema, "Made", "b").ty, Ty::Option(Ty::Bytes.into()));
    round_trip(Made { a: vec![1], b: Some(Bytes::new()), c: None });
}

/// The derive alone, beside serde's own.
#[test]
fn derive_without_the_attribute() {
    #[derive(serde::Serialize, serde::Deserialize, farcall_core::Schema, Debug, PartialEq)]
    #[schema(crate = farcall_core)]
    struct Plain {
        #[serde(with = "farcall_core::byte_vec")]
        data: Option<Vec<u8>>,
    }
    assert_eq!(field(&TypeSchema::of::<Plain>(), "Plain", "data").ty, Ty::Option(Ty::Bytes.into()));
    round_trip(Plain { data: Some(vec![1, 2]) });
}
