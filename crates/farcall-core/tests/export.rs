//! A service's types as JSON Schema, and what both exports have in common.

use std::collections::BTreeMap;

use bytes::Bytes;
use farcall_core::export::{Graph, json_schema, proto};
use farcall_core::schema::Ty;
use farcall_core::{MethodDescriptor, MethodTraits, Never, Schema, ServiceDescriptor, TypeSchema};
use serde_json::{Value, json};

/// A line of an order.
#[farcall_core::data(crate = farcall_core)]
struct Line {
    /// What.
    #[serde(alias = "article")]
    sku: String,
    #[serde(default)]
    qty: u16,
}

#[farcall_core::data(crate = farcall_core)]
enum State {
    New,
    /// In cents.
    Paid(i64),
    Sent {
        to: String,
    },
    Split(u8, char),
}

#[farcall_core::data(crate = farcall_core)]
struct Page<T> {
    items: Vec<T>,
    next: Option<Box<Page<T>>>,
}

#[farcall_core::data(crate = farcall_core)]
struct Order {
    z_first: u64,
    a_second: Bytes,
    lines: Page<Line>,
    state: State,
    grid: [f32; 2],
    pair: (bool, ()),
    attributes: BTreeMap<String, i8>,
    raw: Vec<u8>,
    nothing: Nothing,
}

#[farcall_core::data(crate = farcall_core)]
struct Nothing;

mod other {
    #[farcall_core::data(crate = farcall_core)]
    pub(super) struct Line {
        pub(super) _length: u8,
    }
}

fn service(methods: Vec<MethodDescriptor>) -> ServiceDescriptor {
    let (version, group) = (String::new(), String::new());
    ServiceDescriptor { name: "Shop".into(), foreign_name: None, docs: "Sells.".into(), version, group, methods }
}

fn method<A: Schema, R: Schema>(name: &str) -> MethodDescriptor {
    MethodDescriptor::build::<A, R, Never>(name, None, "", &[], "", MethodTraits::default())
}

