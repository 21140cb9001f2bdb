//! Hello: who a side is and what it takes.

use farcall_core::{Credentials, Limits, limits};

use crate::frame::{Violation, WHOLE};
use crate::moment::KeyMoment;
use crate::options::{Ascending, Cursor, put_entry, put_varint};
use crate::outbound::CALL_COST;
use crate::table::MAX_ROWS;

/// Names a session on the side that sends it: random, new for every session.
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
    /// Bytes of one call's options block.
    pub metadata: u32,
    /// Rows of our method table.
    pub bound_methods: u32,
    /// Open streams of our calls.
    pub streams: u32,
    /// Cost of Call frames before its first Credit for the connection.
    pub credit: u32,
    /// Bytes of a stream or of a body in fragments, before its first Credit for the call.
    pub stream_bytes: u32,
    /// Items of a stream before its first Credit for the call.
    pub stream_items: u32,
}

impl PeerLimits {
    /// What every peer takes before its hello. Of frames and rows nobody may take less later: what
    /// was sent before would break a limit that its sender could not know, and cost the link.
    pub const BEFORE_HELLO: PeerLimits = PeerLimits {
        frame: limits::FRAME_BEFORE_HELLO as u32,
        body: 48 << 10,
        in_flight: 64,
        metadata: 4 << 10,
        bound_methods: 256,
        streams: 0,
        credit: 1 << 20,
        stream_bytes: 64 << 10,
        stream_items: 16,
    };

    pub(crate) fn of(limits: &Limits) -> PeerLimits {
        let u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PeerLimits {
            frame: u32(limits.body.min(WHOLE).saturating_add(limits.metadata).saturating_add(limits::FRAME_OVERHEAD)),
            body: u32(limits.body),
            in_flight: u32(limits.in_flight),
            metadata: u32(limits.metadata),
            bound_methods: u32(limits.bound_methods),
            streams: u32(limits.streams),
            credit: u32(limits.credit),
            stream_bytes: u32(limits.stream_bytes),
            stream_items: u32(limits.stream_items),
        }
        .sound()
    }

    /// Within what the protocol allows, whoever said it.
    fn sound(self) -> PeerLimits {
        let least = PeerLimits::BEFORE_HELLO;
        let frame = self.frame.max(least.frame);
        // Credit comes back when half of it is used: the other half must do for the largest call.
        let two_calls = frame.saturating_add(CALL_COST as u32).saturating_mul(2);
        PeerLimits {
            frame,
            body: self.body,
            in_flight: self.in_flight.min(limits::MAX_IN_FLIGHT as u32),
            metadata: self.metadata,
            bound_methods: self.bound_methods.clamp(least.bound_methods, MAX_ROWS as u32),
            streams: self.streams.min(limits::MAX_IN_FLIGHT as u32),
            credit: self.credit.max(least.credit).max(two_calls),
            stream_bytes: self.stream_bytes.max(least.stream_bytes),
            stream_items: self.stream_items.max(least.stream_items),
        }
    }

    /// In their order in the hello. The two that are 0 count remote objects, which are not built yet.
    fn fields(&self) -> [u32; 11] {
        let PeerLimits { frame, body, in_flight, metadata, bound_methods, streams, credit, stream_bytes, stream_items } = *self;
        [frame, body, in_flight, metadata, bound_methods, streams, 0, 0, credit, stream_bytes, stream_items]
    }
}

/// The payload of a Hello frame: `tag u8 | length varint | value` entries in ascending order of
/// their tags; unknown odd tags are skipped, unknown even ones refuse the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's name of the session this link belongs to.
    pub session: SessionId,
    /// Grows with every start of the sender's process, so that a restarted one is told from a slow one.
    pub incarnation: u64,
    /// What the sender takes.
    pub limits: PeerLimits,
    /// Optional features the sender has, one bit each: see [`features`].
    pub features: u64,
    /// What the opener shows to prove who it is. Not sent by acceptors, and ignored from them.
    pub auth: Option<Credentials>,
    /// The software, for people: `farcall/0.1.0`.
    pub software: String,
    /// The record that the sender keeps of calls with an idempotency key, and the time there; `None` if it
    /// keeps none.
    pub keys: Option<KeyMoment>,
}

/// Bits of [`Hello::features`].
pub mod features {
    /// Rows on which the sides differ are resolved by their schemas.
    pub const SCHEMAS: u64 = 1 << 1;
}

