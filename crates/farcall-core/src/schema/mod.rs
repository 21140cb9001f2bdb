//! Schemas: what a type looks like to the other side, and the fingerprint that tells whether two sides agree.
//!
//! A [`TypeSchema`] is plain data. It is made from a Rust type by [`TypeSchema::of`] (the `#[data]` attribute
//! implements [`Schema`]), travels when two sides do not agree, and is what tools read to show and check types.
//! A schema from a peer is hostile until [`TypeSchema::validate`] has passed.
//!
//! # The fingerprint
//!
//! The fingerprint of a type is the first 16 bytes of the BLAKE3 hash of its *canonical layout*: exactly what decides
//! the bytes of the compact codec and what they mean. Names of fields and variants are part of it (swapping two
//! fields of one type is a change of meaning), names of types, docs, aliases, defaults, what must be understood, which
//! variant stands for unknown ones, numbers and foreign names are not: they matter only where the sides differ. Equal fingerprints: call. Different ones: compare the schemas, which costs a little time and no safety.
//!
//! The canonical layout is this byte string. `n` is a 32-bit little-endian number, `str` is `n` bytes of UTF-8
//! after their count `n`.
//!
//! ```text
//! layout  := version type body*             version is the byte 1
//! type    := 1  bool     2  u8      3  u16     4  u32     5  u64     6  u128
//!          | 7  i8       8  i16     9  i32     10 i64     11 i128
//!          | 12 f32      13 f64     14 char    15 string  16 bytes   17 unit
//!          | 18 type                option of
//!          | 19 type                list of; a list of u8 is written as 16, bytes
//!          | 20 type type           map from, to
//!          | 21 n type              array of n
//!          | 22 n type*n            tuple
//!          | 23 n                   the definition number n
//!          | 24                     a JSON value: a type that has no schema
//! body    := 0                      unit struct
//!          | 1 n field*n            struct
//!          | 2 n type*n             tuple struct
//!          | 3 n variant*n          enum
//!          | 4 type                 struct with one unnamed field that leads to itself
//! field   := str type
//! variant := str payload
//! payload := 0 | 1 type | 2 n type*n | 3 n field*n      unit, one value, tuple, struct
//! ```
//!
//! Definitions are numbered from 0 in the order in which the layout first names them. Their bodies follow the root
//! type in that order; naming a new definition inside a body appends one more body at the end. So recursion needs no
//! special case, and definitions that nothing names are left out. A struct with one unnamed field and a
//! `#[serde(transparent)]` struct are written as the type they hold, unless that leads back to the struct with no
//! definition between, as in `struct Tree(Vec<Tree>)`: then it is a definition. A type that text formats write as
//! text is laid out as the others write it.

mod builtin;
mod canonical;
mod check;
mod foreign;
mod name_steps;
mod show;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data;

pub(crate) use check::short;
pub use check::{MAX_DEFS, MAX_NAME, MAX_NODES, MAX_TY_DEPTH, SchemaError};
pub(crate) use show::{short_type_name, type_name};

/// A type that can describe itself: what `#[data]` and `derive(Schema)` implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema, so it cannot travel in a call",
    label = "this type does not implement `Schema`",
    note = "put `#[farcall::data]` on `{Self}`, or derive `farcall::Schema` beside serde's derives",
    note = "if it is another crate's: uuid, chrono, jiff, url and rust_decimal are features of farcall; any other field is \
            written as a type that has a schema, by `#[serde(with = …)]` and `#[schema(as = Type)]`"
)]
pub trait Schema {
    /// The type as others refer to it; a named type defines itself in `builder` the first time.
    fn ty(builder: &mut SchemaBuilder) -> Ty;
}

/// Asks whether a type has a schema, for types that are written out: an inherent item goes before a trait's, if `T` is
/// what it wants. So `Probe::<T>::HAS` is true for a type with a schema, and false for any other with [`NoSchema`] in
/// scope.
#[doc(hidden)]
pub struct Probe<T: ?Sized>(std::marker::PhantomData<T>);

impl<T: Schema + ?Sized> Probe<T> {
    pub const HAS: bool = true;

    pub fn ty(builder: &mut SchemaBuilder) -> Ty {
        T::ty(builder)
    }
}

/// What [`Probe`] says of a type without a schema.
#[doc(hidden)]
pub trait NoSchema {
    const HAS: bool = false;

    fn ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Json
    }
}

impl<T: ?Sized> NoSchema for Probe<T> {}

/// A type and the definitions it refers to.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSchema {
    /// The type described.
    pub root: Ty,
    /// Named types, referred to by index.
    pub defs: Vec<Def>,
}

