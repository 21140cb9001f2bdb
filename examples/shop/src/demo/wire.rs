//! The wire between the desk and the till, and it is a bad one: it is cut again and again, and each
//! time answers are lost whose payments were made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::race::{Won, race};

/// Bytes of answers that it carries before it is cut: a few hundred.
const GOOD_FOR: usize = 4000;
/// How long it loses answers before it is cut.
const LOSES_FOR: Duration = Duration::from_millis(10);

/// A TCP proxy that is cut now and then, for as long as the launcher's runtime lives.
pub(crate) struct BadWire {
    /// Its near end.
    pub(crate) address: String,
    cuts: Arc<AtomicU64>,
}

impl BadWire {
    /// A wire to a process that listens on this TCP address.
    pub(crate) async fn to(address: &str) -> Result<BadWire, String> {
        let cannot = |e: std::io::Error| format!("the wire to {address} cannot be laid: {e}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot)?;
        let near = listener.local_addr().map_err(cannot)?;
        let far = address.trim_start_matches("tcp://").to_owned();
        let wire = BadWire { address: format!("tcp://{near}"), cuts: Arc::default() };
        let cuts = Arc::clone(&wire.cuts);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // One connection at a time: the desk has no more.
                if let Ok(far) = TcpStream::connect(&far).await
                    && carry(near, far).await
                {
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(wire)
    }

    /// How often it was cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
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
