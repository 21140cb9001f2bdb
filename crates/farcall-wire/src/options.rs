//! Optional parts of a call: metadata, trace, codec, idempotency key. Nothing of it is sent when absent.
//!
//! The block is a varint length and then `tag u8 | length varint | value` entries in ascending order
//! of their tags. A receiver skips an unknown odd tag and refuses a call with an unknown even one.

use bytes::Bytes;
use farcall_core::codec::CodecId;
use farcall_core::{Code, Metadata, RpcError, Trace, compact, limits};

use crate::moment::KeyMoment;

/// Tags of the options block and of Hello fields.
pub mod tag {
    /// Text pairs.
    pub const METADATA: u8 = 1;
    /// References that the body points into. Not built yet.
    pub const REFS: u8 = 2;
    /// W3C trace context, 25 bytes.
    pub const TRACE: u8 = 3;
    /// The codec of arguments, result and error, one byte.
    pub const CODEC: u8 = 4;
    /// Timestamps of a sampled call. Not built yet; skipped.
    pub const TIMES: u8 = 5;
    /// Idempotency key, 1 to 64 bytes.
    pub const KEY: u8 = 6;
    /// Compression of the body. Not built yet.
    pub const COMPRESSION: u8 = 8;
    /// An earlier attempt with the same key may have run: not before this moment, 16 bytes.
    pub const ATTEMPTED: u8 = 10;
}

/// The options of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Text pairs, if any.
    pub metadata: Option<Metadata>,
    /// The trace, if any.
    pub trace: Option<Trace>,
    /// The codec of arguments, result and error.
    pub codec: CodecId,
    /// The idempotency key, if any; boxed because few calls have one.
    pub key: Option<Box<CallKey>>,
}

/// The idempotency key of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallKey {
    /// 1 to 64 bytes.
    pub bytes: Box<[u8]>,
    /// When the first attempt with it that may have run was sent, if there was one.
    pub attempted: Option<KeyMoment>,
}

impl CallOptions {
    /// Whether no block is needed.
    #[inline]
    pub fn is_default(&self) -> bool {
        self.metadata.is_none() && self.trace.is_none() && self.codec == CodecId::Compact && self.key.is_none()
    }

    /// The block with its length, empty if none is needed.
    pub fn encode(&self) -> Vec<u8> {
        if self.is_default() {
            return Vec::new();
        }
        let mut entries = Vec::new();
        if let Some(metadata) = &self.metadata {
            put_entry(&mut entries, tag::METADATA, &compact::encode(metadata).unwrap_or_default());
        }
        if let Some(trace) = &self.trace {
            put_entry(&mut entries, tag::TRACE, &trace.to_bytes());
        }
        if self.codec != CodecId::Compact {
            put_entry(&mut entries, tag::CODEC, &[self.codec as u8]);
        }
        if let Some(key) = &self.key {
            put_entry(&mut entries, tag::KEY, &key.bytes);
            if let Some(attempted) = &key.attempted {
                put_entry(&mut entries, tag::ATTEMPTED, &attempted.to_bytes());
            }
        }
        let mut out = Vec::with_capacity(entries.len() + 4);
        put_varint(&mut out, entries.len() as u64);
        out.extend_from_slice(&entries);
        out
    }

    /// Takes the block off the front of `body`. One larger than `limit` is refused before anything
    /// in it is decoded.
    pub fn take(body: &mut Bytes, limit: usize) -> Result<CallOptions, RpcError> {
        let broken = || RpcError::not_executed(Code::InvalidArgument, "the options block of the call ends early");
        let mut cursor = Cursor(body);
        let len = usize::try_from(cursor.varint().ok_or_else(broken)?).map_err(|_| broken())?;
        let mut entries = Cursor(cursor.bytes(len).ok_or_else(broken)?);
        let rest = body.len() - cursor.0.len();
        if rest > limit {
            let why = format!("the call's metadata and other options are {rest} bytes, the limit `metadata` is {limit}");
            return Err(RpcError::not_executed(Code::ResourceExhausted, why));
        }
        let (mut options, mut order) = (CallOptions::default(), Ascending::default());
        while !entries.0.is_empty() {
            let (tag, value) = entries.entry().ok_or_else(broken)?;
            if !order.follows(tag) {
                return Err(RpcError::not_executed(Code::InvalidArgument, format!("call option {tag} is out of order or there twice")));
            }
            options.set(tag, value, limit)?;
        }
        let _ = body.split_to(rest);
        Ok(options)
    }

