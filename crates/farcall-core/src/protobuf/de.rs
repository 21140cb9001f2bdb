//! The decoder: a serde deserializer that looks for what a type wants among the fields of a message.
//!
//! Each message is read twice: once to check it and to see which fields are there, then field by field in the order
//! of the type. Nothing is set aside in between but one entry per field of the type, whatever the message claims.

use serde::de::value::{SeqDeserializer, U32Deserializer};
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::fields::{Parts, Scan, Seen, index_of, look_for, look_for_one, merged, message_bytes, wrong_wire};
use super::wire::{Wire, array, varint};
use super::{Body, Field, Label, MAX_DEPTH, Messages, Type, is_packed};
use crate::codec::{CodecError, Step};

pub(super) fn decode<'de, T: Deserialize<'de>>(messages: &Messages, bytes: &'de [u8]) -> Result<T, CodecError> {
    let reader = Reader { messages, depth: MAX_DEPTH };
    T::deserialize(reader.message(&messages.root()?.body, Parts::One(bytes))?)
}

/// What every value in a message needs to know.
#[derive(Clone, Copy)]
struct Reader<'m> {
    messages: &'m Messages,
    /// Messages that may still nest.
    depth: u32,
}

impl<'m> Reader<'m> {
    /// The place of a message's value.
    fn message<'de>(mut self, body: &'m Body, parts: Parts<'de>) -> Result<Place<'de, 'm>, CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(too_deep)?;
        match body {
            Body::Wrapper(field) => {
                let seen = look_for_one(field, &parts)?;
                self.field(field, seen, &parts)
            }
            body => Ok(Place { reader: self, role: Role::Body(body, parts) }),
        }
    }

    fn field<'de>(self, field: &'m Field, seen: Seen<'de>, parent: &Parts<'de>) -> Result<Place<'de, 'm>, CodecError> {
        match field.label {
            Label::Plain => self.one(field, seen, parent),
            Label::Optional if seen.count == 0 => Ok(Place { reader: self, role: Role::Nothing }),
            Label::Optional => Ok(Place { reader: self, role: Role::Some(field, seen, parent.clone()) }),
            Label::List | Label::Map => Ok(Place { reader: self, role: Role::List(field, seen.count, parent.clone()) }),
        }
    }

    /// One value of a field; a missing one is zero or empty.
    fn one<'de>(self, field: &'m Field, seen: Seen<'de>, parent: &Parts<'de>) -> Result<Place<'de, 'm>, CodecError> {
        let Type::Message(id) = field.ty else {
            return Ok(Place { reader: self, role: Role::One(field.ty, seen.last) });
        };
        let parts = match seen.count {
            0 => Parts::One(&[]),
            1 => Parts::One(message_bytes(seen.last)?),
            count => merged(field, count, parent)?,
        };
        self.message(self.body(id)?, parts)
    }

    fn body(self, id: usize) -> Result<&'m Body, CodecError> {
        self.messages.messages.get(id).map(|message| &message.body).ok_or_else(|| CodecError::new("there is no such message"))
    }

    /// An element of a list.
    fn element<'de>(self, ty: Type, wire: Wire<'de>) -> Result<Place<'de, 'm>, CodecError> {
        match ty {
            Type::Message(id) => self.message(self.body(id)?, Parts::One(message_bytes(Some(wire))?)),
            ty => Ok(Place { reader: self, role: Role::One(ty, Some(wire)) }),
        }
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format!("the value nests deeper than {MAX_DEPTH} messages"))
}

/// Where a value comes from.
struct Place<'de, 'm> {
    reader: Reader<'m>,
    role: Role<'de, 'm>,
}

