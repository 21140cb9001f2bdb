//! A system error on the wire.

use farcall_core::{Certainty, Code, CodecError, Detail, RpcError, Stage, compact, limits};
use serde::{Deserialize, Serialize};

/// The largest body of a failure. A reader refuses a larger one before it decodes it.
pub(crate) const MAX_FAILURE: usize = 32 << 10;
/// Details of one failure, and the bytes of all their names and values; the rest is left out.
const DETAILS: usize = 16;
const DETAIL_BYTES: usize = 16 << 10;

/// The body of a Reply with status FAILURE, in the compact codec whatever codec the call used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// [`Code`] by number.
    pub code: u8,
    /// [`Certainty`] by number.
    pub certainty: u8,
    /// [`Stage`] by number, 255 if none.
    pub stage: u8,
    /// For people.
    pub message: String,
    /// Typed details.
    pub details: Vec<Detail>,
}

impl Failure {
    /// The wire form of an error; a message above the limit is cut, details above it are left out.
    pub fn from_error(error: &RpcError) -> Failure {
        let mut room = DETAIL_BYTES;
        let fits = |d: &&Detail| {
            let left = room.checked_sub(d.type_name.len() + d.value.len());
            room = left.unwrap_or(room);
            left.is_some()
        };
        Failure {
            code: error.code() as u8,
            certainty: received(error.certainty()) as u8,
            stage: error.stage().map_or(255, |s| s as u8),
            message: cut(error.message(), limits::ERROR_MESSAGE).to_owned(),
            details: error.details().iter().filter(fits).take(DETAILS).cloned().collect(),
        }
    }

    /// Back to an error.
    pub fn into_error(self) -> RpcError {
        let certainty = received(Certainty::from_u8(self.certainty));
        let e = RpcError::new(Code::from_u8(self.code), self.message).with_certainty(certainty);
        let e = match Stage::from_u8(self.stage) {
            Some(stage) => e.with_stage(stage),
            None => e,
        };
        self.details.into_iter().fold(e, RpcError::with_detail)
    }

    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Only strings, numbers and lists of them: nothing in it can fail to encode.
        compact::encode(self).unwrap_or_default()
    }

    /// From a body.
    pub fn decode(body: &[u8]) -> Result<Failure, CodecError> {
        match body.len() {
            0..=MAX_FAILURE => compact::decode(body),
            more => Err(CodecError::new(format!("{more} bytes, the limit is {MAX_FAILURE}"))),
        }
    }
}

/// A call that is answered was sent, whatever the provider's own calls came to.
fn received(certainty: Certainty) -> Certainty {
    match certainty {
        Certainty::NotSent => Certainty::NotExecuted,
        other => other,
    }
}

/// The front of `text`, at most `max` bytes of it.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_fits_its_limit_whatever_the_handler_put_in() {
        let detail = |n: usize| Detail { type_name: "t".repeat(n), value: vec![1; n] };
        let mut e = RpcError::new(Code::Internal, "é".repeat(1 << 20));
        for n in [1 << 20, 4000, 10, 9000].into_iter().chain([1; 100]) {
            e = e.with_detail(detail(n));
        }
        let failure = Failure::from_error(&e);
        assert_eq!(failure.message.len(), limits::ERROR_MESSAGE);
        let kept: Vec<usize> = failure.details.iter().map(|d| d.value.len()).collect();
        assert_eq!(kept[..2], [4000, 10], "what does not fit is left out, not what comes after it");
        assert_eq!(kept.len(), DETAILS);
        let wire = failure.encode();
        assert!(wire.len() <= MAX_FAILURE);
        assert_eq!(Failure::decode(&wire).unwrap(), failure);
    }

    #[test]
    fn a_failure_above_its_limit_is_not_decoded() {
        let details = vec![Detail { type_name: String::new(), value: Vec::new() }; MAX_FAILURE];
        let many = Failure { code: 13, certainty: 2, stage: 255, message: String::new(), details };
        assert!(Failure::decode(&many.encode()).unwrap_err().message().contains("the limit is 32768"));
    }

    #[test]
    fn nobody_answers_that_a_call_was_not_sent() {
        let said = |e: RpcError| Failure::from_error(&e).into_error().certainty();
        assert_eq!(said(RpcError::not_sent(Code::Unavailable, "")), Certainty::NotExecuted);
        assert_eq!(said(RpcError::new(Code::Unavailable, "")), Certainty::MaybeExecuted);
        let lie = Failure { certainty: 0, ..Failure::from_error(&RpcError::new(Code::Internal, "")) };
        assert_eq!(lie.into_error().certainty(), Certainty::NotExecuted);
    }
}
