//! The protobuf codec: the same types in the proto3 wire format, by their schema.
//!
//! serde does not know field numbers, so this codec walks a value along its schema, compiled to [`Messages`]. A field
//! or variant has the number of its `#[farcall(tag = n)]`; without one, its place: fields and variants with data from
//! 1, plain enums from 0. Places shift when a field is put before others or taken out: give numbers to what is to
//! last. Two fields of one number are refused by name at first use.
//!
//! | Rust | proto3 |
//! |---|---|
//! | bool, f32, f64, String | `bool`, `float`, `double`, `string` |
//! | u8, u16, u32, char (its code point) | `uint32` |
//! | u64 | `uint64` |
//! | i8, i16, i32; i64 | `int32`; `int64` |
//! | u128, i128 | `bytes`, 16 big-endian; none if zero |
//! | bytes, a list of u8, `[u8; n]` | `bytes` |
//! | Option | `optional`, or a message that may be missing |
//! | list, array | `repeated`, packed where proto3 packs |
//! | map | `map` if its key may be one there, else the same bytes as `repeated` messages of `key = 1, value = 2` |
//! | struct | message |
//! | tuple | message, fields from 1 |
//! | unit | message without fields |
//! | enum whose variants hold nothing | `enum` |
//! | other enum | message of a `oneof` |
//! | a list, map or option where proto3 has no place for it | a message of one field, `value = 1` |
//! | an argument list; a result that is no message | a message; a message of one field, `value = 1` |
//!
//! Unknown fields are skipped; what is missing is zero, empty or None; of a field sent twice the last holds, two
//! messages are merged. Values nested deeper than [`MAX_DEPTH`] messages are refused, as protobuf's own libraries do.

mod de;
mod fields;
mod ser;
mod wire;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::messages::{Body, Field, Label, Message, Type};

pub use crate::messages::Messages;

/// How deep messages may nest: what protobuf's own libraries allow.
pub const MAX_DEPTH: u32 = 100;

/// In how many parts one message may be sent: they are remembered while it is read.
pub const MAX_PARTS: usize = 1024;

/// Appends `value`, whose schema `messages` is made of, to `out`. On error `out` is as it was.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, messages: &Messages, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let result = ser::encode(value, messages, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Reads a value, whose schema `messages` is made of, from all of `bytes`.
pub fn decode<'de, T: Deserialize<'de>>(messages: &Messages, bytes: &'de [u8]) -> Result<T, CodecError> {
    de::decode(messages, bytes)
}

/// Whether proto3 packs a list of them.
fn is_packed(ty: Type) -> bool {
    use Type::*;
    matches!(ty, Bool | Uint32 | Uint64 | Int32 | Int64 | Float | Double | Char | Enum(_))
}
