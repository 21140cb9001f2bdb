//! The decoder: serde_json's, but wide integers may be strings, and an error says in which field it is.
//!
//! serde_json's errors know line and column only. So everything that it hands to a type passes through here, and on its
//! way up an error leaves the steps of its path behind.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor};
use serde_json::value::RawValue;

use super::{MAX_WRAPPED, json_error, not_finite, too_deep};
use crate::codec::{CodecError, Step};

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

pub(super) fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, CodecError> {
    let path = Path { wrapped: Cell::new(MAX_WRAPPED), steps: RefCell::default() };
    let mut inner = serde_json::Deserializer::from_slice(text);
    let read = T::deserialize(Reader { inner: &mut inner, path: &path });
    let value = read.map_err(|error| json_error(&error, path.steps.take()))?;
    inner.end().map(|()| value).map_err(|error| json_error(&error, Vec::new()))
}

/// The steps to an error, innermost first, and how many more `Option`s and newtypes may be around what is read.
struct Path {
    wrapped: Cell<u32>,
    steps: RefCell<Vec<Step>>,
}

impl Path {
    #[cold]
    fn leave(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }

    /// Reads what an `Option` or a newtype holds. It is the same text, which a type may ask for again and again.
    fn unwrap<T, E: de::Error>(&self, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(left) = self.wrapped.get().checked_sub(1) else { return Err(E::custom(too_deep())) };
        self.wrapped.set(left);
        let value = read()?;
        self.wrapped.set(left + 1);
        Ok(value)
    }
}

/// A deserializer of which every value passes through here.
struct Reader<'p, D> {
    inner: D,
    path: &'p Path,
}

macro_rules! watched {
    ($($method:ident($($argument:ident: $ty:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Watch { visitor, path: self.path })
        }
    )*};
}

macro_rules! wide {
    ($($method:ident, $visit:ident: $read:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            match $read(<&RawValue>::deserialize(self.inner)?.get()) {
                Ok(number) => visitor.$visit(number),
                Err(found) => Err(de::Error::invalid_value(Unexpected::Other(&found), &visitor)),
            }
        }
    )*};
}

/// An integer that may stand in a string; else the beginning of what stands there.
fn number<N: FromStr>(text: &str) -> Result<N, String> {
    let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    // Rust reads a plus sign, JSON does not have it.
    let plain = inside.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    inside.parse().ok().filter(|_| plain).ok_or_else(|| text.chars().take(SHOWN).collect())
}

