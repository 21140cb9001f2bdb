//! Whether an instance understands the calls of this program: by its method table, and where that differs, by its schemas.
//!
//! Which differences matter is decided where connections decide it, by `farcall_core::compat`. An instance is asked once for each
//! table that differs, however many instances have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use farcall_core::compat::{Compatibility, Issue};
use farcall_core::{MethodDescriptor, RpcError, ServiceDescriptor};
use farcall_rpc::meta::DescribeClient;
use farcall_rpc::{Connect, StaticResolver};

use crate::entry::{Entry, MethodPrints};

/// How long an instance may take to say what it serves.
const ASKING: Duration = Duration::from_secs(3);
/// How long after a failure to find out another attempt is made.
const AGAIN: Duration = Duration::from_secs(10);
/// The most tables of one service that are remembered; a new one takes the place of all.
pub const MOST_TABLES: usize = 1024;

/// How well an instance fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Its table is ours.
    Same,
    /// It differs and is understood, or nothing is known of it.
    Fits,
    /// Some methods cannot be called, for these reasons.
    Partly(Arc<str>),
    /// No method can be called, for these reasons.
    Not(Arc<str>),
}

impl Fit {
    /// The less, the better.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Fit::Same => 0,
            Fit::Fits => 1,
            Fit::Partly(_) => 2,
            Fit::Not(_) => 3,
        }
    }
}

/// What is known of a table.
#[derive(Debug, Clone)]
enum Known {
    Asking,
    Failed(Instant),
    Judged(Fit),
}

/// How an instance is connected to that is asked: as the client itself would, with its credentials.
pub(crate) type Asking = Box<dyn Fn(StaticResolver) -> Connect<DescribeClient> + Send + Sync>;

/// What is known of all tables of one service.
pub(crate) struct Fits {
    asking: OnceLock<Asking>,
    service: &'static ServiceDescriptor,
    table: Vec<MethodPrints>,
    known: Mutex<HashMap<Vec<MethodPrints>, Known>>,
}

impl Fits {
    pub(crate) fn of(service: &'static ServiceDescriptor) -> Fits {
        Fits { asking: OnceLock::new(), service, table: MethodPrints::table(service), known: Mutex::default() }
    }

    /// Instances are asked over connections like these from now on.
    pub(crate) fn ask_over(&self, asking: Asking) {
        // It is said once, before anybody is asked.
        let _ = self.asking.set(asking);
    }

    /// How well an entry fits, as far as that is known, and whether it will be known better soon.
    pub(crate) fn fit(&self, entry: &Entry) -> (Fit, bool) {
        if entry.methods.is_empty() {
            return (Fit::Fits, false);
        }
        if self.has_ours(&entry.methods) {
            return (Fit::Same, false);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&entry.methods) {
            Some(Known::Judged(fit)) => (fit.clone(), false),
            Some(Known::Failed(_)) => (Fit::Fits, false),
            Some(Known::Asking) | None => (Fit::Fits, true),
        }
    }

    /// Whether each method that we call has the row there that it has here.
    fn has_ours(&self, theirs: &[MethodPrints]) -> bool {
        self.table.iter().all(|ours| theirs.contains(ours))
    }

    /// Whether an entry's table is to be asked for now; if so, the caller asks, and tells with [`judge`](Fits::judge).
    pub(crate) fn is_to_be_asked(&self, entry: &Entry) -> bool {
        if entry.methods.is_empty() || self.has_ours(&entry.methods) {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&entry.methods) {
            Some(Known::Asking | Known::Judged(_)) => return false,
            Some(Known::Failed(at)) if at.elapsed() < AGAIN => return false,
            _ => {}
        }
        if known.len() >= MOST_TABLES {
            known.clear();
        }
        known.insert(entry.methods.clone(), Known::Asking);
        true
    }

    /// Asks an instance what it serves.
    pub(crate) async fn ask(&self, entry: &Entry) {
        let asked = tokio::time::timeout(ASKING, self.schemas(entry)).await;
        let known = match asked {
            Ok(Ok(theirs)) => Known::Judged(self.judge(&theirs)),
            // It may be old, deny to be asked, or be gone: the connection will find out.
            Ok(Err(_)) | Err(_) => Known::Failed(Instant::now()),
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.methods.clone(), known);
    }

    fn judge(&self, theirs: &[MethodDescriptor]) -> Fit {
        let mut reasons = Vec::new();
        let mut refused = 0;
        for ours in &self.service.methods {
            let issues = match theirs.iter().find(|m| m.name == ours.name) {
                Some(theirs) => match Compatibility::of_methods(ours, theirs) {
                    Compatibility::Breaks(issues) => issues,
                    _ => continue,
                },
                None => vec![Issue::Removed],
            };
            refused += 1;
            let issues: Vec<String> = issues.iter().map(ToString::to_string).collect();
            reasons.push(format!("{}: {}", ours.name, issues.join("; ")));
        }
        let why = || reasons.join("; ").into();
        match refused {
            0 => Fit::Fits,
            n if n == self.service.methods.len() => Fit::Not(why()),
            _ => Fit::Partly(why()),
        }
    }

    /// The methods of an instance's service, with their types.
    async fn schemas(&self, entry: &Entry) -> Result<Vec<MethodDescriptor>, RpcError> {
        let resolver = StaticResolver::new(crate::order::addresses(entry));
        let connecting = match self.asking.get() {
            Some(asking) => asking(resolver),
            None => DescribeClient::connect_with(resolver),
        };
        let meta = connecting.await?;
        let key = &entry.service;
        let services = meta.services().deadline(ASKING).await?;
        let schemas = meta.schemas(key.name.clone(), key.group.clone(), key.version.clone()).deadline(ASKING).await?;
        let named = services.iter().find(|s| s.name == key.name && s.group == key.group && s.version == key.version);
        let mut methods = named.map(|info| info.to_descriptor().methods).unwrap_or_default();
        for (method, types) in methods.iter_mut().zip(schemas) {
            (method.args, method.result, method.error) = (types.args, types.result, types.error);
        }
        Ok(methods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_beyond_the_limit_are_forgotten_and_asked_for_again() {
        let fits = Fits::of(<DescribeClient as farcall_rpc::Stub>::descriptor());
        let mut entry = crate::entry::Entry::at(&crate::entry::ServiceKey::of(fits.service), "tcp://10.0.0.1:1");
        let mut table = |n: usize| {
            let args = (n as u128).to_le_bytes();
            entry.methods = vec![MethodPrints { name: "m".into(), args, result: [0; 16], error: [0; 16], bits: 0 }];
            entry.clone()
        };
        for n in 0..MOST_TABLES {
            assert!(fits.is_to_be_asked(&table(n)), "{n}");
            assert!(!fits.is_to_be_asked(&table(n)), "it is being asked");
        }
        assert!(fits.is_to_be_asked(&table(MOST_TABLES)));
        assert_eq!(fits.known.lock().unwrap().len(), 1);
        assert!(fits.is_to_be_asked(&table(0)), "it is forgotten");
    }
}
