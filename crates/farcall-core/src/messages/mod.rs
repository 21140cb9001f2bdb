//! A schema as protobuf sees it: messages, enums and numbers. The protobuf codec walks values along it, a `.proto` file
//! is its text.

mod text;

use std::collections::{HashMap, HashSet, VecDeque};

use crate::codec::CodecError;
use crate::schema::{Def, Field as SchemaField, Kind, Payload, Ty, TypeSchema, Variant};

pub(crate) use text::{Names, write_docs};

/// The messages that the values of a schema are written as.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    roots: Vec<usize>,
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) docs: String,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A struct's, tuple's or unit's fields in order of declaration.
    Fields(Vec<Field>),
    /// One field, `value = 1`, around what has no place of its own.
    Wrapper(Field),
    /// A `oneof`: the variants of an enum in order of declaration.
    Choice(Vec<Field>),
    /// An entry of a map.
    Entry(Field, Field),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) foreign: Option<String>,
    pub(crate) docs: String,
    pub(crate) number: u32,
    pub(crate) label: Label,
    pub(crate) ty: Type,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Label {
    /// There is always a value: a missing one is zero or empty.
    Plain,
    Optional,
    List,
    /// A list of entries.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    Uint32,
    Uint64,
    Int32,
    Int64,
    Float,
    Double,
    Str,
    Bytes,
    /// uint32
    Char,
    /// 16 bytes
    U128,
    /// 16 bytes
    I128,
    /// This many bytes.
    ByteArray(u32),
    Enum(usize),
    Message(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) docs: String,
    /// In order of declaration.
    pub(crate) values: Vec<EnumValue>,
}

#[derive(Clone, Debug)]
pub(crate) struct EnumValue {
    pub(crate) name: String,
    pub(crate) foreign: Option<String>,
    pub(crate) docs: String,
    pub(crate) number: i32,
}

/// The greatest number of a field.
const MAX_NUMBER: u32 = (1 << 29) - 1;

impl Messages {
    /// What the values of this schema are written as. Fails if two fields of a message have one number, or one has a
    /// number that protobuf keeps for itself.
    pub fn of(schema: &TypeSchema) -> Result<Messages, CodecError> {
        Messages::of_type(&schema.root, &schema.defs)
    }

    /// The same for a type over these definitions.
    pub(crate) fn of_type(ty: &Ty, defs: &[Def]) -> Result<Messages, CodecError> {
        Messages::of_roots(defs, &[("Value".to_owned(), ty.clone())], &[])
    }

    /// The messages for several types over the same definitions. A root that is no message of its own becomes one of
    /// the name beside it; no message is called as one of `taken`.
    pub(crate) fn of_roots(defs: &[Def], roots: &[(String, Ty)], taken: &[&str]) -> Result<Messages, CodecError> {
        let mut compiler = Compiler { defs, ..Compiler::default() };
        compiler.names.extend(taken.iter().map(|name| name.to_string()));
        for (name, ty) in roots {
            let root = compiler.root(name, ty);
            compiler.out.roots.push(root);
        }
        while let Some((id, body)) = compiler.todo.pop_front() {
            let name = compiler.out.messages[id].name.clone();
            let body = compiler.body(&name, body).map_err(|error| CodecError::new(format!("{name}: {error}")))?;
            compiler.out.messages[id].body = body;
        }
        match compiler.failed {
            None => Ok(compiler.out),
            Some(error) => Err(error),
        }
    }

    pub(crate) fn root_name(&self, root: usize) -> &str {
        self.roots.get(root).and_then(|&id| self.messages.get(id)).map_or("?", |message| &message.name)
    }

    #[cfg(feature = "protobuf")]
    pub(crate) fn root(&self) -> Result<&Message, CodecError> {
        self.roots.first().and_then(|&root| self.messages.get(root)).ok_or_else(|| CodecError::new("there is no message"))
    }
}

