//! Text pairs and the trace that travel beside a call's arguments.

use serde::{Deserialize, Serialize};

use crate::error::{Code, RpcError};

/// Key-value text beside a call: who calls, which tenant, which flags. Empty metadata costs
/// nothing on the wire. Keys are lower-case ASCII (`a-z 0-9 - _ .`); a key may occur once.
///
/// ```
/// use farcall_core::Metadata;
/// let mut m = Metadata::default();
/// m.set("tenant", "blue").unwrap();
/// assert_eq!(m.get("tenant"), Some("blue"));
/// assert!(m.set("Ten ant", "x").is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets `key`, replacing an earlier value. Fails on a key that is not lower-case ASCII.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> Result<(), RpcError> {
        if !is_key(key) {
            return Err(RpcError::not_sent(
                Code::InvalidArgument,
                format!("metadata key {key:?} is not lower-case ASCII (a-z 0-9 - _ .): write {:?}", key.to_ascii_lowercase()),
            ));
        }
        let value = value.into();
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
        Ok(())
    }

    /// All pairs in the order they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all keys and values: what the metadata limit counts.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(k, v)| k.len() + v.len()).sum()
    }

    /// Checks pairs that came from a peer.
    pub fn validate(&self, limit: usize) -> Result<(), RpcError> {
        if self.size() > limit {
            return Err(RpcError::not_executed(
                Code::ResourceExhausted,
                format!("{} bytes of metadata, the limit `metadata` is {limit}", self.size()),
            ));
        }
        match self.0.iter().find(|(k, _)| !is_key(k)) {
            Some((k, _)) => Err(RpcError::not_executed(Code::InvalidArgument, format!("metadata key {k:?} is not lower-case ASCII"))),
            None => Ok(()),
        }
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

/// W3C trace context (<https://www.w3.org/TR/trace-context/>): carried as it came, handed on to
/// child calls, never interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace all its calls share.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl Trace {
    /// Bytes of a trace on the wire.
    pub const LEN: usize = 25;

    /// As a `traceparent` header value.
    pub fn traceparent(&self) -> String {
        let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
        format!("00-{}-{}-{:02x}", hex(&self.trace_id), hex(&self.span_id), self.flags)
    }

    /// The wire form: trace id, span id, flags.
    pub fn to_bytes(&self) -> [u8; Trace::LEN] {
        let mut out = [0; Trace::LEN];
        out[..16].copy_from_slice(&self.trace_id);
        out[16..24].copy_from_slice(&self.span_id);
        out[24] = self.flags;
        out
    }

    /// From the wire form; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Trace> {
        Some(Trace {
            trace_id: bytes.get(..16)?.try_into().ok()?,
            span_id: bytes.get(16..24)?.try_into().ok()?,
            flags: match bytes.get(24..)? {
                [flags] => *flags,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_survives_the_wire_and_prints_as_w3c() {
        let t = Trace { trace_id: [0xab; 16], span_id: [1; 8], flags: 1 };
        assert_eq!(Trace::from_bytes(&t.to_bytes()), Some(t));
        assert_eq!(Trace::from_bytes(&t.to_bytes()[..24]), None);
        assert_eq!(Trace::from_bytes(&[0; 26]), None);
        assert_eq!(t.traceparent(), "00-abababababababababababababababab-0101010101010101-01");
    }

    #[test]
    fn a_key_occurs_once_and_the_limit_is_named() {
        let mut m = Metadata::default();
        m.set("a", "1").unwrap();
        m.set("a", "22").unwrap();
        assert_eq!(m.iter().collect::<Vec<_>>(), [("a", "22")]);
        assert!(m.validate(3).is_ok());
        assert!(m.validate(2).unwrap_err().message().contains("`metadata`"));
    }
}
