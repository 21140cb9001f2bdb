//! Codecs: how a value becomes the body of a frame and back.
//!
//! A codec is chosen per service or per call by its [`CodecId`]. The default is [`Compact`]; JSON is for
//! gateways, consoles and types that have serde's derives only; XDR is for programs whose data `rpcgen`
//! describes, protobuf for those that have a `.proto` file.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::compact;
use crate::frame_bytes::with_frame;
#[cfg(feature = "json")]
use crate::json;
use crate::messages::Messages;
#[cfg(feature = "protobuf")]
use crate::protobuf;
use crate::schema::{Def, Ty, TypeSchema};
#[cfg(feature = "xdr")]
use crate::xdr;

/// Steps of an error's path that are kept: deeper ones only make the text longer.
const MAX_PATH: usize = 32;

/// Which codec a body is written in. The numbers are on the wire and never change.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CodecId {
    /// The compact positional codec, [`Compact`].
    #[default]
    Compact = 0,
    /// JSON text, with the feature `json`, which is on unless turned off.
    Json = 1,
    /// XDR (RFC 4506), with the feature `xdr`.
    Xdr = 2,
    /// Protocol buffers (proto3), with the feature `protobuf`.
    Protobuf = 3,
}

impl CodecId {
    /// The codec with this number on the wire, if this version knows it.
    pub fn from_u8(number: u8) -> Option<CodecId> {
        match number {
            0 => Some(CodecId::Compact),
            1 => Some(CodecId::Json),
            2 => Some(CodecId::Xdr),
            3 => Some(CodecId::Protobuf),
            _ => None,
        }
    }

    /// Its name, as in configuration and in error messages.
    pub fn name(self) -> &'static str {
        match self {
            CodecId::Compact => "compact",
            CodecId::Json => "json",
            CodecId::Xdr => "xdr",
            CodecId::Protobuf => "protobuf",
        }
    }

    /// Whether this build can encode and decode it.
    pub fn is_available(self) -> bool {
        match self {
            CodecId::Compact => true,
            CodecId::Json => cfg!(feature = "json"),
            CodecId::Xdr => cfg!(feature = "xdr"),
            CodecId::Protobuf => cfg!(feature = "protobuf"),
        }
    }
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Turns values into bytes and back. `shape` is asked only by codecs that need what serde does not tell.
pub trait Codec {
    /// The codec's number on the wire.
    const ID: CodecId;

    /// Appends `value` to `out`. On error `out` is as it was.
    fn encode_into<'s, T: Serialize + ?Sized>(
        value: &T,
        shape: impl FnOnce() -> Option<Shape<'s>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;

    /// Reads a value that takes up the whole frame.
    fn decode<'s, T: DeserializeOwned>(frame: &Bytes, shape: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError>;
}

/// What serde does not tell of a type: its schema, and what a codec has made of it before.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'s> {
    root: &'s Ty,
    defs: &'s [Def],
    made: &'s Made,
}

/// What codecs make of a schema when they first use it, kept beside the schema.
#[derive(Clone, Debug, Default)]
pub struct Made {
    messages: OnceLock<Result<Messages, CodecError>>,
}

impl<'s> Shape<'s> {
    /// A schema and what was made of this very schema.
    pub fn new(schema: &'s TypeSchema, made: &'s Made) -> Shape<'s> {
        Shape { root: &schema.root, defs: &schema.defs, made }
    }

    /// The type at a place of a tuple, and what was made of that.
    pub fn part(self, place: usize, made: &'s Made) -> Option<Shape<'s>> {
        match self.root {
            Ty::Tuple(types) => types.get(place).map(|root| Shape { root, made, ..self }),
            _ => None,
        }
    }

    /// The schema as protobuf sees it, made at the first call.
    pub fn messages(self) -> Result<&'s Messages, CodecError> {
        self.made.messages.get_or_init(|| Messages::of_type(self.root, self.defs)).as_ref().map_err(CodecError::clone)
    }
}

/// The compact codec, see [`crate::compact`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Compact;

impl Codec for Compact {
    const ID: CodecId = CodecId::Compact;

    #[inline]
    fn encode_into<'s, T: Serialize + ?Sized>(
        value: &T,
        _: impl FnOnce() -> Option<Shape<'s>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        compact::encode_into(value, out)
    }

    #[inline]
    fn decode<'s, T: DeserializeOwned>(frame: &Bytes, _: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError> {
        with_frame(frame, || compact::decode(frame))
    }
}

/// The XDR codec, see [`crate::xdr`].
#[cfg(feature = "xdr")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Xdr;

