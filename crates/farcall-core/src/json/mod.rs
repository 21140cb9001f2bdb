//! The JSON codec: serde_json's text, made safe for browsers and with the place in its errors.
//!
//! A browser's numbers are exact up to 2^53. So integers of 64 and 128 bits beyond that are written as strings, and
//! both forms are read, of any size. Bytes are base64 strings ([`byte_vec`](crate::byte_vec)). Everything else is as
//! serde_json has it: a variant with data is `{"Variant": …}`, keys of maps are strings.

mod de;
mod ser;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;

/// The greatest integer that a browser tells from its neighbours, 2^53 - 1.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Appends `value` to `out`. On error `out` is as it was.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let result = value.serialize(ser::Writer(&mut serde_json::Serializer::new(&mut *out)));
    result.map_err(|error| {
        out.truncate(start);
        json_error(&error)
    })
}

/// Reads a value that takes up all of `text`; it may borrow from it.
pub fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, CodecError> {
    de::decode(text)
}

/// serde_json's text ends with "at line 1 column 7", which is where to look.
#[cold]
fn json_error(error: &serde_json::Error) -> CodecError {
    CodecError::new(format!("JSON: {error}"))
}
