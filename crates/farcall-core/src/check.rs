//! For tests: whether a type's schema says what serde does.
//!
//! `#[data]` reads the very attributes that serde reads, so the two agree. Where a person says it, in
//! `#[schema(as = Type)]` or a hand-written [`Schema`], `Serialize` or `Deserialize`, nothing holds them together but a
//! test. [`schema_of`] is that test: it walks both side by side.
//!
//! ```
//! # extern crate farcall_core as farcall;
//! # use farcall_core::data;
//! # #[data(crate = farcall_core)]
//! # #[derive(Debug)]
//! # enum Status { Unknown, Paid { cents: u64 } }
//! // In a test:
//! fn the_schema_of_status_is_true() {
//!     let unseen = farcall::check::schema_of(&[Status::Unknown, Status::Paid { cents: 250 }]).unwrap();
//!     assert!(unseen.is_empty(), "no sample of {unseen:?}");
//! }
//! # the_schema_of_status_is_true();
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::ser::{self, Serialize, Serializer};

use crate::codec::CodecError;
use crate::compact;
use crate::plan::{Plan, decode_with};
use crate::schema::{Def, Field, Kind, Payload, Schema, Ty, TypeSchema, Variant, short_type_name};

/// Where a schema and serde do not agree, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreements(Vec<Disagreement>);

/// One place at which a schema and serde do not agree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    /// Where, such as `lines[0].qty`; empty for the value as a whole.
    pub path: String,
    /// What does not agree: what the schema says and what serde does.
    pub what: String,
}

impl Disagreements {
    /// One after the other, without repetitions.
    pub fn iter(&self) -> impl Iterator<Item = &Disagreement> {
        self.0.iter()
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

impl fmt::Display for Disagreements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the schema and serde do not agree")?;
        self.0.iter().try_for_each(|found| write!(f, "\n  {found}"))
    }
}

impl std::error::Error for Disagreements {}

/// Checks that the schema of `T` says what serde does with these samples: what is written, in binary formats and in
/// text; that it is read again, with and without a [plan](crate::plan); and, with the feature `json`, which fields may
/// be missing and which other names they have.
///
/// Gives the variants that no sample shows, as `Status::Paid`: nothing is known of them. All that does not agree is in
/// the error.
pub fn schema_of<T: Schema + Serialize + DeserializeOwned>(samples: &[T]) -> Result<Vec<String>, Disagreements> {
    let schema = TypeSchema::of::<T>();
    let found = Found::default();
    if let Err(error) = schema.validate() {
        found.add("", error.to_string());
        return Err(found.into_disagreements());
    }
    for sample in samples {
        // The walk takes as much stack as the sample is deep.
        if let Some(error) = compact::encode(sample).err().filter(|error| error.message() == compact::too_deep()) {
            found.add(&error.path(), error.message().to_owned());
            continue;
        }
        for text in [false, true] {
            let place = Place { ty: &schema.root, path: Path::default(), pointer: Some(Vec::new()) };
            let written = sample.serialize(Walk { defs: &schema.defs, found: &found, text, place });
            if let Err(error) = written {
                found.add("", format!("serde cannot write it: {error}"));
            }
        }
        if found.disagreements.borrow().is_empty() {
            check_reading(sample, &schema, &found);
        }
        #[cfg(feature = "json")]
        if found.disagreements.borrow().is_empty() {
            text::check_fields::<T>(sample, &found);
        }
        found.fields.borrow_mut().clear();
    }
    let seen = found.variants.take();
    let Disagreements(all) = found.into_disagreements();
    match all.is_empty() {
        true => Ok(variants(&schema.defs).filter(|variant| !seen.contains(variant)).collect()),
        false => Err(Disagreements(all)),
    }
}

/// What was written must be read, also field by field as a plan does it, and must be what it was.
fn check_reading<T: Serialize + DeserializeOwned>(sample: &T, schema: &TypeSchema, found: &Found) {
    let read = || -> Result<bool, CodecError> {
        let bytes = compact::encode(sample)?;
        let again = compact::encode(&compact::decode::<T>(&bytes)?)?;
        let planned = compact::encode(&decode_with::<T>(&Plan::in_full(schema), &bytes)?)?;
        // Byte for byte they may differ: a hash map has no order.
        Ok(again.len() == bytes.len() && planned.len() == bytes.len())
    };
    match read() {
        Ok(true) => {}
        Ok(false) => found.add("", "what is read is not what was written"),
        Err(error) => found.add(&error.path(), format!("what was written cannot be read: {}", error.message())),
    }
}

