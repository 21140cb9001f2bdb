//! Calls on rows on which the two sides differ: they wait until each can read the other, and then run in their order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use farcall_core::{Reading, RpcError};
use farcall_wire::{Difference, Frame, Kind, NEVER, Request, Settled, Verdict, Violation};

use super::calls::{Arrived, too_late};
use super::driver::{Driver, Found};

/// A place among the calls of a row.
type Place = (u16, u64);

/// Calls that wait, by their rows.
#[derive(Default)]
pub(super) struct WaitingRows {
    calls: BTreeMap<Place, Arrived>,
    /// Calls that can be cancelled.
    by_id: HashMap<u32, Place>,
    /// Deadlines of those that have one.
    expiries: BTreeMap<(u64, Place), ()>,
    next: u64,
}

impl WaitingRows {
    fn insert(&mut self, arrived: Arrived) {
        let place = (arrived.request.row, self.next);
        self.next += 1;
        if !arrived.request.oneway {
            self.by_id.insert(arrived.request.id, place);
        }
        if let Some(at) = expires(&arrived.request) {
            self.expiries.insert((at, place), ());
        }
        self.calls.insert(place, arrived);
    }

    fn remove(&mut self, place: Place) -> Option<Arrived> {
        let arrived = self.calls.remove(&place)?;
        if !arrived.request.oneway {
            self.by_id.remove(&arrived.request.id);
        }
        if let Some(at) = expires(&arrived.request) {
            self.expiries.remove(&(at, place));
        }
        Some(arrived)
    }

    /// The first call of a row.
    fn take_first(&mut self, row: u16) -> Option<Arrived> {
        let (&place, _) = self.calls.range((row, 0)..=(row, u64::MAX)).next()?;
        self.remove(place)
    }

    /// The call of this number.
    pub(super) fn take(&mut self, id: u32) -> Option<Arrived> {
        let place = *self.by_id.get(&id)?;
        self.remove(place)
    }

    fn take_expired(&mut self, now: u64) -> Option<Arrived> {
        let (&(at, place), ()) = self.expiries.first_key_value()?;
        if at < now { self.remove(place) } else { None }
    }

    /// When the first of them is too late; [`NEVER`] if none will be.
    pub(super) fn expiry(&self) -> u64 {
        // It is too late the moment after.
        self.expiries.first_key_value().map_or(NEVER, |(&(at, _), ())| at.saturating_add(1))
    }
}

fn expires(request: &Request) -> Option<u64> {
    request.deadline.map(|ms| request.read_at + u64::from(ms))
}

impl Driver {
    /// A frame about the method tables.
    pub(super) fn on_table(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (services, peer) = (Arc::clone(&self.services), Arc::clone(&self.inner.peer));
        let found = Found { services: &services, caller: peer.identity.as_deref() };
        let (out, settled) = (&mut self.replies, &mut self.settled);
        match frame.header.kind {
            Kind::Bind => {
                let held = self.inbound.on_bind(frame, &found, out)?;
                self.differences.offer(held, &found, out, settled);
            }
            Kind::Bound => {
                let (header, hold) = (frame.header, self.differences.in_use());
                let held = self.inner.lock().outbound.on_bound(header.id, header.aux, &frame.payload, hold)?;
                if let Some(held) = held {
                    self.differences.answer(held, out, settled);
                }
            }
            Kind::Schema => self.differences.on_schema(frame, &found, out, settled)?,
            _ => self.differences.on_ready(frame, settled)?,
        }
        for settled in std::mem::take(&mut self.settled) {
            match settled {
                Settled::Ours(row, replies) => {
                    self.inner.differs.store(true, Ordering::Relaxed);
                    self.inner.lock().outbound.settle(row, replies);
                }
                Settled::Theirs(row, reading) => self.settle(row, reading),
            }
        }
        Ok(())
    }

    /// The calls of a row go on, or are refused.
    fn settle(&mut self, row: u16, reading: Result<Arc<Reading>, Verdict>) {
        self.inbound.settle(row, reading);
        while let Some(arrived) = self.waiting.take_first(row) {
            match self.inbound.difference(row) {
                Difference::Refused(error) => self.refuse_waiting(arrived, &error),
                Difference::Read(_) | Difference::Held => self.run_settled(arrived),
            }
        }
    }

    /// At once, as far as there is room and time: the link may be at its end, and a one-way call with it.
    fn run_settled(&mut self, arrived: Arrived) {
        if self.is_full() || !self.backlog.is_empty() || self.now_us > self.slice_end_us {
            return self.backlog.push_back(arrived);
        }
        self.held -= arrived.request.body.len();
        self.dispatch(arrived.request, arrived.stream);
    }

    /// Keeps a call until its row is settled.
    #[cold]
    pub(super) fn wait_for_row(&mut self, arrived: Arrived) {
        if let Some(arrived) = self.keep(arrived) {
            self.waiting.insert(arrived);
        }
    }

    fn refuse_waiting(&mut self, arrived: Arrived, error: &RpcError) {
        let Arrived { request, stream } = arrived;
        drop(stream);
        self.held -= request.body.len();
        self.refuse(request, error);
    }

    /// Ends the calls that waited too long.
    pub(super) fn expire_waiting(&mut self) {
        while let Some(arrived) = self.waiting.take_expired(self.now) {
            self.refuse_waiting(arrived, &too_late());
        }
    }

    /// The caller of a call that waits is gone. Says whether there was one.
    pub(super) fn cancel_waiting(&mut self, id: u32) -> bool {
        let Some(Arrived { request, stream }) = self.waiting.take(id) else { return false };
        drop(stream);
        self.held -= request.body.len();
        self.refuse_gone(request);
        true
    }

    /// What becomes of a call on a row on which the two sides differ: it goes on, or is kept or refused here.
    #[cold]
    pub(super) fn differing(&mut self, arrived: Arrived) -> Option<Arrived> {
        match self.inbound.difference(arrived.request.row) {
            Difference::Read(_) => Some(arrived),
            Difference::Held => {
                self.wait_for_row(arrived);
                None
            }
            Difference::Refused(error) => {
                let Arrived { request, stream } = arrived;
                drop(stream);
                self.refuse(request, &error);
                None
            }
        }
    }

    /// How the arguments of a call are read.
    #[cold]
    pub(super) fn reading(&self, request: &Request) -> Option<Arc<Reading>> {
        match self.inbound.difference(request.row) {
            Difference::Read(reading) => Some(reading),
            Difference::Held | Difference::Refused(_) => None,
        }
    }
}
