//! Compiles a writer's and a reader's schema to a plan, or says why there is none.

use std::collections::{HashMap, VecDeque};

use crate::schema::{Def, Field, Kind, Payload as Holds, Ty, TypeSchema, Variant as Choice, short, short_type_name};

use super::empty::Empty;
use super::finding::{Finding, Incompatible, MAX_FINDINGS, PathStep, Place, Places, ROOT, Why};
use super::names::{counterparts, field_counterparts};
use super::number::{Fit, Number};
use super::skip::SkipCompiler;
use super::{FieldStep, Fields, Id, Node, Payload, Plan, Variant};

/// Comparisons of a plan's compiler for each type, field, variant and alias of the two schemas together. Types that
/// grew apart need about one; a schema that names every definition everywhere would need their product.
pub const PAIRS_PER_NODE: usize = 8;

/// The node of what both sides have alike.
const SAME: Id = 0;

/// What bytes are a list of.
static BYTE: Ty = Ty::U8;

pub(super) fn compile(writer: &TypeSchema, reader: &TypeSchema) -> Result<Plan, Incompatible> {
    compile_by(writer, reader, true)
}

pub(super) fn in_full(schema: &TypeSchema) -> Plan {
    let same =
        || Plan { nodes: vec![Node::Same], root: SAME, skips: SkipCompiler::new(schema, &Empty::of(schema)).finish(), notes: Vec::new() };
    compile_by(schema, schema, false).unwrap_or_else(|_| same())
}

/// With `shortcuts`, what is the same on both sides is read without a look at the schema.
fn compile_by(writer: &TypeSchema, reader: &TypeSchema, shortcuts: bool) -> Result<Plan, Incompatible> {
    let sizes = (writer.checked_size(), reader.checked_size());
    let size = match sizes {
        (Ok(writer), Ok(reader)) => writer + reader,
        (Err(error), _) => return Err(Incompatible::one(Why::BadSchema, error.to_string(), String::new())),
        (_, Err(error)) => return Err(Incompatible::one(Why::BadSchema, String::new(), error.to_string())),
    };
    let empty = (Empty::of(writer), Empty::of(reader));
    let mut compiler = Compiler {
        writer,
        reader,
        empty: (&empty.0, &empty.1),
        nodes: vec![Node::Same],
        same: vec![true],
        uses: Vec::new(),
        pairs: HashMap::new(),
        todo: VecDeque::new(),
        skips: SkipCompiler::new(writer, &empty.0),
        places: Places::new(),
        refusals: Vec::new(),
        notes: Vec::new(),
        left: PAIRS_PER_NODE * size,
    };
    match compiler.run() {
        Ok(root) => compiler.finish(root, shortcuts),
        Err(TooLarge) => Err(Incompatible::one(Why::TooLarge, words(&writer.root, writer), words(&reader.root, reader))),
    }
}

struct Compiler<'a> {
    writer: &'a TypeSchema,
    reader: &'a TypeSchema,
    /// What takes no bytes on either side.
    empty: (&'a Empty, &'a Empty),
    nodes: Vec<Node>,
    /// Whether a node is the same on both sides if the nodes that it uses are.
    same: Vec<bool>,
    /// Which node is used by which.
    uses: Vec<(Id, Id)>,
    /// The node of a pair of definitions.
    pairs: HashMap<(u32, u32), Id>,
    /// Pairs that have a node and nothing in it yet. They are filled from here and not where they are met: a chain of
    /// a thousand definitions must not use a thousand stack frames, and a recursive type ends.
    todo: VecDeque<(Id, u32, u32, Place)>,
    skips: SkipCompiler<'a>,
    places: Places<'a>,
    refusals: Vec<Finding>,
    notes: Vec<Finding>,
    /// Comparisons that may still be made.
    left: usize,
}

/// The comparisons are used up.
struct TooLarge;

/// A node before it has a number.
struct Draft {
    node: Node,
    same: bool,
    uses: Vec<Id>,
}

impl Draft {
    /// A place in a plan that is never run, because there is a refusal.
    fn refused() -> Draft {
        Draft { node: Node::Same, same: true, uses: Vec::new() }
    }
}

