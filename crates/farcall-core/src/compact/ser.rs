//! The encoder: a serde serializer that appends to a buffer it does not own.

use serde::Serialize;
use serde::ser::{self, Serializer};

use crate::codec::CodecError;
use crate::compact::MAX_DEPTH;

/// Appends values to a buffer in the compact format.
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    depth: u32,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>) -> Encoder<'a> {
        Encoder { out, depth: MAX_DEPTH }
    }

    /// The decoder's limit, kept here too: a caller learns of it before anything is sent.
    #[inline]
    fn enter(&mut self) -> Result<(), CodecError> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.depth = depth;
                Ok(())
            }
            None => Err(too_deep()),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.depth += 1;
    }

    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn count(&mut self, count: Option<usize>) -> Result<usize, CodecError> {
        let count = count.ok_or_else(no_length)?;
        self.varint(count as u64);
        Ok(count)
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else {
            self.long_varint(value);
        }
    }

    #[inline]
    fn long_varint(&mut self, mut value: u64) {
        // 64 bits are ten groups of seven; one append is cheaper than ten pushes.
        let mut bytes = [0u8; 10];
        let mut last = 0;
        while value >= 0x80 && last < 9 {
            bytes[last] = value as u8 | 0x80;
            value >>= 7;
            last += 1;
        }
        bytes[last] = value as u8;
        self.out.extend_from_slice(&bytes[..=last]);
    }

    fn varint128(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(super::too_deep())
}

#[cold]
fn no_length() -> CodecError {
    CodecError::new("a list that does not know its length cannot be encoded")
}

/// Puts the sign into the lowest bit, so that small negative numbers stay short.
#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

macro_rules! integers {
    ($($method:ident($int:ty) = $to_u64:expr;)*) => {$(
        #[inline]
        fn $method(self, value: $int) -> Result<(), CodecError> {
            let to_u64: fn($int) -> u64 = $to_u64;
            self.varint(to_u64(value));
            Ok(())
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

    integers! {
        serialize_u16(u16) = u64::from;
        serialize_u32(u32) = u64::from;
        serialize_u64(u64) = |value| value;
        serialize_i16(i16) = |value| zigzag(value.into());
        serialize_i32(i32) = |value| zigzag(value.into());
        serialize_i64(i64) = zigzag;
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.out.push(u8::from(value));
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        self.out.push(value);
        Ok(())
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), CodecError> {
        self.out.push(value as u8);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), CodecError> {
        self.varint128(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), CodecError> {
        self.varint128(((value << 1) ^ (value >> 127)) as u128);
        Ok(())
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.varint(value.len() as u64);
        self.out.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), CodecError> {
        self.out.push(0);
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.out.push(1);
        self.nested(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, number: u32, _: &'static str) -> Result<(), CodecError> {
        self.varint(number.into());
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.varint(number.into());
        self.nested(value).map_err(|error| error.at_variant(variant))
    }

    #[inline]
    fn serialize_seq(self, count: Option<usize>) -> Result<Self, CodecError> {
        let count = self.count(count)?;
        self.enter()?;
        // An element takes at least a byte: this saves growing the buffer step by step for long lists.
        self.out.reserve(count);
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(self, _: &'static str, number: u32, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.varint(number.into());
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_map(self, count: Option<usize>) -> Result<Self, CodecError> {
        self.count(count)?;
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(self, _: &'static str, number: u32, _: &'static str, _: usize) -> Result<Self, CodecError> {
        self.varint(number.into());
        self.enter()?;
        Ok(self)
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident;)*) => {$(
        impl ser::$compound for &mut Encoder<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> Result<(), CodecError> {
                self.leave();
                Ok(())
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
        impl ser::$compound for &mut Encoder<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), CodecError> {
                match value.serialize(&mut **self) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.at_field(name)),
                }
            }

            /// None, empty and false all are one zero byte; `#[data]` lets no other `skip_serializing_if` pass.
            #[inline]
            fn skip_field(&mut self, _: &'static str) -> Result<(), CodecError> {
                self.out.push(0);
                Ok(())
            }

            #[inline]
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

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        key.serialize(&mut **self)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut **self)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.leave();
        Ok(())
    }
}
