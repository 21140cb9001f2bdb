//! The encoder: a serde serializer that walks a value along its messages.

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::wire::{put_key, put_varint, wire_type};
use super::{Body, Field, Label, MAX_DEPTH, Message, Messages, Type, is_packed};
use crate::codec::CodecError;

pub(super) fn encode<T: Serialize + ?Sized>(value: &T, messages: &Messages, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let root = messages.root()?;
    Writer { out, messages, depth: MAX_DEPTH - 1 }.body(root, value)
}

struct Writer<'o, 'm> {
    out: &'o mut Vec<u8>,
    messages: &'m Messages,
    depth: u32,
}

/// What was opened and has its length still to come.
struct Frame {
    /// Where its key begins.
    start: usize,
    /// Where its bytes begin, behind one byte for the length.
    body: usize,
}

impl<'m> Writer<'_, 'm> {
    fn open(&mut self, number: u32) -> Frame {
        let start = self.out.len();
        put_key(self.out, number, wire_type::BYTES);
        self.out.push(0);
        Frame { start, body: self.out.len() }
    }

    /// Writes the length; most are one byte, and what follows moves up for longer ones.
    fn close(&mut self, frame: &Frame) {
        let length = self.out.len() - frame.body;
        if length < 0x80 {
            self.out[frame.body - 1] = length as u8;
            return;
        }
        let mut bytes = Vec::with_capacity(10);
        put_varint(&mut bytes, length as u64);
        self.out.splice(frame.body - 1..frame.body, bytes);
    }

    /// Closes it, or takes it back if there is nothing in it.
    fn close_unless_empty(&mut self, frame: &Frame) {
        match self.out.len() == frame.body {
            true => self.out.truncate(frame.start),
            false => self.close(frame),
        }
    }

    fn enter(&mut self) -> Result<(), CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    fn message(&self, id: usize) -> Result<&'m Message, CodecError> {
        self.messages.messages.get(id).ok_or_else(|| mismatch("a message"))
    }

    /// A message's fields, without key and length.
    fn body<T: Serialize + ?Sized>(&mut self, message: &'m Message, value: &T) -> Result<(), CodecError> {
        match &message.body {
            Body::Wrapper(field) => self.field(field, value),
            body => value.serialize(Place { to: self, role: Role::Body(body) }),
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, field: &'m Field, value: &T) -> Result<(), CodecError> {
        match field.label {
            Label::Plain => self.present(field, value, false),
            Label::Optional => value.serialize(Place { to: self, role: Role::Maybe(field) }),
            Label::List | Label::Map => value.serialize(Place { to: self, role: Role::List(field) }),
        }
    }

    /// One value of a field. `explicit`: also if it is zero.
    fn present<T: Serialize + ?Sized>(&mut self, field: &'m Field, value: &T, explicit: bool) -> Result<(), CodecError> {
        if let Type::Message(id) = field.ty {
            let message = self.message(id)?;
            let frame = self.open(field.number);
            self.enter()?;
            self.body(message, value)?;
            self.depth += 1;
            self.close(&frame);
            return Ok(());
        }
        value.serialize(Place { to: self, role: Role::One { ty: field.ty, number: Some(field.number), explicit } })
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format!("the value nests deeper than {MAX_DEPTH} messages"))
}

/// A schema is asserted beside serde's implementation: if they differ, nothing is made up.
#[cold]
fn mismatch(written: &str) -> CodecError {
    CodecError::new(format!("serde writes {written}, which is not what the type's schema says"))
}

/// Where a value goes.
struct Place<'w, 'o, 'm> {
    to: &'w mut Writer<'o, 'm>,
    role: Role<'m>,
}

