//! The method table: the caller numbers its own methods, the provider checks that both mean the
//! same and translates.

use farcall_core::schema::Fingerprint;
use farcall_core::{Code, CodecError, MethodTraits, Prints, RpcError, ServiceDescriptor, compact};
use serde::{Deserialize, Serialize};

use crate::failure::cut;
use crate::frame::Violation;
use crate::options::Ascending;
use crate::outbound::Streams;

/// Rows of all bindings of one side: the row after the last must still be a u16.
pub(crate) const MAX_ROWS: usize = u16::MAX as usize;
/// Rows of one binding: a Bound frame that refuses them all still fits the smallest frame limit.
const MAX_BIND_ROWS: usize = 4096;
/// Bytes of a service's, group's, version's or method's name.
const MAX_NAME: usize = 256;
/// Bytes of one verdict's text, and of all of one Bound frame.
pub(crate) const VERDICT_TEXT: usize = 1 << 10;
const VERDICT_TEXTS: usize = 32 << 10;

/// The payload of a Bind frame (compact codec). The header's `aux` is the first row, its `id` the
/// number of the binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Service name.
    pub service: String,
    /// Group, empty if none.
    pub group: String,
    /// Version, empty if none.
    pub version: String,
    /// One row per method, numbered on from the first.
    pub rows: Vec<BindRow>,
    /// Later additions: odd tags may be skipped, even ones refuse the binding.
    pub extra: Vec<(u8, Vec<u8>)>,
}

/// One method as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindRow {
    /// Method name.
    pub name: String,
    /// Fingerprint of the arguments.
    pub args: Fingerprint,
    /// Fingerprint of the result.
    pub result: Fingerprint,
    /// Fingerprint of the application error.
    pub error: Fingerprint,
    /// Bit 0: one-way. Bit 1: the arguments end with a stream. Bit 2: the result is a stream.
    pub bits: u8,
}

impl BindRow {
    /// What flows beside calls of it.
    pub(crate) fn streams(&self) -> Streams {
        Streams { args: self.bits & ARGS != 0, results: self.bits & RESULTS != 0 }
    }
}

/// Bits of a row.
const ONEWAY: u8 = 1;
const ARGS: u8 = 2;
const RESULTS: u8 = 4;

fn bits(traits: MethodTraits) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bit(traits.oneway, ONEWAY) | bit(traits.args_stream, ARGS) | bit(traits.result_stream, RESULTS)
}

impl Bind {
    /// The rows of a descriptor.
    pub fn of(service: &ServiceDescriptor) -> Bind {
        let row = |m: &farcall_core::MethodDescriptor| BindRow {
            name: m.name.clone(),
            args: m.prints.args,
            result: m.prints.result,
            error: m.prints.error,
            bits: bits(m.traits),
        };
        Bind {
            service: service.name.clone(),
            group: service.group.clone(),
            version: service.version.clone(),
            rows: service.methods.iter().map(row).collect(),
            extra: Vec::new(),
        }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, bytes and lists of them: nothing in it can fail to encode.
        compact::encode(self).unwrap_or_default()
    }

    /// From a payload.
    pub fn decode(payload: &[u8]) -> Result<Bind, CodecError> {
        compact::decode(payload)
    }

    /// The rules that hold for every binding; breaking one breaks the protocol.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let rows = self.rows.len();
        if rows == 0 {
            return Err(Violation("a binding without rows".into()));
        }
        if rows > MAX_BIND_ROWS {
            return Err(Violation(format!("a binding of {rows} rows, the limit is {MAX_BIND_ROWS}")));
        }
        let names = [&self.service, &self.group, &self.version].into_iter().chain(self.rows.iter().map(|r| &r.name));
        if let Some(long) = names.map(String::len).find(|&n| n > MAX_NAME) {
            return Err(Violation(format!("a binding with a name of {long} bytes, the limit is {MAX_NAME}")));
        }
        let mut order = Ascending::default();
        if !self.extra.iter().all(|(tag, _)| order.follows(*tag)) {
            return Err(Violation("a binding whose options are out of order".into()));
        }
        Ok(())
    }
}