fn variants(defs: &[Def]) -> impl Iterator<Item = String> {
    defs.iter().flat_map(|def| match &def.kind {
        Kind::Enum(variants) => variants.iter().map(|variant| format!("{}::{}", def.name, variant.name)).collect(),
        _ => Vec::new(),
    })
}

/// What the walk found.
#[derive(Default)]
struct Found {
    disagreements: RefCell<BTreeSet<Disagreement>>,
    /// Variants that a sample has shown.
    variants: RefCell<BTreeSet<String>>,
    /// Fields of this sample, and where they are in its JSON.
    fields: RefCell<Vec<(Vec<Key>, Path, Field)>>,
}

impl Found {
    fn add(&self, path: &str, what: impl Into<String>) {
        self.disagreements.borrow_mut().insert(Disagreement { path: path.to_owned(), what: what.into() });
    }

    fn into_disagreements(self) -> Disagreements {
        Disagreements(self.disagreements.into_inner().into_iter().collect())
    }
}

/// A step into a JSON value.
#[cfg_attr(not(feature = "json"), expect(dead_code, reason = "only values in JSON are stepped into"))]
#[derive(Clone, Debug)]
enum Key {
    Member(String),
    Element(usize),
}

#[derive(Clone, Default)]
struct Path(String);

impl Path {
    fn field(&self, name: &str) -> Path {
        Path(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    fn variant(&self, name: &str) -> Path {
        Path(format!("{}::{name}", self.0))
    }
}

/// A type and where it is.
#[derive(Clone)]
struct Place<'s> {
    ty: &'s Ty,
    path: Path,
    /// Where it is in JSON; `None` below a map, whose keys are not followed.
    pointer: Option<Vec<Key>>,
}

impl<'s> Place<'s> {
    fn inside(&self, ty: &'s Ty, path: Path, key: Option<Key>) -> Place<'s> {
        let pointer = self.pointer.clone().zip(key).map(|(mut pointer, key)| {
            pointer.push(key);
            pointer
        });
        Place { ty, path, pointer }
    }
}

/// A serializer that writes nothing and compares what it is called for with the schema.
#[derive(Clone)]
struct Walk<'s> {
    defs: &'s [Def],
    found: &'s Found,
    /// As a text format is written.
    text: bool,
    place: Place<'s>,
}

impl<'s> Walk<'s> {
    /// The type that must be written here, through what leaves no trace.
    fn ty(&self) -> &'s Ty {
        let mut ty = self.place.ty.layout();
        while let Ty::Ref(index) = ty {
            match self.def_kind(*index) {
                Some(Kind::Newtype(inner)) => ty = inner.layout(),
                _ => break,
            }
        }
        ty
    }

