//! Schemas that nobody vouches for: a plan or a refusal, with little work and little memory. What evolution does to
//! honest types is in `tests/evolution.rs`, and random ones are in `tests/random_types.rs`.

use super::*;
use crate::compact::{MAX_FREE_ELEMENTS, encode};
use crate::schema::{Def, Field, Kind, MAX_DEFS, Payload as Holds, Schema, Ty, Variant as Choice};

#[crate::data(crate = farcall_core)]
#[derive(Debug, PartialEq)]
struct Small {
    #[serde(default)]
    n: u8,
}

fn field(name: &str, ty: Ty) -> Field {
    let name = name.to_owned();
    Field { name, aliases: vec![], default: false, must_understand: false, docs: String::new(), tag: None, foreign: None, ty }
}

fn def(kind: Kind) -> Def {
    Def { name: "X".into(), foreign: None, docs: String::new(), kind }
}

fn schema(kinds: Vec<Kind>) -> TypeSchema {
    TypeSchema { root: Ty::Ref(0), defs: kinds.into_iter().map(def).collect() }
}

fn one(ty: Ty) -> TypeSchema {
    schema(vec![Kind::Struct(vec![field("dropped", ty)])])
}

/// A struct with every name in `names` of the type `ty`, next to what the caller gives.
fn fields(names: &[&str], ty: Ty) -> Kind {
    Kind::Struct(names.iter().map(|name| field(name, ty.clone())).collect())
}

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

/// A plan has no more parts than the schemas allow.
fn compile_small(writer: &TypeSchema, reader: &TypeSchema) -> Result<Plan, Incompatible> {
    let size = writer.checked_size().unwrap_or(0) + reader.checked_size().unwrap_or(0);
    let plan = Plan::compile(writer, reader)?;
    assert!(plan.nodes.len() <= 1 + (PAIRS_PER_NODE + 1) * size, "{} nodes for {size}", plan.nodes.len());
    assert!(plan.skips.len() <= 1 + 2 * size + plan.nodes.len(), "{} skips for {size}", plan.skips.len());
    Ok(plan)
}

fn small() -> TypeSchema {
    TypeSchema::of::<Small>()
}

/// 2^60 values without a byte, and as many with one byte each.
#[test]
fn doublings_are_skipped_in_no_time() {
    on_small_stack(|| {
        let doubling = |last: Ty| {
            let mut kinds: Vec<Kind> = (1..60).map(|next| fields(&["a", "b"], Ty::Ref(next))).collect();
            kinds.push(fields(&["a"], last));
            schema(kinds)
        };
        let nothing = compile_small(&doubling(Ty::Unit), &small()).unwrap();
        assert_eq!(decode_with::<Small>(&nothing, &[]).unwrap(), Small { n: 0 });
        let bytes = compile_small(&doubling(Ty::U8), &small()).unwrap();
        assert_eq!(decode_with::<Small>(&bytes, &[1; 1000]).unwrap_err().to_string(), "the message ends early");
        // The same against itself with another leaf, so that every level is translated.
        let wider = compile_small(&doubling(Ty::U8), &doubling(Ty::U16)).unwrap();
        assert!(!wider.is_same());
    });
}

#[test]
fn types_without_end_are_skipped_or_refused() {
    on_small_stack(|| {
        let check = |kinds: Vec<Kind>, message: &[u8], expected: Result<Small, &str>| {
            let plan = compile_small(&schema(kinds), &small()).unwrap();
            let read = decode_with::<Small>(&plan, message).map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned));
        };
        // struct X { a: X }: there is no such value, so it takes no bytes.
        check(vec![fields(&["a"], Ty::Ref(0))], &[], Ok(Small { n: 0 }));
        let endless = |ty| vec![Kind::Struct(vec![field("a", ty), field("b", Ty::U8)])];
        check(endless(Ty::Ref(0)), &[1; 1000], Err("the value nests deeper than 128"));
        check(endless(Ty::Option(Ty::Ref(0).into())), &[1; 1 << 20], Err("the value nests deeper than 128"));
        check(endless(Ty::Seq(Ty::Ref(0).into())), &[1; 1 << 20], Err("the value nests deeper than 128"));
        check(endless(Ty::Array(Ty::Ref(0).into(), u32::MAX)), &[1; 1000], Err("the value nests deeper than 128"));
        let variant = |name: &str, payload| Choice {
            name: name.into(),
            aliases: vec![],
            other: false,
            docs: String::new(),
            tag: None,
            foreign: None,
            payload,
        };
        let choice = Kind::Enum(vec![variant("End", Holds::Unit), variant("More", Holds::Newtype(Ty::Ref(1)))]);
        check(vec![fields(&["a"], Ty::Ref(1)), choice], &[1; 1 << 20], Err("the value nests deeper than 128"));
    });
}

