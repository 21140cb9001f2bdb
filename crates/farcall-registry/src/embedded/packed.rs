//! Entries as nodes keep and send them: encoded once, with method tables that instances of a service share.

use bytes::Bytes;
use farcall_core::{Code, RpcError, compact};

use super::api::{Body, Name, Packed};
use crate::entry::{Entry, MethodPrints, ServiceKey};

/// An entry as a node keeps it. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: Name,
    pub(crate) body: Bytes,
    pub(crate) table: Bytes,
    /// Of both.
    pub(crate) hash: u64,
}

impl Stored {
    pub(crate) fn of(entry: &Entry) -> Result<Stored, RpcError> {
        let body = Body {
            instance: entry.instance,
            incarnation: entry.incarnation,
            application: entry.application.clone(),
            addresses: entry.addresses.clone(),
            labels: entry.labels.clone(),
            weight: entry.weight,
            enabled: entry.enabled,
            host: entry.host.clone(),
            params: entry.params.clone(),
        };
        let unfit = |e| RpcError::not_executed(Code::InvalidArgument, format!("an entry that cannot be encoded: {e}"));
        let body = compact::encode(&body).map_err(unfit)?;
        let table = compact::encode(&entry.methods).map_err(unfit)?;
        Ok(Stored::from_bytes(Name { instance: entry.instance, incarnation: entry.incarnation }, body.into(), table.into()))
    }

    pub(crate) fn from_bytes(name: Name, body: Bytes, table: Bytes) -> Stored {
        let hash = hash(&body, &table);
        Stored { name, body, table, hash }
    }

    /// Bytes it takes, but for the table that it shares.
    pub(crate) fn cost(&self) -> usize {
        self.body.len() + size_of::<Stored>()
    }
}

/// The first eight bytes, little-endian, of BLAKE3 over body and table.
pub(crate) fn hash(body: &[u8], table: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    hasher.update(table);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// An entry out of what a node sent, and its hash.
pub(crate) fn unpack(service: &ServiceKey, packed: &Packed, table: &[u8], methods: &[MethodPrints]) -> Result<(Entry, u64), RpcError> {
    let hash = hash(&packed.body, table);
    let body: Body = compact::decode(&packed.body).map_err(|e| unreadable("an entry", e))?;
    let entry = Entry {
        service: service.clone(),
        instance: body.instance,
        incarnation: body.incarnation,
        application: body.application,
        addresses: body.addresses,
        labels: body.labels,
        weight: body.weight,
        enabled: body.enabled,
        host: body.host,
        methods: methods.to_vec(),
        params: body.params,
    };
    Ok((entry, hash))
}

/// What a node sent makes no sense.
pub(crate) fn unreadable(what: &str, e: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::DataLoss, format!("{what} from a registry node cannot be decoded: {e}"))
}
