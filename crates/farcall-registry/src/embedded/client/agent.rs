//! One node's agent: keeps a session there, and brings the node to hold what is wanted.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use farcall_core::{Code, RpcError};
use farcall_rpc::Streaming;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::wanted::{Slot, nudge};
use super::{Node, PATIENCE, Shared, slot};
use crate::embedded::api::{Hello, Notice, Opened, Outcome, RegistrarClient};
use crate::embedded::server::{BATCH, random};
use crate::entry::{Entry, EntryKey};

/// The longest first pause before a lost session is opened again; it doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// Events that wait for an agent.
const EVENTS: usize = 64;

/// What an agent is told.
pub(super) enum Event {
    /// What is wanted has changed.
    Wanted,
    /// By the node.
    Notice(Notice),
    /// The session's stream ended.
    Ended(RpcError),
}

/// Starts the agents that do not run, and tells the others to look.
pub(super) fn wake_all(shared: &Arc<Shared>) {
    for (at, node) in shared.nodes.iter().enumerate() {
        let mut agent = node.agent();
        // Its runtime may have gone, and it with it.
        if agent.as_ref().is_none_or(mpsc::Sender::is_closed) {
            let (sender, events) = mpsc::channel(EVENTS);
            *agent = Some(sender.clone());
            tokio::spawn(run(Arc::downgrade(shared), at, sender.downgrade(), events));
        }
    }
    nudge(shared);
}

type Events = mpsc::Receiver<Event>;

/// Until the backend is gone: its end closes the channel of events.
async fn run(shared: Weak<Shared>, at: usize, own: mpsc::WeakSender<Event>, mut events: Events) {
    let mut failures = 0;
    loop {
        let Some(here) = shared.upgrade() else { return };
        let nothing = {
            let mut wanted = here.wanted();
            wanted.sweep(Instant::now());
            wanted.is_empty()
        };
        if nothing {
            drop(here);
            if events.recv().await.is_none() {
                return;
            }
            continue;
        }
        let Some(sender) = own.upgrade() else { return };
        let mut agent = Agent { node: &here.nodes[at], at, shared: &here, session: 0, own: sender.downgrade(), failed: false };
        drop(sender);
        let begun = Instant::now();
        let ended = agent.session(&mut events).await;
        let (why, window) = match ended {
            End::Closed => return,
            End::Lost(why) => {
                failures = if begun.elapsed() > LONGEST { 0 } else { failures + 1 };
                (why, window(failures))
            }
            End::Leaving(spread) => (RpcError::new(Code::Unavailable, "the registry node stops"), spread.max(SHORTEST)),
        };
        *super::lock(&here.nodes[at].session) = None;
        here.wanted().session_over(at, &why);
        drop(here);
        if !pause(share(window), &mut events).await {
            return;
        }
    }
}

/// Waits; false if the backend is gone meanwhile. What it is told in a pause it will see after it.
async fn pause(time: Duration, events: &mut Events) -> bool {
    let until = tokio::time::Instant::now() + time;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Ok(None) => return false,
            Ok(Some(_)) => {}
            Err(_) => return true,
        }
    }
}

/// The longest pause after so many failures.
pub(super) fn window(failures: u32) -> Duration {
    SHORTEST.saturating_mul(1 << failures.min(10)).min(LONGEST)
}

/// Full jitter: a random share of a window.
pub(super) fn share(window: Duration) -> Duration {
    window.mul_f64((random() >> 11) as f64 / (1u64 << 53) as f64)
}

/// How a session ended.
enum End {
    Lost(RpcError),
    /// The node asked for it.
    Leaving(Duration),
    /// The backend is gone.
    Closed,
}

impl From<RpcError> for End {
    fn from(e: RpcError) -> End {
        End::Lost(e)
    }
}

/// A session at a node.
struct Agent<'a> {
    shared: &'a Shared,
    node: &'a Node,
    at: usize,
    session: u64,
    own: mpsc::WeakSender<Event>,
    failed: bool,
}