#[test]
fn a_long_chain_uses_no_stack() {
    on_small_stack(|| {
        let chain = |leaf: Ty| {
            let last = MAX_DEFS as u32 - 1;
            let mut kinds: Vec<Kind> = (1..=last).map(|next| fields(&["a"], Ty::Ref(next))).collect();
            kinds.push(fields(&["a"], leaf));
            schema(kinds)
        };
        compile_small(&chain(Ty::U8), &chain(Ty::U16)).unwrap();
        let error = compile_small(&chain(Ty::U8), &chain(Ty::Str)).unwrap_err();
        let path = &error.findings()[0].path;
        assert!(path.starts_with("….a") && path.len() < 200, "{path}");
        compile_small(&chain(Ty::U8), &small()).unwrap();
        compile_small(&chain(Ty::Unit), &small()).unwrap();
        let deep = |leaf: Ty| (0..60).fold(leaf, |ty, _| Ty::Tuple(vec![ty]));
        compile_small(&one(deep(Ty::U8)), &one(deep(Ty::U16))).unwrap();
    });
}

/// Values as deep as the codec allows, every level of them translated or skipped, on the stack of a worker thread.
#[test]
fn deep_values_use_little_stack() {
    #[crate::data(crate = farcall_core)]
    struct OldRoot {
        n: u8,
        tree: OldTree,
    }
    #[crate::data(crate = farcall_core)]
    #[derive(Debug)]
    struct NewRoot {
        tree: NewTree,
    }
    #[crate::data(crate = farcall_core)]
    struct OldTree {
        kids: Vec<OldTree>,
        next: Option<Box<OldTree>>,
        by: std::collections::BTreeMap<u8, OldTree>,
        pair: Vec<(u8, OldTree)>,
        of: OldOf,
    }
    #[crate::data(crate = farcall_core)]
    enum OldOf {
        Leaf,
        Tree(Box<OldTree>),
        Fields { tree: Box<OldTree> },
    }
    #[crate::data(crate = farcall_core)]
    #[derive(Debug)]
    struct NewTree {
        next: Option<Box<NewTree>>,
        extra: Option<[u64; 16]>,
        by: std::collections::BTreeMap<u64, NewTree>,
        kids: Vec<NewTree>,
        of: NewOf,
        pair: Vec<(u16, NewTree)>,
    }
    #[crate::data(crate = farcall_core)]
    #[derive(Debug)]
    enum NewOf {
        Fields { text: Option<String>, tree: Box<NewTree> },
        Tree(Box<NewTree>),
        Leaf,
    }
    fn leaf() -> OldTree {
        OldTree { kids: vec![], next: None, by: Default::default(), pair: vec![], of: OldOf::Leaf }
    }
    let deeper: [fn(OldTree) -> OldTree; 6] = [
        |inner| OldTree { kids: vec![inner], ..leaf() },
        |inner| OldTree { next: Some(inner.into()), ..leaf() },
        |inner| OldTree { by: [(1, inner)].into(), ..leaf() },
        |inner| OldTree { pair: vec![(1, inner)], ..leaf() },
        |inner| OldTree { of: OldOf::Tree(inner.into()), ..leaf() },
        |inner| OldTree { of: OldOf::Fields { tree: inner.into() }, ..leaf() },
    ];
    on_small_stack(move || {
        let read = compile_small(&TypeSchema::of::<OldRoot>(), &TypeSchema::of::<NewRoot>()).unwrap();
        let skip = compile_small(&TypeSchema::of::<OldRoot>(), &small()).unwrap();
        for deeper in deeper {
            let mut root = OldRoot { n: 1, tree: leaf() };
            let mut deepest = Vec::new();
            while let Ok(bytes) = encode(&root) {
                deepest = bytes;
                root.tree = deeper(root.tree);
            }
            assert!(deepest.len() > 200, "{} bytes", deepest.len());
            decode_with::<NewRoot>(&read, &deepest).unwrap();
            assert_eq!(decode_with::<Small>(&skip, &deepest).unwrap(), Small { n: 1 });
        }
        let error = decode_with::<NewRoot>(&read, &[1; 1 << 16]).unwrap_err();
        assert_eq!(error.message(), "the value nests deeper than 128");
    });
}

