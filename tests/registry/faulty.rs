//! A registry that can be told to fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use farcall::registry::{
    BoxFuture, Completeness, Consumer, Entry, EntryKey, Gone, Listing, Memory, Published, Registry, Rule, ServiceKey, ServiceSummary,
    Update, Updates,
};
use farcall::{Code, RpcError};
use tokio::sync::{mpsc, watch};

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing can be asked, and what was subscribed to has ended.
    Down,
    /// Nothing is answered.
    Hang,
    /// Nothing is answered before it is told to fail otherwise, or not at all.
    Wait,
    /// Refuses by name.
    Refuse,
    /// It has lost all and says that this is all there is.
    Wiped,
}

/// See the module's text. Clones are the same.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Memory,
    fault: watch::Sender<u8>,
    publishes: Arc<AtomicU64>,
    /// Told to all subscribers beside what the registry says.
    forged: Arc<Mutex<Vec<mpsc::UnboundedSender<Update>>>>,
}

impl Faulty {
    pub(crate) fn new() -> Faulty {
        Faulty { inner: Memory::new(), fault: watch::Sender::new(0), publishes: Arc::default(), forged: Arc::default() }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault as u8);
    }

    /// As the guard and its users are given it.
    pub(crate) fn open(&self) -> Arc<dyn Registry> {
        Arc::new(self.clone())
    }

    /// Tells all subscribers.
    pub(crate) fn forge(&self, update: Update) {
        self.forged.lock().unwrap().retain(|to| to.send(update.clone()).is_ok());
    }

    /// The entries of a service.
    pub(crate) async fn entries(&self, service: &ServiceKey) -> Vec<Arc<Entry>> {
        self.inner.list(service).await.unwrap().entries
    }

    /// An operator takes an entry away although its provider lives.
    pub(crate) fn withdraw(&self, key: EntryKey) {
        self.forge(Update::Gone(key, Gone::Withdrawn));
    }

    /// Attempts to publish, so far.
    pub(crate) fn publishes(&self) -> u64 {
        self.publishes.load(Ordering::Relaxed)
    }

    fn is(&self, fault: Fault) -> bool {
        *self.fault.borrow() == fault as u8
    }

    async fn pass(&self) -> Result<(), RpcError> {
        if self.is(Fault::Wait) {
            let _ = self.fault.subscribe().wait_for(|fault| *fault != Fault::Wait as u8).await;
        }
        if self.is(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        if self.is(Fault::Down) {
            return Err(RpcError::not_sent(Code::Unavailable, "the registry is down"));
        }
        if self.is(Fault::Refuse) {
            return Err(RpcError::not_executed(Code::PermissionDenied, "you may not use this registry"));
        }
        Ok(())
    }

    fn wiped() -> Listing {
        let (entries, suspect, rules) = Default::default();
        Listing { entries, suspect, rules, completeness: Completeness::Complete, revision: 0, epoch: 7 }
    }
}

impl Registry for Faulty {
    fn describe(&self) -> String {
        "faulty".into()
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        Box::pin(async move {
            self.publishes.fetch_add(1, Ordering::Relaxed);
            self.pass().await?;
            let inner = self.inner.publish(entry).await?;
            Ok(Box::new(Held { inner, registry: self.clone() }) as Box<dyn Published>)
        })
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = service.clone();
        Box::pin(async move {
            self.pass().await?;
            if self.is(Fault::Wiped) { Ok(Faulty::wiped()) } else { self.inner.list(&service).await }
        })
    }

    fn subscribe(&self, service: &ServiceKey, consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let service = service.clone();
        Box::pin(async move {
            self.pass().await?;
            let (tell, forged) = mpsc::unbounded_channel();
            if self.is(Fault::Wiped) {
                tell.send(Update::All(Faulty::wiped())).unwrap();
            }
            self.forged.lock().unwrap().push(tell);
            let fault = self.fault.subscribe();
            let inner = if self.is(Fault::Wiped) { None } else { Some(self.inner.subscribe(&service, consumer).await?) };
            Ok(Box::new(Told { inner, forged, fault, hangs: self.fault.clone() }) as Box<dyn Updates>)
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        self.inner.services()
    }

    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        self.inner.consumers(service)
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        self.inner.write_rule(rule)
    }
}

struct Held {
    inner: Box<dyn Published>,
    registry: Faulty,
}

impl Published for Held {
    fn lost(&mut self) -> BoxFuture<'_, RpcError> {
        Box::pin(async {
            let _ = self.registry.fault.subscribe().wait_for(|fault| *fault == Fault::Down as u8).await;
            RpcError::not_sent(Code::Unavailable, "the registry went down")
        })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>> {
        Box::pin(async {
            self.registry.pass().await?;
            Ok(!self.registry.is(Fault::Wiped) && self.inner.check().await?)
        })
    }

    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(async move {
            self.registry.pass().await?;
            self.inner.withdraw().await
        })
    }
}

struct Told {
    inner: Option<Box<dyn Updates>>,
    forged: mpsc::UnboundedReceiver<Update>,
    fault: watch::Receiver<u8>,
    hangs: watch::Sender<u8>,
}

impl Updates for Told {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(async {
            let inner = async {
                match &mut self.inner {
                    Some(inner) => inner.next().await,
                    None => std::future::pending().await,
                }
            };
            let down = async {
                let _ = self.fault.wait_for(|fault| *fault == Fault::Down as u8).await;
            };
            let (mut inner, mut down, forged) = (std::pin::pin!(inner), std::pin::pin!(down), &mut self.forged);
            let update = std::future::poll_fn(|cx| {
                if down.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(RpcError::not_sent(Code::Unavailable, "the registry went down")));
                }
                if let Poll::Ready(Some(update)) = forged.poll_recv(cx) {
                    return Poll::Ready(Ok(update));
                }
                inner.as_mut().poll(cx)
            })
            .await;
            let mut hangs = self.hangs.subscribe();
            let after = hangs.wait_for(|fault| *fault != Fault::Hang as u8).await.map(|fault| *fault);
            match after {
                // What it was about to tell when it hung is never told.
                Ok(after) if after == Fault::Down as u8 => Err(RpcError::not_sent(Code::Unavailable, "the registry went down")),
                _ => update,
            }
        })
    }
}
