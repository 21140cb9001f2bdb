//! Random types, random later versions of them and random values: what a plan reads is what a slow conversion of the
//! value says, written from the table in `plan/mod.rs` and not from the code.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use farcall_core::plan::decode_with;
use farcall_core::schema::{Def, Field, Kind, Payload, Ty, Variant};
use farcall_core::{Plan, TypeSchema};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// A value that describes itself.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unit,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    None,
    Some(Box<Value>),
    /// Lists, arrays, tuples and bytes.
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// In the order of the type.
    Struct(Vec<(String, Value)>),
    Variant(String, Box<Value>),
    /// What `#[serde(default)]` makes.
    Default,
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

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

const NUMBERS: [Ty; 12] = [Ty::U8, Ty::U16, Ty::U32, Ty::U64, Ty::U128, Ty::I8, Ty::I16, Ty::I32, Ty::I64, Ty::I128, Ty::F32, Ty::F64];

/// The least and the greatest, in `i128`, of an integer type.
fn range(ty: &Ty) -> Option<(i128, i128)> {
    Some(match ty {
        Ty::U8 => (0, u8::MAX.into()),
        Ty::U16 => (0, u16::MAX.into()),
        Ty::U32 => (0, u32::MAX.into()),
        Ty::U64 => (0, u64::MAX.into()),
        Ty::U128 => (0, i128::MAX),
        Ty::I8 => (i8::MIN.into(), i8::MAX.into()),
        Ty::I16 => (i16::MIN.into(), i16::MAX.into()),
        Ty::I32 => (i32::MIN.into(), i32::MAX.into()),
        Ty::I64 => (i64::MIN.into(), i64::MAX.into()),
        Ty::I128 => (i128::MIN, i128::MAX),
        _ => return None,
    })
}

// ---- types

const DEFS: usize = 4;

fn ty(random: &mut Random, from_def: usize, depth: usize) -> Ty {
    let inner = |random: &mut Random| Box::new(ty(random, 0, depth + 1));
    match random.below(if depth > 2 { 10 } else { 18 }) {
        0..5 => NUMBERS[random.below(12)].clone(),
        5 => Ty::Bool,
        6 => Ty::Str,
        7 => Ty::Char,
        8 => Ty::Bytes,
        9 => Ty::Unit,
        10 => Ty::Option(inner(random)),
        11 => Ty::Seq(inner(random)),
        12 => Ty::Map(Box::new(Ty::Str), inner(random)),
        // Only behind a count may a type hold itself: values must end.
        13 => Ty::Array(Box::new(ty(random, from_def, depth + 1)), random.below(3) as u32),
        14 => Ty::Tuple((0..random.below(3)).map(|_| ty(random, from_def, depth + 1)).collect()),
        _ if from_def < DEFS => Ty::Ref((from_def + random.below(DEFS - from_def)) as u32),
        _ => Ty::Bool,
    }
}

fn field(random: &mut Random, name: String, from_def: usize) -> Field {
    let ty = ty(random, from_def, 0);
    Field { name, aliases: vec![], default: random.one_in(4), must_understand: false, docs: String::new(), tag: None, foreign: None, ty }
}

fn fields(random: &mut Random, from_def: usize) -> Vec<Field> {
    (0..random.below(5)).map(|n| field(random, format!("f{n}"), from_def)).collect()
}

fn payload(random: &mut Random, from_def: usize) -> Payload {
    match random.below(4) {
        0 => Payload::Unit,
        1 => Payload::Newtype(ty(random, from_def, 0)),
        2 => Payload::Tuple((0..random.below(3)).map(|_| ty(random, from_def, 0)).collect()),
        _ => Payload::Struct(fields(random, from_def)),
    }
}

fn variant(name: String, payload: Payload) -> Variant {
    Variant { name, aliases: vec![], other: false, docs: String::new(), tag: None, foreign: None, payload }
}

fn schema(random: &mut Random) -> TypeSchema {
    let def = |(index, kind)| Def { name: format!("D{index}"), foreign: None, docs: String::new(), kind };
    let kind = |index: usize, random: &mut Random| match random.below(6) {
        0 => Kind::Unit,
        1 => Kind::Tuple((0..random.below(3)).map(|_| ty(random, index + 1, 0)).collect()),
        2 | 3 => Kind::Enum((0..1 + random.below(4)).map(|n| variant(format!("V{n}"), payload(random, index + 1))).collect()),
        _ => Kind::Struct(fields(random, index + 1)),
    };
    let defs = (0..DEFS).map(|index| (index, kind(index, random))).map(def).collect();
    // Types without names are covered inside those with.
    TypeSchema { root: if random.one_in(8) { ty(random, 0, 0) } else { Ty::Ref(0) }, defs }
}

// ---- later versions

fn shuffle<T>(random: &mut Random, list: &mut [T]) {
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at + 1));
    }
}