impl<'a> Compiler<'a> {
    fn run(&mut self) -> Result<Id, TooLarge> {
        let root = self.ty(&self.writer.root, &self.reader.root, ROOT)?;
        while let Some((id, writer, reader, at)) = self.todo.pop_front() {
            let (writer, reader) = (&self.writer.defs[writer as usize], &self.reader.defs[reader as usize]);
            let draft = self.def(writer, reader, at)?;
            self.place(id, draft);
        }
        Ok(root)
    }

    fn finish(mut self, root: Id, shortcuts: bool) -> Result<Plan, Incompatible> {
        if !self.refusals.is_empty() {
            return Err(Incompatible::new(self.refusals));
        }
        spread_difference(&mut self.same, self.uses);
        for (node, same) in self.nodes.iter_mut().zip(self.same) {
            if same && shortcuts {
                *node = Node::Same;
            }
        }
        Ok(Plan { nodes: self.nodes, root, skips: self.skips.finish(), notes: self.notes })
    }

    fn spend(&mut self, comparisons: usize) -> Result<(), TooLarge> {
        self.left = self.left.checked_sub(comparisons).ok_or(TooLarge)?;
        Ok(())
    }

    fn ty(&mut self, writer: &'a Ty, reader: &'a Ty, at: Place) -> Result<Id, TooLarge> {
        self.spend(1)?;
        let (writer, reader) = (writer.layout(), reader.layout());
        let draft = match (writer, reader) {
            (Ty::Ref(writer), Ty::Ref(reader)) => return Ok(self.pair(*writer, *reader, at)),
            (Ty::Option(writer), Ty::Option(reader)) => {
                let some = self.ty(writer, reader, at)?;
                Draft { node: Node::Option(some), same: true, uses: vec![some] }
            }
            (_, Ty::Option(reader)) => {
                let some = self.ty(writer, reader, at)?;
                Draft { node: Node::Wrap(some), same: false, uses: Vec::new() }
            }
            (Ty::Option(some), _) => {
                self.found(Why::MayBeNone, writer, reader, at);
                return self.unwrap(some, reader, at);
            }
            (Ty::Map(..), Ty::Map(..)) => self.map(writer, reader, at)?,
            (Ty::Tuple(writers), Ty::Tuple(readers)) if writers.len() == readers.len() => {
                let parts = self.parts(writers, readers, at)?;
                Draft { node: Node::Tuple(parts.as_slice().into()), same: true, uses: parts }
            }
            (Ty::Tuple(_), Ty::Tuple(_)) => self.refuse(Why::Length, writer, reader, at),
            (Ty::Unit, Ty::Ref(_)) | (Ty::Ref(_), Ty::Unit) => self.nothing_and_struct(writer, reader, at)?,
            _ => match (elements(writer), elements(reader)) {
                (Some(_), Some(_)) => self.list(writer, reader, at)?,
                _ => return Ok(self.plain(writer, reader, at)),
            },
        };
        Ok(self.push(draft))
    }

    /// The writer has an option of `some`, the reader has none.
    fn unwrap(&mut self, some: &'a Ty, reader: &'a Ty, at: Place) -> Result<Id, TooLarge> {
        let some = self.ty(some, reader, at)?;
        Ok(self.push(Draft { node: Node::Unwrap(some), same: false, uses: Vec::new() }))
    }

    fn map(&mut self, writer: &'a Ty, reader: &'a Ty, at: Place) -> Result<Draft, TooLarge> {
        let (Ty::Map(writer_key, writer_value), Ty::Map(reader_key, reader_value)) = (writer, reader) else {
            return Ok(self.refuse(Why::Changed, writer, reader, at));
        };
        if self.is_free(&[writer_key, writer_value], &[reader_key, reader_value]) {
            return Ok(self.refuse(Why::FreeElements, writer, reader, at));
        }
        let key_at = self.places.under(at, PathStep::Key);
        let key = self.ty(writer_key, reader_key, key_at)?;
        let value_at = self.places.under(at, PathStep::Element);
        let value = self.ty(writer_value, reader_value, value_at)?;
        Ok(Draft { node: Node::Map(key, value), same: true, uses: vec![key, value] })
    }

