//! The encoder: a serde serializer that appends to a buffer it does not own.

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::{MAX_DEPTH, UNIT};
use crate::codec::CodecError;

/// Appends values to a buffer in XDR.
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Where the message begins: units are counted from here.
    start: usize,
    depth: u32,
    /// The next value is itself an element of a list: a u8 there is one byte of an opaque.
    element: bool,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Encoder<'a> {
        Encoder { start: out.len(), out, depth: MAX_DEPTH, element: false }
    }

    /// The decoder's limit, kept here too: a caller learns of it before anything is sent.
    fn enter(&mut self) -> Result<(), CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(too_deep)?;
        self.element = false;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth += 1;
        self.element = false;
    }

    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), CodecError> {
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), CodecError> {
        let count = u32::try_from(count).map_err(|_| too_long(count))?;
        self.put(count.to_be_bytes())
    }

    /// The number of a variant. It is an `int`, whose upper half no enum has ever reached.
    fn discriminant(&mut self, number: u32) -> Result<(), CodecError> {
        self.put(number.to_be_bytes())
    }

    fn pad(&mut self) {
        let length = (self.out.len() - self.start).next_multiple_of(UNIT);
        self.out.resize(self.start + length, 0);
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format!("the value nests deeper than {MAX_DEPTH}"))
}

#[cold]
fn too_long(count: usize) -> CodecError {
    CodecError::new(format!("{count} elements are more than XDR can count"))
}

#[cold]
fn no_length() -> CodecError {
    CodecError::new("a list that does not know its length cannot be encoded")
}

macro_rules! numbers {
    ($($method:ident($number:ty) as $xdr:ty;)*) => {$(
        fn $method(self, value: $number) -> Result<(), CodecError> {
            self.put(<$xdr>::from(value).to_be_bytes())
        }
    )*};
}

impl Serializer for &mut Encoder<'_> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_bool(bool) as u32;
        serialize_u16(u16) as u32;
        serialize_u32(u32) as u32;
        serialize_u64(u64) as u64;
        serialize_u128(u128) as u128;
        serialize_i8(i8) as i32;
        serialize_i16(i16) as i32;
        serialize_i32(i32) as i32;
        serialize_i64(i64) as i64;
        serialize_i128(i128) as i128;
        serialize_f32(f32) as f32;
        serialize_f64(f64) as f64;
        serialize_char(char) as u32;
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        if self.element { self.put([value]) } else { self.put(u32::from(value).to_be_bytes()) }
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.count(value.len())?;
        self.out.extend_from_slice(value);
        self.pad();
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.serialize_bool(false)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.put(1u32.to_be_bytes())?;
        self.nested(value)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, number: u32, _: &'static str) -> Result<(), CodecError> {
        self.discriminant(number)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.discriminant(number)?;
        self.nested(value).map_err(|error| error.at_variant(variant))
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Self, CodecError> {
        self.count(count.ok_or_else(no_length)?)?;
        self.enter()?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, number: u32, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.discriminant(number)?;
        self.enter()?;
        Ok(self)
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Self, CodecError> {
        self.count(count.ok_or_else(no_length)?)?;
        self.enter()?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, number: u32, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.discriminant(number)?;
        self.enter()?;
        Ok(self)
    }
}

impl ser::SerializeSeq for &mut Encoder<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element = true;
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), CodecError> {
        // Only a list of u8 can have left the unit.
        self.pad();
        self.leave();
        Ok(())
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident;)*) => {$(
        impl ser::$compound for &mut Encoder<'_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), CodecError> {
                self.leave();
                Ok(())
            }
        }
    )*};
}

unnamed! {
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! named {
    ($($compound:ident;)*) => {$(
        impl ser::$compound for &mut Encoder<'_> {
            type Ok = ();
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CodecError> {
                value.serialize(&mut **self).map_err(|error| error.at_field(name))
            }

            /// None, empty and false all are one zero; `#[data]` lets no other `skip_serializing_if` pass.
            fn skip_field(&mut self, _: &'static str) -> Result<(), CodecError> {
                self.put([0; UNIT])
            }

            fn end(self) -> Result<(), CodecError> {
                self.leave();
                Ok(())
            }
        }
    )*};
}

named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl ser::SerializeMap for &mut Encoder<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), CodecError> {
        self.leave();
        Ok(())
    }
}
