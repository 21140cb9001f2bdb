//! How one side of a method reads what another version of the other side writes.
//!
//! This is the one place where it is decided whether two versions of a method understand each other: connections ask
//! it when they meet, [`compat`](crate::compat) asks it before.

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeOwned};

use crate::codec::{self, CodecError, CodecId, Shape};
use crate::compat::{Issue, Part};
use crate::plan::{Finding, Plan, Why};
use crate::schema::{Fingerprint, Ty, TypeSchema};

/// The plans for what one side writes in one part of a method; none for what both sides have alike.
#[derive(Debug, Default)]
pub struct Reading {
    value: Option<Plan>,
    item: Option<Plan>,
    end: Option<Plan>,
    writer: Option<Fingerprint>,
}

/// A type of a method, and the schema that it is a part of.
struct Piece<'a> {
    part: Part,
    root: &'a Ty,
    whole: &'a TypeSchema,
}

impl Reading {
    /// Works out how what `writer` describes is read as what `reader` describes. `part` is one of the three that are
    /// compared: arguments, result, error; `stream` says that a stream is in it. `None` is a method without an
    /// application error. Beside the reading it gives what the reader does not get, or refuses when it comes.
    pub fn compile(
        part: Part,
        stream: bool,
        writer: Option<&TypeSchema>,
        reader: Option<&TypeSchema>,
    ) -> Result<(Reading, Vec<Issue>), Vec<Issue>> {
        let (writer, reader) = match (writer, reader) {
            (Some(writer), Some(reader)) => (writer, reader),
            // A side without an application error never sends one.
            (None, _) => return Ok((Reading::default(), Vec::new())),
            (Some(_), None) => return Err(vec![Issue::NewError { part }]),
        };
        let bad = |side: fn(String) -> Finding| vec![Issue::Type { part: Some(part), finding: side(NO_STREAM.into()) }];
        let sent = pieces(part, stream, writer).ok_or_else(|| bad(Finding::bad_writer))?;
        let wanted = pieces(part, stream, reader).ok_or_else(|| bad(Finding::bad_reader))?;
        let (mut reading, mut notes, mut refusals) = (Reading::default(), Vec::new(), Vec::new());
        for (sent, wanted) in sent.iter().zip(&wanted) {
            match sent.read_as(wanted) {
                Ok((plan, found)) => {
                    *reading.place(sent.part) = plan;
                    notes.extend(found);
                }
                Err(found) => refusals.extend(found),
            }
        }
        reading.writer = Some(writer.fingerprint());
        if refusals.is_empty() { Ok((reading, notes)) } else { Err(refusals) }
    }

    fn place(&mut self, part: Part) -> &mut Option<Plan> {
        match part {
            Part::Arguments | Part::Result | Part::Error => &mut self.value,
            Part::ArgumentItem | Part::ResultItem => &mut self.item,
            Part::ArgumentEnd | Part::ResultEnd => &mut self.end,
        }
    }

    /// How the arguments, the result or the error are read.
    pub fn value(&self) -> Option<&Plan> {
        self.value.as_ref()
    }

    /// How an item of the stream is read.
    pub fn item(&self) -> Option<&Plan> {
        self.item.as_ref()
    }

    /// How the error is read that the stream ended with.
    pub fn end(&self) -> Option<&Plan> {
        self.end.as_ref()
    }

    /// What is written, if it is not what the reader would write: equal bytes may mean another thing then.
    pub fn writer(&self) -> Option<Fingerprint> {
        self.writer
    }

    /// Bytes that it takes, roughly.
    pub fn weight(&self) -> usize {
        [&self.value, &self.item, &self.end].into_iter().flatten().map(Plan::weight).sum()
    }
}

const NO_STREAM: &str = "bad schema: the method has a stream, and this is not the tuple of one";

impl<'a> Piece<'a> {
    fn read_as(&self, reader: &Piece<'_>) -> Result<(Option<Plan>, Vec<Issue>), Vec<Issue>> {
        let part = self.part;
        if matches!(part, Part::ArgumentEnd | Part::ResultEnd) {
            match (self.root, reader.root) {
                // As with the error of a call.
                (Ty::Unit, _) => return Ok((None, Vec::new())),
                (_, Ty::Unit) => return Err(vec![Issue::NewError { part }]),
                _ => {}
            }
        }
        let issues = |found: &[Finding]| found.iter().map(|f| Issue::Type { part: Some(part), finding: f.clone() }).collect();
        match Plan::compile(&self.schema(), &reader.schema()) {
            Ok(plan) => {
                let notes = issues(plan.notes());
                Ok(((!plan.is_same()).then_some(plan), notes))
            }
            Err(error) => Err(issues(error.findings())),
        }
    }

    fn schema(&self) -> std::borrow::Cow<'a, TypeSchema> {
        match std::ptr::eq(self.root, &self.whole.root) {
            true => std::borrow::Cow::Borrowed(self.whole),
            false => std::borrow::Cow::Owned(TypeSchema { root: self.root.clone(), defs: self.whole.defs.clone() }),
        }
    }
}

