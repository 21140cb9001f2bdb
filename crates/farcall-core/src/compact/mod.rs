//! The compact codec: byte for byte the postcard 1 wire format, with limits and with errors that name the field.
//!
//! The format is positional: fields follow each other in the order of their declaration, without names or numbers,
//! so both sides must agree on the type (or translate, which is what the schema is for).
//!
//! | kind | bytes |
//! |---|---|
//! | bool, u8, i8 | one byte |
//! | other integers | LEB128 varint, zig-zag first if signed |
//! | f32, f64 | little-endian IEEE 754 |
//! | string, bytes, char | varint length, then the bytes (a char as its UTF-8) |
//! | Option | 0, or 1 and the value |
//! | list, map | varint count, then the elements, a map's as key and value in turn |
//! | tuple, array, struct | the fields |
//! | enum | varint number of the variant, then its fields |
//! | unit | nothing |
//!
//! Unlike the postcard crate it refuses what would hurt: values nested deeper than [`MAX_DEPTH`], more than
//! [`MAX_FREE_ELEMENTS`] elements that take no bytes, lengths that the message cannot hold, bytes left over.
//! What it sets aside for lists never exceeds one element per byte of the message. A field left out by
//! `skip_serializing_if` is written as one zero byte, which is None, empty and false.

mod de;
mod ser;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;

pub use de::Decoder;
pub(crate) use de::{Tally, bad_flag, no_variant, out_of_range, unzigzag};
pub use ser::Encoder;

/// How deep values may nest: enough for people's data, safe on the 2 MiB stack of a worker thread.
pub const MAX_DEPTH: u32 = 128;

#[cold]
pub(crate) fn too_deep() -> String {
    format!("the value nests deeper than {MAX_DEPTH}")
}

/// How many elements of lists and maps in one message may take no bytes: their number is not bounded by its length.
pub const MAX_FREE_ELEMENTS: usize = 1 << 16;

/// Appends `value` to `out`. On error `out` is as it was.
#[inline]
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let result = value.serialize(&mut Encoder::new(out));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Encodes `value` on its own.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Reads a value that takes up all of `bytes`; it may borrow from them.
#[inline]
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    decoder.finish()?;
    Ok(value)
}
