//! What a message holds, before anybody knows what it means: its fields, how often each is there, and its last value.

use std::collections::VecDeque;
use std::rc::Rc;

use super::wire::{Wire, next_field};
use super::{Field, MAX_PARTS};
use crate::codec::CodecError;

/// The bytes of a message: in several parts if it was sent in several, which makes them one.
#[derive(Clone)]
pub(super) enum Parts<'de> {
    One(&'de [u8]),
    Many(Rc<[&'de [u8]]>),
}

impl<'de> Parts<'de> {
    pub(super) fn scan(&self) -> Scan<'de> {
        match self {
            Parts::One(bytes) => Scan { rest: bytes, parts: None, next: 0 },
            Parts::Many(parts) => Scan { rest: &[], parts: Some(Rc::clone(parts)), next: 0 },
        }
    }
}

/// The fields of a message one after the other.
pub(super) struct Scan<'de> {
    rest: &'de [u8],
    parts: Option<Rc<[&'de [u8]]>>,
    next: usize,
}

impl<'de> Scan<'de> {
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'de>)>, CodecError> {
        while self.rest.is_empty() {
            let Some(&part) = self.parts.as_ref().and_then(|parts| parts.get(self.next)) else { return Ok(None) };
            self.rest = part;
            self.next += 1;
        }
        next_field(&mut self.rest)
    }

    /// The next value of this field.
    pub(super) fn next_of(&mut self, wanted: u32) -> Result<Option<Wire<'de>>, CodecError> {
        while let Some((number, wire)) = self.next()? {
            if number == wanted {
                return Ok(Some(wire));
            }
        }
        Ok(None)
    }
}

/// How often a field is in a message, and with which value the last time.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen<'de> {
    pub(super) count: usize,
    pub(super) last: Option<Wire<'de>>,
}

/// Reads a message through; fields that the type does not have are skipped.
pub(super) fn look_for<'de>(fields: &[Field], parts: &Parts<'de>) -> Result<Vec<Seen<'de>>, CodecError> {
    let mut seen = vec![Seen::default(); fields.len()];
    let mut scan = parts.scan();
    while let Some((number, wire)) = scan.next()? {
        if let Some(index) = index_of(fields, number) {
            seen[index].count += 1;
            seen[index].last = Some(wire);
        }
    }
    Ok(seen)
}

/// The same for a message of which one field matters.
pub(super) fn look_for_one<'de>(field: &Field, parts: &Parts<'de>) -> Result<Seen<'de>, CodecError> {
    let (mut seen, mut scan) = (Seen::default(), parts.scan());
    while let Some(wire) = scan.next_of(field.number)? {
        seen = Seen { count: seen.count + 1, last: Some(wire) };
    }
    Ok(seen)
}

/// A field's place. Most have the number of their place.
pub(super) fn index_of(fields: &[Field], number: u32) -> Option<usize> {
    let expected = number as usize - 1;
    match fields.get(expected) {
        Some(field) if field.number == number => Some(expected),
        _ => fields.iter().position(|field| field.number == number),
    }
}

pub(super) fn message_bytes(wire: Option<Wire<'_>>) -> Result<&[u8], CodecError> {
    match wire {
        Some(Wire::Bytes(bytes)) => Ok(bytes),
        Some(other) => Err(wrong_wire("a message", other)),
        None => Ok(&[]),
    }
}

/// A message that was sent several times, the last `count` of which matter, is all of these one after the other.
pub(super) fn merged<'de>(field: &Field, count: usize, parent: &Parts<'de>) -> Result<Parts<'de>, CodecError> {
    if count > MAX_PARTS {
        return Err(CodecError::new(format!("one message is sent in {count} parts, at most {MAX_PARTS} are put together")));
    }
    let (mut parts, mut scan) = (VecDeque::new(), parent.scan());
    while let Some(wire) = scan.next_of(field.number)? {
        if parts.len() == count {
            parts.pop_front();
        }
        parts.push_back(message_bytes(Some(wire))?);
    }
    Ok(Parts::Many(parts.into_iter().collect()))
}

#[cold]
pub(super) fn wrong_wire(wanted: &str, found: Wire<'_>) -> CodecError {
    CodecError::new(format!("{wanted} cannot be read from {}", found.kind()))
}
