//! The service: each call is an event for the state; streams wait at its bells.

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::{Code, Reply, RpcError};
use farcall_rpc::Streaming;
use tokio::sync::{mpsc, watch};

use super::{NOTICES, Node, random};
use crate::embedded::access::Action;
use crate::embedded::api::{Hello, Holdings, Interest, Known, Notice, Outcome, Registrar, RuleVersion};
use crate::embedded::state::outcome;
use crate::entry::{Entry, EntryKey, ServiceKey};
use crate::registry::{Consumer, Rule, ServiceSummary};

/// The most entries in one call.
pub(crate) const BATCH: usize = 256;

/// The provider of the service `farcall.Registry`.
pub(super) struct Front(pub(super) Arc<Node>);

fn small_enough(n: usize) -> Result<(), RpcError> {
    match n > BATCH {
        true => Err(RpcError::not_executed(Code::InvalidArgument, format!("{n} entries in one call: at most {BATCH}"))),
        false => Ok(()),
    }
}

impl Front {
    /// Whether whoever calls may do this.
    fn may(&self, action: Action, namespace: &str, service: &ServiceKey) -> Result<(), RpcError> {
        self.0.access.check(farcall_rpc::context().identity(), action, namespace, service)
    }

    fn is_peer(&self) -> Result<(), RpcError> {
        self.0.access.check_peer(farcall_rpc::context().identity())
    }
}

impl Registrar for Front {
    async fn open(&self, hello: Hello) -> Reply<Streaming<Notice>> {
        hello.own.iter().try_for_each(|own| self.may(Action::Register, &hello.namespace, &own.key.service))?;
        let (owner, host) = (identity(), host());
        let session = random();
        let (sender, notices) = mpsc::channel(NOTICES);
        let opened = self.0.on(|state, now| state.open(now, session, owner, &host, &hello))?;
        let mut lasting = OpenSession { node: Arc::clone(&self.0), session, notices };
        self.0.lock().enter(session, sender)?;
        Ok(Streaming::produce(|out| async move {
            out.send(Notice::Opened(opened)).await?;
            while let Some(notice) = lasting.notices.recv().await {
                out.send(notice).await?;
            }
            Ok(())
        }))
    }

    async fn renew(&self, session: u64) -> Reply<()> {
        self.0.on(|state, now| state.renew(now, session))
    }

    async fn register(&self, session: u64, entries: Vec<Entry>) -> Reply<Vec<Outcome>> {
        small_enough(entries.len())?;
        let caller = farcall_rpc::context();
        self.0.on(|state, now| {
            // Says whether there is such a session, for all of them.
            state.renew(now, session)?;
            let namespace = state.namespace(session)?;
            let register = |entry: &Entry| {
                self.0.access.check(caller.identity(), Action::Register, &namespace, &entry.service)?;
                state.register(now, session, entry)
            };
            Ok(entries.iter().map(register).map(outcome).collect())
        })
    }

    async fn withdraw(&self, session: u64, keys: Vec<EntryKey>, linger: bool) -> Reply<Vec<Outcome>> {
        small_enough(keys.len())?;
        self.0.on(|state, now| {
            state.renew(now, session)?;
            Ok(keys.iter().map(|key| outcome(state.withdraw(now, session, key, linger))).collect())
        })
    }

    async fn holds(&self, session: u64, keys: Vec<EntryKey>) -> Reply<Vec<bool>> {
        small_enough(keys.len())?;
        self.0.on(|state, _| keys.iter().map(|key| state.holds(session, key)).collect())
    }

    async fn list(&self, interest: Interest) -> Reply<Bytes> {
        self.may(Action::Read, &interest.namespace, &interest.service)?;
        self.0.on(|state, _| state.list(&interest))
    }

