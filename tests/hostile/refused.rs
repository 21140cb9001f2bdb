//! Schemas, hellos and bindings that are made to do harm.

use farcall::schema::{Def, Field, Fingerprint, Kind as Shape, MAX_DEFS, Ty};
use farcall::{Limits, TypeSchema, compact};
use farcall_wire::{Bind, BindRow, HEADER, Hello, Kind, Session};

use crate::{target, try_out};

fn field(name: &str, ty: Ty) -> Field {
    let (aliases, docs) = (Vec::new(), String::new());
    Field { name: name.into(), aliases, default: false, must_understand: false, docs, tag: None, foreign: None, ty }
}

fn def(kind: Shape) -> Def {
    Def { name: "Order".into(), foreign: None, docs: String::new(), kind }
}

fn schema(kinds: impl IntoIterator<Item = Shape>) -> TypeSchema {
    TypeSchema { root: Ty::Ref(0), defs: kinds.into_iter().map(def).collect() }
}

/// `id` is a field of the reader as well: what it holds is compared and read, not only skipped.
fn pair(ty: &Ty) -> Shape {
    Shape::Struct(vec![field("id", ty.clone()), field("next", ty.clone())])
}

fn schemas() -> Vec<(&'static str, TypeSchema)> {
    let doubling = |last: Ty| schema((1..60).map(|next| pair(&Ty::Ref(next))).chain([pair(&last)]));
    let next = |n: usize| Ty::Ref(((n + 1) % MAX_DEFS) as u32);
    let deep = (0..100).fold(Ty::U8, |ty, _| Ty::Option(ty.into()));
    let around = |of: fn(Box<Ty>) -> Ty| schema([pair(&of(Ty::Ref(0).into()))]);
    vec![
        ("a reference to nothing", schema([])),
        ("a reference far out", schema([pair(&Ty::Ref(u32::MAX))])),
        ("one name twice", schema([Shape::Struct(vec![field("id", Ty::U8), field("id", Ty::U8)])])),
        ("a type inside itself", schema([pair(&Ty::Ref(0))])),
        ("a type inside its options", around(Ty::Option)),
        ("a type inside its lists", around(Ty::Seq)),
        ("a type inside its arrays", around(|ty| Ty::Array(ty, u32::MAX))),
        ("newtypes inside each other", schema([Shape::Newtype(Ty::Ref(1)), Shape::Newtype(Ty::Ref(0))])),
        ("2^60 values of a byte", doubling(Ty::U8)),
        ("2^60 values of nothing", doubling(Ty::Unit)),
        ("2^32 arrays of 2^32 nothings", schema([pair(&Ty::Array(Ty::Array(Ty::Unit.into(), u32::MAX).into(), u32::MAX))])),
        ("as many definitions as may be, in a ring", schema((0..MAX_DEFS).map(|n| pair(&next(n))))),
        ("one definition too many", schema(vec![pair(&Ty::U8); MAX_DEFS + 1])),
        ("a type nested too deep", TypeSchema { root: deep, defs: vec![] }),
        ("a long name", schema([Shape::Struct(vec![field(&"n".repeat(60_000), Ty::U8)])])),
        ("many fields", schema([Shape::Struct((0..5_000).map(|n| field(&n.to_string(), Ty::Unit)).collect())])),
    ]
}

fn frame(kind: Kind, aux: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend([kind as u8, 0]);
    frame.extend(aux.to_le_bytes());
    frame.extend(1u32.to_le_bytes());
    frame.extend(payload);
    frame
}

fn opening() -> Vec<u8> {
    Session::<()>::opening(&Hello::new([7; 16], 1, &Limits::default()))
}

fn row(name: &str, args: Fingerprint) -> BindRow {
    BindRow { name: name.into(), args, result: Fingerprint([2; 16]), error: Fingerprint([3; 16]), bits: 0 }
}

fn bind(rows: Vec<BindRow>) -> Bind {
    Bind { service: "Echo".into(), group: String::new(), version: String::new(), rows, extra: Vec::new() }
}

