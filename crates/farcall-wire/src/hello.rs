//! Hello: who a side is and what it takes.

use farcall_core::{Limits, limits};

use crate::frame::Violation;
use crate::options::{Cursor, put_entry, put_varint};

/// Names a session across links: random, chosen by the side that opened the link.
pub type SessionId = [u8; 16];

/// What a peer takes from us. Learned from its hello; before that, the protocol's own small limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Payload bytes of one frame.
    pub frame: u32,
    /// Bytes of one body.
    pub body: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// Metadata bytes of one call.
    pub metadata: u32,
    /// Rows of our method table.
    pub bound_methods: u32,
}

impl PeerLimits {
    /// What every peer takes before its hello.
    pub const BEFORE_HELLO: PeerLimits =
        PeerLimits { frame: limits::FRAME_BEFORE_HELLO as u32, body: 48 << 10, in_flight: 64, metadata: 4 << 10, bound_methods: 256 };

    fn of(limits: &Limits) -> PeerLimits {
        let u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PeerLimits {
            frame: u32(limits.frame()),
            body: u32(limits.body),
            in_flight: u32(limits.in_flight.min(limits::MAX_IN_FLIGHT)),
            metadata: u32(limits.metadata),
            bound_methods: u32(limits.bound_methods.min(limits::MAX_IN_FLIGHT)),
        }
    }

    fn fields(&self) -> [u32; 5] {
        [self.frame, self.body, self.in_flight, self.metadata, self.bound_methods]
    }
}

/// The payload of a Hello frame: `tag u8 | length varint | value` entries; unknown odd tags are
/// skipped, unknown even ones refuse the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The session this link belongs to.
    pub session: SessionId,
    /// Grows with every start of the sender's process, so that a restarted one is told from a slow one.
    pub incarnation: u64,
    /// What the sender takes.
    pub limits: PeerLimits,
    /// Optional features the sender has, one bit each. None are defined yet.
    pub features: u64,
    /// The software, for people: `farcall/0.1.0`.
    pub software: String,
}

mod tag {
    pub(super) const SESSION: u8 = 2;
    pub(super) const INCARNATION: u8 = 4;
    pub(super) const LIMITS: u8 = 6;
    pub(super) const FEATURES: u8 = 9;
    pub(super) const SOFTWARE: u8 = 13;
}

impl Hello {
    /// A hello with these limits.
    pub fn new(session: SessionId, incarnation: u64, limits: &Limits) -> Hello {
        Hello {
            session,
            incarnation,
            limits: PeerLimits::of(limits),
            features: 0,
            software: concat!("farcall/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        put_entry(&mut out, tag::SESSION, &self.session);
        put_entry(&mut out, tag::INCARNATION, &self.incarnation.to_le_bytes());
        let mut numbers = Vec::new();
        self.limits.fields().iter().for_each(|&n| put_varint(&mut numbers, n.into()));
        put_entry(&mut out, tag::LIMITS, &numbers);
        if self.features != 0 {
            put_entry(&mut out, tag::FEATURES, &self.features.to_le_bytes());
        }
        put_entry(&mut out, tag::SOFTWARE, self.software.as_bytes());
        out
    }

    /// From a payload. Session, incarnation and limits must be there.
    pub fn decode(payload: &[u8]) -> Result<Hello, Violation> {
        let broken = |what: &str| Violation(format!("the hello's {what} cannot be read"));
        let (mut session, mut incarnation, mut limits) = (None, None, None);
        let (mut features, mut software) = (0, String::new());
        let mut entries = Cursor(payload);
        while !entries.0.is_empty() {
            let (tag, value) = entries.entry().ok_or_else(|| broken("last entry"))?;
            match tag {
                tag::SESSION => session = Some(value.try_into().map_err(|_| broken("session id"))?),
                tag::INCARNATION => incarnation = Some(u64::from_le_bytes(value.try_into().map_err(|_| broken("incarnation"))?)),
                tag::LIMITS => limits = Some(decode_limits(value).ok_or_else(|| broken("limits"))?),
                tag::FEATURES => features = u64::from_le_bytes(value.try_into().map_err(|_| broken("features"))?),
                tag::SOFTWARE => software = String::from_utf8_lossy(&value[..value.len().min(128)]).into_owned(),
                odd if odd % 2 == 1 => {}
                even => return Err(Violation(format!("hello entry {even} is not known here and may not be skipped"))),
            }
        }
        Ok(Hello {
            session: session.ok_or_else(|| broken("session id"))?,
            incarnation: incarnation.ok_or_else(|| broken("incarnation"))?,
            limits: limits.ok_or_else(|| broken("limits"))?,
            features,
            software,
        })
    }
}

/// Numbers in the order of [`PeerLimits::fields`]; further ones are for later versions.
fn decode_limits(value: &[u8]) -> Option<PeerLimits> {
    let mut numbers = Cursor(value);
    let mut next = || numbers.varint().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Some(PeerLimits { frame: next()?, body: next()?, in_flight: next()?, metadata: next()?, bound_methods: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_round_trips_and_every_cut_is_refused() {
        let hello = Hello { features: 5, ..Hello::new([3; 16], 77, &Limits::default()) };
        let wire = hello.encode();
        assert_eq!(Hello::decode(&wire).unwrap(), hello);
        for cut in 0..wire.len() - 1 - hello.software.len() - 1 {
            if let Ok(short) = Hello::decode(&wire[..cut]) {
                assert_eq!(short.session, hello.session, "cut {cut} reads as another hello");
                assert!(short.features == 0 || short.features == 5);
            }
        }
        assert!(Hello::decode(&[]).is_err());
    }

    #[test]
    fn unknown_entries_follow_the_even_odd_rule() {
        let mut wire = Hello::new([3; 16], 77, &Limits::default()).encode();
        put_entry(&mut wire, 201, b"later");
        assert!(Hello::decode(&wire).is_ok());
        put_entry(&mut wire, 200, b"later");
        assert!(Hello::decode(&wire).unwrap_err().0.contains("200"));
    }
}