/// A number that is finite, or a string that says which one it is that is not.
fn float<N: FromStr + Copy + Into<f64>>(text: &str) -> Result<N, String> {
    let word = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    // Rust reads more words than these; and what JSON has no digit for, such as `null`, is no number either.
    let plain = word.is_some() || text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let number: Option<N> = word.unwrap_or(text).parse().ok();
    number.filter(|number| plain && not_finite((*number).into()) == word).ok_or_else(|| text.chars().take(SHOWN).collect())
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Reader<'_, D> {
    type Error = D::Error;

    watched! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(count: usize);
        deserialize_tuple_struct(name: &'static str, count: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    wide! {
        deserialize_u64, visit_u64: number::<u64>;
        deserialize_i64, visit_i64: number::<i64>;
        deserialize_u128, visit_u128: number::<u128>;
        deserialize_i128, visit_i128: number::<i128>;
        deserialize_f32, visit_f32: float::<f32>;
        deserialize_f64, visit_f64: float::<f64>;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A type's visitor, to which what has parts is given through here.
struct Watch<'p, V> {
    visitor: V,
    path: &'p Path,
}

macro_rules! handed_on {
    ($($method:ident($value:ty);)*) => {$(
        fn $method<E: de::Error>(self, value: $value) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watch<'_, V> {
    type Value = V::Value;

    handed_on! {
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.path.unwrap(|| self.visitor.visit_some(Reader { inner, path: self.path }))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.path.unwrap(|| self.visitor.visit_newtype_struct(Reader { inner, path: self.path }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Elements { inner, path: self.path, at: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members { inner, path: self.path, name: None, at: 0 })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Choice { inner, path: self.path })
    }
}

/// Puts a [`Reader`] around the deserializer that a seed is given.
struct Inside<'p, T> {
    seed: T,
    path: &'p Path,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Inside<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.seed.deserialize(Reader { inner, path: self.path })
    }
}

struct Elements<'p, A> {
    inner: A,
    path: &'p Path,
    at: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let read = self.inner.next_element_seed(Inside { seed, path: self.path });
        if read.is_err() {
            self.path.leave(Step::Index(self.at));
        }
        self.at += 1;
        read
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Members<'de, 'p, A> {
    inner: A,
    path: &'p Path,
    /// Of the member whose value comes next, if it is text.
    name: Option<Cow<'de, str>>,
    at: usize,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'de, '_, A> {
    type Error = A::Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.name = None;
        self.at += 1;
        self.inner.next_key_seed(Name { inner: seed, name: &mut self.name })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let read = self.inner.next_value_seed(Inside { seed, path: self.path });
        if read.is_err() {
            self.path.leave(match &self.name {
                Some(name) => Step::Field(None, name.clone().into_owned().into()),
                None => Step::Index(self.at - 1),
            });
        }
        read
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Remembers the name that passes from a deserializer to a visitor: it stands for the seed, the deserializer and the
/// visitor in turn.
struct Name<'n, 'de, T> {
    inner: T,
    name: &'n mut Option<Cow<'de, str>>,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<'_, 'de, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Name { inner, name: self.name })
    }
}

macro_rules! named {
    ($($method:ident($($argument:ident: $ty:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Name { inner: visitor, name: self.name })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Name<'_, 'de, D> {
    type Error = D::Error;

    named! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(count: usize);
        deserialize_tuple_struct(name: &'static str, count: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! passed {
    ($($method:ident($value:ty);)*) => {$(
        fn $method<E: de::Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<'_, 'de, V> {
    type Value = V::Value;

    passed! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        *self.name = Some(Cow::Owned(text.to_owned()));
        self.inner.visit_str(text)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<V::Value, E> {
        *self.name = Some(Cow::Borrowed(text));
        self.inner.visit_borrowed_str(text)
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<V::Value, E> {
        *self.name = Some(Cow::Owned(text.clone()));
        self.inner.visit_string(text)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Name { inner, name: self.name })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(inner)
    }
}

/// A variant: its name, and what it holds.
struct Choice<'p, A> {
    inner: A,
    path: &'p Path,
}

impl<'de, 'p, A: EnumAccess<'de>> EnumAccess<'de> for Choice<'p, A> {
    type Error = A::Error;
    type Variant = Payload<'de, 'p, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let mut name = None;
        let (value, inner) = self.inner.variant_seed(Name { inner: seed, name: &mut name })?;
        Ok((value, Payload { inner, path: self.path, name }))
    }
}

struct Payload<'de, 'p, A> {
    inner: A,
    path: &'p Path,
    name: Option<Cow<'de, str>>,
}

impl<'p, A> Payload<'_, 'p, A> {
    fn read<T, E>(self, read: impl FnOnce(A, &'p Path) -> Result<T, E>) -> Result<T, E> {
        let result = read(self.inner, self.path);
        if result.is_err() {
            let name = self.name.map_or_else(|| "?".into(), |name| name.into_owned().into());
            self.path.leave(Step::Variant(None, name));
        }
        result
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Payload<'de, '_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.read(|inner, _| inner.unit_variant())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.read(|inner, path| inner.newtype_variant_seed(Inside { seed, path }))
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.read(|inner, path| inner.tuple_variant(count, Watch { visitor, path }))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.read(|inner, path| inner.struct_variant(fields, Watch { visitor, path }))
    }
}