/// What a message is still to be made of.
enum Todo<'s> {
    Def(&'s Kind),
    Fields(&'s [SchemaField]),
    Types(Vec<Ty>),
    Wrapper(Ty),
    Entry(Ty, Ty),
}

/// Messages are numbered when they are first named and filled from a queue: a hostile chain of a thousand definitions
/// must not use a thousand stack frames.
#[derive(Default)]
struct Compiler<'s> {
    defs: &'s [Def],
    out: Messages,
    todo: VecDeque<(usize, Todo<'s>)>,
    by_def: HashMap<u32, Type>,
    /// Messages of types without a name, by the type.
    unnamed: HashMap<String, usize>,
    names: HashSet<String>,
    failed: Option<CodecError>,
}

impl<'s> Compiler<'s> {
    fn root(&mut self, name: &str, ty: &'s Ty) -> usize {
        if let Ty::Ref(_) | Ty::Tuple(_) | Ty::Unit = ty.layout()
            && let Type::Message(id) = self.single(ty)
        {
            return id;
        }
        self.message(name, "", Todo::Wrapper(ty.clone()))
    }

    fn message(&mut self, name: &str, docs: &str, body: Todo<'s>) -> usize {
        let id = self.out.messages.len();
        let name = self.unique(name);
        self.out.messages.push(Message { name, docs: docs.to_owned(), body: Body::Fields(Vec::new()) });
        self.todo.push_back((id, body));
        id
    }

    /// The name of a message or enum: letters and digits, each used once.
    fn unique(&mut self, name: &str) -> String {
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        let mut plain: String = words.map(capital).collect();
        if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
            plain.insert(0, 'T');
        }
        let mut name = plain.clone();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{plain}{count}");
        }
        name
    }

    fn body(&mut self, name: &str, body: Todo<'s>) -> Result<Body, CodecError> {
        Ok(match body {
            Todo::Def(Kind::Unit) => Body::Fields(Vec::new()),
            Todo::Def(Kind::Struct(fields)) => Body::Fields(self.fields(fields)?),
            Todo::Def(Kind::Tuple(types)) => Body::Fields(self.types(types)),
            Todo::Def(Kind::Newtype(ty)) => self.body(name, Todo::Wrapper(ty.clone()))?,
            Todo::Def(Kind::Enum(variants)) => Body::Choice(self.choice(name, variants)?),
            Todo::Fields(fields) => Body::Fields(self.fields(fields)?),
            Todo::Types(types) => Body::Fields(self.types(&types)),
            Todo::Wrapper(ty) => {
                let (label, ty) = self.place(&ty);
                Body::Wrapper(plain_field("value", 1, label, ty))
            }
            Todo::Entry(key, value) => {
                let (key, value) = (self.single(&key), self.single(&value));
                Body::Entry(plain_field("key", 1, Label::Plain, key), plain_field("value", 2, Label::Plain, value))
            }
        })
    }

    fn fields(&mut self, fields: &[SchemaField]) -> Result<Vec<Field>, CodecError> {
        let numbers = numbers("field", fields.iter().map(|field| (field.name.as_str(), field.tag)), 1)?;
        let field = |(field, number): (&SchemaField, u32)| {
            let (label, ty) = self.place(&field.ty);
            let (name, foreign, docs) = (field.name.clone(), field.foreign.clone(), field.docs.clone());
            Field { name, foreign, docs, number, label, ty }
        };
        Ok(fields.iter().zip(numbers).map(field).collect())
    }

    fn types(&mut self, types: &[Ty]) -> Vec<Field> {
        let field = |(at, ty): (usize, &Ty)| {
            let (label, ty) = self.place(ty);
            plain_field(&at.to_string(), at as u32 + 1, label, ty)
        };
        types.iter().enumerate().map(field).collect()
    }

    fn choice(&mut self, name: &str, variants: &'s [Variant]) -> Result<Vec<Field>, CodecError> {
        let numbers = numbers("variant", variants.iter().map(|variant| (variant.name.as_str(), variant.tag)), 1)?;
        let field = |(variant, number): (&'s Variant, u32)| {
            let payload = format!("{name} {}", variant.name);
            let ty = match &variant.payload {
                Payload::Unit => self.single(&Ty::Unit),
                Payload::Newtype(ty) => self.single(ty),
                Payload::Tuple(types) => Type::Message(self.message(&payload, "", Todo::Types(types.clone()))),
                Payload::Struct(fields) => Type::Message(self.message(&payload, "", Todo::Fields(fields))),
            };
            let (name, foreign, docs) = (variant.name.clone(), variant.foreign.clone(), variant.docs.clone());
            Field { name, foreign, docs, number, label: Label::Plain, ty }
        };
        Ok(variants.iter().zip(numbers).map(field).collect())
    }

    /// How a field holds the type.
    fn place(&mut self, ty: &Ty) -> (Label, Type) {
        match ty.layout() {
            Ty::Option(some) => (Label::Optional, self.single(some)),
            Ty::Seq(element) | Ty::Array(element, _) if *element.layout() != Ty::U8 => (Label::List, self.single(element)),
            Ty::Map(key, value) => (Label::Map, Type::Message(self.entry(key, value))),
            other => (Label::Plain, self.single(other)),
        }
    }

    /// The type of one value that is always there: the others are wrapped.
    fn single(&mut self, ty: &Ty) -> Type {
        match ty {
            Ty::Bool => Type::Bool,
            Ty::U8 | Ty::U16 | Ty::U32 => Type::Uint32,
            Ty::U64 => Type::Uint64,
            Ty::I8 | Ty::I16 | Ty::I32 => Type::Int32,
            Ty::I64 => Type::Int64,
            Ty::U128 => Type::U128,
            Ty::I128 => Type::I128,
            Ty::F32 => Type::Float,
            Ty::F64 => Type::Double,
            Ty::Char => Type::Char,
            Ty::Str => Type::Str,
            Ty::Bytes => Type::Bytes,
            Ty::Seq(element) if *element.layout() == Ty::U8 => Type::Bytes,
            Ty::Array(element, count) if *element.layout() == Ty::U8 => Type::ByteArray(*count),
            Ty::Ref(index) => self.def(*index),
            Ty::Text(layout, _) => self.single(layout),
            Ty::Json => {
                self.fail(CodecError::new("a type without a schema travels as JSON only: put `#[farcall::data]` on it"));
                Type::Str
            }
            Ty::Unit | Ty::Tuple(_) | Ty::Option(_) | Ty::Seq(_) | Ty::Array(..) | Ty::Map(..) => Type::Message(self.unnamed(ty)),
        }
    }

    fn unnamed(&mut self, ty: &Ty) -> usize {
        // Two types of one name differ in the index, which the debug form shows.
        let key = format!("{ty:?}");
        if let Some(&id) = self.unnamed.get(&key) {
            return id;
        }
        let name = self.name_of(ty);
        let body = match ty {
            Ty::Unit => Todo::Def(&Kind::Unit),
            Ty::Tuple(types) => Todo::Types(types.clone()),
            other => Todo::Wrapper(other.clone()),
        };
        let id = self.message(&name, "", body);
        self.unnamed.insert(key, id);
        id
    }

    fn entry(&mut self, key: &Ty, value: &Ty) -> usize {
        let ty = format!("entry {key:?} {value:?}");
        if let Some(&id) = self.unnamed.get(&ty) {
            return id;
        }
        let name = format!("Entry {} {}", self.name_of(key), self.name_of(value));
        let id = self.message(&name, "", Todo::Entry(key.clone(), value.clone()));
        self.unnamed.insert(ty, id);
        id
    }

    fn name_of(&self, ty: &Ty) -> String {
        let name = crate::schema::type_name(ty, self.defs);
        match ty {
            Ty::Unit => "Unit".to_owned(),
            Ty::Tuple(_) => format!("Tuple {name}"),
            Ty::Array(..) => format!("Array {name}"),
            _ => name,
        }
    }

    fn def(&mut self, index: u32) -> Type {
        if let Some(&ty) = self.by_def.get(&index) {
            return ty;
        }
        let defs = self.defs;
        let Some(def) = defs.get(index as usize) else {
            self.fail(CodecError::new(format!("definition {index} is not there")));
            return Type::Bool;
        };
        // A foreign name may name a package too.
        let name = def.foreign.as_deref().and_then(|name| name.rsplit('.').next()).unwrap_or(&def.name);
        let ty = match &def.kind {
            Kind::Enum(variants) if is_plain(variants) => self.plain_enum(name, &def.docs, variants),
            kind => Type::Message(self.message(name, &def.docs, Todo::Def(kind))),
        };
        self.by_def.insert(index, ty);
        ty
    }

    fn plain_enum(&mut self, name: &str, docs: &str, variants: &[Variant]) -> Type {
        let numbers = numbers("variant", variants.iter().map(|variant| (variant.name.as_str(), variant.tag)), 0);
        let numbers = numbers.unwrap_or_else(|error| {
            self.fail(CodecError::new(format!("{name}: {error}")));
            Vec::new()
        });
        let value = |(variant, number): (&Variant, u32)| EnumValue {
            name: variant.name.clone(),
            foreign: variant.foreign.clone(),
            docs: variant.docs.clone(),
            number: number as i32,
        };
        let values = variants.iter().zip(numbers).map(value).collect();
        let name = self.unique(name);
        self.out.enums.push(Enum { name, docs: docs.to_owned(), values });
        Type::Enum(self.out.enums.len() - 1)
    }

    /// The first thing wrong is what people are told.
    fn fail(&mut self, error: CodecError) {
        self.failed.get_or_insert(error);
    }
}