enum Role<'de, 'm> {
    /// A value that is no message, or its zero.
    One(Type, Option<Wire<'de>>),
    Body(&'m Body, Parts<'de>),
    /// An option without and with a value.
    Nothing,
    Some(&'m Field, Seen<'de>, Parts<'de>),
    /// A list or a map: its field, how often it is there, and the message that it is in.
    List(&'m Field, usize, Parts<'de>),
}

fn integer(wire: Option<Wire<'_>>) -> Result<u64, CodecError> {
    match wire {
        Some(Wire::Varint(value)) => Ok(value),
        Some(other) => Err(wrong_wire("a number", other)),
        None => Ok(0),
    }
}

fn float(wire: Option<Wire<'_>>) -> Result<f32, CodecError> {
    match wire {
        Some(Wire::Fixed32(bytes)) => Ok(f32::from_le_bytes(bytes)),
        Some(other) => Err(wrong_wire("a float", other)),
        None => Ok(0.0),
    }
}

fn double(wire: Option<Wire<'_>>) -> Result<f64, CodecError> {
    match wire {
        Some(Wire::Fixed64(bytes)) => Ok(f64::from_le_bytes(bytes)),
        Some(other) => Err(wrong_wire("a double", other)),
        None => Ok(0.0),
    }
}

fn bytes(wire: Option<Wire<'_>>) -> Result<&[u8], CodecError> {
    match wire {
        Some(Wire::Bytes(bytes)) => Ok(bytes),
        Some(other) => Err(wrong_wire("text or bytes", other)),
        None => Ok(&[]),
    }
}

fn text(wire: Option<Wire<'_>>) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes(wire)?).map_err(|_| CodecError::new("a string is not UTF-8"))
}

fn wide(wire: Option<Wire<'_>>) -> Result<u128, CodecError> {
    match bytes(wire)? {
        [] => Ok(0),
        found => match found.try_into() {
            Ok(bytes) => Ok(u128::from_be_bytes(bytes)),
            Err(_) => Err(CodecError::new(format!("a number of 16 bytes has {}", found.len()))),
        },
    }
}

fn exactly(count: u32, bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.len() == count as usize {
        true => Ok(bytes),
        false => Err(CodecError::new(format!("{count} bytes are wanted, there are {}", bytes.len()))),
    }
}

impl<'de> Place<'de, '_> {
    fn one<V: Visitor<'de>>(self, ty: Type, wire: Option<Wire<'de>>, visitor: V) -> Result<V::Value, CodecError> {
        match ty {
            Type::Bool => visitor.visit_bool(integer(wire)? != 0),
            // What is longer than 32 bits is cut, as protobuf's own libraries do.
            Type::Uint32 => visitor.visit_u64((integer(wire)? as u32).into()),
            Type::Uint64 => visitor.visit_u64(integer(wire)?),
            Type::Int32 => visitor.visit_i64((integer(wire)? as i32).into()),
            Type::Int64 => visitor.visit_i64(integer(wire)? as i64),
            Type::Float => visitor.visit_f32(float(wire)?),
            Type::Double => visitor.visit_f64(double(wire)?),
            Type::Str => visitor.visit_borrowed_str(text(wire)?),
            Type::Bytes => visitor.visit_borrowed_bytes(bytes(wire)?),
            Type::ByteArray(count) => visitor.visit_borrowed_bytes(exactly(count, bytes(wire)?)?),
            Type::Char => match char::from_u32(integer(wire)? as u32) {
                Some(value) => visitor.visit_char(value),
                None => Err(CodecError::new("a number is no character")),
            },
            Type::U128 => visitor.visit_u128(wide(wire)?),
            Type::I128 => visitor.visit_i128(wide(wire)? as i128),
            Type::Enum(id) => visitor.visit_enum(Plain(self.variant(id, integer(wire)? as i32)?)),
            Type::Message(_) => Err(CodecError::new("a message stands where none can")),
        }
    }

    /// The place of the variant with this number.
    fn variant(&self, id: usize, number: i32) -> Result<u32, CodecError> {
        let values = self.reader.messages.enums.get(id).map_or(&[][..], |found| &found.values);
        let index = values.iter().position(|value| value.number == number);
        index.map(|index| index as u32).ok_or_else(|| CodecError::new(format!("no variant has the number {number}")))
    }

    fn body<V: Visitor<'de>>(reader: Reader<'_>, body: &Body, parts: Parts<'de>, visitor: V) -> Result<V::Value, CodecError> {
        match body {
            Body::Fields(fields) => {
                let seen = look_for(fields, &parts)?;
                visitor.visit_seq(Fields { reader, fields, seen, parts, next: 0 })
            }
            Body::Choice(fields) => visitor.visit_enum(Choice::find(reader, fields, parts)?),
            Body::Wrapper(_) | Body::Entry(..) => Err(CodecError::new("a message stands where none can")),
        }
    }

    fn unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let Role::Body(_, parts) = &self.role else { return self.deserialize_any(visitor) };
        look_for(&[], parts)?;
        visitor.visit_unit()
    }

    /// Bytes for a type that takes them one by one.
    fn list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let bytes = match self.role {
            Role::One(Type::Bytes, wire) => bytes(wire)?,
            Role::One(Type::ByteArray(count), wire) => exactly(count, bytes(wire)?)?,
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_seq(SeqDeserializer::<_, CodecError>::new(bytes.iter().copied()))
    }
}