    /// Lists and arrays.
    fn list(&mut self, writer: &'a Ty, reader: &'a Ty, at: Place) -> Result<Draft, TooLarge> {
        let (Some((writer_element, sent)), Some((reader_element, wanted))) = (elements(writer), elements(reader)) else {
            return Ok(self.refuse(Why::Changed, writer, reader, at));
        };
        if sent.is_some() && wanted.is_some() && sent != wanted {
            return Ok(self.refuse(Why::Length, writer, reader, at));
        }
        if self.is_free(&[writer_element], &[reader_element]) {
            return Ok(self.refuse(Why::FreeElements, writer_element, reader, at));
        }
        let element_at = self.places.under(at, PathStep::Element);
        let element = self.ty(writer_element, reader_element, element_at)?;
        let (node, same) = match (sent, wanted) {
            (None, None) => (Node::List(element), true),
            (Some(count), wanted) => (Node::Array(element, count), wanted.is_some()),
            (None, Some(count)) => {
                self.found(Why::Count, writer, reader, at);
                (Node::Counted(element, count), false)
            }
        };
        Ok(Draft { node, same, uses: vec![element] })
    }

    /// Whether elements cost the writer nothing and the reader something: a short message could fill its memory.
    fn is_free(&self, writer: &[&Ty], reader: &[&Ty]) -> bool {
        let (sent, read) = self.empty;
        writer.iter().all(|ty| sent.is_empty(ty)) && !reader.iter().all(|ty| read.is_empty(ty))
    }

    fn plain(&mut self, writer: &'a Ty, reader: &'a Ty, at: Place) -> Id {
        if let (Some(from), Some(to)) = (Number::of(writer), Number::of(reader)) {
            return self.number((writer, from), (reader, to), at);
        }
        match (writer, reader) {
            (Ty::Bool, Ty::Bool) | (Ty::Char, Ty::Char) | (Ty::Str, Ty::Str) | (Ty::Unit, Ty::Unit) | (Ty::Json, Ty::Json) => {}
            _ => drop(self.refuse(Why::Changed, writer, reader, at)),
        }
        SAME
    }

    fn number(&mut self, (writer, from): (&Ty, Number), (reader, to): (&Ty, Number), at: Place) -> Id {
        if from == to {
            return SAME;
        }
        match from.fits(to) {
            Fit::All => {}
            Fit::Some => self.found(Why::Narrowed, writer, reader, at),
            Fit::Rounded => {
                self.refuse(Why::Changed, writer, reader, at);
                return SAME;
            }
        }
        self.push(Draft { node: Node::Number { from, to }, same: false, uses: Vec::new() })
    }

    fn parts(&mut self, writer: &'a [Ty], reader: &'a [Ty], at: Place) -> Result<Vec<Id>, TooLarge> {
        let mut parts = Vec::with_capacity(writer.len());
        for (index, (writer, reader)) in writer.iter().zip(reader).enumerate() {
            let at = self.places.under(at, PathStep::Part(index));
            parts.push(self.ty(writer, reader, at)?);
        }
        Ok(parts)
    }

    /// The node of two definitions; it is filled later.
    fn pair(&mut self, writer: u32, reader: u32, at: Place) -> Id {
        if let Some(&id) = self.pairs.get(&(writer, reader)) {
            return id;
        }
        let id = self.push(Draft { node: Node::Same, same: true, uses: Vec::new() });
        self.pairs.insert((writer, reader), id);
        self.todo.push_back((id, writer, reader, at));
        id
    }

    fn def(&mut self, writer: &'a Def, reader: &'a Def, at: Place) -> Result<Draft, TooLarge> {
        match (&writer.kind, &reader.kind) {
            (Kind::Enum(writer), Kind::Enum(reader)) => self.variants(writer, reader, at),
            (Kind::Newtype(writer), Kind::Newtype(reader)) => {
                let inner = self.ty(writer, reader, at)?;
                Ok(Draft { node: Node::Newtype(inner), same: true, uses: vec![inner] })
            }
            (Kind::Tuple(writers), Kind::Tuple(readers)) if writers.len() == readers.len() => {
                let parts = self.parts(writers, readers, at)?;
                Ok(Draft { node: Node::Tuple(parts.as_slice().into()), same: true, uses: parts })
            }
            (Kind::Tuple(writers), Kind::Tuple(readers)) => {
                let words = |def, len| format!("{} of {len} fields", def_words(def));
                Ok(self.refuse_words(Why::Length, words(writer, writers.len()), words(reader, readers.len()), at))
            }
            (writer_kind, reader_kind) => match (fields_of(writer_kind), fields_of(reader_kind)) {
                (Some(sent), Some(_)) if matches!(reader_kind, Kind::Unit) => Ok(self.nothing(sent, at)),
                (Some(sent), Some(wanted)) => {
                    let (fields, same, uses) = self.fields(sent, wanted, at)?;
                    Ok(Draft { node: Node::Struct(fields), same, uses })
                }
                _ => Ok(self.refuse_words(Why::Changed, def_words(writer), def_words(reader), at)),
            },
        }
    }

