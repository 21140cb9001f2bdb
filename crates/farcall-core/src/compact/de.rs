//! The decoder: a serde deserializer over bytes that nobody vouches for.

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::codec::{CodecError, Step};
use crate::compact::{MAX_DEPTH, MAX_FREE_ELEMENTS};

/// Reads values of the compact format from the front of a slice.
pub struct Decoder<'de> {
    rest: &'de [u8],
    depth: u32,
    /// Elements without bytes that may still come.
    free: usize,
    /// Elements that lists may still ask space for ahead. It starts at the message's length, and an honest message
    /// never has more elements than bytes, so nested lists cannot multiply what a hostile one makes us set aside.
    ahead: usize,
}

impl<'de> Decoder<'de> {
    /// A decoder over `bytes`.
    #[inline]
    pub fn new(bytes: &'de [u8]) -> Decoder<'de> {
        Decoder { rest: bytes, depth: MAX_DEPTH, free: MAX_FREE_ELEMENTS, ahead: bytes.len() }
    }

    /// Refuses bytes left over.
    #[inline]
    pub fn finish(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(left_over(self.rest.len()))
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, CodecError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'de [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, CodecError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            // Nine groups of seven bits are 63: the tenth has one bit left.
            if at == 9 && byte > 1 {
                return Err(bad_varint());
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(ends_early())
    }

    pub(crate) fn varint128(&mut self) -> Result<u128, CodecError> {
        let mut value = 0u128;
        for at in 0..19 {
            let byte = self.byte()?;
            // Eighteen groups of seven bits are 126: the last has two bits left.
            if at == 18 && byte > 3 {
                break;
            }
            value |= u128::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(bad_varint())
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'de [u8], CodecError> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(ends_early()),
        }
    }

    #[inline]
    fn str(&mut self) -> Result<&'de str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| not_utf8())
    }

    /// A list's count. Elements either take a byte or are counted as free, so a greater count never comes true.
    #[inline]
    pub(crate) fn count(&mut self) -> Result<usize, CodecError> {
        let count = self.varint()?;
        let most = self.rest.len().saturating_add(self.free);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(too_many(count, self.rest.len())),
        }
    }

    #[inline]
    pub(crate) fn nested<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, CodecError>) -> Result<R, CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(too_deep)?;
        let result = read(self);
        self.depth += 1;
        result
    }
}

#[cold]
fn ends_early() -> CodecError {
    CodecError::new("the message ends early")
}

#[cold]
fn left_over(count: usize) -> CodecError {
    CodecError::new(format!("{count} bytes are left over after the value"))
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format!("the value nests deeper than {MAX_DEPTH}"))
}

#[cold]
fn too_many(count: u64, left: usize) -> CodecError {
    CodecError::new(format!("a list claims {count} elements, the message has {left} bytes left"))
}

#[cold]
fn too_many_free() -> CodecError {
    CodecError::new(format!("more than {MAX_FREE_ELEMENTS} elements take no bytes"))
}

#[cold]
fn bad_varint() -> CodecError {
    CodecError::new("a number is longer than its type allows")
}

#[cold]
fn not_utf8() -> CodecError {
    CodecError::new("a string is not UTF-8")
}

#[cold]
pub(crate) fn out_of_range(kind: &str) -> CodecError {
    CodecError::new(format!("a number is out of range for {kind}"))
}

#[cold]
pub(crate) fn no_variant(number: u64) -> CodecError {
    CodecError::new(format!("the enum has no variant number {number}"))
}

#[cold]
pub(crate) fn bad_flag(kind: &str, byte: u8) -> CodecError {
    CodecError::new(format!("{kind} must begin with 0 or 1, not {byte}"))
}

#[cold]
fn not_self_describing() -> CodecError {
    CodecError::new(
        "this type asks the message to describe itself (untagged, flatten, a free-form value), \
         which the compact codec does not do: use JSON for it",
    )
}

/// The inverse of the encoder's zig-zag.
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

macro_rules! integers {
    ($($method:ident, $visit:ident($int:ty) = $from_u64:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            let from_u64: fn(u64) -> Option<$int> = $from_u64;
            match from_u64(self.varint()?) {
                Some(value) => visitor.$visit(value),
                None => Err(out_of_range(stringify!($int))),
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

    integers! {
        deserialize_u16, visit_u16(u16) = |value| value.try_into().ok();
        deserialize_u32, visit_u32(u32) = |value| value.try_into().ok();
        deserialize_u64, visit_u64(u64) = Some;
        deserialize_i16, visit_i16(i16) = |value| unzigzag(value).try_into().ok();
        deserialize_i32, visit_i32(i32) = |value| unzigzag(value).try_into().ok();
        deserialize_i64, visit_i64(i64) = |value| Some(unzigzag(value));
    }

    refused! { deserialize_any deserialize_identifier deserialize_ignored_any }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            byte => Err(bad_flag("a bool", byte)),
        }
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_u8(self.byte()?)
    }

    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_i8(self.byte()? as i8)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_u128(self.varint128()?)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let value = self.varint128()?;
        visitor.visit_i128((value >> 1) as i128 ^ -((value & 1) as i128))
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let mut chars = self.str()?.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(CodecError::new("a char must be exactly one character")),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.str()?)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|decoder| visitor.visit_some(decoder)),
            byte => Err(bad_flag("an option", byte)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let count = self.count()?;
        self.nested(|decoder| visitor.visit_seq(Elements::new(decoder, count)))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields::unnamed(decoder, count)))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(count, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let count = self.count()?;
        self.nested(|decoder| visitor.visit_map(Elements::new(decoder, count)))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields::named(decoder, names)))
    }

    #[inline]
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
    count: usize,
    /// Empty for a tuple. serde lists aliases among the names, which makes `count` an upper bound (harmless: the
    /// type asks for its fields, not for the end) and may put an alias or a neighbour's name into an error's path:
    /// [`CodecError::named_by`] mends that.
    names: &'static [&'static str],
}

