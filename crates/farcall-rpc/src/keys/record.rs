//! What a server remembers of the calls that came with a key.
//!
//! Bounded by number, bytes and time; the oldest replies go first, a call that runs is never
//! forgotten. So that a forgotten call is not taken for a new one, the record also keeps the moment
//! before which it may have forgotten something: a repeated call says when it was first sent.

use std::collections::VecDeque;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::error::display_duration;
use farcall_core::{Code, CodecId, Fingerprint, Limits, RpcError, Stage};
use farcall_wire::{Failure, KeyMoment, status};
use tokio::sync::watch;

use crate::context::Finish;

/// A reply above this share of `key_bytes` would push out too many others.
const LARGEST_SHARE: usize = 16;

/// One server's record, shared by its connections.
pub(crate) struct Record {
    /// Names it: random.
    id: u64,
    begun: Instant,
    keys: usize,
    key_bytes: usize,
    key_time: Duration,
    /// Tells other arguments from the same. Seeded at random, so that nobody can make two that
    /// collide.
    arguments: RandomState,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    entries: HashMap<Arc<Id>, Entry>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<Arc<Id>>,
    /// Of the replies kept.
    bytes: usize,
    /// A call that began before this, in the record's milliseconds, may be forgotten.
    forgotten: u64,
}

/// A key is the method's own, and its caller's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    /// Name of the caller, if it is known.
    pub(super) caller: Option<Box<str>>,
    pub(super) service: u32,
    pub(super) method: u16,
    pub(super) key: Box<[u8]>,
}

struct Entry {
    /// Of codec and arguments.
    arguments: u64,
    began: u64,
    state: State,
}

enum State {
    Running(Waiting),
    Ended { at: u64, reply: Kept },
}

/// Where the reply of a running call will be; closed if it never will.
pub(super) type Waiting = watch::Receiver<Option<Kept>>;

/// A reply without the number of its call.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Kept {
    pub(super) fn failure(error: &RpcError) -> Kept {
        Kept { status: status::FAILURE, body: Failure::from_error(error).encode().into() }
    }
}

/// What to do with a call.
pub(super) enum Admitted {
    Run(Running),
    Wait(Waiting),
    Answer(Kept),
}

/// A call in the record that runs. Dropped before its end it may have run, and so it is written
/// down.
pub(super) struct Running {
    record: Arc<Record>,
    id: Arc<Id>,
    /// Taken at its end.
    reply: Option<watch::Sender<Option<Kept>>>,
}

impl Record {
    /// An empty one; `None` if these limits allow no keys.
    pub(crate) fn new(limits: &Limits) -> Option<Arc<Record>> {
        let Limits { keys, key_bytes, key_time, .. } = *limits;
        let id = RandomState::new().hash_one(());
        let record =
            Record { id, begun: crate::time::now(), keys, key_bytes, key_time, arguments: RandomState::new(), book: Mutex::default() };
        (keys > 0).then(|| Arc::new(record))
    }

    /// What a hello says of it.
    pub(crate) fn now(&self) -> KeyMoment {
        KeyMoment { record: self.id, ms: self.ms() }
    }