    fn def_kind(&self, index: u32) -> Option<&'s Kind> {
        self.defs.get(index as usize).map(|def| &def.kind)
    }

    /// The kind of the definition here, if it is one.
    fn kind(&self) -> Option<&'s Kind> {
        match self.ty() {
            Ty::Ref(index) => self.def_kind(*index),
            _ => None,
        }
    }

    fn differs(&self, serde: impl fmt::Display) {
        let says = short_type_name(self.place.ty, self.defs);
        self.found.add(&self.place.path.0, format!("the schema says {says}, serde writes {serde}"));
    }

    /// A value without parts.
    fn leaf(self, serde: &str, fits: impl FnOnce(&Ty) -> bool) -> Result<(), CodecError> {
        let ty = self.ty();
        // In text it is text, whatever it is elsewhere.
        let shown_as_text = self.text && matches!(self.place.ty, Ty::Text(..));
        let fine = if shown_as_text { serde == "a string" } else { *ty == Ty::Json || fits(ty) };
        if !fine {
            self.differs(serde);
        }
        Ok(())
    }

    fn at(&self, place: Place<'s>) -> Walk<'s> {
        Walk { place, ..self.clone() }
    }

    /// Parts that all have one type.
    fn each(self, part: &'s Ty, map_value: Option<&'s Ty>) -> Parts<'s> {
        Parts { expected: Expected::Each(part, map_value), walk: self, next: 0 }
    }

    /// Nothing below is compared: it is JSON, or it was found to differ.
    fn nothing_more(self) -> Parts<'s> {
        Parts { expected: Expected::Anything, walk: self, next: 0 }
    }

    fn mismatch(self, serde: impl fmt::Display) -> Parts<'s> {
        if *self.ty() != Ty::Json {
            self.differs(serde);
        }
        self.nothing_more()
    }

    fn types(self, types: &'s [Ty], count: usize, serde: &str) -> Parts<'s> {
        match types.len() == count {
            true => Parts { expected: Expected::Types(types), walk: self, next: 0 },
            false => self.mismatch(format!("{serde} of {count}")),
        }
    }

    fn tuple(self, count: usize, serde: &str) -> Parts<'s> {
        match (self.ty(), self.kind()) {
            (Ty::Tuple(types), _) | (_, Some(Kind::Tuple(types))) => self.types(types, count, serde),
            (Ty::Array(element, length), _) if *length as usize == count => self.each(element, None),
            _ => self.mismatch(format!("{serde} of {count}")),
        }
    }

    fn fields(self, fields: &'s [Field]) -> Parts<'s> {
        Parts { expected: Expected::Fields(fields), walk: self, next: 0 }
    }

    /// The variant that serde writes, if the schema has it at that number, and a walk inside of it.
    fn variant(self, number: u32, name: &str) -> Result<(&'s Variant, Walk<'s>), Walk<'s>> {
        let (Ty::Ref(index), Some(Kind::Enum(variants))) = (self.ty(), self.kind()) else {
            if *self.ty() != Ty::Json {
                self.differs(format_args!("the variant `{name}` of an enum"));
            }
            return Err(self);
        };
        match variants.get(number as usize) {
            Some(variant) if variant.name == name => {
                let owner = self.defs.get(*index as usize).map_or("", |def| &def.name);
                self.found.variants.borrow_mut().insert(format!("{owner}::{name}"));
                let key = Some(Key::Member(name.to_owned()));
                let place = self.place.inside(self.place.ty, self.place.path.variant(name), key);
                Ok((variant, self.at(place)))
            }
            other => {
                let has = other.map_or("none".to_owned(), |other| format!("`{}`", other.name));
                self.found.add(&self.place.path.0, format!("variant number {number}: the schema has {has}, serde writes `{name}`"));
                Err(self)
            }
        }
    }

    fn payload_differs(&self, serde: &str) {
        self.found.add(&self.place.path.0, format!("the schema says that the variant holds something else than serde writes: {serde}"));
    }
}

macro_rules! leaves {
    ($($method:ident($value:ty) = $text:literal, $fits:path;)*) => {$(
        fn $method(self, _: $value) -> Result<(), CodecError> {
            self.leaf($text, |ty| matches!(ty, $fits))
        }
    )*};
}

