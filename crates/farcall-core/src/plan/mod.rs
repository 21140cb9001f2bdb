//! Plans: how to read another version's bytes as one's own type.
//!
//! Compact bytes are positional and name nothing, so a reader whose type differs from the writer's cannot read them
//! as they are. It has the writer's schema, though, and compiles it together with its own to a [`Plan`], once. The
//! plan then reads the writer's bytes and hands serde the reader's type: the writer never encodes anything twice.
//! Where both sides mean the same, at any level, the compact codec reads as ever.
//!
//! # What is read as what
//!
//! Fields and variants find each other by name, then by the reader's aliases, then by the writer's.
//!
//! | the writer has | the reader has | |
//! |---|---|---|
//! | a field | none of that name | skipped; refused if it says `must_understand` |
//! | no such field | an `Option` | `None` |
//! | no such field | `#[serde(default)]` | the default |
//! | no such field | anything else | refused |
//! | `T` | `Option<T>` | `Some` |
//! | `Option<T>` | `T` | a `None` is an error when it comes, or the field's default |
//! | an integer, `f32` | one that holds all its values | read |
//! | an integer | one that holds some of its values | the others are errors when they come |
//! | a variant | none of that name | its `#[serde(other)]` variant, else an error when it comes |
//! | an array | a list | read |
//! | a list | an array | another count is an error when it comes |
//! | nothing, a struct without fields | a struct | as a struct that lacks all its fields |
//! | a struct | nothing, a struct without fields | all fields are skipped |
//!
//! Lists of any kind are lists, maps of any kind are maps, bytes are a list of `u8`. Type names do not matter.
//! Everything else is [`Incompatible`]: the plan does not compile, so nothing is ever called with it.
//!
//! # Hostile schemas
//!
//! A writer's schema is checked first. Definitions are compared in pairs, each pair once, from a queue: no stack
//! depth and no doubling. The work is bounded by [`PAIRS_PER_NODE`]. Reading by a plan keeps the limits of the
//! compact codec; types whose values take no bytes are skipped without a look, so that skipping takes a byte per
//! step, and are never read as elements that do take space here.

mod compile;
mod decode;
mod empty;
mod finding;
mod names;
mod number;
mod skip;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::de::Deserialize;

use crate::codec::CodecError;
use crate::compact::Decoder;
use crate::frame_bytes::with_frame;
use crate::schema::TypeSchema;

pub use compile::PAIRS_PER_NODE;
pub use finding::{Finding, Incompatible, MAX_FINDINGS, Why};

use number::Number;
use skip::Skips;

/// How to read one type's bytes as another type: see the [module](self).
#[derive(Debug)]
pub struct Plan {
    nodes: Vec<Node>,
    root: Id,
    skips: Skips,
    notes: Vec<Finding>,
}

/// A node's index.
type Id = u32;

/// How one type is read as another.
#[derive(Debug)]
enum Node {
    /// The bytes are those of the reader's own type.
    Same,
    /// A number of another width.
    Number {
        from: Number,
        to: Number,
    },
    /// The reader wants nothing of it.
    Nothing(skip::Id),
    /// An option on both sides.
    Option(Id),
    /// The reader has an option, the writer always sends a value.
    Wrap(Id),
    /// The writer has an option, the reader needs a value.
    Unwrap(Id),
    /// A list on both sides.
    List(Id),
    /// This many elements without a count.
    Array(Id, u32),
    /// A list that the reader takes only with this many elements.
    Counted(Id, u32),
    /// Key and value.
    Map(Id, Id),
    /// One of each.
    Tuple(Box<[Id]>),
    /// A struct that is written as its one field.
    Newtype(Id),
    Struct(Fields),
    /// By the writer's numbers.
    Enum(Box<[Variant]>),
}

impl Node {
    /// Bytes beside its own.
    fn weight(&self) -> usize {
        match self {
            Node::Tuple(parts) => size_of_val(&**parts),
            Node::Struct(fields) => fields.weight(),
            Node::Enum(variants) => variants.iter().map(|variant| size_of::<Variant>() + variant.weight()).sum(),
            _ => 0,
        }
    }
}