    async fn subscribe(&self, interest: Interest, consumer: Option<Consumer>) -> Reply<Streaming<Bytes>> {
        self.may(Action::Read, &interest.namespace, &interest.service)?;
        let caller = identity().unwrap_or_else(|| Arc::from(host()));
        let (topic, reader) = self.0.on(|state, _| state.subscribe(&caller, &interest, consumer))?;
        let bell = {
            let mut shared = self.0.lock();
            shared.bell(topic).inspect_err(|_| shared.state.unsubscribe(&caller, topic, reader))?
        };
        let mut reading = Reading { node: Arc::clone(&self.0), caller, topic, reader, bell, at: interest.known, first: true };
        Ok(Streaming::produce(|out| async move {
            while let Some(push) = reading.next().await? {
                out.send(push).await?;
            }
            Ok(())
        }))
    }

    async fn services(&self, namespace: String) -> Reply<Vec<ServiceSummary>> {
        let (caller, access) = (farcall_rpc::context(), &self.0.access);
        let mut services = self.0.on(|state, _| state.services(&namespace));
        services.retain(|s| access.may(caller.identity(), Action::Read, &namespace, &s.service.name));
        Ok(services)
    }

    async fn consumers(&self, namespace: String, service: ServiceKey) -> Reply<Vec<Consumer>> {
        self.may(Action::Read, &namespace, &service)?;
        Ok(self.0.on(|state, _| state.consumers(&namespace, &service)))
    }

    async fn write_rule(&self, namespace: String, rule: Rule) -> Reply<()> {
        self.may(Action::Rules, &namespace, &rule.service)?;
        let who = farcall_rpc::context().identity().map(|caller| caller.name().to_owned()).unwrap_or_default();
        self.0.on(|state, now| state.write_rule(now, &namespace, rule, &who))?;
        self.0.save_rules().await
    }

    async fn rules(&self, namespace: String, service: ServiceKey) -> Reply<(Vec<RuleVersion>, Vec<RuleVersion>)> {
        self.may(Action::Read, &namespace, &service)?;
        Ok(self.0.on(|state, _| state.rules(&namespace, &service)))
    }

    async fn holdings(&self, known: u64, grave: u64) -> Reply<Holdings> {
        self.is_peer()?;
        Ok(self.0.on(|state, now| state.holdings(now, known, grave)))
    }

    async fn held(&self, namespace: String, service: ServiceKey) -> Reply<Bytes> {
        self.is_peer()?;
        self.0.on(|state, _| state.held(&namespace, &service))
    }

    async fn all_rules(&self) -> Reply<Vec<RuleVersion>> {
        self.is_peer()?;
        Ok(self.0.on(|state, _| state.all_rules()))
    }
}

/// A session's stream. It is dropped with its connection, and says so.
struct OpenSession {
    node: Arc<Node>,
    session: u64,
    notices: mpsc::Receiver<Notice>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.node.lock().sessions.remove(&self.session);
        self.node.on(|state, now| state.lost(now, self.session));
    }
}

/// Who calls, if callers are asked.
fn identity() -> Option<Arc<str>> {
    farcall_rpc::context().identity().map(|caller| Arc::from(caller.name()))
}

/// Where a call comes from: who that is where callers are not asked.
fn host() -> String {
    farcall_rpc::context().peer().and_then(|peer| peer.facts.ip).map_or_else(|| "ip:this host".to_owned(), |ip| format!("ip:{ip}"))
}

/// A reader's place in a topic.
struct Reading {
    node: Arc<Node>,
    caller: Arc<str>,
    topic: u64,
    reader: u64,
    bell: watch::Receiver<()>,
    at: Option<Known>,
    first: bool,
}

impl Reading {
    /// The next push; nothing once the node stops.
    async fn next(&mut self) -> Result<Option<Bytes>, RpcError> {
        loop {
            // Before looking: what comes after the look rings again.
            self.bell.borrow_and_update();
            let read = self.node.on(|state, _| state.read(self.topic, self.at, self.first))?;
            if let Some((push, at)) = read {
                (self.at, self.first) = (Some(at), false);
                return Ok(Some(push));
            }
            if self.bell.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut shared = self.node.lock();
        shared.state.unsubscribe(&self.caller, self.topic, self.reader);
        if shared.bells.get(&self.topic).is_some_and(|bell| bell.receiver_count() <= 1) {
            shared.bells.remove(&self.topic);
        }
    }
}