enum Role<'m> {
    /// A value that is no message; without its key in a packed list.
    One { ty: Type, number: Option<u32>, explicit: bool },
    /// The fields of a message.
    Body(&'m Body),
    /// An option.
    Maybe(&'m Field),
    /// A list or a map.
    List(&'m Field),
    /// An element of a list that is written as bytes.
    Byte,
}

impl<'w, 'o, 'm> Place<'w, 'o, 'm> {
    /// Whether the value is written: a zero that nobody asks for is not.
    fn key(&mut self, is_zero: bool, wire_type: u32) -> bool {
        let Role::One { number, explicit, .. } = self.role else { return false };
        if let Some(number) = number {
            if is_zero && !explicit {
                return false;
            }
            put_key(self.to.out, number, wire_type);
        }
        true
    }

    fn ty(&self) -> Option<Type> {
        match self.role {
            Role::One { ty, .. } => Some(ty),
            _ => None,
        }
    }

    fn varint(mut self, value: u64) -> Result<(), CodecError> {
        if self.key(value == 0, wire_type::VARINT) {
            put_varint(self.to.out, value);
        }
        Ok(())
    }

    fn unsigned(self, value: u64) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::Uint32 | Type::Uint64) => self.varint(value),
            _ => Err(mismatch("an unsigned number")),
        }
    }

    fn signed(self, value: i64) -> Result<(), CodecError> {
        match self.ty() {
            // Negative numbers take ten bytes, in int32 too: that is how the two are compatible.
            Some(Type::Int32 | Type::Int64) => self.varint(value as u64),
            _ => Err(mismatch("a signed number")),
        }
    }

    fn bytes(mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if self.key(bytes.is_empty(), wire_type::BYTES) {
            put_varint(self.to.out, bytes.len() as u64);
            self.to.out.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn wide(self, value: u128) -> Result<(), CodecError> {
        match value {
            0 => self.bytes(&[]),
            value => self.bytes(&value.to_be_bytes()),
        }
    }

    /// A list of u8 that is written as bytes.
    fn byte_list(self, number: Option<u32>, explicit: bool, count: Option<u32>) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        let frame = self.to.open(number.ok_or_else(|| mismatch("bytes"))?);
        Ok(Compound { to: self.to, open: Open::Bytes { frame, explicit, count } })
    }

    fn list(self) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        match self.role {
            Role::List(field) if field.label == Label::List => {
                let packed = is_packed(field.ty).then(|| self.to.open(field.number));
                Ok(Compound { to: self.to, open: Open::List { field, packed } })
            }
            Role::One { ty: Type::Bytes, number, explicit } => self.byte_list(number, explicit, None),
            Role::One { ty: Type::ByteArray(count), number, explicit } => self.byte_list(number, explicit, Some(count)),
            _ => Err(mismatch("a list")),
        }
    }

    fn fields(self) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        match self.role {
            Role::Body(Body::Fields(fields)) => Ok(Compound { to: self.to, open: Open::Fields { fields, next: 0, frame: None } }),
            _ => Err(mismatch("a struct")),
        }
    }

    /// The field of a `oneof`.
    fn variant(&self, index: u32) -> Result<&'m Field, CodecError> {
        match self.role {
            Role::Body(Body::Choice(variants)) => variants.get(index as usize).ok_or_else(|| mismatch("another variant")),
            _ => Err(mismatch("a variant with fields")),
        }
    }

    fn variant_fields(self, index: u32) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        let field = self.variant(index)?;
        let Type::Message(id) = field.ty else { return Err(mismatch("a variant with fields")) };
        let Body::Fields(fields) = &self.to.message(id)?.body else { return Err(mismatch("a variant with fields")) };
        let frame = self.to.open(field.number);
        self.to.enter()?;
        Ok(Compound { to: self.to, open: Open::Fields { fields, next: 0, frame: Some(frame) } })
    }

    fn nothing(self) -> Result<(), CodecError> {
        match self.role {
            Role::Body(Body::Fields(fields)) if fields.is_empty() => Ok(()),
            _ => Err(mismatch("nothing")),
        }
    }
}

