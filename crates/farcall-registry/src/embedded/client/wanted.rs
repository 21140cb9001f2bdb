//! What this process wants the nodes to hold, and how far that is so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farcall_core::{Code, RpcError};
use tokio::sync::watch;

use super::agent::{self, Event};
use super::{Handle, PATIENCE, PUBLISH_PATIENCE, Shared, slot};
use crate::embedded::api::Own;
use crate::embedded::packed::Stored;
use crate::entry::{Entry, EntryKey, InstanceId, ServiceKey};
use crate::registry::{BoxFuture, Published, is_refusal};

/// How long an entry that is no longer wanted is remembered, for nodes that are not there just now and for one that publishes it again.
const REMEMBERED: Duration = Duration::from_secs(15);

/// Why a publication is lost that another of this process replaced.
const AGAIN: &str = "this process published the same instance again";

/// An instance has one entry in a service.
pub(super) type Slot = (ServiceKey, InstanceId);

/// See the module's text.
#[derive(Default)]
pub(super) struct Wanted {
    slots: HashMap<Slot, Want>,
    serial: u64,
    /// Of each node that has no session why its last one ended, or was not opened.
    away: BTreeMap<usize, RpcError>,
}

struct Want {
    entry: Arc<Entry>,
    hash: u64,
    /// Which publication it is.
    serial: u64,
    status: watch::Sender<Status>,
    stage: Stage,
}

/// What is to become of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Nodes are to hold it.
    Wanted,
    /// Nobody looks after it any more: its lease is to end. It may be published again until then.
    Orphan(Instant),
    /// It is to go at once.
    Withdrawn(Instant),
}

/// How far an entry is published.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    /// A bit for each node that holds it.
    held: u8,
    /// A bit for each node that refused it.
    refused: u8,
    /// A bit for each node that refused the session.
    shut: u8,
    /// The last refusal, or the last failure to reach a node.
    error: Option<RpcError>,
    /// It was lost, once.
    lost: Option<RpcError>,
}

impl Status {
    fn is_held_by(&self, node: usize) -> bool {
        self.held & bit(node) != 0
    }
}

fn bit(node: usize) -> u8 {
    1 << node
}

impl Wanted {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What a new session at a node would find held there, and is to take over.
    pub(super) fn own(&self) -> Vec<(Slot, Own)> {
        let kept = self.slots.iter().filter(|(_, want)| !matches!(want.stage, Stage::Withdrawn(_)));
        kept.map(|(slot, want)| (slot.clone(), Own { key: want.entry.key(), hash: want.hash })).collect()
    }

    /// Up to `most` entries that a node is to hold and does not.
    pub(super) fn to_register(&self, node: usize, most: usize) -> Vec<(Slot, u64, Arc<Entry>)> {
        let open = |want: &Want| {
            let status = want.status.borrow();
            want.stage == Stage::Wanted && (status.held | status.refused) & bit(node) == 0
        };
        let open = self.slots.iter().filter(|(_, want)| open(want)).take(most);
        open.map(|(slot, want)| (slot.clone(), want.hash, Arc::clone(&want.entry))).collect()
    }

    /// Entries that a node holds and is not to: those whose leases are to end, and those to go at once.
    pub(super) fn to_withdraw(&self, node: usize) -> (Vec<EntryKey>, Vec<EntryKey>) {
        let (mut orphans, mut withdrawn) = (Vec::new(), Vec::new());
        for want in self.slots.values().filter(|want| want.stage != Stage::Wanted && want.status.borrow().is_held_by(node)) {
            match want.stage {
                Stage::Withdrawn(_) => withdrawn.push(want.entry.key()),
                _ => orphans.push(want.entry.key()),
            }
        }
        (orphans, withdrawn)
    }

    /// Wants an entry; if the same is there already, it stays where it is held.
    fn add(&mut self, entry: Arc<Entry>, hash: u64) -> (u64, watch::Receiver<Status>) {
        self.serial += 1;
        let slot = slot(&entry.key());
        let mut status = Status { error: self.away.values().next().cloned(), ..Status::default() };
        if let Some(before) = self.slots.remove(&slot) {
            if before.hash == hash && !matches!(before.stage, Stage::Withdrawn(_)) {
                status.held = before.status.borrow().held;
            }
            before.lose(RpcError::new(Code::Aborted, AGAIN));
        }
        let sender = watch::Sender::new(status);
        let receiver = sender.subscribe();
        self.slots.insert(slot, Want { entry, hash, serial: self.serial, status: sender, stage: Stage::Wanted });
        (self.serial, receiver)
    }

    /// A publication ends; whether it was still the last.
    fn end(&mut self, slot: &Slot, serial: u64, stage: impl FnOnce(Instant) -> Stage) -> bool {
        let Some(want) = self.slots.get_mut(slot).filter(|want| want.serial == serial) else { return false };
        want.stage = stage(Instant::now() + REMEMBERED);
        true
    }