    fn ms(&self) -> u64 {
        crate::time::since(self.begun).as_millis() as u64
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call with a key has arrived.
    pub(super) fn admit(
        self: &Arc<Record>,
        id: Id,
        attempted: Option<KeyMoment>,
        (codec, writer): (CodecId, Option<Fingerprint>),
        arguments: &[u8],
    ) -> Result<Admitted, RpcError> {
        // Callers of two versions may mean two things by the same bytes.
        let arguments = self.arguments.hash_one((codec as u8, writer, arguments));
        let mut book = self.book();
        // Read under the lock, so that what ends is written down in the order of its time.
        let now = self.ms();
        book.forget_until(now.saturating_sub(self.key_time.as_millis() as u64));
        if let Some(entry) = book.entries.get(&id) {
            if entry.arguments != arguments {
                return Err(other_arguments());
            }
            return Ok(match &entry.state {
                State::Running(reply) => Admitted::Wait(reply.clone()),
                State::Ended { reply, .. } => Admitted::Answer(reply.clone()),
            });
        }
        match attempted {
            Some(moment) if moment.record != self.id => return Err(another_record()),
            Some(moment) if moment.ms < book.forgotten => return Err(self.forgotten()),
            _ => {}
        }
        if book.entries.len() >= self.keys && !book.forget_oldest() {
            return Err(all_running(self.keys));
        }
        let (id, (reply, waiting)) = (Arc::new(id), watch::channel(None));
        book.entries.insert(Arc::clone(&id), Entry { arguments, began: now, state: State::Running(waiting) });
        Ok(Admitted::Run(Running { record: Arc::clone(self), id, reply: Some(reply) }))
    }

    /// A call has ended with this reply.
    fn keep(&self, id: &Arc<Id>, reply: Kept) {
        let most = self.key_bytes / LARGEST_SHARE;
        let reply = if reply.body.len() > most { too_large(&reply, most) } else { reply };
        let mut book = self.book();
        while book.bytes + reply.body.len() > self.key_bytes && book.forget_oldest() {}
        let at = self.ms();
        let Some(entry) = book.entries.get_mut(id) else { return };
        let bytes = reply.body.len();
        entry.state = State::Ended { at, reply };
        book.bytes += bytes;
        book.ended.push_back(Arc::clone(id));
    }

    /// A call was not run after all: the next one with its key is new.
    fn withdraw(&self, id: &Arc<Id>) {
        self.book().entries.remove(id);
    }

    #[cold]
    fn forgotten(&self) -> RpcError {
        let why = format!(
            "an earlier attempt with this key may have run, and this provider may have forgotten it: it keeps {} replies of {} bytes in \
             all for {} (limits `keys`, `key_bytes`, `key_time`); find out with a query of your own",
            self.keys,
            self.key_bytes,
            display_duration(self.key_time)
        );
        RpcError::new(Code::FailedPrecondition, why).with_stage(Stage::ServerQueue)
    }
}

impl Book {
    /// Forgets what ended before this.
    fn forget_until(&mut self, at: u64) {
        while let Some(id) = self.ended.front()
            && matches!(self.entries.get(id), Some(Entry { state: State::Ended { at: ended, .. }, .. }) if *ended < at)
        {
            self.forget_oldest();
        }
    }

    /// Forgets the call that ended first, if one has.
    fn forget_oldest(&mut self) -> bool {
        let Some(id) = self.ended.pop_front() else { return false };
        let Some(Entry { began, state: State::Ended { reply, .. }, .. }) = self.entries.remove(&id) else { return false };
        self.bytes -= reply.body.len();
        self.forgotten = self.forgotten.max(began + 1);
        true
    }
}

impl Running {
    /// It has ended so. A reply that says it did not run is told to those who wait for it, and is
    /// not kept.
    pub(super) fn ended(mut self, finish: Option<Finish>, reply: Kept) {
        match finish {
            Some(Finish::Failed(_, certainty)) if certainty.is_safe_to_retry() => self.record.withdraw(&self.id),
            _ => self.record.keep(&self.id, reply.clone()),
        }
        self.tell(reply);
    }

