//! The messages of etcd's API that we use, with the fields of them that we use.

use farcall_core::data;

/// What every answer says of the cluster.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Header {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) revision: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct RangeRequest {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    pub(crate) limit: i64,
    pub(crate) revision: i64,
    #[farcall(tag = 8)]
    pub(crate) keys_only: bool,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    #[farcall(tag = 5)]
    pub(crate) value: Vec<u8>,
    #[farcall(tag = 6)]
    pub(crate) lease: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct RangeResponse {
    pub(crate) header: Option<Header>,
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) more: bool,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct PutRequest {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteRequest {
    pub(crate) key: Vec<u8>,
}

/// An answer of which only the header matters.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    pub(crate) header: Option<Header>,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseGrantRequest {
    pub(crate) ttl: i64,
    pub(crate) id: i64,
}

/// Also of a renewal: a `ttl` of 0 is a lease that is no more.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseResponse {
    pub(crate) header: Option<Header>,
    pub(crate) id: i64,
    pub(crate) ttl: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseRequest {
    pub(crate) id: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchRequest {
    pub(crate) create: Option<WatchCreate>,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchCreate {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    pub(crate) start_revision: i64,
    #[farcall(tag = 7)]
    pub(crate) watch_id: i64,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchResponse {
    pub(crate) header: Option<Header>,
    pub(crate) watch_id: i64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) compact_revision: i64,
    pub(crate) cancel_reason: String,
    #[farcall(tag = 11)]
    pub(crate) events: Vec<Event>,
}

#[data(crate = farcall_core)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    /// 0 put, 1 deleted: an enum there, whose numbers are written alike.
    pub(crate) kind: i32,
    pub(crate) kv: Option<KeyValue>,
}

#[data(crate = farcall_core)]
#[derive(Clone, Default)]
pub(crate) struct AuthenticateRequest {
    pub(crate) name: String,
    pub(crate) password: String,
}

#[data(crate = farcall_core)]
#[derive(Clone, Default)]
pub(crate) struct AuthenticateResponse {
    pub(crate) header: Option<Header>,
    pub(crate) token: String,
}

/// An answer that says how far the cluster is.
pub(crate) trait Headed {
    fn header(&self) -> Option<&Header>;
}

macro_rules! headed {
    ($($message:ty),*) => {
        $(impl Headed for $message {
            fn header(&self) -> Option<&Header> {
                self.header.as_ref()
            }
        })*
    };
}
headed!(RangeResponse, Done, LeaseResponse, WatchResponse, AuthenticateResponse);
