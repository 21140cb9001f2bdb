//! What differs between a writer's type and a reader's, for people.

use std::fmt;

use crate::schema::{MAX_TY_DEPTH, short};

/// Findings that are listed of one kind, refusals and notes each.
pub const MAX_FINDINGS: usize = 32;

/// Steps of a path that are shown.
const MAX_PATH: usize = MAX_TY_DEPTH;

/// One difference: where, what, and both types.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Such as `items[].qty`; empty if it is the value as a whole.
    pub path: String,
    /// What it means.
    pub why: Why,
    /// The type that is written, or what else the writer has there.
    pub writer: String,
    /// The type that is read, or what else the reader has there.
    pub reader: String,
}

/// What a difference means. The first ones refuse every value, the others only some or none.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The reader needs a field that is not sent.
    Missing,
    /// The one cannot be read as the other.
    Changed,
    /// Tuples or arrays of different lengths.
    Length,
    /// A field that the reader does not know and must not skip.
    MustUnderstand,
    /// A list of elements that take no bytes there and some here.
    FreeElements,
    /// The schema itself is refused: the text is in `writer` or `reader`.
    BadSchema,
    /// The schemas are too large to be compared.
    TooLarge,
    /// The reader skips a field that it does not know.
    Skipped,
    /// Some numbers do not fit.
    Narrowed,
    /// A `None` cannot be read.
    MayBeNone,
    /// A variant cannot be read.
    UnknownVariant,
    /// A variant is read as the one that stands for unknown ones.
    OtherVariant,
    /// A list of another length cannot be read.
    Count,
}

impl Why {
    /// Whether no value at all can be read.
    pub fn refuses_all(self) -> bool {
        use Why::{BadSchema, Changed, FreeElements, Length, Missing, MustUnderstand, TooLarge};
        matches!(self, Missing | Changed | Length | MustUnderstand | FreeElements | BadSchema | TooLarge)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        let Finding { why, writer, reader, .. } = self;
        match why {
            Why::Missing => {
                write!(f, "the reader needs it ({reader}) and the writer does not send it: make it an Option or give it #[serde(default)]")
            }
            Why::Changed => {
                write!(f, "the writer sends {writer}, the reader reads {reader}: give what changed a new name")
            }
            Why::Length => {
                write!(f, "the writer sends {writer}, the reader reads {reader}: tuples and arrays cannot grow, use a struct or a Vec")
            }
            Why::MustUnderstand => {
                write!(f, "the writer sends {writer} that must be understood, the reader does not know it: upgrade the reader first")
            }
            Why::FreeElements => {
                write!(
                    f,
                    "the writer sends a list of {writer}, which takes no bytes, the reader reads {reader}: use a list under a new name"
                )
            }
            Why::BadSchema if writer.is_empty() => write!(f, "the reader's schema: {reader}"),
            Why::BadSchema => write!(f, "the writer's schema: {writer}"),
            Why::TooLarge => write!(f, "{writer} and {reader} are compared in too many ways: split the type"),
            Why::Skipped => write!(f, "the writer sends {writer}, the reader does not know it and skips it"),
            Why::Narrowed => write!(f, "the writer sends {writer}, the reader reads {reader}: what does not fit is refused when it comes"),
            Why::MayBeNone => write!(f, "the writer sends {writer}, the reader needs {reader}: a None is refused when it comes"),
            Why::UnknownVariant => {
                write!(
                    f,
                    "the writer may send {writer}, the reader does not know it: refused when it comes, as there is no #[serde(other)]"
                )
            }
            Why::OtherVariant => write!(f, "the writer may send {writer}, the reader does not know it and reads {reader}"),
            Why::Count => write!(f, "the writer sends {writer}, the reader reads {reader}: another length is refused when it comes"),
        }
    }
}

/// A reader that cannot read a writer's values, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatible {
    findings: Vec<Finding>,
}

impl Incompatible {
    pub(super) fn new(findings: Vec<Finding>) -> Incompatible {
        Incompatible { findings }
    }

    pub(super) fn one(why: Why, writer: String, reader: String) -> Incompatible {
        Incompatible::new(vec![Finding { path: String::new(), why, writer, reader }])
    }

    /// What stands in the way: at least one, at most [`MAX_FINDINGS`].
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.findings.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Incompatible {}

/// A place in both types. Places are kept as links to the place above, because nearly none is ever shown.
pub(super) type Place = u32;

/// The value as a whole.
pub(super) const ROOT: Place = 0;

/// A step down.
#[derive(Clone, Copy)]
pub(super) enum PathStep<'a> {
    Field(&'a str),
    Variant(&'a str),
    Part(usize),
    Element,
    Key,
}

/// All places that were looked at.
pub(super) struct Places<'a>(Vec<(Place, PathStep<'a>)>);

impl<'a> Places<'a> {
    pub(super) fn new() -> Places<'a> {
        Places(vec![(ROOT, PathStep::Element)])
    }

    pub(super) fn under(&mut self, above: Place, step: PathStep<'a>) -> Place {
        self.0.push((above, step));
        (self.0.len() - 1) as Place
    }

    /// `items[].qty`; of a very long path the end.
    pub(super) fn path(&self, mut place: Place) -> String {
        let mut steps = Vec::new();
        while place != ROOT && steps.len() < MAX_PATH {
            let (above, step) = self.0[place as usize];
            steps.push(step);
            place = above;
        }
        let mut path = String::from(if place == ROOT { "" } else { "…" });
        for step in steps.into_iter().rev() {
            let dot = if path.is_empty() { "" } else { "." };
            match step {
                PathStep::Field(name) => path.extend([dot, &short(name)]),
                PathStep::Variant(name) => path.extend(["::", &short(name)]),
                PathStep::Part(at) => path.extend([dot, &at.to_string()]),
                PathStep::Element => path.push_str("[]"),
                PathStep::Key => path.push_str("[key]"),
            }
        }
        path
    }
}
