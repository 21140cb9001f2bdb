//! A system error on the wire.

use farcall_core::{Certainty, Code, CodecError, Detail, RpcError, Stage, compact, limits};
use serde::{Deserialize, Serialize};

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
    /// The wire form of an error; a message above the limit is cut.
    pub fn from_error(error: &RpcError) -> Failure {
        let mut message = error.message().to_owned();
        if message.len() > limits::ERROR_MESSAGE {
            let cut = (0..=limits::ERROR_MESSAGE).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
            message.truncate(cut);
        }
        Failure {
            code: error.code() as u8,
            certainty: error.certainty() as u8,
            stage: error.stage().map_or(255, |s| s as u8),
            message,
            details: error.details().to_vec(),
        }
    }

    /// Back to an error.
    pub fn into_error(self) -> RpcError {
        let e = RpcError::new(Code::from_u8(self.code), self.message).with_certainty(Certainty::from_u8(self.certainty));
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
        compact::decode(body)
    }
}
