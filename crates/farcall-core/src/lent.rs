//! Parameters that a handler borrows: `&str`, `&[u8]`, `&[T]`, `&T`, alone or in an `Option`, and `Cow` fields of types
//! with a lifetime.
//!
//! A consumer lends its value to the encoder; a provider's handler borrows from the message where that holds the very
//! bytes, and from a decoded value otherwise: text with escapes in JSON, anything that is neither text nor bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::byte_vec;
use crate::schema::{Schema, SchemaBuilder, Ty};

/// `&str`.
#[derive(Debug)]
pub struct Text<'a>(Cow<'a, str>);

/// `&[u8]`.
#[derive(Debug)]
pub struct Octets<'a>(Cow<'a, [u8]>);

/// `&T`.
#[derive(Debug)]
pub enum One<'a, T> {
    /// On its way out.
    Lent(&'a T),
    /// Decoded.
    Own(T),
}

/// `&[T]`.
#[derive(Debug)]
pub enum Many<'a, T> {
    /// On its way out.
    Lent(&'a [T]),
    /// Decoded.
    Own(Vec<T>),
}

impl<'a> Text<'a> {
    /// For the encoder.
    #[inline]
    pub fn lent(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

impl<'a> Octets<'a> {
    /// For the encoder.
    #[inline]
    pub fn lent(bytes: &'a [u8]) -> Octets<'a> {
        Octets(Cow::Borrowed(bytes))
    }
}

impl<'a, T> One<'a, T> {
    /// For the encoder.
    #[inline]
    pub fn lent(value: &'a T) -> One<'a, T> {
        One::Lent(value)
    }
}

impl<'a, T> Many<'a, T> {
    /// For the encoder.
    #[inline]
    pub fn lent(values: &'a [T]) -> Many<'a, T> {
        Many::Lent(values)
    }
}

impl Deref for Text<'_> {
    type Target = str;
    #[inline]
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Octets<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<T> Deref for One<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        match self {
            One::Lent(value) => value,
            One::Own(value) => value,
        }
    }
}

impl<T> Deref for Many<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Many::Lent(values) => values,
            Many::Own(values) => values,
        }
    }
}

impl Serialize for Text<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl Serialize for Octets<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        byte_vec::serialize_slice(self, serializer)
    }
}

impl<T: Serialize> Serialize for One<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<T: Serialize> Serialize for Many<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        <[T]>::serialize(self, serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Octets<'a> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        byte_vec::read_lent(deserializer).map(Octets)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for One<'_, T> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(One::Own)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<'_, T> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Many::Own)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text))
    }
}

impl Schema for Text<'_> {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Str
    }
}

impl Schema for Octets<'_> {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Bytes
    }
}

impl<T: Schema> Schema for One<'_, T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        T::ty(builder)
    }
}

impl<T: Schema> Schema for Many<'_, T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        <[T]>::ty(builder)
    }
}

/// `serialize` of `#[serde(with = "lent")]`, which `#[data]` puts on fields spelled `Cow<'a, str>` or `Cow<'a, [u8]>`,
/// also in an `Option`.
#[inline]
pub fn serialize<T: LentField, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// `deserialize` of `#[serde(with = "lent")]`.
#[inline]
pub fn deserialize<'de, T: ReadLent<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

/// What a field that borrows may be.
pub trait LentField {
    /// What it is written as.
    #[doc(hidden)]
    fn ty() -> Ty;
    #[doc(hidden)]
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// How it is read.
pub trait ReadLent<'de>: Sized {
    #[doc(hidden)]
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

macro_rules! cow_fields {
    ($($borrowed:ty => $lent:ident, $ty:expr;)*) => {$(
        impl LentField for Cow<'_, $borrowed> {
            fn ty() -> Ty {
                $ty
            }

            #[inline]
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $lent::lent(self).serialize(serializer)
            }
        }

        impl LentField for Option<Cow<'_, $borrowed>> {
            fn ty() -> Ty {
                Ty::Option(Box::new($ty))
            }

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.as_deref().map($lent::lent).serialize(serializer)
            }
        }

        impl<'de: 'a, 'a> ReadLent<'de> for Cow<'a, $borrowed> {
            #[inline]
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $lent::deserialize(deserializer).map(|lent| lent.0)
            }
        }

        impl<'de: 'a, 'a> ReadLent<'de> for Option<Cow<'a, $borrowed>> {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Option::<$lent<'a>>::deserialize(deserializer)?.map(|lent| lent.0))
            }
        }
    )*};
}

