//! The JSON codec: serde_json's text, made safe for browsers and with the place in its errors.
//!
//! A browser's numbers are exact up to 2^53. So integers of 64 and 128 bits beyond that are written as strings, and
//! both forms are read, of any size. JSON has no words for what is not finite: `"NaN"`, `"Infinity"` and `"-Infinity"` are
//! strings too. Bytes are base64 strings ([`byte_vec`](crate::byte_vec)). Everything else is as serde_json has it: a
//! variant with data is `{"Variant": …}`, keys of maps are strings.
//!
//! Where a type looks at what it finds to know what it is (`#[serde(untagged)]`, `serde_json::Value`), it finds these
//! strings.

mod de;
mod ser;

use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Step};

/// The greatest integer that a browser tells from its neighbours, 2^53 - 1.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// How deep values may nest, the innermost counted: what serde_json reads.
pub const MAX_DEPTH: u32 = 128;

/// How many `Option`s and newtypes may be around the values of one path: in JSON they leave no trace, so that text cannot
/// bound them.
const MAX_WRAPPED: u32 = 256;

/// Appends `value` to `out`. On error `out` is as it was.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let trail = ser::Trail::new();
    let result = value.serialize(ser::Writer::new(&mut serde_json::Serializer::new(&mut *out), &trail));
    result.map_err(|error| {
        out.truncate(start);
        json_error(&error, trail.into_steps())
    })
}

/// Encodes `value` on its own.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Reads a value that takes up all of `text`; it may borrow from it.
pub fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, CodecError> {
    de::decode(text)
}

/// serde_json's text ends with "at line 1 column 7", which is where to look.
#[cold]
fn json_error(error: &serde_json::Error, steps: Vec<Step>) -> CodecError {
    let text = match error.to_string() {
        text if text.starts_with("recursion limit exceeded") => too_deep(),
        text => text,
    };
    match steps.is_empty() {
        true => CodecError::new(format!("JSON: {text}")),
        false => steps.into_iter().fold(CodecError::new(text), CodecError::at),
    }
}

#[cold]
fn too_deep() -> String {
    format!("the value nests deeper than {MAX_DEPTH}")
}

/// What stands for a number that is not finite.
fn not_finite(number: f64) -> Option<&'static str> {
    match number {
        number if number.is_finite() => None,
        number if number.is_nan() => Some("NaN"),
        number if number > 0.0 => Some("Infinity"),
        _ => Some("-Infinity"),
    }
}