fn evolve_ty(random: &mut Random, ty: &mut Ty) {
    match ty {
        Ty::Option(some) if random.one_in(10) => *ty = (**some).clone(),
        Ty::Array(element, _) if random.one_in(6) => *ty = Ty::Seq(element.clone()),
        Ty::Seq(element) if random.one_in(10) => *ty = Ty::Array(element.clone(), 1),
        Ty::Bytes if random.one_in(4) => *ty = Ty::Seq(Box::new(NUMBERS[random.below(10)].clone())),
        Ty::Option(inner) | Ty::Seq(inner) | Ty::Array(inner, _) | Ty::Map(_, inner) => evolve_ty(random, inner),
        Ty::Tuple(types) => types.iter_mut().for_each(|ty| evolve_ty(random, ty)),
        _ => {}
    }
    if NUMBERS.contains(ty) && random.one_in(4) {
        *ty = NUMBERS[random.below(12)].clone();
    }
    if random.one_in(15) {
        *ty = Ty::Option(Box::new(ty.clone()));
    }
    if random.one_in(200) {
        *ty = Ty::Bool;
    }
}

fn rename(random: &mut Random, name: &mut String, aliases: &mut Vec<String>) {
    if random.one_in(6) {
        let new = format!("{name}x");
        aliases.push(std::mem::replace(name, new));
    }
}

fn evolve_fields(random: &mut Random, fields: &mut Vec<Field>) {
    fields.retain(|_| !random.one_in(8));
    for field in fields.iter_mut() {
        evolve_ty(random, &mut field.ty);
        rename(random, &mut field.name, &mut field.aliases);
    }
    if random.one_in(4) {
        shuffle(random, fields);
    }
    if random.one_in(3) {
        // What it holds is made without definitions, so that none holds itself.
        let mut added = field(random, "added".into(), DEFS);
        match random.below(9) {
            0 => {}
            1..4 => added.default = true,
            _ => added.ty = Ty::Option(Box::new(added.ty)),
        }
        fields.insert(random.below(fields.len() + 1), added);
    }
}

fn evolve_kind(random: &mut Random, kind: &mut Kind) {
    match kind {
        Kind::Unit if random.one_in(4) => *kind = Kind::Struct(vec![]),
        Kind::Unit => {}
        Kind::Newtype(ty) => evolve_ty(random, ty),
        Kind::Tuple(types) => types.iter_mut().for_each(|ty| evolve_ty(random, ty)),
        Kind::Struct(fields) => evolve_fields(random, fields),
        Kind::Enum(variants) => {
            variants.retain(|_| !random.one_in(8));
            for variant in variants.iter_mut() {
                rename(random, &mut variant.name, &mut variant.aliases);
                match &mut variant.payload {
                    Payload::Unit if random.one_in(8) => variant.payload = Payload::Struct(vec![]),
                    Payload::Unit => {}
                    Payload::Newtype(ty) => evolve_ty(random, ty),
                    Payload::Tuple(types) => types.iter_mut().for_each(|ty| evolve_ty(random, ty)),
                    Payload::Struct(fields) => evolve_fields(random, fields),
                }
            }
            if random.one_in(3) {
                shuffle(random, variants);
            }
            if random.one_in(3) {
                variants.push(Variant { other: random.one_in(2), ..variant("Added".into(), Payload::Unit) });
            }
        }
    }
}

/// Another version; one of the two may be the older.
fn evolved(random: &mut Random, schema: &TypeSchema) -> TypeSchema {
    let mut schema = schema.clone();
    evolve_ty(random, &mut schema.root);
    schema.defs.iter_mut().for_each(|def| evolve_kind(random, &mut def.kind));
    schema
}

// ---- values

fn value(random: &mut Random, ty: &Ty, schema: &TypeSchema, depth: usize) -> Option<Value> {
    if depth > 40 {
        // An option was taken away and the type holds itself: there is no such value.
        return None;
    }
    let many = |random: &mut Random| if depth > 4 { 0 } else { random.below(3) };
    let list = |random: &mut Random, ty: &Ty, count: usize| -> Option<Value> {
        let values: Option<Vec<Value>> = (0..count).map(|_| value(random, ty, schema, depth + 1)).collect();
        values.map(Value::List)
    };
    Some(match ty {
        Ty::Unit => Value::Unit,
        Ty::Bool => Value::Bool(random.one_in(2)),
        Ty::Str => Value::Text("é".repeat(random.below(3))),
        Ty::Char => Value::Text(if random.one_in(2) { "c" } else { "€" }.to_owned()),
        Ty::F32 | Ty::F64 => Value::Float(random.below(100) as f64 / 4.0),
        Ty::Bytes => {
            let count = many(random);
            list(random, &Ty::U8, count)?
        }
        Ty::Option(some) if depth < 5 && random.one_in(2) => Value::Some(value(random, some, schema, depth + 1)?.into()),
        Ty::Option(_) => Value::None,
        Ty::Seq(element) => {
            let count = many(random);
            list(random, element, count)?
        }
        Ty::Array(element, count) => list(random, element, *count as usize)?,
        Ty::Map(_, of) => {
            let entries: Option<Vec<_>> =
                (0..many(random)).map(|n| Some((Value::Text(n.to_string()), value(random, of, schema, depth + 1)?))).collect();
            Value::Map(entries?)
        }
        Ty::Tuple(types) => parts_value(random, types, schema, depth)?,
        Ty::Ref(def) => match &schema.defs[*def as usize].kind {
            Kind::Unit => Value::Unit,
            Kind::Newtype(ty) => value(random, ty, schema, depth + 1)?,
            Kind::Tuple(types) => parts_value(random, types, schema, depth)?,
            Kind::Struct(fields) => fields_value(random, fields, schema, depth)?,
            Kind::Enum(variants) if variants.is_empty() => return None,
            Kind::Enum(variants) => {
                let variant = &variants[random.below(variants.len())];
                let held = match &variant.payload {
                    Payload::Unit => Value::Unit,
                    Payload::Newtype(ty) => value(random, ty, schema, depth + 1)?,
                    Payload::Tuple(types) => parts_value(random, types, schema, depth)?,
                    Payload::Struct(fields) => fields_value(random, fields, schema, depth)?,
                };
                Value::Variant(variant.name.clone(), held.into())
            }
        },
        number => {
            let (least, most) = range(number).unwrap();
            let shift = random.below(120);
            let any = ((random.next() as i128) << 64 | random.next() as i128) >> shift;
            Value::Int(any.clamp(least, most))
        }
    })
}

