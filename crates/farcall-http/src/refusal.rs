//! Errors as HTTP has them: a status, and a body of JSON.

use bytes::Bytes;
use farcall_core::{Certainty, Code, RpcError, Stage};
use hyper::StatusCode;
use serde::{Serialize, Serializer};

/// The code of an application's own error in a body.
const APP_ERROR: &str = "app_error";

/// Reasons of HTTP/2 (RFC 9113, 7).
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 0xb;
const INADEQUATE_SECURITY: u32 = 0xc;
/// Every client takes a frame of 16 KiB.
const MOST_DEBUG_DATA: usize = 8 << 10;

/// A request that ends with an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: RpcError,
    /// The methods that would do, for a status that names them.
    pub(crate) allow: Option<&'static str>,
}

impl Refusal {
    /// A request that HTTP has a status of its own for. Nothing was executed.
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Refusal {
        Refusal { status, error: RpcError::not_executed(code, message), allow: None }
    }

    /// A request that says something wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
    }
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Refusal {
        Refusal { status: status(error.code()), error, allow: None }
    }
}

/// The status of a system error.
pub(crate) fn status(code: Code) -> StatusCode {
    let status = match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The code's name in a body, which is Connect's.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
        _ => "unknown",
    }
}

/// What an HTTP/2 connection that is not served at all ends with: empty SETTINGS, and a GOAWAY whose debug data is
/// the error's text.
pub(crate) fn go_away(error: &RpcError) -> Vec<u8> {
    let reason: u32 = match error.code() {
        Code::ResourceExhausted => ENHANCE_YOUR_CALM,
        Code::FailedPrecondition => INADEQUATE_SECURITY,
        _ => PROTOCOL_ERROR,
    };
    let text = format!("{}\r\n", error.message());
    let text = &text.as_bytes()[..text.len().min(MOST_DEBUG_DATA)];
    let length = (8 + text.len() as u32).to_be_bytes();
    let (last_stream, kinds) = ([0; 4], ([4, 0], [7, 0]));
    [&[0; 3], &kinds.0[..], &[0; 4], &length[1..], &kinds.1, &[0; 4], &last_stream, &reason.to_be_bytes(), text].concat()
}

#[derive(Serialize)]
struct ErrorBody<'e> {
    code: &'static str,
    message: &'e str,
    certainty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<DetailBody<'e>>,
}

#[derive(Serialize)]
struct DetailBody<'e> {
    r#type: &'e str,
    #[serde(serialize_with = "in_base64")]
    value: &'e Vec<u8>,
}

fn in_base64<S: Serializer>(value: &&Vec<u8>, to: S) -> Result<S::Ok, S::Error> {
    farcall_core::byte_vec::serialize(*value, to)
}

/// A system error as JSON.
pub(crate) fn body(error: &RpcError) -> Bytes {
    let body = ErrorBody {
        code: code_name(error.code()),
        message: error.message(),
        certainty: match error.certainty() {
            // It was received, whatever the provider's own calls came to.
            Certainty::NotSent | Certainty::NotExecuted => "not_executed",
            Certainty::MaybeExecuted => "maybe_executed",
        },
        stage: error.stage().and_then(stage_name),
        details: error.details().iter().map(|d| DetailBody { r#type: &d.type_name, value: &d.value }).collect(),
    };
    // Only strings and lists of them: nothing in it can fail.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

fn stage_name(stage: Stage) -> Option<&'static str> {
    Some(match stage {
        Stage::ServerQueue => "server_queue",
        Stage::Decode => "decode",
        Stage::Handler => "handler",
        // Of the caller's side, which here is not farcall.
        _ => return None,
    })
}

/// An application's own error, whose value is JSON already.
pub(crate) fn app_body(error: &[u8]) -> Bytes {
    let front = format!("{{\"code\":\"{APP_ERROR}\",\"message\":\"the method answered with its own error\",\"error\":");
    [front.as_bytes(), error, b"}"].concat().into()
}

#[cfg(test)]
mod tests {
    use farcall_core::Detail;

    use super::*;

    #[test]
    fn each_code_has_a_name_and_the_status_that_connect_gives_it() {
        let expected = "canceled 499, unknown 500, invalid_argument 400, deadline_exceeded 504, not_found 404, already_exists 409, \
                        permission_denied 403, resource_exhausted 429, failed_precondition 400, aborted 409, out_of_range 400, \
                        unimplemented 501, internal 500, unavailable 503, data_loss 500, unauthenticated 401";
        let all = (1..=16).map(Code::from_u8).map(|code| format!("{} {}", code_name(code), status(code).as_u16()));
        assert_eq!(all.collect::<Vec<_>>().join(", "), expected);
    }

    #[test]
    fn a_go_away_is_two_frames() {
        let said = go_away(&RpcError::new(Code::Unimplemented, "no"));
        assert_eq!(said, b"\0\0\0\x04\0\0\0\0\0\0\0\x0c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01no\r\n");
        let long = go_away(&RpcError::new(Code::ResourceExhausted, "x".repeat(100_000)));
        assert_eq!((long.len(), long[9..12].to_vec(), long[25]), (9 + 9 + 8 + MOST_DEBUG_DATA, vec![0, 0x20, 8], 0xb));
    }

    #[test]
    fn an_error_is_json() {
        let plain = RpcError::new(Code::Internal, "oh \"no\"");
        assert_eq!(body(&plain), r#"{"code":"internal","message":"oh \"no\"","certainty":"maybe_executed"}"#);
        let full = RpcError::not_executed(Code::Aborted, "")
            .with_stage(Stage::ServerQueue)
            .with_detail(Detail { type_name: "t".into(), value: vec![1, 2] });
        let expected =
            r#"{"code":"aborted","message":"","certainty":"not_executed","stage":"server_queue","details":[{"type":"t","value":"AQI="}]}"#;
        assert_eq!(body(&full), expected);
        let app: serde_json::Value = serde_json::from_slice(&app_body(br#"{"Declined":{}}"#)).unwrap();
        assert_eq!((app["code"].as_str(), &app["error"]), (Some("app_error"), &serde_json::json!({"Declined": {}})));
    }
}