/// A type as a field refers to it.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub enum Ty {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64` and `usize`
    U64,
    /// `u128`
    U128,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64` and `isize`
    I64,
    /// `i128`
    I128,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `char`
    Char,
    /// Text.
    Str,
    /// Bytes, in JSON a base64 string.
    Bytes,
    /// Nothing.
    Unit,
    /// A value or nothing.
    Option(Box<Ty>),
    /// A list of any length. A list of `U8` has the bytes of `Bytes`, but in JSON it is a list of numbers.
    Seq(Box<Ty>),
    /// Pairs of key and value.
    Map(Box<Ty>, Box<Ty>),
    /// A list of this length.
    Array(Box<Ty>, u32),
    /// One of each.
    Tuple(Vec<Ty>),
    /// A definition, by its index in [`TypeSchema::defs`].
    Ref(u32),
    /// A value of a type that has no schema: it travels as JSON and nothing else.
    Json,
    /// The type that is written, and the format of the text that JSON has in its place, as JSON Schema calls it:
    /// `uuid`, `ipv4`, `date-time`; empty if it has no name.
    Text(Box<Ty>, String),
}

impl Ty {
    /// The type as formats that are not text write it.
    pub fn layout(&self) -> &Ty {
        match self {
            Ty::Text(layout, _) => layout.layout(),
            plain => plain,
        }
    }

    /// This type and those that it is made of, references not followed.
    fn each(&self, see: &mut dyn FnMut(&Ty)) {
        see(self);
        match self {
            Ty::Option(inner) | Ty::Seq(inner) | Ty::Array(inner, _) | Ty::Text(inner, _) => inner.each(see),
            Ty::Map(key, value) => {
                key.each(see);
                value.each(see);
            }
            Ty::Tuple(types) => types.iter().for_each(|ty| ty.each(see)),
            _ => {}
        }
    }
}

/// A named type.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub struct Def {
    /// Its name here, with the arguments of a generic type: `Page<Order>`.
    pub name: String,
    /// Its name elsewhere, such as a protobuf or Java name.
    pub foreign: Option<String>,
    /// Its doc comment.
    pub docs: String,
    /// What it is made of.
    pub kind: Kind,
}

/// What a named type is made of.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A struct without fields or braces.
    Unit,
    /// Named fields.
    Struct(Vec<Field>),
    /// Unnamed fields, more or fewer than one.
    Tuple(Vec<Ty>),
    /// One of several variants.
    Enum(Vec<Variant>),
    /// One unnamed field that leads to this very definition with none between; it is written as that field. Other
    /// structs of one unnamed field are no definitions.
    Newtype(Ty),
}

/// A named field.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name, after serde's renaming.
    pub name: String,
    /// Earlier names it is still read under.
    pub aliases: Vec<String>,
    /// Whether it may be missing in what is read.
    pub default: bool,
    /// Whether a reader whose type lacks it must refuse the value, where it would skip another field. It counts where
    /// the type around it is read, not where that is skipped as a whole.
    pub must_understand: bool,
    /// Its doc comment.
    pub docs: String,
    /// Its number for formats that go by number, such as protobuf.
    pub tag: Option<u32>,
    /// Its name elsewhere.
    pub foreign: Option<String>,
    /// Its type.
    pub ty: Ty,
}

/// A variant of an enum.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name, after serde's renaming.
    pub name: String,
    /// Earlier names it is still read under.
    pub aliases: Vec<String>,
    /// Whether a reader takes variants that it does not know for this one. At most one does, and it holds nothing.
    pub other: bool,
    /// Its doc comment.
    pub docs: String,
    /// Its number for formats that go by number.
    pub tag: Option<u32>,
    /// Its name elsewhere.
    pub foreign: Option<String>,
    /// What it holds.
    pub payload: Payload,
}

/// What a variant holds.
#[data(crate = farcall_core)]
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing.
    Unit,
    /// One value.
    Newtype(Ty),
    /// Unnamed fields, more or fewer than one.
    Tuple(Vec<Ty>),
    /// Named fields.
    Struct(Vec<Field>),
}

impl TypeSchema {
    /// The schema of a Rust type.
    pub fn of<T: Schema + ?Sized>() -> TypeSchema {
        TypeSchema::made_by(T::ty)
    }

    /// The schema of the type that this refers to.
    pub(crate) fn made_by(ty: fn(&mut SchemaBuilder) -> Ty) -> TypeSchema {
        let mut builder = SchemaBuilder::default();
        let root = ty(&mut builder);
        TypeSchema { root, defs: builder.defs }
    }

    /// Whether values of it, or parts of them, travel as JSON and in no other codec: a type in it has no schema.
    pub fn is_json_only(&self) -> bool {
        let mut found = false;
        self.each_type(&mut |ty| found |= *ty == Ty::Json);
        found
    }

    fn each_type(&self, see: &mut dyn FnMut(&Ty)) {
        fn of<'t>(types: impl IntoIterator<Item = &'t Ty>, see: &mut dyn FnMut(&Ty)) {
            types.into_iter().for_each(|ty| ty.each(see));
        }
        fn fields(fields: &[Field], see: &mut dyn FnMut(&Ty)) {
            of(fields.iter().map(|field| &field.ty), see);
        }
        self.root.each(see);
        for def in &self.defs {
            match &def.kind {
                Kind::Unit => {}
                Kind::Newtype(ty) => ty.each(see),
                Kind::Tuple(types) => of(types, see),
                Kind::Struct(all) => fields(all, see),
                Kind::Enum(variants) => variants.iter().for_each(|variant| match &variant.payload {
                    Payload::Unit => {}
                    Payload::Newtype(ty) => ty.each(see),
                    Payload::Tuple(types) => of(types, see),
                    Payload::Struct(all) => fields(all, see),
                }),
            }
        }
    }

    /// The hash of the canonical layout, see the [module](self).
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = blake3::hash(&self.canonical());
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        Fingerprint(first)
    }
}

impl TypeSchema {
    /// The schema in the compact codec, as it travels: without docs and foreign names, which are for people and for
    /// other formats.
    pub fn bare(&self) -> Vec<u8> {
        let mut bare = self.clone();
        bare.defs.iter_mut().for_each(strip_def);
        // Names, numbers and types: nothing in it can fail to encode, unless types nest beyond what may travel.
        crate::compact::encode(&bare).unwrap_or_default()
    }
}

fn strip_def(def: &mut Def) {
    (def.docs, def.foreign) = (String::new(), None);
    match &mut def.kind {
        Kind::Unit | Kind::Newtype(_) | Kind::Tuple(_) => {}
        Kind::Struct(fields) => fields.iter_mut().for_each(strip_field),
        Kind::Enum(variants) => {
            for variant in variants {
                (variant.docs, variant.foreign) = (String::new(), None);
                if let Payload::Struct(fields) = &mut variant.payload {
                    fields.iter_mut().for_each(strip_field);
                }
            }
        }
    }
}

fn strip_field(field: &mut Field) {
    (field.docs, field.foreign) = (String::new(), None);
}

/// Collects the definitions of the types that a schema refers to.
#[derive(Default)]
pub struct SchemaBuilder {
    defs: Vec<Def>,
    seen: HashMap<TypeId, u32>,
    /// Newtypes that we are inside of, and their definitions if they turned out to need one.
    open: Vec<(TypeId, Option<u32>)>,
}

/// What is known of a named type before its fields are.
#[derive(Clone, Debug, Default)]
pub struct DefHead<'a> {
    /// Its name without arguments.
    pub name: &'a str,
    /// The arguments of a generic type.
    pub args: &'a [fn(&mut SchemaBuilder) -> Ty],
    /// Its name elsewhere.
    pub foreign: Option<&'a str>,
    /// Its doc comment.
    pub docs: &'a str,
}

impl SchemaBuilder {
    /// Refers to the type `T`, defining it by `kind` the first time. `kind` may refer to `T` again.
    pub fn define<T: 'static>(&mut self, head: DefHead<'_>, kind: impl FnOnce(&mut SchemaBuilder) -> Kind) -> Ty {
        // The id tells types apart inside this process only; it is never hashed or sent.
        let id = TypeId::of::<T>();
        if let Some(&index) = self.seen.get(&id) {
            return Ty::Ref(index);
        }
        let index = self.begin(id, &head);
        // What is met inside of this definition leads back through it: that is no endless type.
        let open = std::mem::take(&mut self.open);
        let kind = kind(self);
        self.open = open;
        self.defs[index as usize].kind = kind;
        Ty::Ref(index)
    }

    /// The type `T`, a struct that is written as its one field, which is `inner`. `inner` may refer to `T` again: then
    /// `T` becomes a definition.
    pub fn newtype<T: 'static>(&mut self, head: DefHead<'_>, inner: impl FnOnce(&mut SchemaBuilder) -> Ty) -> Ty {
        let id = TypeId::of::<T>();
        if let Some(&index) = self.seen.get(&id) {
            return Ty::Ref(index);
        }
        if self.open.iter().any(|(open, _)| *open == id) {
            let index = self.begin(id, &head);
            self.open.iter_mut().filter(|(open, _)| *open == id).for_each(|open| open.1 = Some(index));
            return Ty::Ref(index);
        }
        self.open.push((id, None));
        let ty = inner(self);
        match self.open.pop() {
            Some((_, Some(index))) => {
                self.defs[index as usize].kind = Kind::Newtype(ty);
                Ty::Ref(index)
            }
            _ => ty,
        }
    }

    /// A definition without its kind.
    fn begin(&mut self, id: TypeId, head: &DefHead<'_>) -> u32 {
        let index = self.defs.len() as u32;
        self.seen.insert(id, index);
        self.defs.push(Def {
            name: head.name.to_owned(),
            foreign: head.foreign.map(str::to_owned),
            docs: head.docs.to_owned(),
            kind: Kind::Unit,
        });
        let name = self.full_name(head);
        self.defs[index as usize].name = name;
        index
    }

    fn full_name(&mut self, head: &DefHead<'_>) -> String {
        if head.args.is_empty() {
            return head.name.to_owned();
        }
        let args: Vec<Ty> = head.args.iter().map(|arg| arg(self)).collect();
        let args: Vec<String> = args.iter().map(|arg| show::type_name(arg, &self.defs)).collect();
        format!("{}<{}>", head.name, args.join(", "))
    }
}

/// What two sides compare to know that they mean the same: see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