fn parts_value(random: &mut Random, types: &[Ty], schema: &TypeSchema, depth: usize) -> Option<Value> {
    let values: Option<Vec<Value>> = types.iter().map(|ty| value(random, ty, schema, depth + 1)).collect();
    values.map(Value::List)
}

fn fields_value(random: &mut Random, fields: &[Field], schema: &TypeSchema, depth: usize) -> Option<Value> {
    let named = |field: &Field, random: &mut Random| Some((field.name.clone(), value(random, &field.ty, schema, depth + 1)?));
    let values: Option<Vec<_>> = fields.iter().map(|field| named(field, random)).collect();
    values.map(Value::Struct)
}

// ---- bytes, from section 12 of the protocol

fn varint(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write(value: &Value, ty: &Ty, schema: &TypeSchema, out: &mut Vec<u8>) {
    match (ty, value) {
        (Ty::Unit, _) | (Ty::Ref(_), Value::Unit) => {}
        (_, Value::Bool(value)) => out.push((*value).into()),
        (Ty::U8, Value::Int(value)) => out.push(*value as u8),
        (Ty::I8, Value::Int(value)) => out.push(*value as i8 as u8),
        (Ty::U16 | Ty::U32 | Ty::U64 | Ty::U128, Value::Int(value)) => varint(*value as u128, out),
        (_, Value::Int(value)) => varint(((value << 1) ^ (value >> 127)) as u128, out),
        (Ty::F32, Value::Float(value)) => out.extend((*value as f32).to_le_bytes()),
        (_, Value::Float(value)) => out.extend(value.to_le_bytes()),
        (_, Value::Text(text)) => {
            varint(text.len() as u128, out);
            out.extend(text.as_bytes());
        }
        (_, Value::None) => out.push(0),
        (Ty::Option(ty), Value::Some(some)) => {
            out.push(1);
            write(some, ty, schema, out);
        }
        (Ty::Seq(_) | Ty::Bytes, Value::List(values)) => {
            let element = if let Ty::Seq(element) = ty { element } else { &Ty::U8 };
            varint(values.len() as u128, out);
            values.iter().for_each(|value| write(value, element, schema, out));
        }
        (Ty::Array(element, _), Value::List(values)) => values.iter().for_each(|value| write(value, element, schema, out)),
        (Ty::Tuple(types), value) => write_parts(value, types, schema, out),
        (Ty::Map(key, of), Value::Map(entries)) => {
            varint(entries.len() as u128, out);
            for (at, value) in entries {
                write(at, key, schema, out);
                write(value, of, schema, out);
            }
        }
        (Ty::Ref(def), value) => match (&schema.defs[*def as usize].kind, value) {
            (Kind::Tuple(types), value) => write_parts(value, types, schema, out),
            (Kind::Struct(fields), value) => write_fields(value, fields, schema, out),
            (Kind::Enum(variants), Value::Variant(name, held)) => {
                let number = variants.iter().position(|variant| variant.name == *name).unwrap();
                varint(number as u128, out);
                match &variants[number].payload {
                    Payload::Unit => {}
                    Payload::Newtype(ty) => write(held, ty, schema, out),
                    Payload::Tuple(types) => write_parts(held, types, schema, out),
                    Payload::Struct(fields) => write_fields(held, fields, schema, out),
                }
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn write_parts(value: &Value, types: &[Ty], schema: &TypeSchema, out: &mut Vec<u8>) {
    let Value::List(values) = value else { panic!("{value:?}") };
    values.iter().zip(types).for_each(|(value, ty)| write(value, ty, schema, out));
}

fn write_fields(value: &Value, fields: &[Field], schema: &TypeSchema, out: &mut Vec<u8>) {
    let Value::Struct(values) = value else { panic!("{value:?}") };
    values.iter().zip(fields).for_each(|((_, value), field)| write(value, &field.ty, schema, out));
}

// ---- the slow conversion

#[derive(Debug, PartialEq)]
enum Fail {
    /// The types do not go together: no plan.
    Types,
    /// The value does not fit.
    Value,
}

struct Convert<'a> {
    writer: &'a TypeSchema,
    reader: &'a TypeSchema,
}

impl Convert<'_> {
    fn value(&self, value: &Value, from: &Ty, to: &Ty) -> Result<Value, Fail> {
        match (from, to, value) {
            (Ty::Option(_), Ty::Option(_), Value::None) => Ok(Value::None),
            (Ty::Option(from), Ty::Option(to), Value::Some(some)) => Ok(Value::Some(self.value(some, from, to)?.into())),
            (_, Ty::Option(to), value) => Ok(Value::Some(self.value(value, from, to)?.into())),
            (Ty::Option(_), _, Value::None) => Err(Fail::Value),
            (Ty::Option(from), to, Value::Some(some)) => self.value(some, from, to),
            (Ty::Ref(from), Ty::Ref(to), value) => {
                self.kind(value, &self.writer.defs[*from as usize].kind, &self.reader.defs[*to as usize].kind)
            }
            (_, _, Value::Map(entries)) => {
                let (Ty::Map(_, from), Ty::Map(_, to)) = (from, to) else { return Err(Fail::Types) };
                let entries: Result<Vec<_>, Fail> =
                    entries.iter().map(|(key, value)| Ok((key.clone(), self.value(value, from, to)?))).collect();
                Ok(Value::Map(entries?))
            }
            (Ty::Tuple(from), Ty::Tuple(to), value) => self.parts(value, from, to),
            (_, _, Value::List(values)) => self.list(values, from, to),
            (_, _, Value::Int(int)) => number(*int, from, to),
            (Ty::F32, Ty::F64, value) => Ok(value.clone()),
            (Ty::Unit, Ty::Ref(to), value) => self.kind(value, &Kind::Unit, &self.reader.defs[*to as usize].kind),
            (from, to, value) if from == to => Ok(value.clone()),
            _ => Err(Fail::Types),
        }
    }

    fn list(&self, values: &[Value], from: &Ty, to: &Ty) -> Result<Value, Fail> {
        let is_list = |ty: &Ty| matches!(ty, Ty::Bytes | Ty::Seq(_) | Ty::Array(..));
        if !is_list(from) || !is_list(to) {
            return Err(Fail::Types);
        }
        let ((from, sent), (to, wanted)) = (element(from), element(to));
        if sent.is_some() && wanted.is_some() && sent != wanted {
            return Err(Fail::Types);
        }
        if wanted.is_some_and(|wanted| wanted != values.len()) {
            return Err(Fail::Value);
        }
        let values: Result<Vec<Value>, Fail> = values.iter().map(|value| self.value(value, &from, &to)).collect();
        values.map(Value::List)
    }

    fn parts(&self, value: &Value, from: &[Ty], to: &[Ty]) -> Result<Value, Fail> {
        let Value::List(values) = value else { panic!("{value:?}") };
        if from.len() != to.len() {
            return Err(Fail::Types);
        }
        let values: Result<Vec<Value>, Fail> =
            values.iter().zip(from.iter().zip(to)).map(|(value, (from, to))| self.value(value, from, to)).collect();
        values.map(Value::List)
    }

    fn kind(&self, value: &Value, from: &Kind, to: &Kind) -> Result<Value, Fail> {
        match (from, to, value) {
            (Kind::Unit | Kind::Struct(_), Kind::Unit, _) => Ok(Value::Unit),
            (Kind::Unit, Kind::Struct(to), _) => self.fields(&Value::Struct(vec![]), &[], to),
            (Kind::Struct(from), Kind::Struct(to), value) => self.fields(value, from, to),
            (Kind::Tuple(from), Kind::Tuple(to), value) => self.parts(value, from, to),
            (Kind::Enum(from), Kind::Enum(to), Value::Variant(name, held)) => {
                let variant = from.iter().find(|variant| variant.name == *name).unwrap();
                let place = place((&variant.name, &variant.aliases), to.iter().map(|to| (&to.name, &to.aliases)));
                match (place, to.iter().find(|to| to.other)) {
                    (Some(place), _) => {
                        let held = self.payload(held, &variant.payload, &to[place].payload)?;
                        Ok(Value::Variant(to[place].name.clone(), held.into()))
                    }
                    (None, Some(other)) => Ok(Value::Variant(other.name.clone(), Value::Unit.into())),
                    (None, None) => Err(Fail::Value),
                }
            }
            _ => Err(Fail::Types),
        }
    }

    fn payload(&self, value: &Value, from: &Payload, to: &Payload) -> Result<Value, Fail> {
        match (from, to) {
            (Payload::Newtype(from), Payload::Newtype(to)) => self.value(value, from, to),
            (Payload::Tuple(from), Payload::Tuple(to)) => self.parts(value, from, to),
            (Payload::Unit | Payload::Struct(_), Payload::Unit) => Ok(Value::Unit),
            (Payload::Unit, Payload::Struct(to)) => self.fields(&Value::Struct(vec![]), &[], to),
            (Payload::Struct(from), Payload::Struct(to)) => self.fields(value, from, to),
            _ => Err(Fail::Types),
        }
    }

    fn fields(&self, value: &Value, from: &[Field], to: &[Field]) -> Result<Value, Fail> {
        let Value::Struct(values) = value else { panic!("{value:?}") };
        let mut out = Vec::new();
        for (index, wanted) in to.iter().enumerate() {
            let value = match source(from, to, index) {
                Some(sent) => match (&values[sent].1, &wanted.ty) {
                    (Value::None, ty) if wanted.default && !matches!(ty, Ty::Option(_)) => Value::Default,
                    (value, ty) => self.value(value, &from[sent].ty, ty)?,
                },
                None if wanted.default => Value::Default,
                None if matches!(wanted.ty, Ty::Option(_)) => Value::None,
                None if wanted.ty == Ty::Unit => Value::Unit,
                None => return Err(Fail::Types),
            };
            out.push((wanted.name.clone(), value));
        }
        Ok(Value::Struct(out))
    }
}

// ---- which types go together, whatever the value

impl Convert<'_> {
    /// `seen` are the definitions that are being compared: what holds itself goes with itself if the rest does.
    fn goes(&self, from: &Ty, to: &Ty, seen: &mut HashSet<(u32, u32)>) -> bool {
        match (from, to) {
            (Ty::Option(from), Ty::Option(to)) => self.goes(from, to, seen),
            (from, Ty::Option(to)) => self.goes(from, to, seen),
            (Ty::Option(from), to) => self.goes(from, to, seen),
            (Ty::Ref(from), Ty::Ref(to)) => {
                let kinds = (&self.writer.defs[*from as usize].kind, &self.reader.defs[*to as usize].kind);
                !seen.insert((*from, *to)) || self.kinds_go(kinds.0, kinds.1, seen)
            }
            (Ty::Unit, Ty::Ref(to)) => self.kinds_go(&Kind::Unit, &self.reader.defs[*to as usize].kind, seen),
            (Ty::Ref(from), Ty::Unit) => self.kinds_go(&self.writer.defs[*from as usize].kind, &Kind::Unit, seen),
            (Ty::Map(from_key, from), Ty::Map(to_key, to)) => {
                let free = is_free(from_key, self.writer) && is_free(from, self.writer);
                let both = free && !(is_free(to_key, self.reader) && is_free(to, self.reader));
                !both && self.goes(from_key, to_key, seen) && self.goes(from, to, seen)
            }
            (Ty::Tuple(from), Ty::Tuple(to)) => self.all_go(from, to, seen),
            (Ty::Bytes | Ty::Seq(_) | Ty::Array(..), Ty::Bytes | Ty::Seq(_) | Ty::Array(..)) => {
                let ((from, sent), (to, wanted)) = (element(from), element(to));
                let lengths = sent.is_none() || wanted.is_none() || sent == wanted;
                let free = is_free(&from, self.writer) && !is_free(&to, self.reader);
                lengths && !free && self.goes(&from, &to, seen)
            }
            (Ty::F32, Ty::F64) => true,
            (from, to) if range(from).is_some() => number(0, from, to) != Err(Fail::Types),
            (from, to) => from == to,
        }
    }

    fn all_go(&self, from: &[Ty], to: &[Ty], seen: &mut HashSet<(u32, u32)>) -> bool {
        from.len() == to.len() && from.iter().zip(to).all(|(from, to)| self.goes(from, to, seen))
    }

    fn kinds_go(&self, from: &Kind, to: &Kind, seen: &mut HashSet<(u32, u32)>) -> bool {
        match (from, to) {
            (Kind::Unit | Kind::Struct(_), Kind::Unit) => true,
            (Kind::Unit, Kind::Struct(to)) => self.fields_go(&[], to, seen),
            (Kind::Struct(from), Kind::Struct(to)) => self.fields_go(from, to, seen),
            (Kind::Tuple(from), Kind::Tuple(to)) => self.all_go(from, to, seen),
            (Kind::Enum(from), Kind::Enum(to)) => from.iter().all(|variant| {
                let names = to.iter().map(|to| (&to.name, &to.aliases));
                place((&variant.name, &variant.aliases), names)
                    .is_none_or(|place| self.payloads_go(&variant.payload, &to[place].payload, seen))
            }),
            _ => false,
        }
    }

    fn payloads_go(&self, from: &Payload, to: &Payload, seen: &mut HashSet<(u32, u32)>) -> bool {
        match (from, to) {
            (Payload::Newtype(from), Payload::Newtype(to)) => self.goes(from, to, seen),
            (Payload::Tuple(from), Payload::Tuple(to)) => self.all_go(from, to, seen),
            (Payload::Unit | Payload::Struct(_), Payload::Unit) => true,
            (Payload::Unit, Payload::Struct(to)) => self.fields_go(&[], to, seen),
            (Payload::Struct(from), Payload::Struct(to)) => self.fields_go(from, to, seen),
            _ => false,
        }
    }

    fn fields_go(&self, from: &[Field], to: &[Field], seen: &mut HashSet<(u32, u32)>) -> bool {
        to.iter().enumerate().all(|(index, wanted)| match source(from, to, index) {
            Some(sent) => self.goes(&from[sent].ty, &wanted.ty, seen),
            None => wanted.default || matches!(wanted.ty, Ty::Option(_) | Ty::Unit),
        })
    }
}

/// Whether values take no bytes.
fn is_free(ty: &Ty, schema: &TypeSchema) -> bool {
    fn free(ty: &Ty, schema: &TypeSchema, above: &mut Vec<u32>) -> bool {
        match ty {
            Ty::Unit | Ty::Array(_, 0) => true,
            Ty::Array(element, _) => free(element, schema, above),
            Ty::Tuple(types) => types.iter().all(|ty| free(ty, schema, above)),
            Ty::Ref(def) if above.contains(def) => true,
            Ty::Ref(def) => {
                above.push(*def);
                let all = match &schema.defs[*def as usize].kind {
                    Kind::Unit => true,
                    Kind::Newtype(ty) => free(ty, schema, above),
                    Kind::Tuple(types) => types.iter().all(|ty| free(ty, schema, above)),
                    Kind::Struct(fields) => fields.iter().all(|field| free(&field.ty, schema, above)),
                    Kind::Enum(_) => false,
                };
                above.pop();
                all
            }
            _ => false,
        }
    }
    free(ty, schema, &mut Vec::new())
}

/// What a list or an array is made of, and an array's count.
fn element(ty: &Ty) -> (Ty, Option<usize>) {
    match ty {
        Ty::Bytes => (Ty::U8, None),
        Ty::Seq(element) => ((**element).clone(), None),
        Ty::Array(element, count) => ((**element).clone(), Some(*count as usize)),
        other => panic!("{other:?}"),
    }
}

/// Which of the writer's fields is the reader's field number `index`.
fn source(from: &[Field], to: &[Field], index: usize) -> Option<usize> {
    let is_it = |field: &Field| place((&field.name, &field.aliases), to.iter().map(|to| (&to.name, &to.aliases))) == Some(index);
    from.iter().position(|field| field.name == to[index].name).or_else(|| from.iter().position(is_it))
}

/// Where a name of the writer is among the reader's.
fn place<'a>(
    (name, aliases): (&String, &[String]),
    mut reader: impl Iterator<Item = (&'a String, &'a Vec<String>)> + Clone,
) -> Option<usize> {
    let exact = reader.clone().position(|(own, _)| own == name);
    let alias = || reader.clone().position(|(_, aliases)| aliases.contains(name));
    exact.or_else(alias).or_else(|| reader.position(|(own, _)| aliases.contains(own)))
}

fn number(int: i128, from: &Ty, to: &Ty) -> Result<Value, Fail> {
    let (least, most) = range(from).unwrap();
    let exact = |bits: u32| least >= -(1i128 << bits) && most <= 1 << bits;
    match to {
        // A u128 here never exceeds an i128, but its type does.
        Ty::F32 if exact(24) && *from != Ty::U128 => Ok(Value::Float(int as f64)),
        Ty::F64 if exact(53) && *from != Ty::U128 => Ok(Value::Float(int as f64)),
        _ => match range(to) {
            Some((least, most)) if (least..=most).contains(&int) => Ok(Value::Int(int)),
            Some(_) => Err(Fail::Value),
            None => Err(Fail::Types),
        },
    }
}

// ---- a reader of any type, as serde's derives would read it

/// A value of the type in [`READER`].
#[derive(Debug, PartialEq)]
struct Dynamic(Value);

thread_local! {
    static READER: RefCell<Option<&'static TypeSchema>> = const { RefCell::new(None) };
}

impl<'de> serde::Deserialize<'de> for Dynamic {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Dynamic, D::Error> {
        let schema = READER.with_borrow(|schema| schema.unwrap());
        Of { ty: &schema.root, schema }.deserialize(from).map(Dynamic)
    }
}

#[derive(Clone, Copy)]
struct Of {
    ty: &'static Ty,
    schema: &'static TypeSchema,
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> &'static [&'static str] {
    let names: Vec<&'static str> = names.map(|name| &*name.clone().leak()).collect();
    names.leak()
}

impl<'de> DeserializeSeed<'de> for Of {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.ty {
            Ty::Bool => from.deserialize_bool(self),
            Ty::U8 => from.deserialize_u8(self),
            Ty::U16 => from.deserialize_u16(self),
            Ty::U32 => from.deserialize_u32(self),
            Ty::U64 => from.deserialize_u64(self),
            Ty::U128 => from.deserialize_u128(self),
            Ty::I8 => from.deserialize_i8(self),
            Ty::I16 => from.deserialize_i16(self),
            Ty::I32 => from.deserialize_i32(self),
            Ty::I64 => from.deserialize_i64(self),
            Ty::I128 => from.deserialize_i128(self),
            Ty::F32 => from.deserialize_f32(self),
            Ty::F64 => from.deserialize_f64(self),
            Ty::Char => from.deserialize_char(self),
            Ty::Str => from.deserialize_string(self),
            Ty::Bytes => from.deserialize_byte_buf(self),
            Ty::Unit => from.deserialize_unit(self),
            Ty::Option(_) => from.deserialize_option(self),
            Ty::Seq(_) => from.deserialize_seq(self),
            Ty::Map(..) => from.deserialize_map(self),
            Ty::Array(_, count) => from.deserialize_tuple(*count as usize, self),
            Ty::Tuple(types) => from.deserialize_tuple(types.len(), self),
            Ty::Json | Ty::Text(..) => panic!("there are none among the random types"),
            Ty::Ref(_) => match self.kind() {
                Kind::Newtype(ty) => self.of(ty).deserialize(from),
                Kind::Unit => from.deserialize_unit_struct("", self),
                Kind::Tuple(types) => from.deserialize_tuple_struct("", types.len(), self),
                Kind::Struct(fields) => from.deserialize_struct("", names(fields.iter().map(|field| &field.name)), self),
                Kind::Enum(variants) => from.deserialize_enum("", names(variants.iter().map(|variant| &variant.name)), self),
            },
        }
    }
}

