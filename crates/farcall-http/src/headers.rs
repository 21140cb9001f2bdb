//! What a request's headers say of the call: time, trace, key, metadata.

use std::time::Duration;

use farcall_core::{Credentials, Metadata, Trace};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT};

use crate::percent;

/// How long the caller waits, in milliseconds.
pub(crate) const TIMEOUT: &str = "farcall-timeout-ms";
/// W3C trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Calls with the same one run once.
pub(crate) const KEY: &str = "idempotency-key";
/// What comes before the key of a metadata header.
pub(crate) const METADATA: &str = "farcall-meta-";

/// What a request's headers say of the call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CallHeaders {
    pub(crate) timeout: Option<Duration>,
    pub(crate) trace: Option<Trace>,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) metadata: Option<Metadata>,
}

/// Reads them. An error names the header and what is wrong with it.
pub(crate) fn read(headers: &HeaderMap) -> Result<CallHeaders, String> {
    let mut read = CallHeaders {
        timeout: one(headers, TIMEOUT)?.map(timeout).transpose()?,
        trace: None,
        key: one(headers, KEY)?.map(key).transpose()?,
        metadata: metadata(headers)?,
    };
    // Whoever cannot read a trace goes on without, says W3C.
    read.trace = one(headers, TRACEPARENT).ok().flatten().and_then(trace);
    Ok(read)
}

/// The value of a header that may be there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, String> {
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return Ok(None) };
    match all.next() {
        None => first.to_str().map(Some).map_err(|_| format!("the header `{name}` holds something else than visible ASCII")),
        Some(_) => Err(format!("the header `{name}` is there more than once")),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let is_count = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let ms = text.parse().ok().filter(|_| is_count);
    ms.map(Duration::from_millis)
        .ok_or_else(|| format!("the header `{TIMEOUT}` must be milliseconds, of at most 10 digits; it is {text:?}"))
}

/// As the IETF's draft has it in quotes, or as most clients send it, without.
fn key(text: &str) -> Result<Box<[u8]>, String> {
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    match bare.len() {
        1..=farcall_core::limits::KEY => Ok(bare.as_bytes().into()),
        len => Err(format!("the header `{KEY}` must have 1 to {} characters; it has {len}", farcall_core::limits::KEY)),
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may have more behind that.
fn trace(text: &str) -> Option<Trace> {
    let (version, rest) = text.split_once('-')?;
    let (trace_id, rest) = rest.split_once('-')?;
    let (span_id, rest) = rest.split_once('-')?;
    let (flags, more) = rest.split_once('-').map_or((rest, false), |(flags, _)| (flags, true));
    let [version] = bytes::<1>(version)?;
    if version == 0xff || version == 0 && more {
        return None;
    }
    let [flags] = bytes::<1>(flags)?;
    let trace = Trace { trace_id: bytes(trace_id)?, span_id: bytes(span_id)?, flags };
    (trace.trace_id != [0; 16] && trace.span_id != [0; 8]).then_some(trace)
}

/// Lower-case hexadecimal digits of exactly so many bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = percent::hex(pair[0])? << 4 | percent::hex(pair[1])?;
    }
    Some(bytes)
}

fn metadata(headers: &HeaderMap) -> Result<Option<Metadata>, String> {
    let mut metadata = Metadata::default();
    for name in headers.keys() {
        let Some(key) = metadata_key(name) else { continue };
        let value = one(headers, name.as_str())?.unwrap_or_default();
        let value = percent::decode(value).map_err(|e| format!("the header `{name}`: {e}"))?;
        metadata.set(key, value).map_err(|e| format!("the header `{name}`: {}", e.message()))?;
    }
    Ok((!metadata.is_empty()).then_some(metadata))
}

fn metadata_key(name: &HeaderName) -> Option<&str> {
    name.as_str().strip_prefix(METADATA)
}

/// What the caller shows of itself: `Authorization: Bearer …`. Errors do not repeat it.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, String> {
    let Some(value) = one(headers, AUTHORIZATION.as_str())? else { return Ok(None) };
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Credentials::new("bearer", token.trim()).map(Some).map_err(|e| format!("the header `authorization`: {}", e.message())),
        false => Err("the header `authorization` must be `Bearer` and a token".to_owned()),
    }
}

/// What the caller's program is called.
pub(crate) fn software(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT).and_then(|value| value.to_str().ok())
}