    fn tell(&mut self, reply: Kept) {
        if let Some(waiting) = self.reply.take() {
            waiting.send_replace(Some(reply));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reply.is_some() {
            let why = "the handler of this key's call was dropped before its end: the provider's runtime is shutting down";
            let reply = Kept::failure(&RpcError::new(Code::Unavailable, why).with_stage(Stage::Handler));
            self.record.keep(&self.id, reply.clone());
            self.tell(reply);
        }
    }
}

#[cold]
fn other_arguments() -> RpcError {
    let why = "this idempotency key was used with other arguments or another codec: a key belongs to one call; take a new one";
    RpcError::not_executed(Code::InvalidArgument, why).with_stage(Stage::ServerQueue)
}

#[cold]
fn another_record() -> RpcError {
    let why = "an earlier attempt with this key may have run, and not here: this provider was started since, or is another one; \
               find out with a query of your own";
    RpcError::new(Code::FailedPrecondition, why).with_stage(Stage::ServerQueue)
}

#[cold]
fn all_running(keys: usize) -> RpcError {
    let why = format!("{keys} calls with a key are running here, the limit `keys`");
    RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue)
}

/// What is kept of a reply that is too large.
#[cold]
fn too_large(reply: &Kept, most: usize) -> Kept {
    let what = match reply.status {
        status::OK => "ended with a result",
        status::APP_ERROR => "ended with the method's own error",
        _ => "failed",
    };
    let why = format!(
        "the call with this key ran and {what} of {} bytes, too large to be kept: at most {most}, a 16th of the limit `key_bytes`",
        reply.body.len()
    );
    Kept::failure(&RpcError::new(Code::ResourceExhausted, why).with_stage(Stage::Handler))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall_core::Certainty;

    fn record(keys: usize, key_bytes: usize, key_time: Duration) -> Arc<Record> {
        Record::new(&Limits { keys, key_bytes, key_time, ..Limits::default() }).unwrap()
    }

    fn roomy() -> Arc<Record> {
        record(100, 1 << 20, Duration::from_secs(600))
    }

    fn admit(record: &Arc<Record>, key: &str, attempted: Option<KeyMoment>) -> Result<Admitted, RpcError> {
        let id = Id { caller: None, service: 0, method: 0, key: key.as_bytes().into() };
        record.admit(id, attempted, (CodecId::Compact, None), b"arguments")
    }

    fn run(record: &Arc<Record>, key: &str) -> Running {
        match admit(record, key, None) {
            Ok(Admitted::Run(running)) => running,
            _ => panic!("{key} is not new"),
        }
    }

    fn end(record: &Arc<Record>, key: &str, bytes: usize) {
        run(record, key).ended(Some(Finish::Ok), Kept { status: status::OK, body: vec![7; bytes].into() });
    }

    /// The reply that a call with this key gets without running.
    fn answer(record: &Arc<Record>, key: &str) -> Option<Kept> {
        match admit(record, key, None) {
            Ok(Admitted::Answer(reply)) => Some(reply),
            Ok(Admitted::Wait(reply)) => reply.borrow().clone(),
            Ok(Admitted::Run(running)) => {
                let not_run = RpcError::not_executed(Code::Unavailable, "only asked");
                running.ended(Some(Finish::Failed(not_run.code(), not_run.certainty())), Kept::failure(&not_run));
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn failure(reply: &Kept) -> RpcError {
        Failure::decode(&reply.body).unwrap().into_error()
    }

    #[test]
    fn one_runs_others_wait_and_later_ones_are_answered() {
        let record = roomy();
        let running = run(&record, "a");
        let Ok(Admitted::Wait(waiting)) = admit(&record, "a", None) else { panic!("it runs twice") };
        assert!(waiting.borrow().is_none());
        running.ended(Some(Finish::AppError), Kept { status: status::APP_ERROR, body: b"x"[..].into() });
        assert_eq!(waiting.borrow().as_ref().unwrap().body, b"x"[..]);
        assert_eq!(answer(&record, "a").unwrap().status, status::APP_ERROR);
        assert!(answer(&record, "b").is_none());
    }

    #[test]
    fn a_key_belongs_to_one_method_one_codec_and_one_set_of_arguments() {
        let record = roomy();
        end(&record, "a", 1);
        let id = |method| Id { caller: None, service: 0, method, key: b"a"[..].into() };
        assert!(matches!(record.admit(id(1), None, (CodecId::Compact, None), b"arguments"), Ok(Admitted::Run(_))));
        let (compact, json) = ((CodecId::Compact, None), (CodecId::Json, None));
        let another_version = (CodecId::Compact, Some(Fingerprint([7; 16])));
        for (how, arguments) in [(compact, &b"others"[..]), (json, b"arguments"), (another_version, b"arguments")] {
            let e = record.admit(id(0), None, how, arguments).err().unwrap();
            assert_eq!((e.code(), e.certainty()), (Code::InvalidArgument, Certainty::NotExecuted));
        }
    }

    #[test]
    fn callers_do_not_see_each_others_keys() {
        let record = roomy();
        let id = |caller: Option<&str>| Id { caller: caller.map(Into::into), service: 0, method: 0, key: b"a"[..].into() };
        for caller in [None, Some("shop"), Some("bank")] {
            assert!(matches!(record.admit(id(caller), None, (CodecId::Compact, None), b"arguments"), Ok(Admitted::Run(_))), "{caller:?}");
            assert!(
                matches!(record.admit(id(caller), None, (CodecId::Compact, None), b"arguments"), Ok(Admitted::Answer(_))),
                "{caller:?}"
            );
        }
    }

    #[test]
    fn what_did_not_run_is_not_kept() {
        let record = roomy();
        let running = run(&record, "a");
        let Ok(Admitted::Wait(waiting)) = admit(&record, "a", None) else { panic!("it runs twice") };
        let late = RpcError::not_executed(Code::DeadlineExceeded, "late");
        running.ended(Some(Finish::Failed(late.code(), late.certainty())), Kept::failure(&late));
        assert_eq!(failure(waiting.borrow().as_ref().unwrap()).certainty(), Certainty::NotExecuted);
        assert!(admit(&record, "a", Some(record.now())).is_ok_and(|a| matches!(a, Admitted::Run(_))));
    }

    #[test]
    fn a_handler_that_is_dropped_may_have_run() {
        let record = roomy();
        let running = run(&record, "a");
        let Ok(Admitted::Wait(waiting)) = admit(&record, "a", None) else { panic!("it runs twice") };
        drop(running);
        for reply in [waiting.borrow().clone().unwrap(), answer(&record, "a").unwrap()] {
            let e = failure(&reply);
            assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
        }
    }

    #[test]
    fn the_oldest_reply_makes_room_and_a_running_call_never_does() {
        let record = record(2, 1 << 20, Duration::from_secs(600));
        let running = run(&record, "runs");
        end(&record, "a", 1);
        end(&record, "b", 1);
        assert!(answer(&record, "b").is_some());
        let second = run(&record, "c");
        let e = admit(&record, "d", None).err().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted));
        assert!(e.message().contains("2 calls") && e.message().contains("`keys`"), "{e}");
        drop((running, second));
    }

    #[test]
    fn bytes_are_bounded_and_a_large_reply_is_remembered_without_its_body() {
        let record = record(100, 1600, Duration::from_secs(600));
        (0..20).for_each(|n| end(&record, &format!("k{n}"), 100));
        assert_eq!(record.book().bytes, 1600);
        assert!(answer(&record, "k4").is_some() && answer(&record, "k3").is_none());
        let running = run(&record, "large");
        let Ok(Admitted::Wait(waiting)) = admit(&record, "large", None) else { panic!("it runs twice") };
        running.ended(Some(Finish::Ok), Kept { status: status::OK, body: vec![0; 101].into() });
        assert_eq!(waiting.borrow().as_ref().unwrap().body.len(), 101, "who waited gets all of it");
        let e = failure(&answer(&record, "large").unwrap());
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::MaybeExecuted));
        assert!(e.message().contains("ended with a result of 101 bytes") && e.message().contains("`key_bytes`"), "{e}");
    }