    fn set(&mut self, tag: u8, value: &[u8], metadata_limit: usize) -> Result<(), RpcError> {
        let refuse = |code, why: String| Err(RpcError::not_executed(code, why));
        match tag {
            tag::METADATA => match compact::decode::<Metadata>(value) {
                Ok(metadata) => {
                    metadata.validate(metadata_limit)?;
                    self.metadata = Some(metadata);
                }
                Err(e) => return refuse(Code::InvalidArgument, format!("metadata cannot be read: {e}")),
            },
            tag::TRACE => self.trace = Trace::from_bytes(value),
            tag::CODEC => match (value, value.first().and_then(|n| CodecId::from_u8(*n))) {
                ([_], Some(codec)) if codec.is_available() => self.codec = codec,
                ([_], Some(codec)) => return refuse(Code::Unimplemented, format!("the codec `{codec}` is not built into this program")),
                ([n], None) => return refuse(Code::Unimplemented, format!("codec number {n} is not known here")),
                _ => return refuse(Code::InvalidArgument, format!("a codec's number is one byte, not {}", value.len())),
            },
            tag::REFS => return refuse(Code::Unimplemented, "object references are not built in this version".into()),
            tag::KEY if (1..=limits::KEY).contains(&value.len()) => {
                self.key = Some(Box::new(CallKey { bytes: value.into(), attempted: None }));
            }
            tag::KEY => {
                return refuse(Code::InvalidArgument, format!("an idempotency key is 1 to {} bytes, not {}", limits::KEY, value.len()));
            }
            tag::ATTEMPTED => match (&mut self.key, KeyMoment::from_bytes(value)) {
                (Some(key), Some(moment)) => key.attempted = Some(moment),
                _ => return refuse(Code::InvalidArgument, "the option `attempted` is 16 bytes and stands behind a key".into()),
            },
            tag::COMPRESSION => return refuse(Code::Unimplemented, "compression is not built in this version".into()),
            odd if odd % 2 == 1 => {}
            even => return refuse(Code::Unimplemented, format!("call option {even} is not known here and may not be skipped")),
        }
        Ok(())
    }
}

/// Checks that tags ascend, so that none comes twice.
#[derive(Default)]
pub(crate) struct Ascending(Option<u8>);

impl Ascending {
    pub(crate) fn follows(&mut self, tag: u8) -> bool {
        self.0.replace(tag).is_none_or(|last| last < tag)
    }
}