/// As what a peer says of its types, as what a message is read by, and as what tools show.
#[test]
fn hostile_schemas() {
    let all = schemas();
    let encoded = all.iter().map(|(what, schema)| (what.to_string(), compact::encode(schema).unwrap()));
    let [sound, unsound] = try_out(target("schema"), Box::new(encoded.collect::<Vec<_>>().into_iter()));
    assert_eq!((sound, unsound), (9, 7), "which of them are sound");
    let messages = all.iter().flat_map(|(what, schema)| {
        let schema = compact::encode(schema).unwrap();
        let length = u16::try_from(schema.len()).ok().map(u16::to_le_bytes);
        let of = move |message: &[u8]| length.map(|length| (what.to_string(), [&length[..], &schema, message].concat()));
        [of(&[1; 10_000]), of(&[0; 10_000]), of(b"")].into_iter().flatten().collect::<Vec<_>>()
    });
    try_out(target("plan"), Box::new(messages.collect::<Vec<_>>().into_iter()));
    let said = all.iter().map(|(what, schema)| {
        let print = schema.fingerprint();
        let schema = [&[0][..], &print.0, &schema.bare()].concat();
        let frames = [frame(Kind::Bind, 0, &bind(vec![row("more", print)]).encode()), frame(Kind::Schema, 0, &schema)];
        (what.to_string(), [opening(), frames.concat()].concat())
    });
    try_out(target("session"), Box::new(said.collect::<Vec<_>>().into_iter()));
}

#[test]
fn hostile_hellos() {
    let preface = &opening()[..8];
    let hello = |payload: &[u8]| [preface, &frame(Kind::Hello, 0, payload)].concat();
    let right = Hello::new([7; 16], 1, &Limits::default()).encode();
    let with = |entry: &[u8]| hello(&[&right, entry].concat());
    let inputs = [
        ("nothing in it", hello(b"")),
        ("two of them", [opening(), frame(Kind::Hello, 0, &right)].concat()),
        ("an entry twice", with(&right)),
        ("an entry that must be known", with(&[200, 1, 0])),
        ("an entry of 2^63 bytes", with(&[[201].as_slice(), &[0xff; 9], &[1]].concat())),
        ("an entry longer than its frame", with(&[201, 100, 0])),
        ("larger than a frame may be", hello(&vec![1; 1 << 20])),
        ("a length of 2^32", [preface, &[0xff; 4], &[0; 8]].concat()),
        ("another frame first", [preface, &frame(Kind::Ping, 0, b"")].concat()),
    ];
    let inputs = inputs.map(|(what, input)| (what.to_owned(), input));
    assert_eq!(try_out(target("session"), Box::new(inputs.into_iter())), [0, 9], "none of them is taken");
}

#[test]
fn hostile_binds() {
    let print = Fingerprint([1; 16]);
    let of = |bind: Bind| [opening(), frame(Kind::Bind, 0, &bind.encode())].concat();
    let rows = |count: usize| (0..count).map(|n| row(&n.to_string(), print)).collect::<Vec<_>>();
    let claims = |bytes: &[u8]| [opening(), frame(Kind::Bind, 0, &[b"\x04Echo\0\0", bytes].concat())].concat();
    let again = |count: usize| (0..20).map(|n| frame(Kind::Bind, n * count as u16, &bind(rows(count)).encode())).collect::<Vec<_>>();
    let refused = [
        ("no rows", of(bind(vec![]))),
        ("too many rows", of(bind(rows(4097)))),
        ("2^63 rows", claims(&[[0xff; 9].as_slice(), &[1]].concat())),
        ("a flood of rows of nothing", claims(&[[0xff, 0xff, 3].as_slice(), &[0; 1 << 16]].concat())),
        ("a long name", of(Bind { service: "x".repeat(100_000), ..bind(rows(1)) })),
        ("options out of order", of(Bind { extra: vec![(3, vec![]), (1, vec![])], ..bind(rows(1)) })),
        ("a row that is not the next", [opening(), frame(Kind::Bind, 9, &bind(rows(1)).encode())].concat()),
        ("more rows than a connection may have", [opening(), again(2_000).concat()].concat()),
    ];
    let answered = [
        ("a service that is not there", of(Bind { service: "Other".into(), ..bind(rows(2_000)) })),
        ("methods that are not there", of(bind(rows(2_000)))),
        ("one method under many numbers", of(bind(vec![row("more", print); 2_000]))),
        ("an option that must be known", of(Bind { extra: vec![(2, vec![0; 1000])], ..bind(rows(1)) })),
    ];
    let wanted = [answered.len() as u64, refused.len() as u64];
    let inputs = refused.into_iter().chain(answered).map(|(what, input)| (what.to_owned(), input));
    assert_eq!(try_out(target("session"), Box::new(inputs)), wanted, "which are answered and which end the connection");
}
