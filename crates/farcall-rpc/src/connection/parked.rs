//! Handlers that were not ready at once: kept by the driver, polled only when woken.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::task::coop::has_budget_remaining;

use super::detached::Counted;
use super::sync::{AtomicBool, Mutex};
use crate::context::Context as CallContext;
use crate::skeleton::ParkedHandler;

/// Which parked handlers are to be polled, and whom to wake for it.
#[derive(Default)]
struct Ready {
    state: Mutex<(Vec<usize>, Option<Waker>)>,
}

struct Alarm {
    index: usize,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.ready.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.push(self.index);
        let driver = state.1.clone();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// A handler and what is known of its call.
pub(crate) struct Entry {
    pub(crate) handler: Box<dyn ParkedHandler>,
    pub(crate) context: CallContext,
    pub(crate) id: u32,
    pub(crate) oneway: bool,
    pub(crate) service: u32,
    pub(crate) method: u16,
    /// May be dropped when its caller goes away.
    pub(crate) cancel: bool,
    pub(crate) since: Option<Instant>,
    /// Streams flow beside the call.
    pub(crate) streamed: bool,
    /// Bytes of its arguments.
    pub(crate) held: usize,
    pub(crate) _counted: Counted,
}

struct Place {
    entry: Option<Entry>,
    alarm: Arc<Alarm>,
    waker: Waker,
}

/// All parked handlers of a connection.
#[derive(Default)]
pub(super) struct ParkedSet {
    places: Vec<Place>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    batch: Vec<usize>,
    count: usize,
}

impl ParkedSet {
    /// Whom to wake when a handler is ready.
    pub(super) fn register(&self, driver: &Waker) {
        let mut state = self.ready.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.1.as_ref().is_some_and(|w| w.will_wake(driver)) {
            state.1 = Some(driver.clone());
        }
    }

    /// The waker for a handler about to be polled for the first time: if it turns out pending, it
    /// is [`insert`](ParkedSet::insert)ed under exactly this one.
    #[inline]
    pub(super) fn next_waker(&mut self) -> &Waker {
        let index = match self.free.last() {
            Some(index) => *index,
            None => self.grow(),
        };
        &self.places[index].waker
    }

    #[cold]
    fn grow(&mut self) -> usize {
        let index = self.places.len();
        let alarm = Arc::new(Alarm { index, rung: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        self.places.push(Place { entry: None, waker: Waker::from(Arc::clone(&alarm)), alarm });
        self.free.push(index);
        index
    }

    /// Parks a handler that was polled with [`next_waker`](ParkedSet::next_waker); returns its token.
    pub(super) fn insert(&mut self, entry: Entry) -> usize {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.grow();
                self.free.pop().unwrap_or_default()
            }
        };
        self.places[index].entry = Some(entry);
        self.count += 1;
        index
    }

    /// Takes a handler out, without polling it again.
    pub(super) fn remove(&mut self, token: usize) -> Option<Entry> {
        let entry = self.places.get_mut(token)?.entry.take()?;
        self.free.push(token);
        self.count -= 1;
        Some(entry)
    }

    /// Looks at a parked handler.
    pub(super) fn get(&self, token: usize) -> Option<&Entry> {
        self.places.get(token)?.entry.as_ref()
    }

    /// Polls every handler that was woken through `poll`, which says whether it has ended; ended
    /// ones are taken out and given to `done` with its result. `poll` may say `None`: not now. Returns
    /// whether some are left for the next turn.
    pub(super) fn poll_woken<R>(
        &mut self,
        mut poll: impl FnMut(&mut Entry, &mut Context<'_>) -> Option<Poll<R>>,
        mut done: impl FnMut(Entry, R),
    ) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        {
            let mut state = self.ready.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.0, &mut batch);
        }
        let mut woken = batch.drain(..);
        let mut put_back = None;
        for index in woken.by_ref() {
            let place = &mut self.places[index];
            // The swap, unlike a store, also orders the handler's own reads behind it: whoever still
            // found it rung has changed what the poll is about to see.
            place.alarm.rung.swap(false, Ordering::AcqRel);
            // A late wake-up of a handler that has ended finds nobody, or its successor, to whom a
            // poll too many does no harm.
            let Some(entry) = &mut place.entry else { continue };
            match poll(entry, &mut Context::from_waker(&place.waker)) {
                Some(Poll::Ready(result)) => {
                    self.count -= 1;
                    self.free.push(index);
                    if let Some(entry) = place.entry.take() {
                        done(entry, result);
                    }
                }
                Some(Poll::Pending) => {}
                None => {
                    // Unless it was woken again meanwhile, it is put back as if it had been.
                    put_back = (!place.alarm.rung.swap(true, Ordering::AcqRel)).then_some(index);
                    break;
                }
            }
            // Handlers share the task's budget with tokio's resources. Once it is spent they would
            // all come back unready: the rest waits for the next turn.
            if !has_budget_remaining() {
                break;
            }
        }
        let mut state = self.ready.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.extend(put_back.into_iter().chain(woken));
        let left = !state.0.is_empty();
        drop(state);
        self.batch = batch;
        left
    }

    /// Handlers that may be dropped and whose deadline has passed.
    pub(super) fn expired(&self, now: Instant) -> Vec<usize> {
        let late = |e: &Entry| e.cancel && e.context.expires.is_some_and(|at| at <= now);
        (0..self.places.len()).filter(|&i| self.get(i).is_some_and(late)).collect()
    }

    /// The earliest deadline of a handler that may be dropped.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.places.iter().filter_map(|p| p.entry.as_ref()).filter(|e| e.cancel).filter_map(|e| e.context.expires).min()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes all handlers out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        self.count = 0;
        self.places.drain(..).filter_map(|p| p.entry)
    }
}

#[cfg(test)]
impl Entry {
    /// A one-way call's handler.
    pub(super) fn of(handler: Box<dyn ParkedHandler>) -> Entry {
        Entry {
            handler,
            context: CallContext::default(),
            id: 0,
            oneway: true,
            service: 0,
            method: 0,
            cancel: false,
            since: None,
            streamed: false,
            held: 0,
            _counted: Counted::new(&Arc::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler that is never ready: the test's `poll` does not ask it.
    struct Never;

    impl ParkedHandler for Never {
        fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    fn entry() -> Entry {
        Entry::of(Box::new(Never))
    }

    #[test]
    fn what_is_not_polled_now_is_polled_later() {
        let mut set = ParkedSet::default();
        let wakers: Vec<Waker> = (0..3)
            .map(|_| {
                let waker = set.next_waker().clone();
                set.insert(entry());
                waker
            })
            .collect();
        wakers.iter().for_each(Waker::wake_by_ref);
        let mut polls = 0;
        let left = set.poll_woken(
            |_, _| {
                polls += 1;
                (polls == 1).then_some(Poll::<()>::Pending)
            },
            |_, ()| {},
        );
        assert!(left);
        let mut ended = 0;
        assert!(!set.poll_woken(|_, _| Some(Poll::Ready(())), |_, ()| ended += 1));
        assert_eq!((ended, set.count), (2, 1));
    }
}
