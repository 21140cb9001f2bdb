//! Rows on which the two sides differ: held until each can read the other, or refused.
//!
//! A side that writes says what it writes ([`Kind::Schema`]); the other compiles how to read it and says whether it can
//! ([`Kind::Ready`]). Nothing runs before both have said so. Rows of both method tables are here: of the peer's rows
//! we read the arguments, of our own the result and the error. What is decided is for the driver to hand on
//! ([`Settled`]): nothing here is shared with callers, because to compile a plan may take milliseconds.

mod readings;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use farcall_core::compat::Part;
use farcall_core::schema::{Fingerprint, TypeSchema};
use farcall_core::{Code, Limits, MethodDescriptor, Reading, ServiceDescriptor, compact};

use crate::failure::cut;
use crate::frame::{Frame, Header, Kind, Violation, flags};
use crate::inbound::HeldRows;
use crate::outbound::OurHeldRows;
use crate::outbuf::OutBuf;
use crate::table::{Catalogue, VERDICT_TEXT, Verdict};
pub use readings::Readings;
use schemas::{Refusal, Said, Schemas};

/// The `part` of a Schema frame.
const ARGS: u8 = 0;
const RESULT: u8 = 1;
const ERROR: u8 = 2;

/// What has been decided of a row.
#[derive(Debug)]
pub enum Settled {
    /// A row of the peer's table: calls on it run, their arguments read so; or they are refused.
    Theirs(u16, Result<Arc<Reading>, Verdict>),
    /// A row of ours: replies to calls on it are read so; or no more are made.
    Ours(u16, Result<Replies, Verdict>),
}

/// How the replies of a row are read.
#[derive(Debug, Clone, Default)]
pub struct Replies {
    /// The result, or the stream that is the result.
    pub result: Arc<Reading>,
    /// The application error.
    pub error: Arc<Reading>,
}

/// Whether one side can read the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    NotYet,
    Yes,
    No,
}

/// A row of the peer's table.
#[derive(Debug)]
struct Theirs {
    binding: u32,
    service: u32,
    method: u16,
    args: Fingerprint,
    /// Our reading of its arguments.
    reading: Option<Arc<Reading>>,
    said: bool,
    we: Ready,
    they: Ready,
}

/// A row of our table.
#[derive(Debug)]
struct Ours {
    binding: u32,
    /// Not there if the call goes by a description.
    method: Option<(&'static ServiceDescriptor, &'static MethodDescriptor)>,
    result: Option<Arc<Reading>>,
    error: Option<Arc<Reading>>,
    /// Which of result and error the peer has said.
    said: [bool; 2],
    we: Ready,
    they: Ready,
}

/// See the module's text.
#[derive(Debug)]
pub struct Differences {
    in_use: bool,
    readings: Arc<Readings>,
    schemas: Schemas,
    theirs: HashMap<u16, Theirs>,
    ours: HashMap<u16, Ours>,
}

impl Differences {
    /// Nothing said yet.
    pub fn new(limits: &Limits) -> Differences {
        let schemas = Schemas::new(limits.schemas);
        Differences { in_use: false, readings: Arc::default(), schemas, theirs: HashMap::new(), ours: HashMap::new() }
    }

    /// Takes what other sessions compiled, and gives them what this one compiles.
    pub fn share(&mut self, readings: Arc<Readings>) {
        self.readings = readings;
    }

    /// Both sides have the feature.
    pub fn begin(&mut self) {
        self.in_use = true;
    }

    /// Whether rows on which the sides differ are held, or refused.
    pub fn in_use(&self) -> bool {
        self.in_use
    }

