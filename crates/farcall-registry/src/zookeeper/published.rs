//! A node that stands for an instance, and its loss.

use std::sync::Arc;

use farcall_core::{Code, RpcError};
use tokio::sync::watch;

use crate::dubbo::view;
use crate::entry::Entry;
use crate::registry::{BoxFuture, Published};
use crate::zookeeper::Inner;
use crate::zookeeper::client::{State, Watching, refused};
use crate::zookeeper::jute::Refusal;
use crate::zookeeper::nodes::Life;

/// What a node holds while its provider takes it away: so that consumers know that it did not just break.
pub(crate) const WITHDRAWN: &[u8] = b"withdrawn";

pub(super) struct ZkPublished {
    inner: Arc<Inner>,
    path: String,
    /// The one that the node goes with.
    session: i64,
    state: watch::Receiver<State>,
    watching: Watching,
    /// Connection on which the server was asked to tell us of the node.
    asked: Option<u64>,
}

/// Makes the node of an entry, in place of what an earlier session or start has left.
pub(super) async fn publish(inner: Arc<Inner>, entry: &Entry, node: &str) -> Result<ZkPublished, RpcError> {
    let directory = inner.layout.providers(&entry.service.name);
    let path = format!("{directory}/{node}");
    let old = view::earlier(inner.nodes().children(&directory, false).await?.names, entry, node)?;
    let session = make_ephemeral(&inner, &path).await?;
    for name in old {
        inner.nodes().delete(&format!("{directory}/{name}")).await?;
    }
    let watching = inner.client.watching(&path).await?;
    let state = inner.client.state();
    Ok(ZkPublished { inner, path, session, state, watching, asked: None })
}

/// Makes an ephemeral node of our session. A node of that name that goes with a dead session would vanish under us with it: it is
/// taken away first.
pub(super) async fn make_ephemeral(inner: &Inner, path: &str) -> Result<i64, RpcError> {
    for _ in 0..3 {
        match inner.nodes().create(path, b"", Life::Ephemeral).await? {
            Ok(session) => return Ok(session),
            Err(Refusal::NodeExists) => {}
            Err(refusal) => return Err(refused(path, refusal)),
        }
        let session = inner.client.state().borrow().session;
        match inner.nodes().exists(path, false).await? {
            Some(stat) if stat.owner == session && session != 0 => return Ok(session),
            Some(_) => drop(inner.nodes().delete(path).await?),
            None => {}
        }
    }
    Err(RpcError::new(Code::Unavailable, format!("ZooKeeper: {path}: somebody else makes the same node again and again")))
}

impl ZkPublished {
    /// Whether the node is there and ours; the server tells us of its next change.
    async fn is_ours(&self, watch: bool) -> Result<bool, RpcError> {
        let stat = self.inner.nodes().exists(&self.path, watch).await?;
        Ok(stat.is_some_and(|stat| stat.owner == self.session))
    }

    async fn wait_for_loss(&mut self) -> RpcError {
        let lost = |why: &str| RpcError::new(Code::Unavailable, format!("{}: the entry is lost: {why}", self.inner.name));
        loop {
            let state = *self.state.borrow_and_update();
            if state.session != self.session {
                return lost("the session ended");
            }
            if state.connected && self.asked != Some(state.connection) {
                match self.is_ours(true).await {
                    Ok(true) => self.asked = Some(state.connection),
                    Ok(false) => return lost("its node is gone, or another's"),
                    // Broken again, or the server does not let us look: then we do not know.
                    Err(e) if e.code() == Code::Unavailable => {}
                    Err(e) => return e,
                }
            }
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() {
                    return lost("the client's runtime is gone");
                },
                event = self.watching.events.recv() => match event {
                    Some(_) => self.asked = None,
                    None => return lost("its events were missed"),
                },
            }
        }
    }

    async fn take_away(self) -> Result<(), RpcError> {
        if !self.is_ours(false).await? {
            return Ok(());
        }
        self.inner.nodes().set(&self.path, WITHDRAWN).await?;
        self.inner.nodes().delete(&self.path).await.map(drop)
    }
}

impl Published for ZkPublished {
    fn lost(&mut self) -> BoxFuture<'_, RpcError> {
        Box::pin(self.wait_for_loss())
    }

    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>> {
        Box::pin(self.is_ours(false))
    }

    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(self.take_away())
    }
}