/// Appends `tag | length | value`.
pub(crate) fn put_entry(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends an LEB128 number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Reads entries and numbers; `None` where the bytes end early or a number is too long. A number
/// with needless zero groups is read like its shortest form.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = (byte & 0x7f) as u64;
            if shift == 63 && bits > 1 {
                return None;
            }
            v |= bits << shift;
            if byte < 0x80 {
                return Some(v);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn entry(&mut self) -> Option<(u8, &'a [u8])> {
        let tag = self.byte()?;
        let len = usize::try_from(self.varint()?).ok()?;
        Some((tag, self.bytes(len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CallOptions {
        let mut metadata = Metadata::default();
        metadata.set("tenant", "blue").unwrap();
        CallOptions {
            metadata: Some(metadata),
            trace: Some(Trace { trace_id: [7; 16], span_id: [9; 8], flags: 1 }),
            codec: CodecId::Json,
            key: Some(Box::new(CallKey { bytes: b"order-17"[..].into(), attempted: Some(KeyMoment { record: 7, ms: 8 }) })),
        }
    }

    #[test]
    fn a_block_round_trips_and_leaves_the_body() {
        let mut wire = sample().encode();
        wire.extend_from_slice(b"body");
        let mut body = Bytes::from(wire);
        assert_eq!(CallOptions::take(&mut body, 1000).unwrap(), sample());
        assert_eq!(&body[..], b"body");
        assert!(CallOptions::default().encode().is_empty());
    }

    #[test]
    fn every_cut_is_refused_not_misread() {
        let wire = sample().encode();
        for cut in 0..wire.len() {
            assert!(CallOptions::take(&mut Bytes::copy_from_slice(&wire[..cut]), 1000).is_err(), "cut {cut}");
        }
    }

    #[test]
    fn odd_tags_are_skipped_even_ones_refused_by_name() {
        let block = |tag: u8| {
            let mut entries = Vec::new();
            put_entry(&mut entries, tag, b"zz");
            let mut out = vec![entries.len() as u8];
            out.extend_from_slice(&entries);
            Bytes::from(out)
        };
        assert!(CallOptions::take(&mut block(77), 1000).is_ok());
        for (tag, name) in [(2, "object references"), (8, "compression"), (78, "option 78")] {
            let e = CallOptions::take(&mut block(tag), 1000).unwrap_err();
            assert!(e.message().contains(name), "{e}");
            assert_eq!((e.code(), e.certainty()), (Code::Unimplemented, farcall_core::Certainty::NotExecuted));
        }
    }

    fn refused(entries: &[(u8, &[u8])]) -> RpcError {
        let mut block = Vec::new();
        entries.iter().for_each(|(tag, value)| put_entry(&mut block, *tag, value));
        let mut wire = Vec::new();
        put_varint(&mut wire, block.len() as u64);
        wire.extend_from_slice(&block);
        CallOptions::take(&mut Bytes::from(wire), 4096).unwrap_err()
    }

    #[test]
    fn an_option_comes_once_and_in_its_place() {
        assert!(refused(&[(4, &[0]), (4, &[1])]).message().contains("option 4 is out of order"));
        assert!(refused(&[(77, b""), (1, b"\0")]).message().contains("option 1 is out of order"));
    }

    #[test]
    fn a_codec_that_cannot_answer_is_refused_by_name() {
        for codec in [CodecId::Xdr, CodecId::Protobuf].into_iter().filter(|codec| !codec.is_available()) {
            let e = refused(&[(tag::CODEC, &[codec as u8])]);
            assert!(e.message().contains(&format!("`{codec}` is not built")) && e.code() == Code::Unimplemented, "{e}");
        }
        let e = refused(&[(tag::CODEC, &[9])]);
        assert!(e.message().contains("codec number 9") && e.code() == Code::Unimplemented, "{e}");
        assert_eq!(refused(&[(tag::CODEC, &[])]).code(), Code::InvalidArgument);
    }

    #[test]
    fn a_key_has_a_length_and_an_earlier_attempt_has_a_key() {
        for key in [&[][..], &[7; 65]] {
            let e = refused(&[(tag::KEY, key)]);
            assert!(e.message().contains(&format!("1 to 64 bytes, not {}", key.len())) && e.code() == Code::InvalidArgument, "{e}");
        }
        for entries in [&[(tag::ATTEMPTED, &[0; 16][..])][..], &[(tag::KEY, b"k"), (tag::ATTEMPTED, &[0; 15])]] {
            assert!(refused(entries).message().contains("`attempted`"));
        }
    }

    #[test]
    fn empty_pairs_count_too() {
        let pairs: Vec<(String, String)> = vec![Default::default(); 4096];
        let e = refused(&[(tag::METADATA, &compact::encode(&pairs).unwrap())]);
        assert_eq!(e.code(), Code::ResourceExhausted, "refused by its size, before 4096 pairs are made: {e}");
    }

    #[test]
    fn long_forms_of_numbers_are_read_and_too_long_ones_are_not() {
        let read = |bytes: &[u8]| Cursor(bytes).varint();
        assert_eq!(read(&[0x85, 0x80, 0x00]), Some(5));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(read(&[0x80; 11]), None);
    }
}