impl<'s> Serializer for Walk<'s> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Parts<'s>;
    type SerializeTuple = Parts<'s>;
    type SerializeTupleStruct = Parts<'s>;
    type SerializeTupleVariant = Parts<'s>;
    type SerializeMap = Parts<'s>;
    type SerializeStruct = Parts<'s>;
    type SerializeStructVariant = Parts<'s>;

    leaves! {
        serialize_bool(bool) = "a bool", Ty::Bool;
        serialize_u8(u8) = "u8", Ty::U8;
        serialize_u16(u16) = "u16", Ty::U16;
        serialize_u32(u32) = "u32", Ty::U32;
        serialize_u64(u64) = "u64", Ty::U64;
        serialize_u128(u128) = "u128", Ty::U128;
        serialize_i8(i8) = "i8", Ty::I8;
        serialize_i16(i16) = "i16", Ty::I16;
        serialize_i32(i32) = "i32", Ty::I32;
        serialize_i64(i64) = "i64", Ty::I64;
        serialize_i128(i128) = "i128", Ty::I128;
        serialize_f32(f32) = "f32", Ty::F32;
        serialize_f64(f64) = "f64", Ty::F64;
        serialize_char(char) = "a char", Ty::Char;
    }

    fn is_human_readable(&self) -> bool {
        self.text
    }

    fn serialize_str(self, _: &str) -> Result<(), CodecError> {
        // Bytes are base64 in text.
        let text = self.text;
        self.leaf("a string", |ty| *ty == Ty::Str || (text && *ty == Ty::Bytes))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CodecError> {
        self.leaf("bytes", |ty| match ty {
            Ty::Bytes => true,
            Ty::Seq(element) => *element.layout() == Ty::U8,
            _ => false,
        })
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.leaf("None", |ty| matches!(ty, Ty::Option(_)))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        match self.ty() {
            Ty::Option(some) => {
                let place = Place { ty: some, ..self.place.clone() };
                value.serialize(self.at(place))
            }
            _ => self.leaf("Some", |_| false),
        }
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        let unit_struct = matches!(self.kind(), Some(Kind::Unit));
        self.leaf("nothing", |ty| *ty == Ty::Unit || unit_struct)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, number: u32, name: &'static str) -> Result<(), CodecError> {
        if let Ok((variant, walk)) = self.variant(number, name)
            && variant.payload != Payload::Unit
        {
            walk.payload_differs("nothing");
        }
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        // In text an address, for one, is a string and no variant.
        match self.variant(number, name) {
            Ok((Variant { payload: Payload::Newtype(ty), .. }, walk)) => {
                let place = Place { ty, ..walk.place.clone() };
                value.serialize(walk.at(place))
            }
            Ok((_, walk)) => {
                walk.payload_differs("one value");
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'s>, CodecError> {
        Ok(match self.ty() {
            Ty::Seq(element) => self.each(element, None),
            Ty::Bytes => self.each(&Ty::U8, None),
            _ => self.mismatch("a list"),
        })
    }

    fn serialize_tuple(self, count: usize) -> Result<Parts<'s>, CodecError> {
        Ok(self.tuple(count, "a tuple or array"))
    }

    fn serialize_tuple_struct(self, _: &'static str, count: usize) -> Result<Parts<'s>, CodecError> {
        Ok(self.tuple(count, "a tuple struct"))
    }

    fn serialize_tuple_variant(self, _: &'static str, number: u32, name: &'static str, count: usize) -> Result<Parts<'s>, CodecError> {
        Ok(match self.variant(number, name) {
            Ok((Variant { payload: Payload::Tuple(types), .. }, walk)) if types.len() == count => walk.types(types, count, "a variant"),
            Ok((_, walk)) => {
                walk.payload_differs("unnamed values");
                walk.nothing_more()
            }
            Err(walk) => walk.nothing_more(),
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'s>, CodecError> {
        Ok(match self.ty() {
            Ty::Map(key, value) => self.each(key, Some(value)),
            _ => self.mismatch("a map"),
        })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'s>, CodecError> {
        Ok(match self.kind() {
            Some(Kind::Struct(fields)) => self.fields(fields),
            _ => self.mismatch(format_args!("the struct {name} with named fields")),
        })
    }

    fn serialize_struct_variant(self, _: &'static str, number: u32, name: &'static str, _: usize) -> Result<Parts<'s>, CodecError> {
        Ok(match self.variant(number, name) {
            Ok((Variant { payload: Payload::Struct(fields), .. }, walk)) => walk.fields(fields),
            Ok((_, walk)) => {
                walk.payload_differs("named fields");
                walk.nothing_more()
            }
            Err(walk) => walk.nothing_more(),
        })
    }
}

/// The parts of a value, as they come.
struct Parts<'s> {
    walk: Walk<'s>,
    expected: Expected<'s>,
    next: usize,
}

enum Expected<'s> {
    /// Elements, or keys of this and values of that type.
    Each(&'s Ty, Option<&'s Ty>),
    Types(&'s [Ty]),
    Fields(&'s [Field]),
    Anything,
}

impl<'s> Parts<'s> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let index = self.next;
        self.next += 1;
        let place = &self.walk.place;
        let (ty, path) = match self.expected {
            Expected::Each(ty, None) => (ty, place.path.index(index)),
            Expected::Types(types) => match types.get(index) {
                Some(ty) => (ty, place.path.field(&index.to_string())),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let place = place.inside(ty, path, Some(Key::Element(index)));
        value.serialize(self.walk.at(place))
    }

    /// The field of the schema that is next; it must be the one of that name.
    fn next_field(&mut self, name: &str) -> Option<&'s Field> {
        let Expected::Fields(fields) = self.expected else { return None };
        let index = self.next;
        self.next += 1;
        match fields.get(index) {
            Some(field) if field.name == name => Some(field),
            other => {
                let has = other.map_or("no more".to_owned(), |field| format!("`{}`", field.name));
                self.walk.found.add(&self.walk.place.path.0, format!("field number {index}: the schema has {has}, serde writes `{name}`"));
                None
            }
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CodecError> {
        let Some(field) = self.next_field(name) else { return Ok(()) };
        let path = self.walk.place.path.field(name);
        if self.walk.text
            && let Some(pointer) = &self.walk.place.pointer
        {
            self.walk.found.fields.borrow_mut().push((pointer.clone(), path.clone(), field.clone()));
        }
        let place = self.walk.place.inside(&field.ty, path, Some(Key::Member(name.to_owned())));
        value.serialize(self.walk.at(place))
    }

    fn finish(self) -> Result<(), CodecError> {
        if let Expected::Fields(fields) = self.expected
            && let Some(missing) = fields.get(self.next)
        {
            let path = &self.walk.place.path.0;
            self.walk.found.add(path, format!("the schema has the field `{}`, serde does not write it", missing.name));
        }
        Ok(())
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident;)*) => {$(
        impl ser::$compound for Parts<'_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                self.element(value)
            }

            fn end(self) -> Result<(), CodecError> {
                self.finish()
            }
        }
    )*};
}

