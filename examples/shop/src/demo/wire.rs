//! The wires between the desks and the tills, and they are bad ones: each is cut again and again, and each time answers are lost whose
//! payments were made. A till is registered under its wire's near end, so that everybody who finds it by name comes this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::race::{Won, race};

/// Bytes of answers that it carries before it is cut: a few hundred.
const GOOD_FOR: usize = 4000;
/// How long it loses answers before it is cut.
const LOSES_FOR: Duration = Duration::from_millis(10);

/// A TCP proxy that is cut now and then. Dropped, nobody listens at its near end any more.
pub(crate) struct BadWire {
    /// Its near end.
    pub(crate) address: String,
    far: watch::Sender<Option<String>>,
    carrying: AbortHandle,
}

impl BadWire {
    /// A wire whose far end is not known yet: who comes meanwhile waits. It counts its cuts there.
    pub(crate) async fn lay(cuts: Arc<AtomicU64>) -> Result<BadWire, String> {
        let cannot = |e: std::io::Error| format!("a wire cannot be laid: {e}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot)?;
        let near = listener.local_addr().map_err(cannot)?;
        let (far, known) = watch::channel(None);
        let carrying = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry_to(near, known.clone(), Arc::clone(&cuts)));
            }
        });
        Ok(BadWire { address: format!("tcp://{near}"), far, carrying: carrying.abort_handle() })
    }

    /// Leads to a process that listens on this TCP address.
    pub(crate) fn lead_to(&self, address: &str) {
        self.far.send_replace(Some(address.trim_start_matches("tcp://").to_owned()));
    }
}

impl Drop for BadWire {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry_to(near: TcpStream, mut far: watch::Receiver<Option<String>>, cuts: Arc<AtomicU64>) {
    let Ok(Some(address)) = far.wait_for(Option::is_some).await.map(|far| far.clone()) else { return };
    if let Ok(far) = TcpStream::connect(&address).await
        && carry(near, far).await
    {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Carries a connection to its end, or cuts it: true.
async fn carry(near: TcpStream, far: TcpStream) -> bool {
    let ((mut near_in, near_out), (far_in, mut far_out)) = (near.into_split(), far.into_split());
    match race(tokio::io::copy(&mut near_in, &mut far_out), answers(far_in, near_out)).await {
        Won::First(_) => false,
        Won::Second(cut) => cut,
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> bool {
    let (mut bytes, mut left) = ([0; 512], GOOD_FOR);
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let Some(rest) = left.checked_sub(n) else {
            let losing = async { while from.read(&mut bytes).await.is_ok_and(|n| n > 0) {} };
            let _ = tokio::time::timeout(LOSES_FOR, losing).await;
            return true;
        };
        if to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
        left = rest;
    }
    false
}