    #[test]
    fn what_may_be_forgotten_is_never_run_again() {
        let record = record(1, 1 << 20, Duration::from_secs(600));
        let before = record.now();
        end(&record, "a", 1);
        // Its moment is not before that of `a`, so nothing that began then is forgotten: it never
        // came.
        assert!(admit(&record, "b", Some(before)).is_ok_and(|a| matches!(a, Admitted::Answer(_) | Admitted::Run(_))));
        let e = admit(&record, "a", Some(before)).err().unwrap();
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted));
        assert!(e.message().contains("may have forgotten it") && e.message().contains("`key_time`"), "{e}");
        let e = admit(&record, "c", Some(KeyMoment { record: !before.record, ..before })).err().unwrap();
        assert!(e.message().contains("not here") && e.certainty() == Certainty::MaybeExecuted, "{e}");
        // Later than all that is forgotten: it is known to be new.
        let after = KeyMoment { ms: before.ms + 1000, ..before };
        assert!(admit(&record, "d", Some(after)).is_ok());
    }

    #[test]
    fn replies_are_kept_for_their_time() {
        let record = record(100, 1 << 20, Duration::from_millis(1));
        end(&record, "a", 1);
        let begun = record.ms();
        while record.ms() < begun + 3 {
            std::hint::spin_loop();
        }
        assert!(answer(&record, "a").is_none());
        let book = record.book();
        assert_eq!((book.bytes, book.entries.len()), (0, 0));
    }

    #[test]
    fn without_room_there_is_no_record() {
        assert!(Record::new(&Limits { keys: 0, ..Limits::default() }).is_none());
    }
}