#[cfg(feature = "xdr")]
impl Codec for Xdr {
    const ID: CodecId = CodecId::Xdr;

    fn encode_into<'s, T: Serialize + ?Sized>(
        value: &T,
        _: impl FnOnce() -> Option<Shape<'s>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        xdr::encode_into(value, out)
    }

    fn decode<'s, T: DeserializeOwned>(frame: &Bytes, _: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError> {
        with_frame(frame, || xdr::decode(frame))
    }
}

/// The protobuf codec, see [`crate::protobuf`].
#[cfg(feature = "protobuf")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Protobuf;

#[cfg(feature = "protobuf")]
impl Codec for Protobuf {
    const ID: CodecId = CodecId::Protobuf;

    fn encode_into<'s, T: Serialize + ?Sized>(
        value: &T,
        shape: impl FnOnce() -> Option<Shape<'s>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        protobuf::encode_into(value, shape().ok_or_else(no_shape)?.messages()?, out)
    }

    fn decode<'s, T: DeserializeOwned>(frame: &Bytes, shape: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError> {
        let messages = shape().ok_or_else(no_shape)?.messages()?;
        with_frame(frame, || protobuf::decode(messages, frame))
    }
}

#[cfg(feature = "protobuf")]
#[cold]
fn no_shape() -> CodecError {
    CodecError::new("protobuf goes by numbers of fields, and the schema that has them is not known here")
}

/// The JSON codec, see [`crate::json`].
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    const ID: CodecId = CodecId::Json;

    fn encode_into<'s, T: Serialize + ?Sized>(
        value: &T,
        _: impl FnOnce() -> Option<Shape<'s>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        json::encode_into(value, out)
    }

    fn decode<'s, T: DeserializeOwned>(frame: &Bytes, _: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError> {
        json::decode(frame)
    }
}

/// Appends `value` to `out` in the codec `id`. On error `out` is as it was.
#[inline]
pub fn encode_into<'s, T: Serialize + ?Sized>(
    id: CodecId,
    value: &T,
    shape: impl FnOnce() -> Option<Shape<'s>>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match id {
        CodecId::Compact => Compact::encode_into(value, shape, out),
        #[cfg(feature = "json")]
        CodecId::Json => Json::encode_into(value, shape, out),
        #[cfg(feature = "xdr")]
        CodecId::Xdr => Xdr::encode_into(value, shape, out),
        #[cfg(feature = "protobuf")]
        CodecId::Protobuf => Protobuf::encode_into(value, shape, out),
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        _ => Err(unavailable(id)),
    }
}

/// Reads a value of the codec `id` that takes up the whole frame.
#[inline]
pub fn decode<'s, T: DeserializeOwned>(id: CodecId, frame: &Bytes, shape: impl FnOnce() -> Option<Shape<'s>>) -> Result<T, CodecError> {
    match id {
        CodecId::Compact => Compact::decode(frame, shape),
        #[cfg(feature = "json")]
        CodecId::Json => Json::decode(frame, shape),
        #[cfg(feature = "xdr")]
        CodecId::Xdr => Xdr::decode(frame, shape),
        #[cfg(feature = "protobuf")]
        CodecId::Protobuf => Protobuf::decode(frame, shape),
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        _ => Err(unavailable(id)),
    }
}

/// The same for a value that may borrow from the frame.
pub fn decode_lent<'de, 's, T: Deserialize<'de>>(
    id: CodecId,
    frame: &'de Bytes,
    shape: impl FnOnce() -> Option<Shape<'s>>,
) -> Result<T, CodecError> {
    // Not every build has a codec that asks for it.
    let _ = &shape;
    match id {
        CodecId::Compact => with_frame(frame, || compact::decode(frame)),
        #[cfg(feature = "json")]
        CodecId::Json => json::decode(frame),
        #[cfg(feature = "xdr")]
        CodecId::Xdr => with_frame(frame, || xdr::decode(frame)),
        #[cfg(feature = "protobuf")]
        CodecId::Protobuf => {
            let messages = shape().ok_or_else(no_shape)?.messages()?;
            with_frame(frame, || protobuf::decode(messages, frame))
        }
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        _ => Err(unavailable(id)),
    }
}

#[cold]
fn unavailable(id: CodecId) -> CodecError {
    CodecError::new(format!("the codec `{id}` is not built into this program: turn on the feature `{id}` of farcall"))
}

/// Why a value could not be encoded or decoded: what is wrong and at which field.
///
/// It is one pointer wide, because a fat error makes every `Result` on the hot path fat.
#[derive(Clone, PartialEq, Eq)]
pub struct CodecError(Box<Details>);

