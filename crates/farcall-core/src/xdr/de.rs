//! The decoder: a serde deserializer over bytes that nobody vouches for.

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{MAX_DEPTH, MAX_FREE_ELEMENTS, UNIT};
use crate::codec::{CodecError, Step};
use crate::compact::no_variant;

/// Reads XDR values from the front of a slice.
pub struct Decoder<'de> {
    rest: &'de [u8],
    /// Bytes of the whole message: what was read is counted in units from its begin.
    length: usize,
    depth: u32,
    /// Elements without bytes that may still come.
    free: usize,
    /// Elements that lists may still ask space for ahead: never more, all lists together, than the message has bytes.
    ahead: usize,
    /// The next value is itself an element of a list: a u8 there is one byte of an opaque.
    element: bool,
}

impl<'de> Decoder<'de> {
    /// A decoder over `bytes`.
    pub fn new(bytes: &'de [u8]) -> Decoder<'de> {
        Decoder { rest: bytes, length: bytes.len(), depth: MAX_DEPTH, free: MAX_FREE_ELEMENTS, ahead: bytes.len(), element: false }
    }

    /// Refuses bytes left over.
    pub fn finish(&self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::new(format!("{left} bytes are left over after the value"))),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'de [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn word(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads the residual bytes up to the next unit.
    fn residue(&mut self) -> Result<(), CodecError> {
        let read = self.length - self.rest.len();
        let residue = self.take(read.next_multiple_of(UNIT) - read)?;
        match residue.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(CodecError::new("the bytes that fill up the last four are not zero")),
        }
    }

    fn bytes(&mut self) -> Result<&'de [u8], CodecError> {
        let length = self.word()? as usize;
        let bytes = self.take(length)?;
        self.residue()?;
        Ok(bytes)
    }

    fn str(&mut self) -> Result<&'de str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::new("a string is not UTF-8"))
    }

    fn flag(&mut self, kind: &str) -> Result<bool, CodecError> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::new(format!("{kind} must be 0 or 1, not {other}"))),
        }
    }

    /// A list's count. Elements either take a byte or are counted as free, so a greater count never comes true.
    fn count(&mut self) -> Result<usize, CodecError> {
        let (count, left) = (self.word()? as usize, self.rest.len());
        if count > left.saturating_add(self.free) {
            return Err(CodecError::new(format!("a list claims {count} elements, the message has {left} bytes left")));
        }
        Ok(count)
    }

    fn nested<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, CodecError>) -> Result<R, CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(too_deep)?;
        self.element = false;
        let result = read(self);
        self.element = false;
        self.depth += 1;
        result
    }
}

#[cold]
fn ends_early() -> CodecError {
    CodecError::new("the message ends early")
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format!("the value nests deeper than {MAX_DEPTH}"))
}

#[cold]
fn too_many_free() -> CodecError {
    CodecError::new(format!("more than {MAX_FREE_ELEMENTS} elements take no bytes"))
}

#[cold]
fn out_of_range(value: impl std::fmt::Display, kind: &str) -> CodecError {
    CodecError::new(format!("{value} is out of range for {kind}"))
}

#[cold]
fn not_self_describing() -> CodecError {
    CodecError::new(
        "this type asks the message to describe itself (untagged, flatten, a free-form value), \
         which XDR does not do: use JSON for it",
    )
}

macro_rules! wide {
    ($($method:ident, $visit:ident($number:ty);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(<$number>::from_be_bytes(self.array()?))
        }
    )*};
}

/// Numbers of fewer bytes than XDR spends on them.
macro_rules! narrow {
    ($($method:ident, $visit:ident($number:ty) in $xdr:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            let value = <$xdr>::from_be_bytes(self.array()?);
            match value.try_into() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(out_of_range(value, stringify!($number))),
            }
        }
    )*};
}