/// One row of a Bound frame whose `aux` is 1: why calls on this row are refused, or that they are held. `aux` 0 means
/// that all rows agree and has no payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The row, in the caller's numbers.
    pub row: u16,
    /// [`Code`] by number. 0: the row is held until both sides can read each other.
    pub code: u8,
    /// For people, naming the method and what differs.
    pub message: String,
}

/// Cuts the texts of a Bound frame: the peer chooses how many rows it asks for.
pub(crate) struct Texts(usize);

impl Texts {
    pub(crate) fn new() -> Texts {
        Texts(VERDICT_TEXTS)
    }

    pub(crate) fn cut(&mut self, text: &str) -> String {
        let text = cut(text, self.0.min(VERDICT_TEXT));
        self.0 -= text.len();
        text.to_owned()
    }
}

impl Verdict {
    /// As the error of a call that was not started.
    pub fn to_error(&self) -> RpcError {
        let message = match self.message.as_str() {
            "" => "the provider refuses this method; its first refused methods say why",
            said => cut(said, VERDICT_TEXT),
        };
        RpcError::not_executed(Code::from_u8(self.code), message)
    }
}

/// The services of a side, for binding.
pub trait Catalogue {
    /// The place of a service and what it is; otherwise an error that names what there is.
    fn find(&self, service: &str, group: &str, version: &str) -> Result<(usize, &ServiceDescriptor), RpcError>;
    /// The service at a place that [`find`](Catalogue::find) gave.
    fn get(&self, place: usize) -> Option<&ServiceDescriptor>;
    /// Whether the peer may be told of a method that it has otherwise than this side.
    fn may_know(&self, _place: usize, _method: usize) -> Result<(), RpcError> {
        Ok(())
    }
}

/// The parts of a row on which the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// The arguments.
    pub args: bool,
    /// The result.
    pub result: bool,
    /// The application error.
    pub error: bool,
}

/// Finds a row's method and checks that both sides mean the same by it. If they may differ (`held`), says where they do.
pub(crate) fn agree(row: &BindRow, service: &ServiceDescriptor, held: bool) -> Result<(u16, Parts), (Code, String)> {
    let name = &service.name;
    let Some((index, method)) = service.method(&row.name) else {
        let known: Vec<&str> = service.methods.iter().map(|m| m.name.as_str()).collect();
        return Err((Code::Unimplemented, format!("{name} has no method {:?} here; it has {}", row.name, known.join(", "))));
    };
    let Prints { args, result, error } = method.prints;
    // Nobody reads what a one-way call gives back.
    let twoway = row.bits & ONEWAY == 0;
    let parts = Parts { args: row.args != args, result: twoway && row.result != result, error: twoway && row.error != error };
    let differing: Vec<&str> = [("arguments", parts.args), ("result", parts.result), ("error", parts.error)]
        .iter()
        .filter_map(|&(part, differs)| differs.then_some(part))
        .collect();
    if row.bits & !(ONEWAY | ARGS | RESULTS) != 0 {
        return Err((Code::Unimplemented, format!("{name}.{}: row bits {:#04x} are not known here", method.name, row.bits)));
    }
    let other = row.bits ^ bits(method.traits);
    if other == 0 && (held || differing.is_empty()) {
        return Ok((index as u16, parts));
    }
    let what = match (other, differing.is_empty()) {
        (other, _) if other & ONEWAY != 0 => "one side calls it one-way, the other two-way".to_owned(),
        (other, _) if other != 0 => "one side has a stream where the other has none".to_owned(),
        _ => format!("the {} {} between caller and provider", differing.join(" and "), verb(&differing)),
    };
    Err((
        Code::FailedPrecondition,
        format!("{name}.{}: {what}; the provider has `{}`; build both from the same types", method.name, method.signature),
    ))
}

fn verb(parts: &[&str]) -> &'static str {
    match parts {
        ["result"] | ["error"] => "differs",
        _ => "differ",
    }
}
