//! Instances that nobody named: their names are made from their addresses, so that all readers find the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::entry::{Entry, EntryKey, InstanceId};
use crate::registry::{Gone, Update};

/// The name of an instance that is known by this text: FNV-1a over it, 128 bits.
pub(crate) fn id(text: &str) -> InstanceId {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = text.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    InstanceId(hash.to_be_bytes())
}

/// What changed from one list to the next.
pub(crate) fn changes(old: &[Arc<Entry>], new: &[Arc<Entry>], how: Gone) -> Vec<Update> {
    let keyed = |list: &[Arc<Entry>]| -> BTreeMap<EntryKey, Arc<Entry>> { list.iter().map(|e| (e.key(), e.clone())).collect() };
    let (old, new) = (keyed(old), keyed(new));
    let put = new.iter().filter(|(key, entry)| old.get(key) != Some(entry)).map(|(_, entry)| Update::Put(entry.clone()));
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| Update::Gone(key.clone(), how));
    put.chain(gone).collect()
}
