//! farcall's own protocol on a server's port: the first of its [`Protocol`]s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use farcall_core::{Limits, RpcError};
use farcall_transport::Io;
use farcall_wire::{OutBuf, Preface, control};
use tokio::sync::watch;

use crate::connection::{Driver, Greeting, Inner, Services, establish};
use crate::context::Peer;
use crate::dispatch::{Dispatch, Shared};
use crate::health::Readiness;
use crate::method::BoxFuture;
use crate::protocol::{Protocol, Sniff};
use crate::server::{Place, Stop, unless_stopped};

/// Serves farcall links, and remembers them so that they can be told to end. Clones share all.
#[derive(Clone)]
pub(crate) struct Farcall(Arc<Links>);

/// What it is called in a TLS handshake.
pub(crate) const ALPN: &[&str] = &["farcall/1"];

struct Links {
    shared: Arc<Shared>,
    connections: Mutex<HashMap<usize, Arc<Inner>>>,
}

impl Farcall {
    pub(crate) fn new(services: Arc<Services>, limits: Limits, readiness: Readiness, stop: watch::Receiver<Stop>) -> Farcall {
        let shared = Arc::new(Shared { services, limits, running: Arc::default(), readiness, stop });
        Farcall(Arc::new(Links { shared, connections: Mutex::default() }))
    }

    /// What protocols are given for a link of theirs.
    pub(crate) fn dispatch(&self, link: &Io, protocol: &str, place: Place) -> Dispatch {
        let facts = link.facts();
        let peer = Peer { address: facts.address.clone(), software: protocol.to_owned(), facts, ..Peer::default() };
        Dispatch::new(Arc::clone(&self.0.shared), peer, place)
    }

    /// Tells the observers that a link was refused.
    pub(crate) fn refused(&self, address: &str, error: &RpcError) {
        self.0.shared.services.observers.iter().for_each(|o| o.refused(address, error));
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, Arc<Inner>>> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open now.
    pub(crate) fn count(&self) -> usize {
        self.connections().len()
    }

    /// Handlers that have not ended, those whose connection is gone included.
    pub(crate) fn handlers(&self) -> usize {
        self.0.shared.running.handlers()
    }

    /// Lets every connection end gracefully.
    pub(crate) fn drain(&self) {
        self.connections().values().for_each(|c| c.drain());
    }

    /// Ends every connection now.
    pub(crate) fn abort(&self) {
        self.connections().values().for_each(|c| c.abort());
    }

    /// Until no handler runs, those whose connection is gone included.
    pub(crate) async fn no_handlers(&self) {
        self.0.shared.running.none().await;
    }

    async fn run(self, link: Io, first: BytesMut, dispatch: Dispatch) {
        let Shared { services, limits, running, stop, .. } = &*self.0.shared;
        let address = dispatch.peer().address.clone();
        // A peer that says nothing must not hold up a drain.
        // Boxed, so that the connection's task does not keep room for it.
        let greeting = Greeting { admission: Some(&services.admission), keys: services.keys.as_deref(), ..Greeting::default() };
        let establishing = Box::pin(establish(link, first, limits, &address, greeting));
        let handshake = match unless_stopped(&mut stop.clone(), Stop::Drain, establishing).await {
            Some(Ok(handshake)) => handshake,
            Some(Err(e)) => return self.refused(&address, &e),
            None => return,
        };
        // Its calls go another way; with it goes the place among those that are half open.
        drop(dispatch);
        let (connection, driver) = Driver::new(handshake, Arc::clone(services), Arc::clone(running), address);
        let key = Arc::as_ptr(&connection.inner).addr();
        self.connections().insert(key, Arc::clone(&connection.inner));
        let _listed = Listed(&self, key);
        // A drain that began meanwhile has not seen this connection.
        if *stop.borrow() >= Stop::Drain {
            connection.inner.drain();
        }
        driver.run().await;
    }
}

/// Takes a connection off the list, however its task ends.
struct Listed<'a>(&'a Farcall, usize);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.connections().remove(&self.1);
    }
}

impl Protocol for Farcall {
    fn name(&self) -> &'static str {
        "farcall 1"
    }

    fn alpn(&self) -> &'static [&'static str] {
        ALPN
    }

    /// A preface and a GoAway that says why.
    fn refusal(&self, _: &[u8], error: &RpcError) -> Vec<u8> {
        let mut out = OutBuf::default();
        control::turn_away(error, &mut out);
        out.contiguous().unwrap_or_default().to_vec()
    }

    fn sniff(&self, first: &[u8]) -> Sniff {
        match Preface::parse(first) {
            // Another version is told so in farcall's own words.
            Preface::Farcall(_) => Sniff::Yes,
            Preface::Partial => Sniff::More,
            Preface::Foreign => Sniff::No,
        }
    }

    fn serve(&self, link: Io, first: BytesMut, dispatch: Dispatch) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().run(link, first, dispatch))
    }
}