impl<'de> Deserializer<'de> for Place<'de, '_> {
    type Error = CodecError;

    /// The schema knows better than serde's hint what stands here.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let reader = self.reader;
        match self.role {
            Role::One(ty, wire) => self.one(ty, wire, visitor),
            Role::Body(body, parts) => Self::body(reader, body, parts, visitor),
            Role::Nothing => visitor.visit_none(),
            Role::Some(field, seen, parts) => visitor.visit_some(reader.one(field, seen, &parts)?),
            Role::List(field, count, parts) if field.label == Label::Map => {
                let Type::Message(id) = field.ty else { return Err(CodecError::new("a map without entries")) };
                let Body::Entry(key, value) = reader.body(id)? else { return Err(CodecError::new("a map without entries")) };
                visitor.visit_map(Entries { reader, number: field.number, key, value, scan: parts.scan(), left: count, at: 0, open: None })
            }
            Role::List(field, count, parts) => visitor.visit_seq(Elements::new(reader, field, count, &parts)?),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.unit(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        self.unit(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option map struct enum
        identifier ignored_any
    }
}

/// A message's fields in the order of the type.
struct Fields<'de, 'm> {
    reader: Reader<'m>,
    fields: &'m [Field],
    seen: Vec<Seen<'de>>,
    parts: Parts<'de>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Fields<'de, '_> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        let Some(field) = self.fields.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let place = self.reader.field(field, self.seen[index], &self.parts);
        match place.and_then(|place| seed.deserialize(place)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.at(Step::Field(Some(index), field.name.clone().into()))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len() - self.next)
    }
}

/// A list's elements, packed or not.
struct Elements<'de, 'm> {
    reader: Reader<'m>,
    field: &'m Field,
    scan: Scan<'de>,
    /// What is left of the packed elements being read.
    packed: &'de [u8],
    left: usize,
    at: usize,
}

impl<'de, 'm> Elements<'de, 'm> {
    /// `count`: how often the field is there, which is the number of elements unless they are packed.
    fn new(reader: Reader<'m>, field: &'m Field, count: usize, parts: &Parts<'de>) -> Result<Self, CodecError> {
        let mut left = count;
        if is_packed(field.ty) {
            let mut scan = parts.scan();
            left = 0;
            while let Some(wire) = scan.next_of(field.number)? {
                left += packed_count(field.ty, wire);
            }
        }
        Ok(Elements { reader, field, scan: parts.scan(), packed: &[], left, at: 0 })
    }

    fn next(&mut self) -> Result<Option<Wire<'de>>, CodecError> {
        while self.packed.is_empty() {
            match self.scan.next_of(self.field.number)? {
                Some(Wire::Bytes(bytes)) if is_packed(self.field.ty) => self.packed = bytes,
                other => return Ok(other),
            }
        }
        let wire = match self.field.ty {
            Type::Float => Wire::Fixed32(array(&mut self.packed)?),
            Type::Double => Wire::Fixed64(array(&mut self.packed)?),
            _ => Wire::Varint(varint(&mut self.packed)?),
        };
        Ok(Some(wire))
    }
}