    /// One side has `()`, the other a definition.
    fn nothing_and_struct(&mut self, writer: &'a Ty, reader: &'a Ty, at: Place) -> Result<Draft, TooLarge> {
        let (sent, wanted) = (struct_fields(writer, self.writer), struct_fields(reader, self.reader));
        match (sent, wanted, reader) {
            (Some(sent), _, Ty::Unit) => Ok(self.nothing(sent, at)),
            (_, Some(wanted), Ty::Ref(def)) if matches!(self.reader.defs[*def as usize].kind, Kind::Struct(_)) => {
                let (fields, same, uses) = self.fields(&[], wanted, at)?;
                Ok(Draft { node: Node::Struct(fields), same, uses })
            }
            (_, Some(_), _) => Ok(self.nothing(&[], at)),
            _ => Ok(self.refuse(Why::Changed, writer, reader, at)),
        }
    }

    /// The reader wants nothing of a struct with these fields.
    fn nothing(&mut self, sent: &'a [Field], at: Place) -> Draft {
        sent.iter().for_each(|field| self.skipped(field, at));
        let skip = self.skips.fields(sent);
        Draft { node: Node::Nothing(skip), same: sent.is_empty(), uses: Vec::new() }
    }

    fn fields(&mut self, sent: &'a [Field], wanted: &'a [Field], at: Place) -> Result<(Fields, bool, Vec<Id>), TooLarge> {
        self.spend(sent.len() + wanted.len())?;
        let to = field_counterparts(sent, wanted);
        let absent = self.absent(&to, wanted, at);
        let mut order = Order::new(&to, &absent);
        let (mut steps, mut uses) = (Vec::with_capacity(sent.len() + absent.len()), Vec::new());
        let mut absent = absent.into_iter().peekable();
        let none = |field: usize| FieldStep::Absent { name: wanted[field].name.as_str().into() };
        for (field, to) in sent.iter().zip(&to) {
            let Some(to) = *to else {
                self.skipped(field, at);
                steps.push(FieldStep::Skip(self.skips.ty(&field.ty)));
                continue;
            };
            while let Some(before) = absent.next_if(|absent| order.kept && *absent < to) {
                steps.push(none(before));
            }
            let (node, none_is_default) = self.field(field, &wanted[to], at)?;
            order.kept &= !none_is_default;
            uses.push(node);
            steps.push(FieldStep::Read { name: wanted[to].name.as_str().into(), node, none_is_default });
        }
        steps.extend(absent.map(none));
        let same = sent.len() == wanted.len() && to.iter().enumerate().all(|(at, to)| *to == Some(at));
        Ok((Fields { steps: steps.into(), in_order: order.kept }, same, uses))
    }

    /// A field of both sides, and whether a `None` means the reader's default.
    fn field(&mut self, sent: &'a Field, wanted: &'a Field, at: Place) -> Result<(Id, bool), TooLarge> {
        let at = self.places.under(at, PathStep::Field(&wanted.name));
        match (sent.ty.layout(), wanted.ty.layout()) {
            (_, Ty::Option(_)) => {}
            (Ty::Option(some), reader) if wanted.default => return Ok((self.unwrap(some, reader, at)?, true)),
            _ => {}
        }
        Ok((self.ty(&sent.ty, &wanted.ty, at)?, false))
    }