/// Whether everybody on the way sees the same end of the body: it is not encoded, or `chunked` once. hyper only looks at the last word.
pub(crate) fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Whether the body is JSON, as its type says.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let mut parts = value.split(';').map(str::trim);
        let is_type = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
        let charsets = parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
        is_type && charsets.into_iter().all(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8"))
    })
}

/// Whether the client takes a stream of events, as far as it says.
pub(crate) fn takes_events(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|value| value.to_str().ok()) else { return true };
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let matches = ["*/*", "text/*", "text/event-stream"].iter().any(|known| range.eq_ignore_ascii_case(known));
        // A weight of nothing means "not this".
        matches && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
    };
    accept.split(',').any(takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn error(pairs: &[(&'static str, &'static str)]) -> String {
        read(&of(pairs)).unwrap_err()
    }

    #[test]
    fn the_time_is_milliseconds() {
        let timeout = |text| read(&of(&[(TIMEOUT, text)])).map(|read| read.timeout.unwrap().as_millis());
        assert_eq!(timeout("250"), Ok(250));
        assert_eq!(timeout("0"), Ok(0));
        assert_eq!(timeout("9999999999"), Ok(9_999_999_999));
        for bad in ["", "-1", "+1", "1.5", "1s", "99999999999", " 1", "0x1"] {
            assert!(timeout(bad).unwrap_err().contains("`farcall-timeout-ms`"), "{bad}");
        }
        assert!(error(&[(TIMEOUT, "1"), (TIMEOUT, "2")]).contains("more than once"));
    }

    #[test]
    fn a_trace_is_read_as_w3c_says_or_left_out() {
        let trace = |text: &'static str| read(&of(&[(TRACEPARENT, text)])).unwrap().trace.map(|t| t.traceparent());
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(good).as_deref(), Some(good));
        assert_eq!(trace("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").as_deref(), Some(good));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033311-01",
        ] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_may_be_in_quotes() {
        let key = |text| read(&of(&[(KEY, text)])).map(|read| String::from_utf8(read.key.unwrap().into()).unwrap());
        assert_eq!(key("pay-7"), Ok("pay-7".to_owned()));
        assert_eq!(key("\"pay-7\""), Ok("pay-7".to_owned()));
        for bad in ["", "\"\"", "12345678901234567890123456789012345678901234567890123456789012345"] {
            assert!(key(bad).unwrap_err().contains("1 to 64 characters"), "{bad}");
        }
    }

    #[test]
    fn a_token_is_shown_to_nobody() {
        let shown = |text| credentials(&of(&[("authorization", text)]));
        let token = shown("bearer  correct horse ").unwrap().unwrap();
        assert_eq!((token.scheme(), token.secret().expose()), ("bearer", &b"correct horse"[..]));
        for bad in ["Basic c2VjcmV0", "secret"] {
            let e = shown(bad).unwrap_err();
            assert!(e.contains("`Bearer` and a token") && !e.contains("ecret"), "{e}");
        }
        assert!(credentials(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn metadata_is_what_begins_so() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let metadata = read(&of(pairs)).map(|read| read.metadata)?;
            Ok::<_, String>(metadata.map(|m| m.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()))
        };
        assert_eq!(read(&[("content-type", "x")]), Ok(None));
        let two = [("farcall-meta-tenant", "blue"), ("farcall-meta-who", "%E5%8D%83 %25")];
        assert_eq!(read(&two), Ok(Some(vec!["tenant=blue".to_owned(), "who=千 %".to_owned()])));
        assert!(read(&[("farcall-meta-a", "50%")]).unwrap_err().contains("`farcall-meta-a`"));
        assert!(read(&[("farcall-meta-", "x")]).unwrap_err().contains("`farcall-meta-`"));
        assert!(read(&[("farcall-meta-a!", "x")]).unwrap_err().contains("`farcall-meta-a!`"));
        assert!(read(&[("farcall-meta-a", "1"), ("farcall-meta-a", "2")]).unwrap_err().contains("more than once"));
    }

    #[test]
    fn types_are_told_apart() {
        let json = |text| is_json(&of(&[("content-type", text)]));
        assert!(json("application/json") && json("Application/JSON; charset=UTF-8") && json("application/json;charset=\"utf-8\""));
        assert!(!json("text/json") && !json("application/json; charset=latin1") && !json("application/jsonp") && !json(""));
        let events = |text| takes_events(Some(&HeaderValue::from_static(text)));
        assert!(takes_events(None) && events("*/*") && events("application/json, text/event-stream;q=0.5") && events("text/*"));
        assert!(!events("application/json") && !events("text/event-stream;q=0") && !events(""));
    }
}