/// How many elements there are, if they are sound: a varint has one byte without the high bit.
fn packed_count(ty: Type, wire: Wire<'_>) -> usize {
    match (wire, ty) {
        (Wire::Bytes(bytes), Type::Float) => bytes.len() / 4,
        (Wire::Bytes(bytes), Type::Double) => bytes.len() / 8,
        (Wire::Bytes(bytes), _) => bytes.iter().filter(|&&byte| byte < 0x80).count(),
        _ => 1,
    }
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        let index = self.at;
        let element = self.next().map_err(|error| error.at_index(index))?;
        let Some(wire) = element else { return Ok(None) };
        self.at += 1;
        self.left = self.left.saturating_sub(1);
        let place = self.reader.element(self.field.ty, wire);
        place.and_then(|place| seed.deserialize(place)).map(Some).map_err(|error| error.at_index(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A map's entries.
struct Entries<'de, 'm> {
    reader: Reader<'m>,
    number: u32,
    key: &'m Field,
    value: &'m Field,
    scan: Scan<'de>,
    left: usize,
    at: usize,
    /// The entry whose key was read.
    open: Option<(Seen<'de>, Parts<'de>)>,
}

impl<'de, 'm> Entries<'de, 'm> {
    fn read<T: DeserializeSeed<'de>>(
        &self,
        field: &'m Field,
        seen: Seen<'de>,
        entry: &Parts<'de>,
        seed: T,
    ) -> Result<T::Value, CodecError> {
        // An entry is a message, too.
        let depth = self.reader.depth.checked_sub(1).ok_or_else(too_deep)?;
        let reader = Reader { depth, ..self.reader };
        seed.deserialize(reader.field(field, seen, entry)?)
    }

    fn next(&mut self) -> Result<Option<(Seen<'de>, Seen<'de>, Parts<'de>)>, CodecError> {
        let Some(wire) = self.scan.next_of(self.number)? else { return Ok(None) };
        let entry = Parts::One(message_bytes(Some(wire))?);
        let (key, value) = (look_for_one(self.key, &entry)?, look_for_one(self.value, &entry)?);
        Ok(Some((key, value, entry)))
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = CodecError;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        let index = self.at;
        let next = self.next().map_err(|error| error.at_index(index))?;
        let Some((key, value, entry)) = next else { return Ok(None) };
        self.at += 1;
        self.left = self.left.saturating_sub(1);
        let read = self.read(self.key, key, &entry, seed).map_err(|error| error.at_index(index))?;
        self.open = Some((value, entry));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CodecError> {
        let (seen, entry) = self.open.take().ok_or_else(|| CodecError::new("a value without a key"))?;
        self.read(self.value, seen, &entry, seed).map_err(|error| error.at_index(self.at - 1))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A variant that holds nothing, by its place.
struct Plain(u32);

impl<'de> EnumAccess<'de> for Plain {
    type Error = CodecError;
    type Variant = NoPayload;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, NoPayload), CodecError> {
        let place: U32Deserializer<CodecError> = self.0.into_deserializer();
        Ok((seed.deserialize(place)?, NoPayload))
    }
}

struct NoPayload;

fn not_what_the_schema_says<T>() -> Result<T, CodecError> {
    Err(CodecError::new("serde reads a variant that is not what the type's schema says"))
}

impl<'de> VariantAccess<'de> for NoPayload {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, CodecError> {
        not_what_the_schema_says()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, CodecError> {
        not_what_the_schema_says()
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, CodecError> {
        not_what_the_schema_says()
    }
}

/// A variant of a `oneof`: the last one in the message.
struct Choice<'de, 'm> {
    reader: Reader<'m>,
    index: usize,
    field: &'m Field,
    /// How often it was sent since another variant was.
    seen: Seen<'de>,
    parts: Parts<'de>,
}

impl<'de, 'm> Choice<'de, 'm> {
    fn find(reader: Reader<'m>, fields: &'m [Field], parts: Parts<'de>) -> Result<Self, CodecError> {
        let (mut found, mut unknown, mut scan) = (None, None, parts.scan());
        while let Some((number, wire)) = scan.next()? {
            let Some(index) = index_of(fields, number) else {
                unknown = Some(number);
                continue;
            };
            let before = match found {
                Some((same, Seen { count, .. })) if same == index => count,
                _ => 0,
            };
            found = Some((index, Seen { count: before + 1, last: Some(wire) }));
        }
        let (index, seen) = found.ok_or_else(|| no_variant(unknown))?;
        Ok(Choice { reader, index, field: &fields[index], seen, parts })
    }

    fn read<R>(self, read: impl FnOnce(Place<'de, 'm>) -> Result<R, CodecError>) -> Result<R, CodecError> {
        let place = self.reader.one(self.field, self.seen, &self.parts);
        place.and_then(read).map_err(|error| error.at(Step::Variant(Some(self.index), self.field.name.clone().into())))
    }
}

#[cold]
fn no_variant(unknown: Option<u32>) -> CodecError {
    CodecError::new(match unknown {
        Some(number) => format!("no variant has the number {number}"),
        None => "no variant is set".to_owned(),
    })
}

impl<'de> EnumAccess<'de> for Choice<'de, '_> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), CodecError> {
        let place: U32Deserializer<CodecError> = (self.index as u32).into_deserializer();
        Ok((seed.deserialize(place)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de, '_> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        self.read(serde::Deserialize::deserialize)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        self.read(|place| seed.deserialize(place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.read(|place| place.deserialize_tuple(count, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        self.read(|place| place.deserialize_struct("", names, visitor))
    }
}
