//! A client of etcd: requests over a connection that is made anew whenever it fails.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use farcall_core::{Code, RpcError, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::etcd::grpc::{AUTHENTICATE, Connection, Method, Stream, unavailable};
use crate::etcd::messages::{AuthenticateRequest, AuthenticateResponse, Headed, RangeRequest, RangeResponse};
use crate::target::Target;

/// Keys that are asked for at once.
const PAGE: i64 = 1000;
/// Most keys that one list is made of.
const MAX_KEYS: usize = 200_000;

/// A cluster and the connection to it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) target: Target,
    /// How long one request may take, connecting included.
    pub(crate) patience: Duration,
    live: Mutex<Option<Live>>,
    next: AtomicUsize,
    /// The greatest revision seen, and how often it went back: then the data is another.
    seen: AtomicU64,
    histories: AtomicU64,
}

/// A connection that works.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    connection: Connection,
    token: Option<String>,
    pub(crate) since: Instant,
}

/// Keys and values under a prefix at one revision.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Without the prefix, if they are text.
    pub(crate) pairs: Vec<(String, Vec<u8>)>,
    pub(crate) revision: i64,
    pub(crate) epoch: u64,
}

impl Client {
    pub(crate) fn new(target: Target, patience: Duration) -> Client {
        // Not every client begins with the first.
        let next = AtomicUsize::new(crate::random::number() as usize % target.places.len().max(1));
        Client { target, patience, live: Mutex::new(None), next, seen: AtomicU64::new(0), histories: AtomicU64::new(0) }
    }

    /// A connection: the one there is, or a new one to whichever server answers first.
    pub(crate) async fn live(&self) -> Result<Live, RpcError> {
        let mut live = self.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| live.connection.is_good()) {
            return Ok(live.clone());
        }
        let mut last = unavailable(&self.target.name, "no host is named");
        for _ in 0..self.target.places.len() {
            match self.connect().await {
                Ok(made) => {
                    *live = Some(made.clone());
                    return Ok(made);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn connect(&self) -> Result<Live, RpcError> {
        let places = &self.target.places;
        let place = &places[self.next.fetch_add(1, Ordering::Relaxed) % places.len()];
        let connecting = async {
            let connection = Connection::open(place, self.patience).await?;
            let token = match &self.target.user {
                None => None,
                Some((name, password)) => {
                    let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
                    let answer: AuthenticateResponse = connection.call(&AUTHENTICATE, &request, None).await?;
                    Some(answer.token)
                }
            };
            Ok(Live { connection, token, since: Instant::now() })
        };
        // All hosts together take no longer than one request may.
        let share = self.patience / places.len().max(1) as u32;
        let live = timeout(share, connecting).await.unwrap_or_else(|_| Err(unavailable(place, "it does not answer")))?;
        self.meet(&live, share).await?;
        Ok(live)
    }

    /// Asks how far the cluster is: one that is less far than it was has other data.
    async fn meet(&self, live: &Live, share: Duration) -> Result<(), RpcError> {
        let request = RangeRequest { key: b"/".to_vec(), limit: 1, keys_only: true, ..RangeRequest::default() };
        let asking = live.connection.call::<_, RangeResponse>(&crate::etcd::grpc::RANGE, &request, live.token.as_deref());
        let answer = match timeout(share, asking).await {
            Ok(Ok(answer)) => answer,
            // It may be that we may not read there.
            Ok(Err(e)) if e.code() == Code::PermissionDenied => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(unavailable(&self.target.name, "it connects and does not answer")),
        };
        let revision = answer.header.map_or(0, |header| header.revision.unsigned_abs());
        if revision < self.seen.swap(revision, Ordering::Relaxed) {
            self.histories.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// When the connection was made; now, if there is none.
    pub(crate) async fn connected_since(&self) -> Instant {
        self.live.lock().await.as_ref().map_or_else(Instant::now, |live| live.since)
    }

    /// One message there, one back.
    pub(crate) async fn call<Q, A>(&self, method: &Method, request: &Q) -> Result<A, RpcError>
    where
        Q: Serialize + Schema + ?Sized,
        A: DeserializeOwned + Schema + Headed,
    {
        let live = timeout(self.patience, self.live()).await.map_err(|_| self.silent())??;
        let answer = timeout(self.patience, live.connection.call::<Q, A>(method, request, live.token.as_deref())).await;
        let answer = answer.unwrap_or_else(|_| Err(self.silent()));
        match &answer {
            Ok(answer) => {
                let revision = answer.header().map_or(0, |header| header.revision.unsigned_abs());
                self.seen.fetch_max(revision, Ordering::Relaxed);
            }
            // Another server, or another token, may do better.
            Err(e) if matches!(e.code(), Code::Unavailable | Code::Unauthenticated) => live.connection.give_up(),
            Err(_) => {}
        }
        answer
    }

    fn silent(&self) -> RpcError {
        unavailable(&self.target.name, &format!("no answer within {:?}", self.patience))
    }

    /// A stream of messages both ways, over the connection there is now.
    pub(crate) async fn stream(&self, method: &Method) -> Result<(Stream, Live), RpcError> {
        let live = timeout(self.patience, self.live()).await.map_err(|_| self.silent())??;
        let stream = timeout(self.patience, live.connection.stream(method, live.token.as_deref())).await;
        match stream.unwrap_or_else(|_| Err(self.silent())) {
            Ok(stream) => Ok((stream, live)),
            Err(e) => {
                live.connection.give_up();
                Err(e)
            }
        }
    }

    /// All keys under a prefix, and their values if wanted.
    pub(crate) async fn keys(&self, prefix: &str, values: bool) -> Result<Keys, RpcError> {
        let mut keys = Keys::default();
        let (mut from, end) = (prefix.as_bytes().to_vec(), after(prefix));
        loop {
            let request = RangeRequest {
                key: from,
                range_end: end.clone(),
                limit: PAGE,
                // All pages of one moment.
                revision: keys.revision,
                keys_only: !values,
            };
            let answer: RangeResponse = self.call(&crate::etcd::grpc::RANGE, &request).await?;
            if keys.revision == 0 {
                keys.revision = answer.header.as_ref().map_or(0, |header| header.revision);
                keys.epoch = answer.header.map_or(0, |h| h.cluster_id).wrapping_add(self.histories.load(Ordering::Relaxed));
            }
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            for kv in answer.kvs {
                if let Some(name) = String::from_utf8(kv.key).ok().and_then(|key| key.strip_prefix(prefix).map(str::to_owned)) {
                    keys.pairs.push((name, kv.value));
                }
            }
            match last.filter(|_| answer.more && keys.pairs.len() < MAX_KEYS) {
                None => return Ok(keys),
                Some(mut last) => {
                    // What follows it.
                    last.push(0);
                    from = last;
                }
            }
        }
    }
}

/// The end of the range of all keys with this prefix.
pub(crate) fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // Of all keys there are.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range() {
        assert_eq!(after("/dubbo/"), b"/dubbo0");
        assert_eq!(after(""), [0]);
    }
}