/// How the fields of a struct are read.
#[derive(Debug)]
struct Fields {
    steps: Box<[FieldStep]>,
    /// Whether the steps make the reader's fields in the reader's order, none left out but defaults at the end. Then
    /// serde needs no names, which is quicker.
    in_order: bool,
}

impl Fields {
    fn weight(&self) -> usize {
        let name = |step: &FieldStep| match step {
            FieldStep::Read { name, .. } | FieldStep::Absent { name } => name.len(),
            FieldStep::Skip(_) => 0,
        };
        size_of_val(&*self.steps) + self.steps.iter().map(name).sum::<usize>()
    }
}

/// What comes next in a struct.
#[derive(Debug)]
enum FieldStep {
    /// A field of both sides, by the reader's name.
    Read { name: Box<str>, node: Id, none_is_default: bool },
    /// A field that the reader does not know.
    Skip(skip::Id),
    /// A field that the writer does not send: `None`, or `()`.
    Absent { name: Box<str> },
}

/// How a variant is read.
#[derive(Debug)]
struct Variant {
    name: Box<str>,
    /// The reader's number for it and what it holds, if the reader has a place for it.
    known: Option<(u32, Payload)>,
}

impl Variant {
    fn weight(&self) -> usize {
        let held = match &self.known {
            Some((_, Payload::Tuple(parts))) => size_of_val(&**parts),
            Some((_, Payload::Struct(fields))) => fields.weight(),
            Some((_, Payload::Unit(_) | Payload::Newtype(_))) | None => 0,
        };
        self.name.len() + held
    }
}

/// How what a variant holds is read.
#[derive(Debug)]
enum Payload {
    /// Nothing on the reader's side.
    Unit(skip::Id),
    Newtype(Id),
    Tuple(Box<[Id]>),
    Struct(Fields),
}

impl Plan {
    /// Works out how to read what `writer` describes as what `reader` describes.
    pub fn compile(writer: &TypeSchema, reader: &TypeSchema) -> Result<Plan, Incompatible> {
        compile::compile(writer, reader)
    }

    /// A plan for the type as it is, that follows the schema step by step all the same: what a type reads otherwise
    /// than its schema says shows. The schema must be a valid one.
    pub(crate) fn in_full(schema: &TypeSchema) -> Plan {
        compile::in_full(schema)
    }

    /// What the reader does not get, and values that it refuses when they come. At most [`MAX_FINDINGS`].
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    /// Whether the compact codec reads these bytes just as well.
    pub fn is_same(&self) -> bool {
        matches!(self.nodes[self.root as usize], Node::Same)
    }

    /// Bytes that it takes, roughly: what a cache of plans counts.
    pub fn weight(&self) -> usize {
        let nodes: usize = self.nodes.iter().map(|node| size_of::<Node>() + node.weight()).sum();
        let notes: usize = self.notes.iter().map(|note| note.path.len() + note.writer.len() + note.reader.len()).sum();
        size_of::<Plan>() + nodes + self.skips.weight() + notes
    }

    /// Reads a value that takes up the whole frame, as [`Codec::decode`](crate::Codec::decode) does for the own type.
    /// `T` must be the type of the plan's reader.
    pub fn decode<'de, T: Deserialize<'de>>(&self, frame: &'de Bytes) -> Result<T, CodecError> {
        with_frame(frame, || decode_with(self, frame))
    }
}

/// Reads a value that takes up all of `bytes` by a plan, as [`compact::decode`](crate::compact::decode) does without
/// one. `T` must be the type of the plan's reader.
pub fn decode_with<'de, T: Deserialize<'de>>(plan: &Plan, bytes: &'de [u8]) -> Result<T, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(decode::Reader::new(&mut decoder, plan))?;
    decoder.finish()?;
    Ok(value)
}