#[derive(Clone, PartialEq, Eq)]
struct Details {
    /// Innermost step first: it grows while the error travels up.
    path: Vec<Step>,
    /// There were more steps.
    is_cut: bool,
    message: String,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A field: its place among those that travel, if known, and its name.
    Field(Option<usize>, Cow<'static, str>),
    /// A variant: its number, if known, and its name.
    Variant(Option<usize>, Cow<'static, str>),
    /// An element of a list or an entry of a map.
    Index(usize),
}

impl CodecError {
    /// An error without a path yet.
    #[cold]
    #[inline(never)]
    pub fn new(message: impl Into<String>) -> CodecError {
        CodecError(Box::new(Details { path: Vec::new(), is_cut: false, message: message.into() }))
    }

    /// Says that it happened inside this field.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn at_field(self, name: impl Into<Cow<'static, str>>) -> CodecError {
        self.at(Step::Field(None, name.into()))
    }

    /// Says that it happened inside this variant of an enum.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn at_variant(self, name: impl Into<Cow<'static, str>>) -> CodecError {
        self.at(Step::Variant(None, name.into()))
    }

    /// Says that it happened inside this element of a list or entry of a map.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn at_index(self, index: usize) -> CodecError {
        self.at(Step::Index(index))
    }

    /// The same error with the names of this schema, which must be the one of the value's type.
    ///
    /// serde tells the decoder a type's fields and variants with their aliases among them, so where there are
    /// aliases a path may show a wrong one of them. The schema knows better.
    #[must_use]
    pub fn named_by(mut self, schema: &TypeSchema) -> CodecError {
        schema.name_steps(self.0.path.iter_mut().rev());
        self
    }

    pub(crate) fn at(mut self, step: Step) -> CodecError {
        match self.0.path.len() < MAX_PATH {
            true => self.0.path.push(step),
            false => self.0.is_cut = true,
        }
        self
    }

    /// Where it happened, such as `items[3].qty`; empty if that is unknown or the value as a whole. Of a long path the end,
    /// behind `…`.
    pub fn path(&self) -> String {
        let mut text = String::from(if self.0.is_cut { "…" } else { "" });
        for step in self.0.path.iter().rev() {
            match step {
                Step::Field(_, name) if text.is_empty() => text.push_str(name),
                Step::Field(_, name) => text.extend([".", name]),
                Step::Variant(_, name) => text.extend(["::", name]),
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    /// What is wrong, without the path.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodecError({:?})", self.to_string())
    }
}

impl std::error::Error for CodecError {}

impl serde::ser::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> CodecError {
        CodecError::new(message.to_string())
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> CodecError {
        CodecError::new(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_path(error: CodecError, expected: &str) {
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_name_the_path() {
        check_path(CodecError::new("bad"), "bad");
        let error = CodecError::new("bad").at_field("qty").at_index(3).at_field("items");
        check_path(error, "items[3].qty: bad");
        let error = CodecError::new("bad").at_field("to").at_variant("Sent").at_field("status");
        check_path(error, "status::Sent.to: bad");
        let error = (0..100).fold(CodecError::new("bad"), |error, _| error.at_field("next"));
        check_path(error, &format!("…{}: bad", ".next".repeat(MAX_PATH)));
        assert_eq!(size_of::<Result<(), CodecError>>(), size_of::<usize>());
    }

    #[test]
    fn numbers_are_pinned() {
        let known: Vec<_> = (0..=255).filter_map(CodecId::from_u8).map(|id| (id as u8, id.name())).collect();
        assert_eq!(known, [(0, "compact"), (1, "json"), (2, "xdr"), (3, "protobuf")]);
    }

    #[cfg(feature = "protobuf")]
    #[test]
    fn protobuf_without_a_schema_is_refused() {
        let error = encode_into(CodecId::Protobuf, &1u8, || None, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("the schema that has them is not known"), "{error}");
        assert!(decode::<u8>(CodecId::Protobuf, &Bytes::new(), || None).is_err());
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_says_where() {
        let error = Json::decode::<Vec<u8>>(&Bytes::from_static(b"[1, 300]"), || None).unwrap_err();
        assert_eq!(error.to_string(), "[1]: invalid value: integer `300`, expected u8 at line 1 column 7");
        let mut out = vec![1];
        assert!(Json::encode_into(&std::collections::BTreeMap::from([((1, 2), 3)]), || None, &mut out).is_err());
        assert_eq!(out, [1]);
    }
}