    /// Rows of the peer's are held: says what we write in them, and already whether we can read the peer.
    pub fn offer(&mut self, held: HeldRows, catalogue: &impl Catalogue, out: &mut OutBuf, settled: &mut Vec<Settled>) {
        for row in held.rows {
            let Some((service, method)) = method_of(catalogue, row.service, row.method) else { continue };
            let header = Header::new(Kind::Schema, flags::THEIRS, row.row, held.binding);
            let mut sent = Ok(());
            if !method.traits.oneway {
                let (prints, differs) = (method.prints, row.differs);
                sent = self
                    .schemas
                    .say(header, RESULT, prints.result, Some(&method.result), !differs.result, out)
                    .and_then(|()| self.schemas.say(header, ERROR, prints.error, method.error.as_ref(), !differs.error, out));
            }
            let (binding, we, they) = (held.binding, Ready::NotYet, Ready::NotYet);
            let (service_at, method_at, args) = (row.service, row.method, row.args);
            let theirs = Theirs { binding, service: service_at, method: method_at, args, reading: None, said: false, we, they };
            self.theirs.insert(row.row, theirs);
            match sent {
                Err(refusal) => self.refuse_theirs(row.row, service, method, refusal, out, settled),
                Ok(()) if !row.differs.args => self.read_theirs(row.row, Arc::default(), out, settled),
                Ok(()) => {}
            }
        }
    }

    /// Rows of ours are held: says what we write in them.
    pub fn answer(&mut self, held: OurHeldRows, out: &mut OutBuf, settled: &mut Vec<Settled>) {
        for row in held.rows {
            let method = held.service.and_then(|service| Some((service, service.methods.get((row - held.first) as usize)?)));
            let (we, they) = (Ready::NotYet, Ready::NotYet);
            let ours = Ours { binding: held.id, method, result: None, error: None, said: [false; 2], we, they };
            self.ours.insert(row, ours);
            let Some((_, method)) = method else {
                let why = "the provider's types are not those of the description that this call goes by: describe it again";
                self.refuse_ours(row, Refusal::new(why), out, settled);
                continue;
            };
            let header = Header::new(Kind::Schema, 0, row, held.id);
            match self.schemas.say(header, ARGS, method.prints.args, Some(&method.args), false, out) {
                Err(refusal) => self.refuse_ours(row, refusal, out, settled),
                // No reply comes, so every reply can be read.
                Ok(()) if method.traits.oneway => {
                    if let Some(ours) = self.ours.get_mut(&row) {
                        (ours.result, ours.error, ours.said) = (Some(Arc::default()), Some(Arc::default()), [true; 2]);
                    }
                    self.read_ours(row, out, settled);
                }
                Ok(()) => {}
            }
        }
    }

