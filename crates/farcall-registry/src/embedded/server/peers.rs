//! Asks the other nodes what they hold, a few times per lease, and copies what only they heard of.

use std::sync::{Arc, Weak};
use std::time::Duration;

use farcall_core::{RpcError, compact, frame_bytes};

use super::Node;
use crate::embedded::api::{Held, RegistrarClient};
use crate::embedded::packed::unreadable;

/// For one call to another node.
const PATIENCE: Duration = Duration::from_secs(2);

/// As long as this node is there.
pub(super) async fn follow(node: Weak<Node>, peer: usize, client: RegistrarClient) {
    loop {
        let Some(here) = node.upgrade() else { return };
        let pause = here.limits.lease / 3;
        let copied = copy(&here, peer, &client).await;
        here.heard_of_peer(peer, copied);
        drop(here);
        tokio::time::sleep(pause).await;
    }
}

async fn copy(node: &Arc<Node>, peer: usize, client: &RegistrarClient) -> Result<(), RpcError> {
    let (known, grave) = node.on(|state, _| state.peer_known(peer));
    let said = client.holdings(known, grave).deadline(PATIENCE).await?;
    let (ask, other_rules) = node.on(|state, now| state.peer_said(now, peer, &said));
    for of in ask {
        let bytes = client.held(of.namespace.clone(), of.service.clone()).deadline(PATIENCE).await?;
        let held: Held = frame_bytes::with_frame(&bytes, || compact::decode(&bytes)).map_err(|e| unreadable("what a node holds", e))?;
        node.on(|state, now| state.peer_holds(now, peer, &of, held, said.complete))?;
    }
    node.on(|state, _| state.peer_copied(peer, &said));
    if other_rules {
        let rules = client.all_rules().deadline(PATIENCE).await?;
        node.on(|state, now| rules.into_iter().try_for_each(|version| state.merge_rule(now, version)))?;
        node.save_rules().await?;
    }
    Ok(())
}
