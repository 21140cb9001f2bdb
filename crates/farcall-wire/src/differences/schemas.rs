//! Schemas that were said on a session, in both directions, each once.

use std::collections::HashMap;
use std::sync::Arc;

use farcall_core::compat::Part;
use farcall_core::schema::{Fingerprint, TypeSchema};
use farcall_core::{Code, Reading, compact};

use super::readings::{Key, Readings};
use super::{ERROR, no_error};
use crate::frame::{Header, Violation};
use crate::outbuf::OutBuf;

/// Bytes of the payload of a Schema frame.
const SCHEMA: usize = 64 << 10;
/// Part and fingerprint stand before the schema.
const HEAD: usize = 17;

/// Why a row cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>) -> Refusal {
        Refusal { code: Code::FailedPrecondition, why: why.into() }
    }
}

/// What a Schema frame says.
pub(super) struct Said<'a> {
    pub(super) part: u8,
    pub(super) print: Fingerprint,
    /// Empty: the schema of that fingerprint that was said before, or the receiver's own.
    schema: &'a [u8],
}

impl<'a> Said<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Said<'a>, Violation> {
        if payload.len() > SCHEMA {
            return Err(Violation(format!("a Schema frame of {} bytes, the limit is {SCHEMA}", payload.len())));
        }
        let early = || Violation("a Schema frame that ends early".into());
        let ([part], rest) = payload.split_first_chunk().ok_or_else(early)?;
        let (print, schema) = rest.split_first_chunk().ok_or_else(early)?;
        Ok(Said { part: *part, print: Fingerprint(*print), schema })
    }
}

/// What the peer said of a fingerprint last.
#[derive(Debug)]
enum Known {
    /// The schema as it came: it is smaller so than read.
    Kept(Arc<[u8]>),
    /// It was more than is kept.
    TooMuch,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Schemas {
    /// What we said of a fingerprint last. Types of one fingerprint may have other aliases.
    sent: HashMap<Fingerprint, Vec<u8>>,
    known: HashMap<Fingerprint, Known>,
    /// Bytes that were read, compared, and made of it; see `Limits::schemas`.
    spent: usize,
    limit: usize,
}

impl Schemas {
    pub(super) fn new(limit: usize) -> Schemas {
        Schemas { sent: HashMap::new(), known: HashMap::new(), spent: 0, limit }
    }

    /// Says what we write. The schema itself is left out if the receiver has it, because it has said
    /// (`alike`), or was told before.
    pub(super) fn say(
        &mut self,
        header: Header,
        part: u8,
        print: Fingerprint,
        schema: Option<&TypeSchema>,
        alike: bool,
        out: &mut OutBuf,
    ) -> Result<(), Refusal> {
        let needed = schema.filter(|_| !alike);
        let bytes = needed.map(TypeSchema::bare).unwrap_or_default();
        if HEAD + bytes.len() > SCHEMA || needed.is_some() && bytes.is_empty() {
            return Err(Refusal::new(untold(part, bytes.len())));
        }
        let repeated = bytes.is_empty() || self.sent.get(&print) == Some(&bytes);
        out.frame(header, &[&[part], &print.0, if repeated { &[] } else { &bytes }]);
        if !repeated {
            self.sent.insert(print, bytes);
        }
        Ok(())
    }

    /// Keeps what the peer said, for what refers to it later.
    pub(super) fn keep(&mut self, said: &Said<'_>) -> Result<(), Violation> {
        if !said.schema.is_empty() {
            self.learn(said)?;
        }
        Ok(())
    }

    /// How what the peer said is read as a type of ours, whose fingerprint and schema are `own`.
    pub(super) fn read(
        &mut self,
        readings: &Readings,
        (part, stream): (Part, bool),
        said: &Said<'_>,
        own: (Option<&TypeSchema>, Fingerprint),
    ) -> Result<Result<Arc<Reading>, Refusal>, Violation> {
        let learned = if said.schema.is_empty() { None } else { Some(self.learn(said)?) };
        let no_error = said.part == ERROR && said.print == no_error();
        if said.print == own.1 || no_error {
            return Ok(Ok(Arc::default()));
        }
        let bytes = match self.known.get(&said.print) {
            Some(Known::Kept(bytes)) => Arc::clone(bytes),
            Some(Known::TooMuch) => return Ok(Err(too_much(self.limit))),
            None => return Err(Violation("a Schema frame that refers to a schema that was never sent".into())),
        };
        let key = Key { part, stream, writer: bytes, reader: own.0.map(TypeSchema::bare).unwrap_or_default() };
        let made = match readings.find(&key) {
            Some(made) => made,
            // To compare takes time in proportion to this.
            None if !self.spend(key.writer.len()) => return Ok(Err(too_much(self.limit))),
            None => {
                let writer = learned.map_or_else(|| decode(&key.writer), Ok)?;
                readings.compile(key, &writer, own.0)
            }
        };
        Ok(match made {
            Ok(reading) if self.spend(reading.weight()) => Ok(reading),
            Ok(_) => Err(too_much(self.limit)),
            Err(why) => Err(Refusal::new(&*why)),
        })
    }

    /// Takes so much of what the peer may make us keep and do.
    fn spend(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.limit.saturating_sub(self.spent);
        self.spent += if enough { bytes } else { 0 };
        enough
    }

    fn learn(&mut self, said: &Said<'_>) -> Result<TypeSchema, Violation> {
        let schema = decode(said.schema)?;
        if schema.fingerprint() != said.print {
            return Err(Violation("a schema of another fingerprint than its frame says".into()));
        }
        let kept = self.spend(said.schema.len());
        self.known.insert(said.print, if kept { Known::Kept(said.schema.into()) } else { Known::TooMuch });
        Ok(schema)
    }
}

fn decode(bytes: &[u8]) -> Result<TypeSchema, Violation> {
    compact::decode(bytes).map_err(|e| Violation(format!("a schema that cannot be read: {e}")))
}

#[cold]
fn untold(part: u8, len: usize) -> String {
    let what = ["arguments", "result", "error"][part.min(ERROR) as usize];
    match len {
        0 => format!("the schema of the {what} nests too deep to travel: give inner types names"),
        _ => format!("the schema of the {what} is {len} bytes, at most {} travel: split the type", SCHEMA - HEAD),
    }
}

#[cold]
fn too_much(limit: usize) -> Refusal {
    let why = format!("the other side's schemas take more than {limit} bytes on this connection, the limit `schemas`");
    Refusal { code: Code::ResourceExhausted, why }
}