unnamed! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! named {
    ($($compound:ident;)*) => {$(
        impl ser::$compound for Parts<'_> {
            type Ok = ();
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CodecError> {
                self.field(name, value)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), CodecError> {
                self.next_field(name);
                Ok(())
            }

            fn end(self) -> Result<(), CodecError> {
                self.finish()
            }
        }
    )*};
}

named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        let Expected::Each(ty, Some(_)) = self.expected else { return Ok(()) };
        let path = self.walk.place.path.index(self.next).field("key");
        // Keys are text in JSON, whatever their type is.
        if self.walk.text {
            return Ok(());
        }
        key.serialize(self.walk.at(self.walk.place.inside(ty, path, None)))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let Expected::Each(_, Some(ty)) = self.expected else { return Ok(()) };
        let path = self.walk.place.path.index(self.next);
        self.next += 1;
        value.serialize(self.walk.at(self.walk.place.inside(ty, path, None)))
    }

    fn end(self) -> Result<(), CodecError> {
        Ok(())
    }
}

/// What the schema says of fields that are missing or have another name, tried out in JSON.
#[cfg(feature = "json")]
mod text {
    use serde_json::{Map, Value};

    use super::*;
    use crate::json;

    pub(super) fn check_fields<T: Serialize + DeserializeOwned>(sample: &T, found: &Found) {
        let mut text = Vec::new();
        let written = json::encode_into(sample, &mut text);
        let value: Value = match written.map(|()| serde_json::from_slice(&text)) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => return found.add("", format!("its JSON cannot be read: {error}")),
            Err(error) => return found.add("", format!("JSON cannot hold it: {error}")),
        };
        if let Err(error) = json::decode::<T>(&text) {
            return found.add(&error.path(), format!("its JSON cannot be read: {}", error.message()));
        }
        let reads = |value: &Value| serde_json::to_vec(value).is_ok_and(|text| json::decode::<T>(&text).is_ok());
        let fields = found.fields.take();
        for (pointer, path, field) in fields {
            let without = changed(&value, &pointer, |members| drop(members.remove(&field.name)));
            if let Some(without) = without {
                check_missing(&path, &field, reads(&without), found);
            }
            for alias in &field.aliases {
                let renamed = changed(&value, &pointer, |members| {
                    if let Some(value) = members.remove(&field.name) {
                        members.insert(alias.clone(), value);
                    }
                });
                if renamed.is_some_and(|renamed| !reads(&renamed)) {
                    found.add(&path.0, format!("the schema says that it is read under the name `{alias}`, serde does not read it"));
                }
            }
        }
    }

    fn check_missing(path: &Path, field: &Field, reads: bool, found: &Found) {
        // A unit has no value to miss: some types take it, some do not.
        let may_miss = field.default || matches!(field.ty.layout(), Ty::Option(_));
        match (may_miss, reads) {
            (true, false) => found.add(&path.0, "the schema says that it may be missing, serde does not read a value without it"),
            (false, true) if *field.ty.layout() != Ty::Unit && *field.ty.layout() != Ty::Json => {
                found.add(&path.0, "the schema says that it is always there, serde reads a value without it");
            }
            _ => {}
        }
    }

    /// The value with a change to the members of the object at that place. `None` if the object or the field is not
    /// there, as one that is left out when it is empty.
    fn changed(value: &Value, pointer: &[Key], change: impl FnOnce(&mut Map<String, Value>)) -> Option<Value> {
        let mut changed = value.clone();
        let mut at = &mut changed;
        for key in pointer {
            at = match key {
                Key::Member(name) => at.as_object_mut()?.get_mut(name)?,
                Key::Element(index) => at.as_array_mut()?.get_mut(*index)?,
            };
        }
        change(at.as_object_mut()?);
        Some(changed)
    }
}