mod tag {
    pub(super) const SESSION: u8 = 2;
    pub(super) const INCARNATION: u8 = 4;
    pub(super) const LIMITS: u8 = 6;
    pub(super) const FEATURES: u8 = 9;
    pub(super) const AUTH: u8 = 11;
    pub(super) const SOFTWARE: u8 = 13;
    pub(super) const KEYS: u8 = 21;
}

impl Hello {
    /// A hello with these limits.
    pub fn new(session: SessionId, incarnation: u64, limits: &Limits) -> Hello {
        Hello {
            session,
            incarnation,
            limits: PeerLimits::of(limits),
            features: if limits.schemas > 0 { features::SCHEMAS } else { 0 },
            auth: None,
            software: concat!("farcall/", env!("CARGO_PKG_VERSION")).to_owned(),
            keys: None,
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
        if let Some(auth) = &self.auth {
            put_entry(&mut out, tag::AUTH, &encode_auth(auth));
        }
        put_entry(&mut out, tag::SOFTWARE, self.software.as_bytes());
        if let Some(keys) = &self.keys {
            put_entry(&mut out, tag::KEYS, &keys.to_bytes());
        }
        out
    }

    /// From a payload. Session, incarnation and limits must be there.
    pub fn decode(payload: &[u8]) -> Result<Hello, Violation> {
        let broken = |what: &str| Violation(format!("the hello's {what} cannot be read"));
        let (mut session, mut incarnation, mut limits) = (None, None, None);
        let (mut features, mut auth, mut software, mut keys) = (0, None, String::new(), None);
        let (mut entries, mut order) = (Cursor(payload), Ascending::default());
        while !entries.0.is_empty() {
            let (tag, value) = entries.entry().ok_or_else(|| broken("last entry"))?;
            if !order.follows(tag) {
                return Err(Violation(format!("hello entry {tag} is out of order or there twice")));
            }
            match tag {
                tag::SESSION => session = Some(value.try_into().map_err(|_| broken("session id"))?),
                tag::INCARNATION => incarnation = Some(u64::from_le_bytes(value.try_into().map_err(|_| broken("incarnation"))?)),
                tag::LIMITS => limits = Some(decode_limits(value).ok_or_else(|| broken("limits"))?),
                tag::FEATURES => features = u64::from_le_bytes(value.try_into().map_err(|_| broken("features"))?),
                tag::AUTH => auth = Some(decode_auth(value).ok_or_else(|| broken("credentials"))?),
                tag::SOFTWARE => software = String::from_utf8_lossy(&value[..value.len().min(128)]).into_owned(),
                tag::KEYS => keys = Some(KeyMoment::from_bytes(value).ok_or_else(|| broken("record of keys"))?),
                odd if odd % 2 == 1 => {}
                even => return Err(Violation(format!("hello entry {even} is not known here and may not be skipped"))),
            }
        }
        Ok(Hello {
            session: session.ok_or_else(|| broken("session id"))?,
            incarnation: incarnation.ok_or_else(|| broken("incarnation"))?,
            limits: limits.ok_or_else(|| broken("limits"))?,
            features,
            auth,
            software,
            keys,
        })
    }
}

fn encode_auth(auth: &Credentials) -> Vec<u8> {
    let mut value = Vec::with_capacity(auth.scheme().len() + auth.secret().len() + 1);
    put_varint(&mut value, auth.scheme().len() as u64);
    value.extend_from_slice(auth.scheme().as_bytes());
    value.extend_from_slice(auth.secret().expose());
    value
}

/// The scheme as a string, and the rest.
fn decode_auth(value: &[u8]) -> Option<Credentials> {
    let mut cursor = Cursor(value);
    let len = usize::try_from(cursor.varint()?).ok()?;
    let scheme = std::str::from_utf8(cursor.bytes(len)?).ok()?;
    Credentials::new(scheme, cursor.0).ok()
}

/// Numbers in the order of [`PeerLimits::fields`]; further ones are for later versions.
fn decode_limits(value: &[u8]) -> Option<PeerLimits> {
    let mut numbers = Cursor(value);
    let mut next = || numbers.varint().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let least = PeerLimits::BEFORE_HELLO;
    let said = PeerLimits { frame: next()?, body: next()?, in_flight: next()?, metadata: next()?, bound_methods: next()?, ..least };
    let streams = next().unwrap_or(least.streams);
    let (_exports, _pipelined) = (next(), next());
    let said = PeerLimits {
        streams,
        credit: next().unwrap_or(least.credit),
        stream_bytes: next().unwrap_or(least.stream_bytes),
        stream_items: next().unwrap_or(least.stream_items),
        ..said
    };
    Some(said.sound())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_round_trips_and_every_cut_is_refused() {
        let keys = Some(KeyMoment { record: 9, ms: 10 });
        let auth = Some(Credentials::bearer("a token"));
        let hello = Hello { features: 5, auth, keys, ..Hello::new([3; 16], 77, &Limits::default()) };
        let wire = hello.encode();
        assert_eq!(Hello::decode(&wire).unwrap(), hello);
        for cut in 0..wire.len() {
            if let Ok(short) = Hello::decode(&wire[..cut]) {
                assert_eq!(short.session, hello.session, "cut {cut} reads as another hello");
                assert!(short.features == 0 || short.features == 5);
                assert!(short.keys.is_none());
                assert!(short.auth.is_none_or(|auth| auth == Credentials::bearer("a token")), "half a token");
            }
        }
        assert!(Hello::decode(&[]).is_err());
    }

    #[test]
    fn credentials_that_cannot_be_read_are_refused_without_being_shown() {
        let with = |value: &[u8]| {
            let mut wire = Vec::new();
            let hello = Hello::new([3; 16], 77, &Limits::default());
            put_entry(&mut wire, tag::SESSION, &hello.session);
            put_entry(&mut wire, tag::INCARNATION, &hello.incarnation.to_le_bytes());
            put_entry(&mut wire, tag::LIMITS, &[0; 11]);
            put_entry(&mut wire, tag::AUTH, value);
            Hello::decode(&wire)
        };
        assert_eq!(with(b"\x06bearerabc").unwrap().auth, Some(Credentials::bearer("abc")));
        assert_eq!(with(b"\x06bearer").unwrap().auth, Some(Credentials::bearer("")));
        let huge = [&b"\x06bearer"[..], &[b's'; limits::CREDENTIALS + 1]].concat();
        for bad in
            [&b""[..], b"\x00secret", b"\x07bearer", b"\x06BEARERsecret", b"\x02\xff\xfesecret", b"\xff\xff\xff\xff\x0fsecret", &huge]
        {
            let e = with(bad).unwrap_err();
            assert_eq!(e.0, "the hello's credentials cannot be read", "{bad:?}");
        }
        assert!(!format!("{:?}", with(b"\x06bearersecret").unwrap()).contains("secret\""));
    }

    #[test]
    fn unknown_entries_follow_the_even_odd_rule() {
        let mut wire = Hello::new([3; 16], 77, &Limits::default()).encode();
        put_entry(&mut wire, 201, b"later");
        assert!(Hello::decode(&wire).is_ok());
        put_entry(&mut wire, 202, b"later");
        assert!(Hello::decode(&wire).unwrap_err().0.contains("202"));
    }

    #[test]
    fn an_entry_comes_once_and_in_its_place() {
        let mut wire = Hello::new([3; 16], 77, &Limits::default()).encode();
        put_entry(&mut wire, tag::INCARNATION, &[0; 8]);
        assert!(Hello::decode(&wire).unwrap_err().0.contains("entry 4 is out of order"));
    }

    #[test]
    fn limits_that_nobody_could_keep_are_read_as_the_nearest_sound_ones() {
        let said = |numbers: &[u32]| {
            let mut value = Vec::new();
            numbers.iter().for_each(|&n| put_varint(&mut value, n.into()));
            decode_limits(&value).unwrap().fields()
        };
        let least = [64 << 10, 0, 0, 0, 256, 0, 0, 0, 1 << 20, 64 << 10, 16];
        assert_eq!(said(&[0; 11]), least);
        assert_eq!(said(&[0; 5]), least, "what is not said has its starting value");
        let most = u32::MAX;
        assert_eq!(said(&[most; 11]), [most, most, 65_536, most, 65_535, 65_536, 0, 0, most, most, most]);
        assert_eq!(said(&[1 << 20, 0, 0, 0, 0, 0])[8], (2 << 20) + 128, "the largest call has credit at some time");
        assert_eq!(said(&[100_000, 1 << 30, 1, 8192, 300, 9])[..6], [100_000, 1 << 30, 1, 8192, 300, 9]);
        let huge = usize::MAX;
        let endless = Limits { body: huge, metadata: huge, bound_methods: huge, streams: huge, credit: huge, ..Limits::default() };
        assert_eq!(PeerLimits::of(&endless).fields()[..6], [most, most, 65_536, most, 65_535, 65_536]);
    }
}