fn document(methods: Vec<MethodDescriptor>) -> (String, Value) {
    let text = json_schema(&service(methods)).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

#[test]
fn json_schema_says_what_the_json_codec_does() {
    let (text, schema) = document(vec![method::<Order, Vec<State>>("sell"), method::<(), ()>("rest")]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!((&schema["title"], &schema["description"]), (&json!("Shop"), &json!("Sells.")));
    assert_eq!(schema["methods"]["sell"]["arguments"], json!({"$ref": "#/$defs/Order"}));
    assert_eq!(schema["methods"]["sell"]["result"], json!({"type": "array", "items": {"$ref": "#/$defs/State"}}));
    assert_eq!(schema["methods"]["rest"], json!({"arguments": {"type": "null"}, "result": {"type": "null"}}));
    let order = &schema["$defs"]["Order"]["properties"];
    assert_eq!(order["z_first"], json!({"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 0}));
    assert_eq!(order["a_second"], json!({"type": "string", "contentEncoding": "base64"}));
    assert_eq!(order["lines"], json!({"$ref": "#/$defs/Page.Line."}));
    let float = json!({"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"});
    assert_eq!(order["grid"], json!({"type": "array", "items": float, "minItems": 2, "maxItems": 2}));
    let pair = json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": false, "minItems": 2});
    assert_eq!(order["pair"], pair);
    assert_eq!(order["attributes"]["additionalProperties"], json!({"type": "integer", "minimum": -128, "maximum": 127}));
    assert_eq!(order["nothing"], json!({"$ref": "#/$defs/Nothing"}));
    let line = json!({
        "description": "A line of an order.",
        "type": "object",
        "properties": {
            "sku": {"description": "What.", "type": "string"},
            "article": {"deprecated": true, "type": "string"},
            "qty": {"type": "integer", "minimum": 0, "maximum": 65535},
        },
        "required": [],
    });
    assert_eq!(schema["$defs"]["Line"], line);
    let variants = json!([
        {"const": "New"},
        {
            "description": "In cents.",
            "type": "object",
            "properties": {"Paid": {"type": ["integer", "string"], "pattern": "^-?[0-9]+$"}},
            "required": ["Paid"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": {"Sent": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}},
            "required": ["Sent"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": {"Split": {
                "type": "array",
                "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 255}, {"type": "string", "minLength": 1, "maxLength": 1}],
                "items": false,
                "minItems": 2,
            }},
            "required": ["Split"],
            "additionalProperties": false,
        },
    ]);
    assert_eq!(schema["$defs"]["State"]["oneOf"], variants);
    let next = json!({"anyOf": [{"$ref": "#/$defs/Page.Line."}, {"type": "null"}]});
    assert_eq!(schema["$defs"]["Page.Line."]["properties"]["next"], next);
    assert_eq!(schema["$defs"]["Page.Line."]["required"], json!(["items"]));
    assert!(text.find("z_first").unwrap() < text.find("a_second").unwrap(), "in the order of the type");
}

/// Every reference leads somewhere.
fn check_references(schema: &Value, at: &Value) {
    match at {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref") {
                let name = target.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                assert!(schema["$defs"].get(name).is_some(), "{name}");
            }
            members.values().for_each(|value| check_references(schema, value));
        }
        Value::Array(elements) => elements.iter().for_each(|value| check_references(schema, value)),
        _ => {}
    }
}

#[test]
fn types_of_one_name_are_told_apart() {
    let methods = || vec![method::<Line, other::Line>("a"), method::<other::Line, Page<other::Line>>("b"), method::<Line, Page<Line>>("c")];
    let (_, schema) = document(methods());
    check_references(&schema, &schema);
    let of = |method: &str, part: &str| schema["methods"][method][part]["$ref"].as_str().unwrap().to_owned();
    assert_eq!(of("a", "arguments"), of("c", "arguments"));
    assert_eq!(of("a", "result"), of("b", "arguments"));
    assert_ne!(of("a", "arguments"), of("a", "result"));
    assert_ne!(of("b", "result"), of("c", "result"));
    let text = proto(&service(methods())).unwrap();
    for line in ["rpc a(Line) returns (Line2);", "rpc b(Line2) returns (PageLine);", "rpc c(Line) returns (PageLine2);"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn what_schemas_share_stands_in_the_graph_once() {
    let mut graph = Graph::default();
    let page = graph.add(&TypeSchema::of::<Page<Line>>());
    let count = graph.defs().len();
    assert_eq!(graph.add(&TypeSchema::of::<Vec<Page<Line>>>()), Ty::Seq(page.into()));
    // Its own order of definitions is another one.
    graph.add(&TypeSchema::of::<(Line, Option<Page<Line>>)>());
    assert_eq!(graph.defs().len(), count);
    graph.add(&TypeSchema::of::<other::Line>());
    assert_eq!(graph.defs().len(), count + 1);
}

#[test]
fn a_service_is_no_message_and_a_name_is_an_identifier() {
    #[farcall_core::data(crate = farcall_core)]
    struct Shop {
        #[serde(rename = "user-name")]
        _a: String,
        #[serde(rename = "user_name")]
        _b: String,
        #[serde(rename = "ü")]
        _c: u8,
    }
    let text = proto(&service(vec![method::<Shop, u8>("x"), method::<u8, u8>("X")])).unwrap();
    let expected = "service Shop {\n  rpc x(Shop2) returns (XResult);\n  rpc X_2(XArgs) returns (XResult2);\n}\n";
    assert!(text.contains(expected), "{text}");
    let fields = "  string user_name = 1;\n  string user_name_2 = 2;\n  uint32 value__ = 3;\n";
    assert!(text.contains(fields), "{text}");
    let twice = ServiceDescriptor { foreign_name: Some("a.b.C".into()), ..service(vec![]) };
    assert!(proto(&twice).unwrap().starts_with("syntax = \"proto3\";\n\npackage a.b;\n\n// Sells.\nservice C {\n}\n"));
}

/// What readers of another version go by is no business of other formats.
#[test]
fn a_method_of_json_alone_is_a_comment_in_a_proto_file() {
    let mut search = method::<u8, u8>("search");
    search.args.root = Ty::Json;
    let text = proto(&service(vec![search, method::<u8, u8>("count")])).unwrap();
    assert!(text.contains("rpc count(") && !text.contains("rpc search("), "{text}");
    assert!(text.contains("  // search: not here, because it travels as JSON alone.\n"), "{text}");
}

#[test]
fn what_matters_to_other_versions_only_is_exported_like_the_rest() {
    #[farcall_core::data(crate = farcall_core)]
    struct Paid {
        #[farcall(must_understand)]
        currency: Currency,
    }
    #[farcall_core::data(crate = farcall_core)]
    enum Currency {
        Euro,
        #[serde(other)]
        Unknown,
    }
    let methods = vec![method::<Paid, ()>("pay")];
    let (_, schema) = document(methods.clone());
    assert_eq!(schema["$defs"]["Paid"]["required"], json!(["currency"]));
    assert_eq!(schema["$defs"]["Currency"]["oneOf"], json!([{"const": "Euro"}, {"const": "Unknown"}]));
    let text = proto(&service(methods)).unwrap();
    for line in ["Currency currency = 1;", "CURRENCY_EURO = 0;", "CURRENCY_UNKNOWN = 1;"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// The schema of a stream is its item and its error; behind arguments, the two of them are a pair again.
#[test]
fn a_stream_is_its_item_and_what_may_end_it() {
    let traits = MethodTraits { args_stream: true, result_stream: true, ..MethodTraits::default() };
    let streams = MethodDescriptor::build::<(Nothing, (Line, State)), (u8, ()), Never>("flow", None, "", &[], "", traits);
    let (_, schema) = document(vec![streams.clone()]);
    let expected = json!({
        "arguments": {"$ref": "#/$defs/Nothing"},
        "arguments_item": {"$ref": "#/$defs/Line"},
        "arguments_stream_error": {"$ref": "#/$defs/State"},
        "result_item": {"type": "integer", "minimum": 0, "maximum": 255},
    });
    assert_eq!(schema["methods"]["flow"], expected);
    let text = proto(&service(vec![streams.clone()])).unwrap();
    let expected = "\
service Shop {
  // Behind the arguments follows a stream of: Line
  // The stream behind the arguments may end with: State
  rpc flow(Nothing) returns (stream FlowResultItem);
}
";
    assert!(text.contains(expected), "{text}");
    let untrue = MethodDescriptor { result: TypeSchema::of::<u8>(), ..streams };
    let says = "flow: it has a stream, and its schema `u8` does not say of what";
    assert_eq!(proto(&service(vec![untrue.clone()])).unwrap_err().to_string(), says);
    assert_eq!(json_schema(&service(vec![untrue])).unwrap_err().to_string(), says);
}