/// Every definition against every other is refused before it costs much; one definition of the reader against many
/// of the writer is fine.
#[test]
fn the_product_of_two_schemas_is_refused() {
    // Definition n refers to n+1 on one path and to 0 on the other: on both sides, with cycles of coprime lengths,
    // every pair is reached.
    let ring = |length: u32, leaf: Ty| {
        let kind = |n: u32| Kind::Struct(vec![field("next", Ty::Ref((n + 1) % length)), field("leaf", leaf.clone())]);
        schema((0..length).map(kind).collect())
    };
    let error = compile_small(&ring(1009, Ty::U8), &ring(1013, Ty::U16)).unwrap_err();
    assert_eq!(error.findings()[0].why, Why::TooLarge);
    assert_eq!(error.to_string(), "struct X and struct X are compared in too many ways: split the type");
    let next = |n: u32| Kind::Struct(vec![field("next", Ty::Option(Ty::Ref((n + 1) % 1000).into())), field("leaf", Ty::U8)]);
    let spread = schema((0..1000).map(next).collect());
    let single = schema(vec![Kind::Struct(vec![field("leaf", Ty::U16), field("next", Ty::Option(Ty::Ref(0).into()))])]);
    compile_small(&spread, &single).unwrap();
}

#[test]
fn free_elements_fill_no_memory() {
    let refuses = |writer: TypeSchema, reader: TypeSchema| {
        let error = compile_small(&writer, &reader).unwrap_err();
        assert_eq!(error.findings()[0].why, Why::FreeElements, "{error}");
    };
    let list = |ty: Ty| one(Ty::Seq(ty.into()));
    let array = |ty: Ty| one(Ty::Array(ty.into(), u32::MAX));
    let some = || Ty::Option(Ty::U64.into());
    refuses(list(Ty::Unit), list(some()));
    refuses(array(Ty::Unit), list(some()));
    refuses(list(Ty::Array(Ty::U8.into(), 0)), list(Ty::Array(some().into(), 1)));
    refuses(one(Ty::Map(Ty::Unit.into(), Ty::Tuple(vec![]).into())), one(Ty::Map(Ty::Unit.into(), some().into())));
    // Nothing to nothing is counted as the compact codec counts it, and skipped without a look.
    #[crate::data(crate = farcall_core)]
    #[derive(Debug)]
    struct Units {
        dropped: Vec<()>,
    }
    let plan = compile_small(&array(Ty::Unit), &TypeSchema::of::<Units>()).unwrap();
    let error = decode_with::<Units>(&plan, &[]).unwrap_err();
    assert_eq!(error.to_string(), format!("dropped: more than {MAX_FREE_ELEMENTS} elements take no bytes"));
    let plan = compile_small(&array(Ty::Unit), &small()).unwrap();
    assert_eq!(decode_with::<Small>(&plan, &[]).unwrap(), Small { n: 0 });
    let plan = compile_small(&list(Ty::Seq(Ty::Unit.into())), &small()).unwrap();
    let message = [&[200, 1][..], &[0xff, 0xff, 3].repeat(200)].concat();
    assert_eq!(decode_with::<Small>(&plan, &message).unwrap(), Small { n: 0 });
}

