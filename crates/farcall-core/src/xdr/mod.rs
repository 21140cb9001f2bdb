//! The XDR codec: RFC 4506, so that programs whose data `rpcgen` describes read and write the same bytes.
//!
//! Like the compact codec it is positional. Everything but bytes takes a multiple of four bytes, big-endian.
//!
//! | Rust | XDR |
//! |---|---|
//! | bool | `bool` |
//! | u8, u16, u32, char (its code point) | `unsigned int` |
//! | i8, i16, i32 | `int` |
//! | u64, i64 | `unsigned hyper`, `hyper` |
//! | u128, i128 | `opaque[16]`, big-endian: RFC 4506 has no such integers |
//! | f32, f64 | `float`, `double` |
//! | String | `string<>` |
//! | bytes, and a list of u8 however it is spelled | `opaque<>` |
//! | Option | optional-data, `T *`: a bool and the value |
//! | list | `T<>` |
//! | map | `struct { K key; V value; }<>` |
//! | array, tuple, struct | `T[n]`, `struct` |
//! | enum | `union switch (int)` over the number of the variant, from 0 in order of declaration |
//! | enum whose variants hold nothing | the same bytes as `enum` |
//! | unit | `void` |
//!
//! An array `[u8; n]` is `unsigned int[n]`, not `opaque[n]`: serde tells it from a tuple as little as it tells
//! explicit discriminants from numbers of variants.
//!
//! The guards are the compact codec's: values nested deeper than [`MAX_DEPTH`], more than [`MAX_FREE_ELEMENTS`]
//! elements without bytes, counts that the message cannot hold, and bytes left over are refused. So are residual
//! bytes that are not zero. A field left out by `skip_serializing_if` is four zero bytes: None, empty and false.

mod de;
mod ser;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;

pub use crate::compact::{MAX_DEPTH, MAX_FREE_ELEMENTS};
pub use de::Decoder;
pub use ser::Encoder;

/// What everything but bytes takes a multiple of.
const UNIT: usize = 4;

/// Appends `value` to `out`. On error `out` is as it was.
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
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    decoder.finish()?;
    Ok(value)
}