    /// The reader's fields that the writer does not send and that are `None` then.
    fn absent(&mut self, to: &[Option<usize>], wanted: &'a [Field], at: Place) -> Vec<usize> {
        let mut is_sent = vec![false; wanted.len()];
        to.iter().flatten().for_each(|to| is_sent[*to] = true);
        let mut absent = Vec::new();
        for (index, field) in wanted.iter().enumerate().filter(|(index, _)| !is_sent[*index]) {
            match field.ty.layout() {
                _ if field.default => {}
                Ty::Option(_) | Ty::Unit => absent.push(index),
                _ => {
                    let at = self.places.under(at, PathStep::Field(&field.name));
                    self.refuse_words(Why::Missing, "nothing".into(), words(&field.ty, self.reader), at);
                }
            }
        }
        absent
    }

    fn skipped(&mut self, field: &'a Field, at: Place) {
        let why = if field.must_understand { Why::MustUnderstand } else { Why::Skipped };
        let at = self.places.under(at, PathStep::Field(&field.name));
        self.found_words(why, words(&field.ty, self.writer), "nothing".into(), at);
    }

    fn variants(&mut self, sent: &'a [Choice], wanted: &'a [Choice], at: Place) -> Result<Draft, TooLarge> {
        self.spend(sent.len() + wanted.len())?;
        let other = wanted.iter().position(|variant| variant.other);
        let (mut variants, mut all_same, mut uses) = (Vec::with_capacity(sent.len()), true, Vec::new());
        for (index, (variant, to)) in sent.iter().zip(counterparts(sent, wanted)).enumerate() {
            let at = self.places.under(at, PathStep::Variant(&variant.name));
            let (name, known) = match (to, other) {
                (Some(to), _) => {
                    let (payload, same) = self.payload(&variant.payload, &wanted[to].payload, &mut uses, at)?;
                    all_same &= same && to == index;
                    (wanted[to].name.clone(), Some((to as u32, payload)))
                }
                (None, Some(other)) => {
                    let reads = format!("`{}`", short(&wanted[other].name));
                    self.found_words(Why::OtherVariant, payload_words(&variant.payload, self.writer), reads, at);
                    all_same = false;
                    (variant.name.clone(), Some((other as u32, Payload::Unit(self.skips.payload(&variant.payload)))))
                }
                (None, None) => {
                    self.found_words(Why::UnknownVariant, payload_words(&variant.payload, self.writer), "nothing".into(), at);
                    all_same = false;
                    (variant.name.clone(), None)
                }
            };
            variants.push(Variant { name: name.into(), known });
        }
        Ok(Draft { node: Node::Enum(variants.into()), same: all_same, uses })
    }

    fn payload(&mut self, sent: &'a Holds, wanted: &'a Holds, uses: &mut Vec<Id>, at: Place) -> Result<(Payload, bool), TooLarge> {
        match (sent, wanted) {
            (Holds::Newtype(writer), Holds::Newtype(reader)) => {
                let value = self.ty(writer, reader, at)?;
                uses.push(value);
                Ok((Payload::Newtype(value), true))
            }
            (Holds::Tuple(writer), Holds::Tuple(reader)) if writer.len() == reader.len() => {
                let parts = self.parts(writer, reader, at)?;
                uses.extend(&parts);
                Ok((Payload::Tuple(parts.into()), true))
            }
            (Holds::Unit | Holds::Struct(_), Holds::Unit) => {
                let sent = payload_fields(sent);
                sent.iter().for_each(|field| self.skipped(field, at));
                Ok((Payload::Unit(self.skips.fields(sent)), sent.is_empty()))
            }
            (Holds::Unit | Holds::Struct(_), Holds::Struct(wanted)) => {
                let (fields, same, used) = self.fields(payload_fields(sent), wanted, at)?;
                uses.extend(used);
                Ok((Payload::Struct(fields), same))
            }
            _ => {
                let why = if matches!((sent, wanted), (Holds::Tuple(_), Holds::Tuple(_))) { Why::Length } else { Why::Changed };
                self.refuse_words(why, payload_words(sent, self.writer), payload_words(wanted, self.reader), at);
                Ok((Payload::Unit(super::skip::NOTHING), true))
            }
        }
    }

    fn push(&mut self, draft: Draft) -> Id {
        let id = self.nodes.len() as Id;
        self.nodes.push(Node::Same);
        self.same.push(true);
        self.place(id, draft);
        id
    }