macro_rules! integers {
    ($($method:ident($number:ty) as $kind:ident;)*) => {$(
        fn $method(self, value: $number) -> Result<(), CodecError> {
            self.$kind(value.into())
        }
    )*};
}

impl<'w, 'o, 'm> Serializer for Place<'w, 'o, 'm> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Compound<'w, 'o, 'm>;
    type SerializeTuple = Compound<'w, 'o, 'm>;
    type SerializeTupleStruct = Compound<'w, 'o, 'm>;
    type SerializeTupleVariant = Compound<'w, 'o, 'm>;
    type SerializeMap = Entries<'w, 'o, 'm>;
    type SerializeStruct = Compound<'w, 'o, 'm>;
    type SerializeStructVariant = Compound<'w, 'o, 'm>;

    integers! {
        serialize_u16(u16) as unsigned;
        serialize_u32(u32) as unsigned;
        serialize_u64(u64) as unsigned;
        serialize_i8(i8) as signed;
        serialize_i16(i16) as signed;
        serialize_i32(i32) as signed;
        serialize_i64(i64) as signed;
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::Bool) => self.varint(value.into()),
            _ => Err(mismatch("a bool")),
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        if let Role::Byte = self.role {
            self.to.out.push(value);
            return Ok(());
        }
        self.unsigned(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::U128) => self.wide(value),
            _ => Err(mismatch("a u128")),
        }
    }

    fn serialize_i128(self, value: i128) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::I128) => self.wide(value as u128),
            _ => Err(mismatch("an i128")),
        }
    }

    fn serialize_f32(mut self, value: f32) -> Result<(), CodecError> {
        if self.ty() != Some(Type::Float) {
            return Err(mismatch("an f32"));
        }
        // Minus zero is not zero: its sign would be lost.
        if self.key(value.to_bits() == 0, wire_type::FIXED32) {
            self.to.out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    fn serialize_f64(mut self, value: f64) -> Result<(), CodecError> {
        if self.ty() != Some(Type::Double) {
            return Err(mismatch("an f64"));
        }
        if self.key(value.to_bits() == 0, wire_type::FIXED64) {
            self.to.out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::Char) => self.varint(u32::from(value).into()),
            _ => Err(mismatch("a char")),
        }
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::Str) => self.bytes(value.as_bytes()),
            _ => Err(mismatch("a string")),
        }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        match self.ty() {
            Some(Type::Bytes) => self.bytes(value),
            Some(Type::ByteArray(count)) if value.len() == count as usize => self.bytes(value),
            _ => Err(mismatch("bytes")),
        }
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        match self.role {
            Role::Maybe(_) => Ok(()),
            _ => Err(mismatch("an option")),
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        match self.role {
            Role::Maybe(field) => self.to.present(field, value, true),
            _ => Err(mismatch("an option")),
        }
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        self.nothing()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.nothing()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), CodecError> {
        if let Some(Type::Enum(id)) = self.ty() {
            let value = self.to.messages.enums.get(id).and_then(|found| found.values.get(index as usize));
            let number = value.ok_or_else(|| mismatch("another variant"))?.number;
            return self.varint(i64::from(number) as u64);
        }
        let field = self.variant(index)?;
        let frame = self.to.open(field.number);
        self.to.close(&frame);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        let field = self.variant(index)?;
        self.to.present(field, value, true).map_err(|error| error.at_variant(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
        self.list()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CodecError> {
        match self.role {
            Role::Body(_) => self.fields(),
            _ => self.list(),
        }
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, CodecError> {
        self.fields()
    }

    fn serialize_tuple_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        self.variant_fields(index)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
        let Role::List(Field { label: Label::Map, number, ty: Type::Message(id), .. }) = self.role else { return Err(mismatch("a map")) };
        match &self.to.message(*id)?.body {
            Body::Entry(key, value) => Ok(Entries { to: self.to, number: *number, key, value, frame: None }),
            _ => Err(mismatch("a map")),
        }
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, CodecError> {
        self.fields()
    }

    fn serialize_struct_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Compound<'w, 'o, 'm>, CodecError> {
        self.variant_fields(index)
    }
}

/// Something that is written part by part.
struct Compound<'w, 'o, 'm> {
    to: &'w mut Writer<'o, 'm>,
    open: Open<'m>,
}

enum Open<'m> {
    /// A message; its frame if it is a variant.
    Fields { fields: &'m [Field], next: usize, frame: Option<Frame> },
    /// A list; the frame around all elements if they are packed.
    List { field: &'m Field, packed: Option<Frame> },
    /// A list of u8; how many there must be.
    Bytes { frame: Frame, explicit: bool, count: Option<u32> },
}

impl<'m> Compound<'_, '_, 'm> {
    fn next_field(&mut self) -> Result<&'m Field, CodecError> {
        let Open::Fields { fields, next, .. } = &mut self.open else { return Err(mismatch("a struct")) };
        let field = fields.get(*next).ok_or_else(|| mismatch("more fields"))?;
        *next += 1;
        Ok(field)
    }

    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        match &self.open {
            Open::Fields { .. } => {
                let field = self.next_field()?;
                self.to.field(field, value)
            }
            Open::List { field, packed: None } => self.to.present(field, value, true),
            Open::List { field, packed: Some(_) } => {
                value.serialize(Place { to: self.to, role: Role::One { ty: field.ty, number: None, explicit: true } })
            }
            Open::Bytes { .. } => value.serialize(Place { to: self.to, role: Role::Byte }),
        }
    }

    fn finish(self) -> Result<(), CodecError> {
        match self.open {
            Open::Fields { fields, next, .. } if next < fields.len() => return Err(mismatch("fewer fields")),
            Open::Fields { frame: Some(frame), .. } => {
                self.to.depth += 1;
                self.to.close(&frame);
            }
            Open::Bytes { frame, count: Some(count), .. } if self.to.out.len() - frame.body != count as usize => {
                return Err(mismatch("an array of another length"));
            }
            Open::Bytes { frame, explicit: true, .. } => self.to.close(&frame),
            Open::List { packed: Some(frame), .. } | Open::Bytes { frame, .. } => self.to.close_unless_empty(&frame),
            Open::Fields { frame: None, .. } | Open::List { packed: None, .. } => {}
        }
        Ok(())
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident;)*) => {$(
        impl ser::$compound for Compound<'_, '_, '_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                self.part(value)
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
        impl ser::$compound for Compound<'_, '_, '_> {
            type Ok = ();
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CodecError> {
                self.part(value).map_err(|error| error.at_field(name))
            }

            /// What is left out is what a missing field is read as: None, empty or false.
            fn skip_field(&mut self, _: &'static str) -> Result<(), CodecError> {
                self.next_field().map(|_| ())
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

/// A map on its way out.
struct Entries<'w, 'o, 'm> {
    to: &'w mut Writer<'o, 'm>,
    number: u32,
    key: &'m Field,
    value: &'m Field,
    /// Of the entry whose key is written.
    frame: Option<Frame>,
}

impl ser::SerializeMap for Entries<'_, '_, '_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.frame = Some(self.to.open(self.number));
        self.to.enter()?;
        self.to.field(self.key, key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let frame = self.frame.take().ok_or_else(|| mismatch("a value without a key"))?;
        let start = self.to.out.len();
        self.to.field(self.value, value)?;
        // A key byte and a length of zero: in an entry an empty message is left out like every other default.
        if let (Type::Message(_), [_, 0]) = (self.value.ty, &self.to.out[start..]) {
            self.to.out.truncate(start);
        }
        self.to.depth += 1;
        self.to.close(&frame);
        Ok(())
    }

    fn end(self) -> Result<(), CodecError> {
        Ok(())
    }
}