impl Of {
    fn kind(self) -> &'static Kind {
        let Ty::Ref(def) = self.ty else { panic!() };
        &self.schema.defs[*def as usize].kind
    }

    fn of(self, ty: &'static Ty) -> Of {
        Of { ty, ..self }
    }

    /// A type takes only what is shown as its own: a deserializer must not rely on a visitor's good will.
    fn only<E: Error>(self, ty: Ty, value: Value) -> Result<Value, E> {
        if *self.ty == ty { Ok(value) } else { Err(E::custom(format!("a {ty:?} was shown to a {:?}", self.ty))) }
    }

    fn parts<'de, A: SeqAccess<'de>>(self, types: &'static [Ty], mut parts: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        for ty in types {
            values.push(parts.next_element_seed(self.of(ty))?.ok_or_else(|| A::Error::custom("too few parts"))?);
        }
        Ok(Value::List(values))
    }

    fn fields_in_order<'de, A: SeqAccess<'de>>(self, fields: &'static [Field], mut parts: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        for field in fields {
            let value = match parts.next_element_seed(self.of(&field.ty))? {
                Some(value) => value,
                None if field.default => Value::Default,
                None => return Err(A::Error::custom(format!("`{}` is not in the sequence", field.name))),
            };
            values.push((field.name.clone(), value));
        }
        Ok(Value::Struct(values))
    }

    fn fields_by_name<'de, A: MapAccess<'de>>(self, fields: &'static [Field], mut entries: A) -> Result<Value, A::Error> {
        let mut values: Vec<Option<Value>> = vec![None; fields.len()];
        while let Some(name) = entries.next_key::<String>()? {
            let at = fields.iter().position(|field| field.name == name).ok_or_else(|| A::Error::custom(format!("unknown `{name}`")))?;
            if values[at].replace(entries.next_value_seed(self.of(&fields[at].ty))?).is_some() {
                return Err(A::Error::custom(format!("`{name}` twice")));
            }
        }
        let mut out = Vec::new();
        for (field, value) in fields.iter().zip(values) {
            let value = value.or(field.default.then_some(Value::Default));
            out.push((field.name.clone(), value.ok_or_else(|| A::Error::custom(format!("`{}` is missing", field.name)))?));
        }
        Ok(Value::Struct(out))
    }
}