/// The types in one part of a method. None if the schema has no stream where there should be one.
fn pieces(part: Part, stream: bool, whole: &TypeSchema) -> Option<Vec<Piece<'_>>> {
    let piece = |part, root| Piece { part, root, whole };
    match (part, stream) {
        (Part::Arguments, true) => {
            let [args, stream] = pair(&whole.root)?;
            let [item, end] = pair(stream)?;
            Some(vec![piece(Part::Arguments, args), piece(Part::ArgumentItem, item), piece(Part::ArgumentEnd, end)])
        }
        (Part::Result, true) => {
            let [item, end] = pair(&whole.root)?;
            Some(vec![piece(Part::ResultItem, item), piece(Part::ResultEnd, end)])
        }
        (part, _) => Some(vec![piece(part, &whole.root)]),
    }
}

fn pair(ty: &Ty) -> Option<&[Ty; 2]> {
    match ty {
        Ty::Tuple(types) => types.as_slice().try_into().ok(),
        _ => None,
    }
}

/// Reads a value that takes up the whole frame: by a plan, if there is one. Plans read compact bytes; of the other
/// codecs, those that name what they hold need none.
#[inline]
pub fn decode<'s, T: DeserializeOwned>(
    plan: Option<&Plan>,
    codec: CodecId,
    frame: &Bytes,
    shape: impl FnOnce() -> Option<Shape<'s>>,
) -> Result<T, CodecError> {
    match plan {
        Some(plan) if codec == CodecId::Compact => by_plan(plan, frame),
        _ => codec::decode(codec, frame, shape),
    }
}

/// The same for a value that may borrow from the frame.
pub fn decode_lent<'de, 's, T: Deserialize<'de>>(
    plan: Option<&Plan>,
    codec: CodecId,
    frame: &'de Bytes,
    shape: impl FnOnce() -> Option<Shape<'s>>,
) -> Result<T, CodecError> {
    match plan {
        Some(plan) if codec == CodecId::Compact => plan.decode(frame),
        _ => codec::decode_lent(codec, frame, shape),
    }
}

/// Out of the way of values that need no plan.
#[cold]
#[inline(never)]
fn by_plan<T: DeserializeOwned>(plan: &Plan, frame: &Bytes) -> Result<T, CodecError> {
    plan.decode(frame)
}

impl Finding {
    fn bad_writer(text: String) -> Finding {
        Finding { path: String::new(), why: Why::BadSchema, writer: text, reader: String::new() }
    }

    fn bad_reader(text: String) -> Finding {
        Finding { path: String::new(), why: Why::BadSchema, writer: String::new(), reader: text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact;

    fn of<T: crate::Schema>() -> TypeSchema {
        TypeSchema::of::<T>()
    }

    fn read(part: Part, stream: bool, writer: &TypeSchema, reader: &TypeSchema) -> Result<Reading, Vec<String>> {
        let text = |issues: Vec<Issue>| issues.iter().map(ToString::to_string).collect();
        Reading::compile(part, stream, Some(writer), Some(reader)).map(|(reading, _)| reading).map_err(text)
    }

    #[test]
    fn every_piece_of_a_part_has_its_own_plan() {
        type Old = ((u8,), (u16, ()));
        type New = ((u32,), (u64, ()));
        let reading = read(Part::Arguments, true, &of::<Old>(), &of::<New>()).unwrap();
        let frame = |bytes: Vec<u8>| Bytes::from(bytes);
        let value: (u32,) = decode(reading.value(), CodecId::Compact, &frame(compact::encode(&(7u8,)).unwrap()), || None).unwrap();
        let item: u64 = decode(reading.item(), CodecId::Compact, &frame(compact::encode(&300u16).unwrap()), || None).unwrap();
        assert_eq!((value, item), ((7,), 300));
        assert!(reading.weight() > 0);
        let same = read(Part::Arguments, true, &of::<Old>(), &of::<Old>()).unwrap();
        assert_eq!(same.weight(), 0, "what is alike takes no plan");
    }

    #[test]
    fn errors_of_streams_come_and_go_as_those_of_calls() {
        let (none, some) = (of::<(u8, ())>(), of::<(u8, String)>());
        assert!(read(Part::Result, true, &none, &some).is_ok());
        let why = "error of the result's stream: it may end with an application error, its reader knows of none: \
                   give the changed method a new name";
        assert_eq!(read(Part::Result, true, &some, &none).unwrap_err(), [why]);
    }

    #[test]
    fn a_schema_without_its_stream_is_refused_by_name() {
        let found = read(Part::Result, true, &of::<u8>(), &of::<(u8, ())>()).unwrap_err();
        assert_eq!(found, [format!("result: the writer's schema: {NO_STREAM}")]);
        let found = read(Part::Arguments, true, &of::<((), (u8, ()))>(), &of::<(u8, u8)>()).unwrap_err();
        assert_eq!(found, [format!("arguments: the reader's schema: {NO_STREAM}")]);
    }

    #[cfg(feature = "json")]
    #[test]
    fn formats_with_names_need_no_plan() {
        let reading = read(Part::Result, false, &of::<u8>(), &of::<u64>()).unwrap();
        let value: u64 = decode(reading.value(), CodecId::Json, &Bytes::from_static(b"7"), || None).unwrap();
        assert_eq!(value, 7);
    }
}