impl Agent<'_> {
    async fn session(&mut self, events: &mut Events) -> End {
        match self.serve(events).await {
            Ok(end) => end,
            Err(end) => {
                if self.failed {
                    // It did not answer in time; another connection may.
                    self.node.renew_connection();
                }
                end
            }
        }
    }

    async fn serve(&mut self, events: &mut Events) -> Result<End, End> {
        let client = self.node.client();
        let (opened, notices) = self.open(&client).await?;
        let _forwarding = self.forward(notices)?;
        self.session = opened.session;
        *super::lock(&self.node.session) = Some(opened.session);
        if opened.spread_ms > 0 && !pause(share(millis(opened.spread_ms)), events).await {
            return Ok(End::Closed);
        }
        self.reconcile(&client).await?;
        let every = millis(opened.renew_ms.max(10));
        let mut renew_at = tokio::time::Instant::now() + every;
        loop {
            match tokio::time::timeout_at(renew_at, events.recv()).await {
                Ok(None) => return Ok(End::Closed),
                Ok(Some(Event::Wanted)) => self.reconcile(&client).await?,
                Ok(Some(Event::Notice(notice))) => {
                    if let Some(end) = self.noticed(notice) {
                        return Ok(end);
                    }
                    self.reconcile(&client).await?;
                }
                Ok(Some(Event::Ended(e))) => return Err(End::Lost(e)),
                Err(_) => {
                    self.shared.wanted().sweep(Instant::now());
                    self.reconcile(&client).await?;
                    let renewed = client.renew(self.session).deadline(every.max(PATIENCE)).await;
                    self.answer(renewed)?;
                    renew_at = tokio::time::Instant::now() + every;
                }
            }
        }
    }

    /// Opens the session; what the node has of ours already it holds from then on.
    async fn open(&mut self, client: &RegistrarClient) -> Result<(Opened, Streaming<Notice>), End> {
        let own = self.shared.wanted().own();
        let hello = Hello {
            namespace: self.shared.namespace.clone(),
            who: self.shared.who.clone(),
            own: own.iter().map(|(_, own)| own.clone()).collect(),
        };
        let opened = client.open(hello).deadline(PATIENCE).await;
        let mut notices = self.answer(opened)?;
        let first = tokio::time::timeout(PATIENCE, notices.next()).await;
        let silent = || RpcError::new(Code::DeadlineExceeded, "the registry node does not open a session");
        let opened = match self.answer(first.unwrap_or_else(|_| Some(Err(silent()))).unwrap_or_else(|| Err(silent())))? {
            Notice::Opened(opened) => opened,
            other => return Err(RpcError::new(Code::DataLoss, format!("a registry node's session begins with {other:?}")).into()),
        };
        let mut wanted = self.shared.wanted();
        wanted.session_open(self.at);
        let mut missing = opened.missing.iter().peekable();
        for (place, (slot, own)) in own.iter().enumerate() {
            match missing.peek() {
                Some(next) if **next as usize == place => drop(missing.next()),
                _ => wanted.answered(self.at, slot, own.hash, Ok(())),
            }
        }
        drop(wanted);
        Ok((opened, notices))
    }

    /// Notes what a failed call says of the connection.
    fn answer<T>(&mut self, answer: Result<T, RpcError>) -> Result<T, End> {
        answer.map_err(|e| {
            self.failed |= e.code() == Code::DeadlineExceeded;
            End::Lost(e)
        })
    }

    /// The session's stream goes into the events, as long as what it gives lives.
    fn forward(&self, mut notices: Streaming<Notice>) -> Result<Forwarding, End> {
        let sender = self.own.upgrade().ok_or(End::Closed)?.downgrade();
        Ok(Forwarding(tokio::spawn(async move {
            let ended = loop {
                match notices.next().await {
                    Some(Ok(notice)) => {
                        let Some(sender) = sender.upgrade() else { return };
                        if sender.send(Event::Notice(notice)).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(e)) => break e,
                    None => break RpcError::new(Code::Unavailable, "the registry node ended the session"),
                }
            };
            if let Some(sender) = sender.upgrade() {
                let _ = sender.send(Event::Ended(ended)).await;
            }
        })))
    }

    fn noticed(&self, notice: Notice) -> Option<End> {
        match notice {
            Notice::Opened(_) => None,
            Notice::Leaving { spread_ms } => Some(End::Leaving(millis(spread_ms))),
            Notice::Lost { key, taken } => {
                let why = match taken {
                    true => "another session registered the same instance and service at the registry",
                    false => "the registry node let the entry go",
                };
                self.shared.wanted().dropped(self.at, &slot(&key), &RpcError::new(Code::Aborted, why), taken);
                None
            }
        }
    }

    /// Registers what is wanted and not held here, and takes away what is held and not wanted.
    async fn reconcile(&mut self, client: &RegistrarClient) -> Result<(), End> {
        loop {
            let batch = self.shared.wanted().to_register(self.at, BATCH);
            if batch.is_empty() {
                break;
            }
            let entries = batch.iter().map(|(_, _, entry)| Entry::clone(entry)).collect();
            let called = client.register(self.session, entries).deadline(PATIENCE).await;
            let outcomes = self.answer(called)?;
            self.note(batch, outcomes);
        }
        let (orphans, withdrawn) = self.shared.wanted().to_withdraw(self.at);
        self.withdraw(client, orphans, true).await?;
        self.withdraw(client, withdrawn, false).await
    }

    fn note(&self, batch: Vec<(Slot, u64, Arc<Entry>)>, outcomes: Vec<Outcome>) {
        let wanted = self.shared.wanted();
        // Fewer outcomes than entries: the rest is refused, or this would go on for ever.
        let unsaid = || Outcome::Refused { code: Code::Internal as u8, why: "the registry node did not say".into() };
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(unsaid));
        for ((slot, hash, _), outcome) in batch.into_iter().zip(outcomes) {
            let answer = match outcome {
                Outcome::Done => Ok(()),
                Outcome::Refused { code, why } => Err(RpcError::not_executed(Code::from_u8(code), why)),
            };
            wanted.answered(self.at, &slot, hash, answer);
        }
    }

    async fn withdraw(&mut self, client: &RegistrarClient, keys: Vec<EntryKey>, linger: bool) -> Result<(), End> {
        for batch in keys.chunks(BATCH) {
            let called = client.withdraw(self.session, batch.to_vec(), linger).deadline(PATIENCE).await;
            self.answer(called)?;
            let (wanted, gone) = (self.shared.wanted(), RpcError::new(Code::Aborted, "it is no longer wanted"));
            batch.iter().for_each(|key| wanted.dropped(self.at, &slot(key), &gone, false));
        }
        Ok(())
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// Ends with what it was made for.
struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}