macro_rules! shown {
    ($($method:ident($type:ty) = $ty:ident, $value:expr;)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<Value, E> {
            let make: fn($type) -> Value = $value;
            self.only(Ty::$ty, make(value))
        }
    )*};
}

impl<'de> Visitor<'de> for Of {
    type Value = Value;

    shown! {
        visit_bool(bool) = Bool, Value::Bool;
        visit_u8(u8) = U8, |value| Value::Int(value.into());
        visit_u16(u16) = U16, |value| Value::Int(value.into());
        visit_u32(u32) = U32, |value| Value::Int(value.into());
        visit_u64(u64) = U64, |value| Value::Int(value.into());
        visit_u128(u128) = U128, |value| Value::Int(value as i128);
        visit_i8(i8) = I8, |value| Value::Int(value.into());
        visit_i16(i16) = I16, |value| Value::Int(value.into());
        visit_i32(i32) = I32, |value| Value::Int(value.into());
        visit_i64(i64) = I64, |value| Value::Int(value.into());
        visit_i128(i128) = I128, Value::Int;
        visit_f32(f32) = F32, |value| Value::Float(value.into());
        visit_f64(f64) = F64, Value::Float;
        visit_char(char) = Char, |value| Value::Text(value.into());
        visit_str(&str) = Str, |value| Value::Text(value.into());
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.ty)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
        self.only(Ty::Bytes, Value::List(bytes.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        match self.ty {
            Ty::Ref(_) if *self.kind() == Kind::Unit => Ok(Value::Unit),
            _ => self.only(Ty::Unit, Value::Unit),
        }
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let Ty::Option(some) = self.ty else { return Err(D::Error::custom("an option was shown")) };
        Ok(Value::Some(self.of(some).deserialize(from)?.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let element = match self.ty {
            Ty::Seq(element) => element,
            Ty::Bytes => &Ty::U8,
            Ty::Array(element, count) => {
                let types = vec![(**element).clone(); *count as usize];
                return self.parts(types.leak(), seq);
            }
            Ty::Tuple(types) => return self.parts(types, seq),
            Ty::Ref(_) => match self.kind() {
                Kind::Tuple(types) => return self.parts(types, seq),
                Kind::Struct(fields) => return self.fields_in_order(fields, seq),
                _ => return Err(A::Error::custom("a sequence was shown")),
            },
            _ => return Err(A::Error::custom("a sequence was shown")),
        };
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.of(element))? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match self.ty {
            Ty::Map(key, value) => {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key_seed(self.of(key))? {
                    entries.push((key, map.next_value_seed(self.of(value))?));
                }
                Ok(Value::Map(entries))
            }
            Ty::Ref(_) => match self.kind() {
                Kind::Struct(fields) => self.fields_by_name(fields, map),
                _ => Err(A::Error::custom("a map was shown")),
            },
            _ => Err(A::Error::custom("a map was shown")),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (Ty::Ref(_), Kind::Enum(variants)) = (self.ty, self.kind()) else { return Err(A::Error::custom("an enum was shown")) };
        let (number, held) = data.variant::<u32>()?;
        let variant = variants.get(number as usize).ok_or_else(|| A::Error::custom("no such variant"))?;
        let held = match &variant.payload {
            Payload::Unit => held.unit_variant().map(|()| Value::Unit)?,
            Payload::Newtype(ty) => held.newtype_variant_seed(self.of(ty))?,
            Payload::Tuple(types) => {
                let payload: &'static [Ty] = types;
                held.tuple_variant(types.len(), Held { of: self, types: payload, fields: &[] })?
            }
            Payload::Struct(fields) => {
                held.struct_variant(names(fields.iter().map(|field| &field.name)), Held { of: self, types: &[], fields })?
            }
        };
        Ok(Value::Variant(variant.name.clone(), held.into()))
    }
}

/// What a variant holds: parts, or else fields.
struct Held {
    of: Of,
    types: &'static [Ty],
    fields: &'static [Field],
}

impl<'de> Visitor<'de> for Held {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what a variant holds")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        // Without either it is a tuple or a struct without anything in it: the caller knows which.
        if self.fields.is_empty() { self.of.parts(self.types, seq) } else { self.of.fields_in_order(self.fields, seq) }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.of.fields_by_name(self.fields, map)
    }
}

/// Holds nothing: `{}`, `()` and an empty list are one here.
fn normal(value: Value) -> Value {
    match value {
        Value::List(values) if values.is_empty() => Value::Struct(vec![]),
        Value::Some(some) => Value::Some(normal(*some).into()),
        Value::List(values) => Value::List(values.into_iter().map(normal).collect()),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, normal(value))).collect()),
        Value::Struct(fields) => Value::Struct(fields.into_iter().map(|(name, value)| (name, normal(value))).collect()),
        Value::Variant(name, held) => Value::Variant(name, normal(*held).into()),
        plain => plain,
    }
}

