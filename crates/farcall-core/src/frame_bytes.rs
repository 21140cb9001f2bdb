//! Bytes without a copy: a field of type [`Bytes`] becomes a slice of the frame it is decoded from.
//!
//! serde hands out borrowed bytes but knows no reference count, so the frame is kept in a thread-local while it is
//! decoded ([`with_frame`]), and borrowed bytes that lie inside it become a slice of it. Small fields are copied:
//! a slice keeps the whole frame in memory for as long as it lives.
//!
//! `#[data]` puts `#[serde(with = "frame_bytes")]` on fields spelled `Bytes` or `Option<Bytes>`. In JSON such a field
//! is a base64 string; a list of numbers is read as well.

use std::cell::RefCell;

use bytes::Bytes;
use serde::{Deserializer, Serializer};

use crate::byte_vec;

/// Fields shorter than this are copied: a slice would pin the frame for less than it costs.
pub const MIN_SLICE: usize = 1024;

thread_local! {
    static FRAME: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Runs `decode` so that [`Bytes`] fields borrowed from `frame` become slices of it. It may be nested.
#[inline]
pub fn with_frame<R>(frame: &Bytes, decode: impl FnOnce() -> R) -> R {
    // Nothing in a short frame is worth a slice: small calls pay neither the reference count nor the thread-local.
    if frame.len() < MIN_SLICE {
        return decode();
    }
    let _guard = Guard(FRAME.replace(Some(frame.clone())));
    decode()
}

/// Puts the outer frame back, also when a type's own `Deserialize` panics.
struct Guard(Option<Bytes>);

impl Drop for Guard {
    fn drop(&mut self) {
        FRAME.set(self.0.take());
    }
}

/// `borrowed` as `Bytes`: a slice of the current frame if it is large and lies inside it, else a copy.
fn slice_or_copy(borrowed: &[u8]) -> Bytes {
    let slice = || FRAME.with_borrow(|frame| slice_of(frame.as_ref()?, borrowed));
    if borrowed.len() < MIN_SLICE {
        return Bytes::copy_from_slice(borrowed);
    }
    slice().unwrap_or_else(|| Bytes::copy_from_slice(borrowed))
}

fn slice_of(frame: &Bytes, part: &[u8]) -> Option<Bytes> {
    let start = part.as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= frame.len()).then(|| frame.slice(start..end))
}

/// `serialize` of `#[serde(with = "frame_bytes")]`.
#[inline]
pub fn serialize<T: FrameBytes, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// `deserialize` of `#[serde(with = "frame_bytes")]`.
#[inline]
pub fn deserialize<'de, T: FrameBytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// What a field decoded by slicing may be: `Bytes` or `Option<Bytes>`.
#[diagnostic::on_unimplemented(
    message = "a field spelled `Bytes` is taken for `bytes::Bytes`, but this is `{Self}`",
    note = "give your type another name in the field, such as `my::Blob`"
)]
pub trait FrameBytes: Sized {
    #[doc(hidden)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    #[doc(hidden)]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl FrameBytes for Bytes {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        byte_vec::serialize_slice(self, serializer)
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        byte_vec::read(deserializer, slice_or_copy, Bytes::from)
    }
}

impl FrameBytes for Option<Bytes> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        byte_vec::serialize_option(self.as_deref(), serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        byte_vec::read_option(deserializer, slice_or_copy, Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 4 * MIN_SLICE])
    }

    fn is_slice(frame: &Bytes, part: &[u8]) -> bool {
        slice_or_copy(part).as_ptr() == part.as_ptr() && frame.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn only_what_lies_inside_the_frame_is_sliced() {
        let (frame, other) = (frame(1), frame(2));
        with_frame(&frame, || {
            assert!(is_slice(&frame, &frame));
            assert!(is_slice(&frame, &frame[3 * MIN_SLICE..]));
            assert!(!is_slice(&frame, &frame[1..MIN_SLICE]), "too small to pin a frame");
            assert!(!is_slice(&other, &other), "bytes of something else");
            assert_eq!(slice_or_copy(&other), other);
        });
        assert!(!is_slice(&frame, &frame), "no frame any more");
    }

    #[test]
    fn frames_nest() {
        let (outer, inner) = (frame(1), frame(2));
        with_frame(&outer, || {
            with_frame(&inner, || {
                assert!(is_slice(&inner, &inner));
                assert!(!is_slice(&outer, &outer));
            });
            assert!(is_slice(&outer, &outer));
        });
    }

    #[test]
    fn a_panic_leaves_no_frame_behind() {
        let frame = frame(1);
        let panics = || with_frame(&frame, || std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(!is_slice(&frame, &frame));
        assert!(FRAME.take().is_none());
    }
}