    /// A Schema frame.
    pub fn on_schema(
        &mut self,
        frame: &Frame,
        catalogue: &impl Catalogue,
        out: &mut OutBuf,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Violation> {
        self.check_in_use(frame)?;
        let said = Said::read(&frame.payload)?;
        match frame.header.flags & flags::THEIRS {
            0 => self.on_arguments(frame.header, &said, catalogue, out, settled),
            _ => self.on_answers(frame.header, &said, out, settled),
        }
    }

    fn check_in_use(&self, frame: &Frame) -> Result<(), Violation> {
        match self.in_use {
            true => Ok(()),
            false => Err(Violation(format!("a {:?} frame: resolving schemas that differ was not negotiated", frame.header.kind))),
        }
    }

    /// What the peer writes in a row of its own.
    fn on_arguments(
        &mut self,
        header: Header,
        said: &Said<'_>,
        catalogue: &impl Catalogue,
        out: &mut OutBuf,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Violation> {
        let row = held(self.theirs.get_mut(&header.aux), |theirs| theirs.binding, header)?;
        if said.part != ARGS || std::mem::replace(&mut row.said, true) {
            return Err(out_of_place(header, said.part));
        }
        if said.print != row.args {
            return Err(Violation(format!("a Schema frame for row {} of another fingerprint than its binding said", header.aux)));
        }
        let (service_at, method_at, decided) = (row.service, row.method, row.we != Ready::NotYet);
        let Some((service, method)) = method_of(catalogue, service_at, method_at) else { return Ok(()) };
        let own = (Some(&method.args), method.prints.args);
        let read = self.schemas.read(&self.readings, (Part::Arguments, method.traits.args_stream), said, own)?;
        match read {
            _ if decided => {}
            Ok(reading) => self.read_theirs(header.aux, reading, out, settled),
            Err(refusal) => self.refuse_theirs(header.aux, service, method, refusal, out, settled),
        }
        Ok(())
    }

    /// What the peer writes in a row of ours.
    fn on_answers(&mut self, header: Header, said: &Said<'_>, out: &mut OutBuf, settled: &mut Vec<Settled>) -> Result<(), Violation> {
        let row = held(self.ours.get_mut(&header.aux), |ours| ours.binding, header)?;
        let which = match said.part {
            RESULT | ERROR if !std::mem::replace(&mut row.said[(said.part - RESULT) as usize], true) => said.part,
            other => return Err(out_of_place(header, other)),
        };
        let decided = row.we != Ready::NotYet;
        let Some((_, method)) = row.method else {
            // Refused before, but what comes later may refer to it.
            return self.schemas.keep(said);
        };
        let (part, own) = match which {
            RESULT => ((Part::Result, method.traits.result_stream), (Some(&method.result), method.prints.result)),
            _ => ((Part::Error, false), (method.error.as_ref(), method.prints.error)),
        };
        let read = self.schemas.read(&self.readings, part, said, own)?;
        if decided {
            return Ok(());
        }
        match read {
            Err(refusal) => self.refuse_ours(header.aux, refusal, out, settled),
            Ok(reading) => {
                if let Some(row) = self.ours.get_mut(&header.aux) {
                    *(if which == RESULT { &mut row.result } else { &mut row.error }) = Some(reading);
                }
                self.read_ours(header.aux, out, settled);
            }
        }
        Ok(())
    }

    /// A Ready frame.
    pub fn on_ready(&mut self, frame: &Frame, settled: &mut Vec<Settled>) -> Result<(), Violation> {
        self.check_in_use(frame)?;
        let header = frame.header;
        let verdict = match &frame.payload[..] {
            [] => None,
            payload => Some(read_verdict(header.aux, payload)?),
        };
        let early = || Violation(format!("a Ready frame for row {} before its schemas", header.aux));
        match header.flags & flags::THEIRS {
            0 => {
                let row = held(self.theirs.get_mut(&header.aux), |theirs| theirs.binding, header)?;
                if !row.said && verdict.is_none() {
                    return Err(early());
                }
                row.they = decided_once(row.they, verdict.is_none(), header)?;
                match verdict {
                    Some(verdict) if row.we != Ready::No => settled.push(Settled::Theirs(header.aux, Err(verdict))),
                    Some(_) => {}
                    None => settle_theirs(header.aux, row, settled),
                }
            }
            _ => {
                let row = held(self.ours.get_mut(&header.aux), |ours| ours.binding, header)?;
                if row.said != [true; 2] && verdict.is_none() {
                    return Err(early());
                }
                row.they = decided_once(row.they, verdict.is_none(), header)?;
                if let Some(verdict) = verdict
                    && row.we != Ready::No
                {
                    settled.push(Settled::Ours(header.aux, Err(verdict)));
                }
            }
        }
        Ok(())
    }

    /// We can read the arguments of a row of the peer's.
    fn read_theirs(&mut self, at: u16, reading: Arc<Reading>, out: &mut OutBuf, settled: &mut Vec<Settled>) {
        let Some(row) = self.theirs.get_mut(&at) else { return };
        (row.reading, row.we) = (Some(reading), Ready::Yes);
        out.frame(Header::new(Kind::Ready, flags::THEIRS, at, row.binding), &[]);
        settle_theirs(at, row, settled);
    }

    fn refuse_theirs(
        &mut self,
        at: u16,
        service: &ServiceDescriptor,
        method: &MethodDescriptor,
        refusal: Refusal,
        out: &mut OutBuf,
        settled: &mut Vec<Settled>,
    ) {
        let Some(row) = self.theirs.get_mut(&at) else { return };
        row.we = Ready::No;
        let why = format!("{}.{}: the provider cannot read the caller: {}", service.name, method.name, refusal.why);
        let verdict = verdict(at, refusal.code, &why);
        out.frame(Header::new(Kind::Ready, flags::THEIRS, at, row.binding), &[&encode(&verdict)]);
        if row.they != Ready::No {
            settled.push(Settled::Theirs(at, Err(verdict)));
        }
    }

    /// We may be able to read all replies of a row of ours.
    fn read_ours(&mut self, at: u16, out: &mut OutBuf, settled: &mut Vec<Settled>) {
        let Some(row) = self.ours.get_mut(&at) else { return };
        let (Some(result), Some(error)) = (&row.result, &row.error) else { return };
        let replies = Replies { result: Arc::clone(result), error: Arc::clone(error) };
        row.we = Ready::Yes;
        out.frame(Header::new(Kind::Ready, 0, at, row.binding), &[]);
        if row.they != Ready::No {
            settled.push(Settled::Ours(at, Ok(replies)));
        }
    }

    fn refuse_ours(&mut self, at: u16, refusal: Refusal, out: &mut OutBuf, settled: &mut Vec<Settled>) {
        let Some(row) = self.ours.get_mut(&at) else { return };
        row.we = Ready::No;
        let name = row.method.map_or(String::new(), |(service, method)| format!("{}.{}: ", service.name, method.name));
        let verdict = verdict(at, refusal.code, &format!("{name}the caller cannot read the provider: {}", refusal.why));
        out.frame(Header::new(Kind::Ready, 0, at, row.binding), &[&encode(&verdict)]);
        if row.they != Ready::No {
            settled.push(Settled::Ours(at, Err(verdict)));
        }
    }
}

/// Calls on a row of the peer's run once both sides can read each other.
fn settle_theirs(at: u16, row: &Theirs, settled: &mut Vec<Settled>) {
    if let (Ready::Yes, Ready::Yes, Some(reading)) = (row.we, row.they, &row.reading) {
        settled.push(Settled::Theirs(at, Ok(Arc::clone(reading))));
    }
}

fn method_of(catalogue: &impl Catalogue, service: u32, method: u16) -> Option<(&ServiceDescriptor, &MethodDescriptor)> {
    let service = catalogue.get(service as usize)?;
    Some((service, service.methods.get(method as usize)?))
}

/// The row that a frame is about, if it is held.
fn held<R>(row: Option<&mut R>, binding: impl Fn(&R) -> u32, header: Header) -> Result<&mut R, Violation> {
    row.filter(|row| binding(row) == header.id)
        .ok_or_else(|| Violation(format!("a {:?} frame for row {} of binding {}, which is not held", header.kind, header.aux, header.id)))
}

fn decided_once(before: Ready, yes: bool, header: Header) -> Result<Ready, Violation> {
    match (before, yes) {
        (Ready::NotYet, true) => Ok(Ready::Yes),
        (Ready::NotYet, false) => Ok(Ready::No),
        _ => Err(Violation(format!("a second Ready frame for row {}", header.aux))),
    }
}

#[cold]
fn out_of_place(header: Header, part: u8) -> Violation {
    Violation(format!("a Schema frame for part {part} of row {}, which is not asked for, or a second one", header.aux))
}

fn verdict(row: u16, code: Code, why: &str) -> Verdict {
    Verdict { row, code: code as u8, message: cut(why, VERDICT_TEXT).to_owned() }
}

fn encode(verdict: &Verdict) -> Vec<u8> {
    // Numbers and a string: nothing in it can fail to encode.
    compact::encode(verdict).unwrap_or_default()
}

fn read_verdict(row: u16, payload: &[u8]) -> Result<Verdict, Violation> {
    let said: Verdict = compact::decode(payload).map_err(|e| Violation(format!("a Ready frame that cannot be read: {e}")))?;
    match said.code {
        0 => Err(Violation(format!("a Ready frame for row {row} whose verdict says nothing"))),
        _ if said.row != row => Err(Violation(format!("a Ready frame for row {row} with the verdict on row {}", said.row))),
        _ => Ok(Verdict { message: cut(&said.message, VERDICT_TEXT).to_owned(), ..said }),
    }
}

/// The fingerprint of a method without an application error.
fn no_error() -> Fingerprint {
    TypeSchema::of::<()>().fingerprint()
}