/// What became of one seed.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    refused: usize,
    same: usize,
    read: usize,
    refused_value: usize,
}

fn check(seed: u64, counts: &mut Counts) {
    let mut random = Random(seed);
    let one = schema(&mut random);
    let two = evolved(&mut random, &one);
    let (writer, reader) = if random.one_in(2) { (one, two) } else { (two, one) };
    let plan = Plan::compile(&writer, &reader);
    let goes = Convert { writer: &writer, reader: &reader }.goes(&writer.root, &reader.root, &mut HashSet::new());
    assert_eq!(plan.is_ok(), goes, "seed {seed}: {plan:?}\n{}\n{}", writer.describe(), reader.describe());
    let Ok(plan) = plan else {
        counts.refused += 1;
        return;
    };
    counts.same += usize::from(plan.is_same());
    let reader: &'static TypeSchema = Box::leak(reader.into());
    READER.set(Some(reader));
    for _ in 0..8 {
        let Some(value) = value(&mut random, &writer.root, &writer, 0) else { return };
        let mut bytes = Vec::new();
        write(&value, &writer.root, &writer, &mut bytes);
        let read = decode_with::<Dynamic>(&plan, &bytes);
        let expected = Convert { writer: &writer, reader }.value(&value, &writer.root, &reader.root);
        match (read, expected) {
            (Ok(Dynamic(read)), Ok(expected)) => {
                assert_eq!(normal(read), normal(expected), "seed {seed}\n{}\n{}", writer.describe(), reader.describe());
                counts.read += 1;
            }
            (Err(_), Err(Fail::Value)) => counts.refused_value += 1,
            (read, expected) => panic!("seed {seed}: {value:?} is read as {read:?}, expected {expected:?}\n{writer:?}\n{reader:?}"),
        }
    }
}

#[test]
fn a_plan_reads_what_a_slow_conversion_says() {
    let mut counts = Counts::default();
    for seed in 0..20_000 {
        check(seed, &mut counts);
    }
    let Counts { refused, same, read, refused_value } = counts;
    let enough = refused > 1000 && same > 1000 && read > 50_000 && refused_value > 1000;
    assert!(enough, "the types test nothing: {counts:?}");
}
