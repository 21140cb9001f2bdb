//! By what callers are told apart, where something is counted for each of them.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

use crate::context::Peer;

/// A caller's name, `id:shop` or `ip:10.0.0.7`, with its hash: a table finds it for each of its calls without going
/// through the text again. The hash is keyed, for callers choose their names.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    name: Arc<str>,
    hash: u64,
}

/// A table by callers.
pub(crate) type Callers<T> = std::collections::HashMap<Caller, T, BuildHasherDefault<Kept>>;

impl Caller {
    pub(crate) fn new(name: &str) -> Caller {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        Caller { name: name.into(), hash: KEYS.get_or_init(RandomState::new).hash_one(name) }
    }

    /// Where there is no other side.
    pub(crate) fn nobody() -> &'static Caller {
        static NOBODY: OnceLock<Caller> = OnceLock::new();
        NOBODY.get_or_init(|| Caller::new(""))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Caller) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.name, &other.name) || self.name == other.name)
    }
}

impl Eq for Caller {}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that a [`Caller`] keeps.
#[derive(Default)]
pub(crate) struct Kept(u64);

impl Hasher for Kept {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Callers write numbers alone.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A peer's [`Caller`], made when it is asked for first. A copy of the peer, which may be changed, makes its own.
#[derive(Default)]
pub(crate) struct Made(OnceLock<Caller>);

impl Made {
    pub(crate) fn of<'a>(&'a self, peer: &Peer) -> &'a Caller {
        self.0.get_or_init(|| Caller::new(&name(peer)))
    }
}

/// Its proven name, else the host or process that it calls from.
fn name(peer: &Peer) -> String {
    match (&peer.identity, peer.facts.ip, peer.facts.unix) {
        (Some(identity), ..) => format!("id:{}", identity.name()),
        (None, Some(ip), _) => format!("ip:{ip}"),
        (None, None, Some(unix)) => format!("uid:{}", unix.uid),
        (None, None, None) => peer.address.clone(),
    }
}

impl Clone for Made {
    fn clone(&self) -> Made {
        Made::default()
    }
}

impl PartialEq for Made {
    fn eq(&self, _: &Made) -> bool {
        true
    }
}

impl Eq for Made {}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;

    #[test]
    fn a_changed_copy_of_a_peer_is_another_caller() {
        let peer = Peer { address: "mem:x".into(), ..Peer::default() };
        assert_eq!(peer.caller().name(), "mem:x");
        let mut known = peer.clone();
        known.identity = Some(Arc::new(Identity::new("anna")));
        assert_eq!((known.caller().name(), peer.caller().name()), ("id:anna", "mem:x"));
    }

    #[test]
    fn callers_are_found_by_their_names() {
        let mut table: Callers<u32> = Callers::default();
        table.extend((0..1000).map(|n| (Caller::new(&format!("id:{n}")), n)));
        assert!((0..1000).all(|n| table.get(&Caller::new(&format!("id:{n}"))) == Some(&n)));
        assert_eq!(table.get(&Caller::new("id:1000")), None);
    }
}