cow_fields! {
    str => Text, Ty::Str;
    [u8] => Octets, Ty::Bytes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Kind;
    use crate::{compact, data};

    #[data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Note<'a> {
        text: Cow<'a, str>,
        title: Option<Cow<'a, str>>,
        data: Cow<'a, [u8]>,
        more: Option<Cow<'a, [u8]>>,
        inner: Vec<Inner<'a>>,
    }

    #[data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Inner<'a>(Cow<'a, str>);

    fn note() -> Note<'static> {
        Note {
            text: "text".into(),
            title: Some("title".into()),
            data: (&b"data"[..]).into(),
            more: None,
            inner: vec![Inner("a".into()), Inner("b".into())],
        }
    }

    #[test]
    fn fields_borrow_from_the_message() {
        let bytes = compact::encode(&note()).unwrap();
        let read: Note<'_> = compact::decode(&bytes).unwrap();
        assert_eq!(read, note());
        let Note { text: Cow::Borrowed(_), title: Some(Cow::Borrowed(_)), data: Cow::Borrowed(_), inner, .. } = read else {
            panic!("a field was copied")
        };
        assert!(inner.iter().all(|Inner(text)| matches!(text, Cow::Borrowed(_))));
    }

    /// They are written as what they lend, and have its schema.
    #[test]
    fn they_are_what_they_lend() {
        #[data(crate = farcall_core)]
        struct Owned {
            text: String,
            title: Option<String>,
            data: Vec<u8>,
            more: Option<Vec<u8>>,
            inner: Vec<String>,
        }
        let schema = crate::TypeSchema::of::<Note<'_>>();
        let Kind::Struct(fields) = &schema.defs[0].kind else { panic!("{schema:?}") };
        // In JSON bytes are base64, a list of numbers is not.
        let types = [Ty::Str, Ty::Option(Ty::Str.into()), Ty::Bytes, Ty::Option(Ty::Bytes.into())];
        assert_eq!(fields.iter().map(|field| &field.ty).take(4).collect::<Vec<_>>(), types.iter().collect::<Vec<_>>());
        let print = schema.fingerprint();
        assert_eq!(print, crate::TypeSchema::of::<Owned>().fingerprint());
        let lent = (Text::lent("a"), Octets::lent(b"b"), One::lent(&7u32), Many::lent(&[1u64, 2]));
        let own = ("a".to_owned(), bytes::Bytes::from_static(b"b"), 7u32, vec![1u64, 2]);
        assert_eq!(compact::encode(&lent).unwrap(), compact::encode(&own).unwrap());
    }

    #[cfg(feature = "json")]
    #[test]
    fn text_with_escapes_is_copied_and_not_refused() {
        let json = br#"{"text":"a\nb","title":"plain","data":"ZGF0YQ==","more":[1,2],"inner":["x\ty"]}"#;
        let read: Note<'_> = crate::json::decode(json).unwrap();
        assert_eq!((&*read.text, read.title.as_deref(), &*read.data), ("a\nb", Some("plain"), &b"data"[..]));
        assert!(matches!((&read.title, &read.text), (Some(Cow::Borrowed(_)), Cow::Owned(_))));
        assert_eq!((read.more.as_deref(), &*read.inner[0].0), (Some(&[1, 2][..]), "x\ty"));
    }
}