    /// Forgets what is no longer wanted and long enough ago.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.slots.retain(|_, want| match want.stage {
            Stage::Wanted => true,
            Stage::Orphan(until) | Stage::Withdrawn(until) => until > now || want.status.borrow().held != 0,
        });
    }

    /// What a node said of an entry, if it is still the one that it was asked about.
    pub(super) fn answered(&self, node: usize, slot: &Slot, hash: u64, answer: Result<(), RpcError>) {
        let Some(want) = self.slots.get(slot).filter(|want| want.hash == hash) else { return };
        want.status.send_modify(|status| match answer {
            Ok(()) => {
                status.held |= bit(node);
                status.refused &= !bit(node);
            }
            Err(e) => {
                status.held &= !bit(node);
                status.refused |= bit(node);
                status.error = Some(e);
            }
        });
    }

    /// A node no longer holds an entry.
    pub(super) fn dropped(&self, node: usize, slot: &Slot, why: &RpcError, for_good: bool) {
        let Some(want) = self.slots.get(slot) else { return };
        want.status.send_modify(|status| {
            let was_held = status.is_held_by(node);
            status.held &= !bit(node);
            status.error = Some(why.clone());
            if for_good || (was_held && status.held == 0) {
                status.lost.get_or_insert_with(|| why.clone());
            }
        });
    }

    /// A node opened a session.
    pub(super) fn session_open(&mut self, node: usize) {
        self.away.remove(&node);
        for want in self.slots.values() {
            want.status.send_modify(|status| status.shut &= !bit(node));
        }
    }

    /// A node's session ended, or was not opened: another may take what this one refused.
    pub(super) fn session_over(&mut self, node: usize, why: &RpcError) {
        self.away.insert(node, why.clone());
        for (slot, want) in &self.slots {
            self.dropped(node, slot, why, false);
            want.status.send_modify(|status| {
                status.refused &= !bit(node);
                status.shut = if is_refusal(why) { status.shut | bit(node) } else { status.shut & !bit(node) };
            });
        }
    }
}

impl Want {
    fn lose(&self, why: RpcError) {
        self.status.send_modify(|status| {
            status.lost.get_or_insert(why);
        });
    }
}

/// Publishes an entry: done when one node holds it.
pub(super) async fn publish(handle: Arc<Handle>, entry: Arc<Entry>) -> Result<Held, RpcError> {
    let shared = Arc::clone(&handle.0);
    let key = entry.key();
    let hash = Stored::of(&entry)?.hash;
    let (serial, status) = shared.wanted().add(entry, hash);
    // Dropped on the way, it is an orphan.
    let mut held = Held { handle, key, serial, status, withdrawn: false };
    agent::wake_all(&shared);
    let all = (0..shared.nodes.len()).fold(0, |all, node| all | bit(node));
    let settled = held.status.wait_for(|status| status.held != 0 || status.refused | status.shut == all || status.lost.is_some());
    let in_time = tokio::time::timeout(PUBLISH_PATIENCE, settled).await.is_ok_and(|seen| seen.is_ok());
    let status = held.status.borrow().clone();
    match (status.held, in_time) {
        (0, true) => Err(status.lost.or(status.error).unwrap_or_else(|| shared.unreachable(None))),
        (0, false) => Err(shared.unreachable(status.error)),
        _ => Ok(held),
    }
}

/// An entry that nodes hold.
pub(super) struct Held {
    handle: Arc<Handle>,
    key: EntryKey,
    serial: u64,
    status: watch::Receiver<Status>,
    withdrawn: bool,
}

impl Published for Held {
    fn lost(&mut self) -> BoxFuture<'_, RpcError> {
        Box::pin(async move {
            let lost = self.status.wait_for(|status| status.lost.is_some()).await.ok().and_then(|status| status.lost.clone());
            lost.unwrap_or_else(|| RpcError::new(Code::Aborted, AGAIN))
        })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>> {
        Box::pin(async move { check(&self.handle.0, &self.key).await })
    }

    fn withdraw(mut self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(async move {
            self.withdrawn = true;
            let shared = Arc::clone(&self.handle.0);
            // If something later took its place, that is to stay.
            match shared.wanted().end(&slot(&self.key), self.serial, Stage::Withdrawn) {
                true => {}
                false => return Ok(()),
            }
            withdraw(&shared, &self.key).await
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.withdrawn {
            let shared = &self.handle.0;
            shared.wanted().end(&slot(&self.key), self.serial, Stage::Orphan);
            nudge(shared);
        }
    }
}

/// Asks the nodes in turn until one says that it holds it.
async fn check(shared: &Shared, key: &EntryKey) -> Result<bool, RpcError> {
    let (mut answer, mut last) = (None, None);
    for node in &shared.nodes {
        let Some(session) = *super::lock(&node.session) else { continue };
        match node.client().holds(session, vec![key.clone()]).deadline(PATIENCE).await {
            Ok(holds) if holds.first() == Some(&true) => return Ok(true),
            Ok(_) => answer = Some(false),
            // The session: nothing is held in it.
            Err(e) if e.code() == Code::NotFound => answer = Some(false),
            Err(e) => last = Some(e),
        }
    }
    answer.ok_or_else(|| shared.unreachable(last))
}

/// Takes it away at all nodes that have a session; the agents see to those that do not answer, and nodes tell each other.
async fn withdraw(shared: &Shared, key: &EntryKey) -> Result<(), RpcError> {
    let mut calls = Vec::new();
    for (at, node) in shared.nodes.iter().enumerate() {
        if let Some(session) = *super::lock(&node.session) {
            calls.push((at, node.client().withdraw(session, vec![key.clone()], false).deadline(PATIENCE).send()));
        }
    }
    let (mut done, mut last) = (false, None);
    for (at, call) in calls {
        match call.await {
            Ok(_) => {
                done = true;
                let gone = RpcError::new(Code::Aborted, "it was withdrawn");
                shared.wanted().dropped(at, &slot(key), &gone, false);
            }
            Err(e) => last = Some(e),
        }
    }
    nudge(shared);
    match done {
        true => Ok(()),
        false => Err(shared.unreachable(last)),
    }
}

/// Tells all agents that there may be something to do.
pub(super) fn nudge(shared: &Shared) {
    for node in &shared.nodes {
        if let Some(agent) = &*node.agent() {
            // If it is full, it will look anyway.
            let _ = agent.try_send(Event::Wanted);
        }
    }
}