impl<'a, 'de> Fields<'a, 'de> {
    #[inline]
    fn unnamed(decoder: &'a mut Decoder<'de>, count: usize) -> Self {
        Fields { decoder, next: 0, count, names: &[] }
    }

    #[inline]
    fn named(decoder: &'a mut Decoder<'de>, names: &'static [&'static str]) -> Self {
        Fields { decoder, next: 0, count: names.len(), names }
    }

    #[cold]
    fn locate(&self, error: CodecError) -> CodecError {
        let index = self.next - 1;
        let name = match self.names.get(index) {
            Some(&name) => name.into(),
            None => index.to_string().into(),
        };
        error.at(Step::Field(Some(index), name))
    }
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if self.next == self.count {
            return Ok(None);
        }
        self.next += 1;
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.locate(error)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

/// Counts the elements of a list or the entries of a map as they are read: their number comes from the message.
pub(crate) struct Tally {
    next: usize,
    count: usize,
    /// How many of them space may be set aside for before they are read.
    ahead: usize,
    /// Bytes left before the one being read, to see whether it took any.
    before: usize,
}

impl Tally {
    #[inline]
    pub(crate) fn new(decoder: &mut Decoder<'_>, count: usize) -> Tally {
        let ahead = count.min(decoder.ahead);
        decoder.ahead -= ahead;
        Tally { next: 0, count, ahead, before: 0 }
    }

    /// Whether there is one more; then it is about to be read.
    #[inline]
    pub(crate) fn begin(&mut self, decoder: &Decoder<'_>) -> bool {
        if self.next == self.count {
            return false;
        }
        self.next += 1;
        self.before = decoder.rest.len();
        true
    }

    /// It was read.
    #[inline]
    pub(crate) fn end(&self, decoder: &mut Decoder<'_>) -> Result<(), CodecError> {
        if decoder.rest.len() == self.before {
            decoder.free = decoder.free.checked_sub(1).ok_or_else(too_many_free)?;
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn hint(&self) -> usize {
        self.ahead.min(self.count - self.next)
    }

    #[cold]
    pub(crate) fn locate(&self, error: CodecError) -> CodecError {
        error.at_index(self.next - 1)
    }
}

/// A list's elements or a map's entries.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    tally: Tally,
}

impl<'a, 'de> Elements<'a, 'de> {
    #[inline]
    fn new(decoder: &'a mut Decoder<'de>, count: usize) -> Self {
        let tally = Tally::new(decoder, count);
        Elements { decoder, tally }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.tally.begin(self.decoder) {
            return Ok(None);
        }
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => self.tally.end(self.decoder).map(|()| Some(value)),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.tally.hint())
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.tally.begin(self.decoder) {
            return Ok(None);
        }
        match seed.deserialize(&mut *self.decoder) {
            Ok(key) => Ok(Some(key)),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CodecError> {
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => self.tally.end(self.decoder).map(|()| value),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.tally.hint())
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

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Payload<'a, 'de>), CodecError> {
        let number = self.decoder.varint()?;
        let number = u32::try_from(number).map_err(|_| out_of_range("a variant"))?;
        // A type with `#[serde(other)]` would take any number. That is for variants of another version, which a plan
        // maps by name; here both sides have agreed on the type. (Aliases count among the names, so a little passes.)
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
    #[inline]
    fn nested<R>(self, read: impl FnOnce(&mut Decoder<'de>) -> Result<R, CodecError>) -> Result<R, CodecError> {
        match self.decoder.nested(read) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.locate(error)),
        }
    }

    #[cold]
    fn locate(&self, error: CodecError) -> CodecError {
        let name = self.variants.get(self.number).copied().unwrap_or("?");
        error.at(Step::Variant(Some(self.number), name.into()))
    }
}

impl<'de> VariantAccess<'de> for Payload<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        self.nested(|decoder| seed.deserialize(decoder))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields::unnamed(decoder, count)))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        self.nested(|decoder| visitor.visit_seq(Fields::named(decoder, names)))
    }
}
