//! `Vec<u8>` as bytes, not as a list of numbers: through plain serde a byte list is 40 to 60 times slower.
//!
//! `#[data]` puts `#[serde(with = "byte_vec")]` on fields spelled `Vec<u8>` or `Option<Vec<u8>>`. The compact bytes
//! are the same either way. In JSON such a field is a base64 string; a list of numbers is read as well.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer};

use crate::base64;

/// Elements of a list of numbers to set space aside for before they are read.
const MAX_AHEAD: usize = 4096;

/// `serialize` of `#[serde(with = "byte_vec")]`.
#[inline]
pub fn serialize<T: ByteVec, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// `deserialize` of `#[serde(with = "byte_vec")]`.
#[inline]
pub fn deserialize<'de, T: ByteVec, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// What a field written as bytes may be: `Vec<u8>` or `Option<Vec<u8>>`.
pub trait ByteVec: Sized {
    #[doc(hidden)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    #[doc(hidden)]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl ByteVec for Vec<u8> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_slice(self, serializer)
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, <[u8]>::to_vec, |bytes| bytes)
    }
}

impl ByteVec for Option<Vec<u8>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_option(self.as_deref(), serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_option(deserializer, <[u8]>::to_vec, |bytes| bytes)
    }
}

#[inline]
pub(crate) fn serialize_slice<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() { serializer.serialize_str(&base64::encode(bytes)) } else { serializer.serialize_bytes(bytes) }
}

pub(crate) fn serialize_option<S: Serializer>(bytes: Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    struct Slice<'a>(&'a [u8]);
    impl Serialize for Slice<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serialize_slice(self.0, serializer)
        }
    }
    match bytes {
        Some(bytes) => serializer.serialize_some(&Slice(bytes)),
        None => serializer.serialize_none(),
    }
}

/// Reads bytes, making the result by `borrowed` from bytes of the message or by `owned` from bytes of our own.
#[inline]
pub(crate) fn read<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    borrowed: fn(&'de [u8]) -> T,
    owned: fn(Vec<u8>) -> T,
) -> Result<T, D::Error> {
    let visitor = BytesVisitor { borrowed, owned };
    if deserializer.is_human_readable() { deserializer.deserialize_any(visitor) } else { deserializer.deserialize_byte_buf(visitor) }
}

/// Reads bytes that may be lent from the message.
#[inline]
pub(crate) fn read_lent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, [u8]>, D::Error> {
    read(deserializer, Cow::Borrowed, Cow::Owned)
}

/// Like [`read`], for a value that may be absent.
pub(crate) fn read_option<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    borrowed: fn(&'de [u8]) -> T,
    owned: fn(Vec<u8>) -> T,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_option(OptionVisitor { bytes: BytesVisitor { borrowed, owned } })
}

struct BytesVisitor<'de, T> {
    borrowed: fn(&'de [u8]) -> T,
    owned: fn(Vec<u8>) -> T,
}

impl<'de, T> Visitor<'de> for BytesVisitor<'de, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes: a base64 string or a list of numbers")
    }

    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<T, E> {
        Ok((self.borrowed)(bytes))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        Ok((self.owned)(bytes.to_vec()))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<T, E> {
        Ok((self.owned)(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let bytes = base64::decode(text).ok_or_else(|| E::custom("the string is not base64"))?;
        Ok((self.owned)(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<T, A::Error> {
        let ahead = numbers.size_hint().unwrap_or(0).min(MAX_AHEAD);
        let mut bytes = Vec::with_capacity(ahead);
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok((self.owned)(bytes))
    }
}

struct OptionVisitor<'de, T> {
    bytes: BytesVisitor<'de, T>,
}

impl<'de, T> Visitor<'de> for OptionVisitor<'de, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing or bytes: a base64 string or a list of numbers")
    }

    fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        read(deserializer, self.bytes.borrowed, self.bytes.owned).map(Some)
    }
}