fn is_plain(variants: &[Variant]) -> bool {
    !variants.is_empty() && variants.iter().all(|variant| matches!(variant.payload, Payload::Unit))
}

fn plain_field(name: &str, number: u32, label: Label, ty: Type) -> Field {
    Field { name: name.to_owned(), foreign: None, docs: String::new(), number, label, ty }
}

/// The number of each: its own, or its place counted from `first`. `first` is 1 for what becomes fields.
fn numbers<'a>(what: &str, all: impl Iterator<Item = (&'a str, Option<u32>)>, first: u32) -> Result<Vec<u32>, CodecError> {
    let mut taken: HashMap<u32, &str> = HashMap::new();
    let mut numbers = Vec::new();
    for (at, (name, tag)) in all.enumerate() {
        let number = tag.unwrap_or(at as u32 + first);
        check_number(what, name, number, first)?;
        if let Some(other) = taken.insert(number, name) {
            return Err(CodecError::new(format!(
                "the {what}s `{other}` and `{name}` both have the number {number}: give each its own, `#[farcall(tag = n)]`"
            )));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn check_number(what: &str, name: &str, number: u32, first: u32) -> Result<(), CodecError> {
    let most = if first == 0 { i32::MAX as u32 } else { MAX_NUMBER };
    if !(first..=most).contains(&number) {
        return Err(CodecError::new(format!("the {what} `{name}` has the number {number}, protobuf takes {first} to {most}")));
    }
    if first == 1 && (19_000..20_000).contains(&number) {
        return Err(CodecError::new(format!("the {what} `{name}` has the number {number}: protobuf keeps 19000 to 19999 for itself")));
    }
    Ok(())
}
