//! The encoder: serde_json's, but for wide integers.

use serde::ser::{self, Serialize, Serializer};

use super::MAX_SAFE_INTEGER;

/// A serializer of which every wide integer passes through here.
pub(super) struct Writer<S>(pub(super) S);

/// A value on its way into a [`Writer`].
struct Inside<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Inside<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Writer(to))
    }
}

macro_rules! same {
    ($($method:ident($value:ty);)*) => {$(
        fn $method(self, value: $value) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        }
    )*};
}

macro_rules! wide {
    ($($method:ident($value:ty): $is_safe:expr;)*) => {$(
        fn $method(self, value: $value) -> Result<S::Ok, S::Error> {
            let is_safe: fn($value) -> bool = $is_safe;
            if is_safe(value) { self.0.$method(value) } else { self.0.collect_str(&value) }
        }
    )*};
}

impl<S: Serializer> Serializer for Writer<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Writer<S::SerializeSeq>;
    type SerializeTuple = Writer<S::SerializeTuple>;
    type SerializeTupleStruct = Writer<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Writer<S::SerializeTupleVariant>;
    type SerializeMap = Writer<S::SerializeMap>;
    type SerializeStruct = Writer<S::SerializeStruct>;
    type SerializeStructVariant = Writer<S::SerializeStructVariant>;

    same! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    wide! {
        serialize_u64(u64): |value| value <= MAX_SAFE_INTEGER;
        serialize_i64(i64): |value| value.unsigned_abs() <= MAX_SAFE_INTEGER;
        serialize_u128(u128): |value| value <= MAX_SAFE_INTEGER.into();
        serialize_i128(i128): |value| value.unsigned_abs() <= MAX_SAFE_INTEGER.into();
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Inside(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Inside(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Inside(value))
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(count).map(Writer)
    }

    fn serialize_tuple(self, count: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(count).map(Writer)
    }

    fn serialize_tuple_struct(self, name: &'static str, count: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, count).map(Writer)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, index, variant, count).map(Writer)
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(count).map(Writer)
    }

    fn serialize_struct(self, name: &'static str, count: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, count).map(Writer)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, index, variant, count).map(Writer)
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident;)*) => {$(
        impl<C: ser::$compound> ser::$compound for Writer<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.0.$method(&Inside(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
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
        impl<C: ser::$compound> ser::$compound for Writer<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), C::Error> {
                self.0.serialize_field(name, &Inside(value))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.0.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )*};
}

named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: ser::SerializeMap> ser::SerializeMap for Writer<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    /// Keys are strings anyway.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Inside(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}