    fn place(&mut self, id: Id, draft: Draft) {
        self.nodes[id as usize] = draft.node;
        self.same[id as usize] = draft.same;
        self.uses.extend(draft.uses.into_iter().filter(|used| *used != SAME).map(|used| (used, id)));
    }

    fn refuse(&mut self, why: Why, writer: &Ty, reader: &Ty, at: Place) -> Draft {
        self.found(why, writer, reader, at);
        Draft::refused()
    }

    fn refuse_words(&mut self, why: Why, writer: String, reader: String, at: Place) -> Draft {
        self.found_words(why, writer, reader, at);
        Draft::refused()
    }

    fn found(&mut self, why: Why, writer: &Ty, reader: &Ty, at: Place) {
        self.found_words(why, words(writer, self.writer), words(reader, self.reader), at);
    }

    fn found_words(&mut self, why: Why, writer: String, reader: String, at: Place) {
        let list = if why.refuses_all() { &mut self.refusals } else { &mut self.notes };
        if list.len() < MAX_FINDINGS {
            list.push(Finding { path: self.places.path(at), why, writer, reader });
        }
    }
}

/// Whether the reader's fields come in the reader's order.
struct Order {
    kept: bool,
}

impl Order {
    /// Sent fields must ascend, and what takes its default must come after all that is read: in a sequence, serde
    /// gives defaults to the fields that are not reached.
    fn new(to: &[Option<usize>], absent: &[usize]) -> Order {
        let ascends = to.iter().flatten().is_sorted();
        let read = to.iter().flatten().count() + absent.len();
        let last = to.iter().flatten().chain(absent).max().map_or(0, |last| last + 1);
        Order { kept: ascends && last == read }
    }
}

/// A node that uses a different one is different.
fn spread_difference(same: &mut [bool], mut uses: Vec<(Id, Id)>) {
    uses.sort_unstable();
    let mut different: Vec<Id> = (0..same.len() as Id).filter(|id| !same[*id as usize]).collect();
    while let Some(id) = different.pop() {
        let first = uses.partition_point(|(used, _)| *used < id);
        for (_, user) in uses[first..].iter().take_while(|(used, _)| *used == id) {
            if std::mem::replace(&mut same[*user as usize], false) {
                different.push(*user);
            }
        }
    }
}

/// What a list or an array is made of, and an array's count.
fn elements(ty: &Ty) -> Option<(&Ty, Option<u32>)> {
    match ty {
        Ty::Seq(element) => Some((element, None)),
        Ty::Bytes => Some((&BYTE, None)),
        Ty::Array(element, count) => Some((element, Some(*count))),
        _ => None,
    }
}

/// The fields of a struct; a unit struct is one without any.
fn fields_of(kind: &Kind) -> Option<&[Field]> {
    match kind {
        Kind::Unit => Some(&[]),
        Kind::Struct(fields) => Some(fields),
        _ => None,
    }
}

fn struct_fields<'a>(ty: &Ty, schema: &'a TypeSchema) -> Option<&'a [Field]> {
    match ty {
        Ty::Unit => Some(&[]),
        Ty::Ref(def) => fields_of(&schema.defs[*def as usize].kind),
        _ => None,
    }
}

fn payload_fields(payload: &Holds) -> &[Field] {
    match payload {
        Holds::Struct(fields) => fields,
        _ => &[],
    }
}

/// A type in an error message.
fn words(ty: &Ty, schema: &TypeSchema) -> String {
    match ty {
        Ty::Ref(def) => def_words(&schema.defs[*def as usize]),
        _ => short_type_name(ty, &schema.defs),
    }
}

fn def_words(def: &Def) -> String {
    let kind = if matches!(def.kind, Kind::Enum(_)) { "enum" } else { "struct" };
    format!("{kind} {}", short(&def.name))
}

fn payload_words(payload: &Holds, schema: &TypeSchema) -> String {
    match payload {
        Holds::Unit => "a variant without a value".into(),
        Holds::Newtype(ty) => format!("a variant with {}", words(ty, schema)),
        Holds::Tuple(types) => format!("a variant with {} values", types.len()),
        Holds::Struct(_) => "a variant with named fields".into(),
    }
}