macro_rules! refused {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
            Err(not_self_describing())
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = CodecError;

    wide! {
        deserialize_u32, visit_u32(u32);
        deserialize_u64, visit_u64(u64);
        deserialize_u128, visit_u128(u128);
        deserialize_i32, visit_i32(i32);
        deserialize_i64, visit_i64(i64);
        deserialize_i128, visit_i128(i128);
        deserialize_f32, visit_f32(f32);
        deserialize_f64, visit_f64(f64);
    }

    narrow! {
        deserialize_u16, visit_u16(u16) in u32;
        deserialize_i8, visit_i8(i8) in i32;
        deserialize_i16, visit_i16(i16) in i32;
        deserialize_char, visit_char(char) in u32;
    }

    refused! { deserialize_any deserialize_identifier deserialize_ignored_any }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_bool(self.flag("a bool")?)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.element {
            let [byte] = self.array()?;
            return visitor.visit_u8(byte);
        }
        let value = self.word()?;
        match value.try_into() {
            Ok(value) => visitor.visit_u8(value),
            Err(_) => Err(out_of_range(value, "u8")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.str()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.str()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.flag("whether an option is there")? {
            false => visitor.visit_none(),
            true => self.nested(|decoder| visitor.visit_some(decoder)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let count = self.count()?;
        self.nested(|decoder| {
            let value = visitor.visit_seq(Elements::new(decoder, count))?;
            // Only a list of u8 can have left the unit.
            decoder.residue().map(|()| value)
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields { decoder, next: 0, count, names: &[] }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(count, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let count = self.count()?;
        self.nested(|decoder| visitor.visit_map(Elements::new(decoder, count)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields { decoder, next: 0, count: names.len(), names }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(Choice { decoder: self, variants })
    }
}

/// A struct's or tuple's fields: their number is known to the type.
struct Fields<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    next: usize,
    /// An upper bound: serde lists aliases among the names.
    count: usize,
    /// Empty for a tuple. An alias may stand for a name: [`CodecError::named_by`] mends that.
    names: &'static [&'static str],
}

impl Fields<'_, '_> {
    #[cold]
    fn locate(&self, error: CodecError) -> CodecError {
        let index = self.next - 1;
        let name = self.names.get(index).map_or_else(|| index.to_string().into(), |&name| name.into());
        error.at(Step::Field(Some(index), name))
    }
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if self.next == self.count {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(&mut *self.decoder).map(Some).map_err(|error| self.locate(error))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

/// A list's elements or a map's entries: their number comes from the message.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    next: usize,
    count: usize,
    /// How many of them space may be set aside for before they are read.
    ahead: usize,
    /// Bytes left before the entry being read, to see whether it took any.
    before: usize,
}

impl<'a, 'de> Elements<'a, 'de> {
    fn new(decoder: &'a mut Decoder<'de>, count: usize) -> Self {
        let ahead = count.min(decoder.ahead);
        decoder.ahead -= ahead;
        Elements { decoder, next: 0, count, ahead, before: 0 }
    }

    fn begin(&mut self) -> bool {
        if self.next == self.count {
            return false;
        }
        self.next += 1;
        self.before = self.decoder.rest.len();
        true
    }

    fn end(&mut self) -> Result<(), CodecError> {
        if self.decoder.rest.len() == self.before {
            self.decoder.free = self.decoder.free.checked_sub(1).ok_or_else(too_many_free)?;
        }
        Ok(())
    }

    fn left(&self) -> Option<usize> {
        Some(self.ahead.min(self.count - self.next))
    }

    #[cold]
    fn locate(&self, error: CodecError) -> CodecError {
        error.at_index(self.next - 1)
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.begin() {
            return Ok(None);
        }
        self.decoder.element = true;
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => self.end().map(|()| Some(value)),
            Err(error) => Err(self.locate(error)),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.left()
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.begin() {
            return Ok(None);
        }
        seed.deserialize(&mut *self.decoder).map(Some).map_err(|error| self.locate(error))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CodecError> {
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => self.end().map(|()| value),
            Err(error) => Err(self.locate(error)),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.left()
    }
}

/// An enum's variant, by number.
struct Choice<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    variants: &'static [&'static str],
}

impl<'a, 'de> EnumAccess<'de> for Choice<'a, 'de> {
    type Error = CodecError;
    type Variant = Payload<'a, 'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Payload<'a, 'de>), CodecError> {
        let number = self.decoder.word()?;
        // As in the compact codec: a type with `#[serde(other)]` would take any number, but not what the variant holds.
        if number as usize >= self.variants.len() {
            return Err(no_variant(number.into()));
        }
        let deserializer: de::value::U32Deserializer<CodecError> = number.into_deserializer();
        let variant = seed.deserialize(deserializer)?;
        Ok((variant, Payload { decoder: self.decoder, number: number as usize, variants: self.variants }))
    }
}

/// What a variant holds.
struct Payload<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    number: usize,
    /// serde lists aliases here too, as among a struct's fields.
    variants: &'static [&'static str],
}

impl<'de> Payload<'_, 'de> {
    fn nested<R>(self, read: impl FnOnce(&mut Decoder<'de>) -> Result<R, CodecError>) -> Result<R, CodecError> {
        self.decoder.nested(read).map_err(|error| {
            let name = self.variants.get(self.number).copied().unwrap_or("?");
            error.at(Step::Variant(Some(self.number), name.into()))
        })
    }
}

impl<'de> VariantAccess<'de> for Payload<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        self.nested(|decoder| seed.deserialize(decoder))
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields { decoder, next: 0, count, names: &[] }))
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields { decoder, next: 0, count: names.len(), names }))
    }
}
