//! Whether a server takes calls, and each of its services: kept by [`Readiness`], told by the built-in service
//! `farcall.Health`, and by the HTTP door at `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use farcall_core::{Code, Reply, RpcError, ServiceDescriptor, data};
use tokio::sync::watch;

use crate::stream::Streaming;

/// Whether a service takes calls.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// It does.
    Ready,
    /// It asks not to be called: it is not ready yet, or is going away. Calls that come all the same are answered.
    NotReady,
}

impl Serving {
    fn of(ready: bool) -> Serving {
        if ready { Serving::Ready } else { Serving::NotReady }
    }
}

/// Tells whether a server takes calls.
#[farcall_rpc::service(crate = farcall_rpc, name = "farcall.Health")]
pub trait Health {
    /// Whether a service takes calls; with an empty name, whether all of the server do.
    #[farcall(idempotent)]
    async fn check(&self, service: String) -> Reply<Serving>;
    /// The same for each service by name.
    #[farcall(idempotent)]
    async fn all(&self) -> Reply<Vec<(String, Serving)>>;
    /// What `check` would answer, now and whenever it changes. It ends when the server drains.
    #[farcall(idempotent)]
    async fn watch(&self, service: String) -> Reply<Streaming<Serving>>;
}

/// Says whether a server is ready for calls: from [`Server::readiness`](crate::Server::readiness). Clones are of the same
/// server. A drain makes it not ready, for good.
///
/// It stops nothing: registries, balancers and orchestrators ask, and send callers elsewhere.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Book>>);

#[derive(Debug, Default)]
struct Book {
    services: BTreeMap<String, bool>,
    /// The server as a whole, whatever its services say.
    server: bool,
    draining: bool,
}

impl Book {
    /// `None` if there is no such service.
    fn is_ready(&self, service: &str) -> Option<bool> {
        let server = self.server && !self.draining;
        match service {
            "" => Some(server && self.services.values().all(|ready| *ready)),
            name => self.services.get(name).map(|ready| server && *ready),
        }
    }
}

impl Readiness {
    pub(crate) fn new<'a>(services: impl Iterator<Item = &'a ServiceDescriptor>, ready: bool) -> Readiness {
        let services = services.map(|s| (s.name.clone(), true)).collect();
        Readiness(Arc::new(watch::Sender::new(Book { services, server: ready, draining: false })))
    }

    /// Says whether the server as a whole is ready: `false` while it warms up, or some time before it drains.
    pub fn set(&self, ready: bool) {
        self.0.send_modify(|book| book.server = ready);
    }

    /// Says whether one service is, in all its groups and versions. An error if there is no such service.
    pub fn set_service(&self, service: &str, ready: bool) -> Result<(), RpcError> {
        let mut known = true;
        self.0.send_modify(|book| match book.services.get_mut(service) {
            Some(place) => *place = ready,
            None => known = false,
        });
        if known { Ok(()) } else { Err(no_such(service)) }
    }

    /// Whether a service is ready, or with an empty name the whole server; `None` if there is no such service.
    pub fn is_ready(&self, service: &str) -> Option<bool> {
        self.0.borrow().is_ready(service)
    }

    /// Waits until the server as a whole is; false if it never will be.
    pub(crate) async fn until_ready(&self) -> bool {
        let mut told = self.0.subscribe();
        told.wait_for(|book| book.draining || book.is_ready("") == Some(true)).await.is_ok_and(|book| !book.draining)
    }

    pub(crate) fn drain(&self) {
        self.0.send_modify(|book| book.draining = true);
    }
}

fn no_such(service: &str) -> RpcError {
    RpcError::not_executed(Code::NotFound, format!("there is no service {service:?} here whose health could be told"))
}

/// Answers for a server.
pub(crate) struct Checks(pub(crate) Readiness);

impl Health for Checks {
    async fn check(&self, service: String) -> Reply<Serving> {
        self.0.is_ready(&service).map(Serving::of).ok_or_else(|| no_such(&service))
    }

    async fn all(&self) -> Reply<Vec<(String, Serving)>> {
        let book = self.0.0.borrow();
        let of = |name: &String| (name.clone(), Serving::of(book.is_ready(name) == Some(true)));
        Ok(book.services.keys().map(of).collect())
    }

    async fn watch(&self, service: String) -> Reply<Streaming<Serving>> {
        let mut book = self.0.0.subscribe();
        book.borrow().is_ready(&service).ok_or_else(|| no_such(&service))?;
        Ok(Streaming::produce(|out| async move {
            let mut told = None;
            loop {
                let (ready, over) = {
                    let book = book.borrow_and_update();
                    (book.is_ready(&service) == Some(true), book.draining)
                };
                if told.replace(ready) != Some(ready) {
                    out.send(Serving::of(ready)).await?;
                }
                if over || book.changed().await.is_err() {
                    return Ok(());
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_all_of_it_is() {
        let book = |server, a, draining| Book { services: [("a".to_owned(), a), ("b".to_owned(), true)].into(), server, draining };
        let all = |book: Book| ["", "a", "b", "c"].map(|name| book.is_ready(name));
        assert_eq!(all(book(true, true, false)), [Some(true), Some(true), Some(true), None]);
        assert_eq!(all(book(true, false, false)), [Some(false), Some(false), Some(true), None]);
        assert_eq!(all(book(false, true, false)), [Some(false), Some(false), Some(false), None]);
        assert_eq!(all(book(true, true, true)), [Some(false), Some(false), Some(false), None]);
    }
}
