//! A moment by the clock of a provider's record of idempotency keys.

/// A moment by the clock of one record. In a hello: its now; in a call: not after the first attempt
/// that may have run, as the caller knows it from that hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMoment {
    /// Names the record: random, new for each.
    pub record: u64,
    /// Milliseconds since the record was begun.
    pub ms: u64,
}

impl KeyMoment {
    /// As it travels.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.record.to_le_bytes());
        bytes[8..].copy_from_slice(&self.ms.to_le_bytes());
        bytes
    }

    /// From exactly 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<KeyMoment> {
        let (record, ms) = bytes.split_at_checked(8)?;
        Some(KeyMoment { record: u64::from_le_bytes(record.try_into().ok()?), ms: u64::from_le_bytes(ms.try_into().ok()?) })
    }
}
