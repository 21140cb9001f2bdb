//! What the end-to-end tests share: a service with a method of every kind, and its provider.

pub mod certificates;
pub mod drill;
pub mod fuzz;
pub mod servers;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farcall::prelude::*;

/// An order.
#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// What is bought.
    pub lines: Vec<Line>,
    /// A code for a discount.
    pub coupon: Option<String>,
}

/// A line of an order.
#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What.
    pub sku: String,
    /// How many.
    pub qty: u32,
    /// For how much, in cents.
    pub cents: u64,
}

/// What was charged.
#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The order.
    pub order: u64,
    /// The amount in cents.
    pub cents: u64,
}

/// Where an order stands.
#[farcall::data]
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Not seen.
    Unknown,
    /// Charged.
    Paid {
        /// The amount in cents.
        cents: u64,
    },
}

/// Why an order is not charged.
#[farcall::error]
#[derive(Debug, Clone, PartialEq)]
pub enum PayError {
    /// The bank says no.
    Declined {
        /// Its words.
        reason: String,
    },
}

/// Charges orders.
#[farcall::service]
#[farcall(name = "org.example.Payment")]
pub trait Payment {
    /// Charges the order. Runs to its end once started.
    async fn pay(&self, order: Order) -> Reply<Receipt, PayError>;
    /// Where an order stands.
    #[farcall(idempotent)]
    async fn status(&self, #[farcall(tag = 3)] id: u64) -> Reply<Status>;
    /// Leaves a note.
    #[farcall(oneway)]
    async fn note(&self, text: String);
    /// The notes so far.
    #[farcall(idempotent)]
    async fn notes(&self) -> Reply<Vec<String>>;
    /// Sums up, on the blocking pool.
    #[farcall(name = "sumUp")]
    fn sum(&self, orders: Vec<Order>) -> Reply<u64>;
    /// Answers after a while; dropped when its caller goes away.
    #[farcall(idempotent)]
    async fn slow(&self, ms: u64) -> Reply<u64>;
    /// Answers after a while; always runs to its end.
    async fn sure(&self, ms: u64) -> Reply<u64>;
    /// Holds up its connection: it blocks where it should wait.
    async fn hold(&self, ms: u64) -> Reply<()>;
    /// Panics.
    async fn panics(&self, text: String) -> Reply<()>;
    /// Gives the bytes back.
    async fn echo(&self, bytes: Vec<u8>) -> Reply<Vec<u8>>;
    /// What the handler knows of its call: peer's software, metadata `tenant`, milliseconds left, trace.
    async fn seen(&self) -> Reply<(String, String, Option<u64>, Option<String>)>;
}

/// The provider. It counts what really happened.
#[derive(Debug, Default)]
pub struct Till {
    notes: Mutex<Vec<String>>,
    /// Calls of `pay` that ran.
    pub paid: AtomicU64,
    /// Calls of `slow` and `sure` that began.
    pub begun: AtomicU64,
    /// Calls of `slow` and `sure` that came to their end.
    pub ended: AtomicU64,
}

impl Till {
    fn notes_now(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    async fn wait(&self, ms: u64) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.ended.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Lets a test serve a till and look into it.
impl Payment for Till {
    async fn pay(&self, order: Order) -> Reply<Receipt, PayError> {
        self.paid.fetch_add(1, Ordering::SeqCst);
        let cents = order.lines.iter().map(|l| l.cents * l.qty as u64).sum();
        if cents == 0 {
            Err(PayError::Declined { reason: "nothing to pay".into() })?;
        }
        Ok(Receipt { order: order.id, cents })
    }

    async fn status(&self, id: u64) -> Reply<Status> {
        Ok(if id == 7 { Status::Paid { cents: 250 } } else { Status::Unknown })
    }

    async fn note(&self, text: String) {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).push(text);
    }

    async fn notes(&self) -> Reply<Vec<String>> {
        Ok(self.notes_now())
    }

    fn sum(&self, orders: Vec<Order>) -> Reply<u64> {
        Ok(orders.iter().flat_map(|o| &o.lines).map(|l| l.cents * l.qty as u64).sum())
    }

    async fn slow(&self, ms: u64) -> Reply<u64> {
        Ok(self.wait(ms).await)
    }

    async fn sure(&self, ms: u64) -> Reply<u64> {
        Ok(self.wait(ms).await)
    }

    async fn hold(&self, ms: u64) -> Reply<()> {
        std::thread::sleep(Duration::from_millis(ms));
        Ok(())
    }

    async fn panics(&self, text: String) -> Reply<()> {
        panic!("{text}")
    }

    async fn echo(&self, bytes: Vec<u8>) -> Reply<Vec<u8>> {
        Ok(bytes)
    }

    async fn seen(&self) -> Reply<(String, String, Option<u64>, Option<String>)> {
        let cx = farcall::context();
        let software = cx.peer().map_or_else(String::new, |p| p.software.clone());
        let tenant = cx.metadata("tenant").unwrap_or("nobody").to_owned();
        Ok((software, tenant, cx.remaining().map(|d| d.as_millis() as u64), cx.trace().map(|t| t.traceparent())))
    }
}

/// An order of `n` lines.
pub fn order(id: u64, n: u32) -> Order {
    let line = |i: u32| Line { sku: format!("sku-{i}"), qty: i + 1, cents: 100 };
    Order { id, lines: (0..n).map(line).collect(), coupon: None }
}