#[test]
fn what_is_claimed_is_not_set_aside() {
    #[crate::data(crate = farcall_core)]
    #[derive(Debug)]
    struct Wide {
        dropped: Vec<u64>,
    }
    let plan = compile_small(&one(Ty::Array(Ty::U8.into(), u32::MAX)), &TypeSchema::of::<Wide>()).unwrap();
    assert_eq!(decode_with::<Wide>(&plan, &[1; 10]).unwrap_err().to_string(), "dropped[10]: the message ends early");
    let plan = compile_small(&one(Ty::Seq(Ty::U32.into())), &TypeSchema::of::<Wide>()).unwrap();
    let error = decode_with::<Wide>(&plan, &[0xff, 0xff, 0xff, 0xff, 7]).unwrap_err().to_string();
    assert_eq!(error, "dropped: a list claims 2147483647 elements, the message has 0 bytes left");
}

#[test]
fn long_names_make_short_messages() {
    let name = "n".repeat(256);
    let longer = Ty::Tuple(vec![Ty::Ref(0); 1000]);
    let writer = schema(vec![Kind::Struct(vec![field(&name, longer)])]);
    let reader = schema(vec![Kind::Struct(vec![field(&name, Ty::U8)])]);
    let text = compile_small(&writer, &reader).unwrap_err().to_string();
    assert!(text.len() < 400 && text.contains("(X, X, X") && text.contains('…'), "{text}");
    let many = |ty: Ty| schema(vec![Kind::Struct((0..1000).map(|n| field(&n.to_string(), ty.clone())).collect())]);
    assert_eq!(compile_small(&many(Ty::U8), &many(Ty::Str)).unwrap_err().findings().len(), MAX_FINDINGS);
    assert_eq!(compile_small(&many(Ty::U16), &many(Ty::U8)).unwrap().notes().len(), MAX_FINDINGS);
    assert_eq!(compile_small(&many(Ty::U16), &small()).unwrap().notes().len(), MAX_FINDINGS);
}

/// A small seeded generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

#[crate::data(crate = farcall_core)]
#[derive(Debug, PartialEq, Clone)]
struct Order {
    id: u64,
    lines: Vec<(String, u32)>,
    state: State,
    next: Option<Box<Order>>,
    by: std::collections::BTreeMap<String, [i16; 2]>,
}

#[crate::data(crate = farcall_core)]
#[derive(Debug, PartialEq, Clone)]
enum State {
    New,
    Paid(u16),
    Sent { to: String },
}

/// Schemas with a few bytes changed, and messages that are anything: refused or read.
#[test]
fn mutants_are_read_or_refused() {
    fn order(next: Option<Order>) -> Order {
        let by = [("k".to_owned(), [1, -300])].into();
        Order { id: 7, lines: vec![("a".into(), 300)], state: State::Sent { to: "x".into() }, next: next.map(Box::new), by }
    }
    let reader = TypeSchema::of::<Order>();
    let (honest, message) = (encode(&reader).unwrap(), encode(&order(Some(order(None)))).unwrap());
    let mut random = Random(1);
    let (mut compiled, mut read) = (0, 0);
    for _ in 0..20_000 {
        let (mut bytes, mut message) = (honest.clone(), message.clone());
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(40) as u8;
        }
        let at = random.below(message.len());
        message[at] = random.below(256) as u8;
        let Ok(writer) = crate::compact::decode::<TypeSchema>(&bytes) else { continue };
        let Ok(plan) = compile_small(&writer, &reader) else { continue };
        compiled += 1;
        read += usize::from(decode_with::<Order>(&plan, &message).is_ok());
    }
    assert!(compiled > 1000 && read > 100, "{compiled} compiled, {read} read: the mutants test nothing");
}

/// Everything about a schema of another version of this crate's own types, as a peer would send it.
#[test]
fn a_plan_is_made_from_what_travels() {
    fn check<T: Schema>() {
        let schema = TypeSchema::of::<T>();
        let travelled = crate::compact::decode::<TypeSchema>(&encode(&schema).unwrap()).unwrap();
        assert!(compile_small(&travelled, &schema).unwrap().is_same());
    }
    check::<Order>();
    check::<Result<std::time::Duration, Option<Vec<State>>>>();
}
