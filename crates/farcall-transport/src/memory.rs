//! Links inside one process, by name.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes a memory link holds each way before its writer waits.
const PIPE: usize = 64 << 10;
/// Links that wait to be accepted before a connect fails.
const BACKLOG: usize = 1024;

type Listeners = HashMap<String, mpsc::Sender<DuplexStream>>;

fn listeners() -> MutexGuard<'static, Listeners> {
    static ALL: OnceLock<Mutex<Listeners>> = OnceLock::new();
    ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct MemoryListener {
    name: String,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl MemoryListener {
    pub(crate) fn bind(name: &str) -> Result<MemoryListener> {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let mut all = listeners();
        if all.get(name).is_some_and(|s| !s.is_closed()) {
            return Err(ErrorKind::AddrInUse.into());
        }
        all.insert(name.to_owned(), sender);
        Ok(MemoryListener { name: name.to_owned(), incoming })
    }

    pub(crate) async fn accept(&mut self) -> Result<DuplexStream> {
        self.incoming.recv().await.ok_or_else(|| Error::other("the listener is closed"))
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.incoming.close();
        let mut all = listeners();
        if all.get(&self.name).is_some_and(|s| s.is_closed()) {
            all.remove(&self.name);
        }
    }
}

pub(crate) fn connect(name: &str) -> Result<DuplexStream> {
    let Some(listener) = listeners().get(name).cloned() else {
        return Err(ErrorKind::ConnectionRefused.into());
    };
    let (ours, theirs) = tokio::io::duplex(PIPE);
    match listener.try_send(theirs) {
        Ok(()) => Ok(ours),
        Err(mpsc::error::TrySendError::Full(_)) => Err(Error::other("too many links wait to be accepted")),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(ErrorKind::ConnectionRefused.into()),
    }
}
