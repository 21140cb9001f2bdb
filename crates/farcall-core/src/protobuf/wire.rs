//! The proto3 wire format below messages: keys, varints, and what stands between them.

use crate::codec::CodecError;

/// A field's value as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'de> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'de [u8]),
    Fixed32([u8; 4]),
}

impl Wire<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Wire::Varint(_) => "a varint",
            Wire::Fixed64(_) => "8 bytes",
            Wire::Bytes(_) => "bytes with a length",
            Wire::Fixed32(_) => "4 bytes",
        }
    }
}

/// The number of the wire type, as it stands in a key.
pub(super) mod wire_type {
    pub(crate) const VARINT: u32 = 0;
    pub(crate) const FIXED64: u32 = 1;
    pub(crate) const BYTES: u32 = 2;
    pub(crate) const START_GROUP: u32 = 3;
    pub(crate) const END_GROUP: u32 = 4;
    pub(crate) const FIXED32: u32 = 5;
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number << 3 | wire_type));
}

/// Reads from the front of a slice.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0u64;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        // Nine groups of seven bits are 63: the tenth has one bit left.
        if at == 9 && byte > 1 {
            return Err(CodecError::new("a varint is longer than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    Err(ends_early())
}

pub(super) fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or_else(ends_early)?;
    *rest = left;
    Ok(*taken)
}

/// The next field of a message, its number first; `None` at the end.
pub(super) fn next_field<'de>(rest: &mut &'de [u8]) -> Result<Option<(u32, Wire<'de>)>, CodecError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|&number| number > 0 && number < 1 << 29);
    let number = number.ok_or_else(|| CodecError::new(format!("{} is no field number", key >> 3)))?;
    let wire = match key as u32 & 7 {
        wire_type::VARINT => Wire::Varint(varint(rest)?),
        wire_type::FIXED64 => Wire::Fixed64(array(rest)?),
        wire_type::BYTES => Wire::Bytes(bytes(rest)?),
        wire_type::FIXED32 => Wire::Fixed32(array(rest)?),
        wire_type::START_GROUP | wire_type::END_GROUP => {
            return Err(CodecError::new(format!("the field {number} is a group, which proto3 has not")));
        }
        other => return Err(CodecError::new(format!("the field {number} has the wire type {other}, which there is not"))),
    };
    Ok(Some((number, wire)))
}

fn bytes<'de>(rest: &mut &'de [u8]) -> Result<&'de [u8], CodecError> {
    let length = varint(rest)?;
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = split.ok_or_else(ends_early)?;
    *rest = left;
    Ok(taken)
}

#[cold]
pub(super) fn ends_early() -> CodecError {
    CodecError::new("the message ends early")
}
