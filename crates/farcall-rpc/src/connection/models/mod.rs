//! The wake-ups between callers, handlers and the driver, run by loom in every order that matters.
//!
//! Nothing here is a copy: connection, driver and parked handlers are the real ones, over locks of
//! the checker's (`sync.rs`) and a link that is part of the model. A wake-up that is lost in any order
//! leaves all threads asleep, which loom reports as a deadlock. `docs/decisions/model-checking.md`
//! says what is covered, and what breaks each model. `./run loom` runs them.

mod peer;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::BytesMut;
use farcall_core::{Limits, Reply};
use farcall_wire::{Answer, Body, CallId, Header, Hello, Item, Kind, OutBuf, Sendable, Session, Start, Streams, flags, status};
use loom::sync::Condvar;
use loom::thread::JoinHandle;

use super::driver::Services;
use super::handshake::Handshake;
use super::parked::{Entry, ParkedSet};
use super::sync::Mutex;
use super::{Bound, Connection, Driver, RoomPlace, Running, Started};
use crate::meta::DescribeClient;
use crate::skeleton::{ParkedHandler, Skeleton};
use peer::Peer;

/// How often a thread is interrupted where it need not wait, in models of two threads and of three:
/// what takes seconds, not minutes. `LOOM_MAX_PREEMPTIONS` is used instead if it is set.
const TWO_THREADS: usize = 4;
const THREE_THREADS: usize = 2;
/// Words of a thread's stack: the driver's turn is deep in a debug build.
const STACK: usize = 1 << 15;

/// Runs a model in every order with so many preemptions.
fn check(preemptions: usize, model: impl Fn() + Copy + Send + Sync + 'static) {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    // Only for the driver's timers, none of which goes off.
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let _inside = runtime.enter();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        spawn(model).join().unwrap();
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    loom::thread::Builder::new().stack_size(STACK).spawn(f).unwrap()
}

/// Somebody who sleeps until woken.
struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
    /// How often it was woken. Not the checker's: it orders nothing.
    times: AtomicUsize,
}

impl Sleeper {
    fn new() -> Arc<Sleeper> {
        Arc::new(Sleeper { woken: Mutex::new(false), bell: Condvar::new(), times: AtomicUsize::new(0) })
    }

    /// Until it is woken, or at once if it was since it slept last.
    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !std::mem::take(&mut *woken) {
            woken = self.bell.wait(woken).unwrap();
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        *self.woken.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

/// Waits for what `poll` gives, as a task does that is moved to another executor after each poll: only
/// the waker of its last one counts. Whoever is woken finds what it waits for.
fn moving<T>(mut poll: impl FnMut(&Waker) -> Poll<T>) -> T {
    if let Poll::Ready(value) = poll(&Waker::from(Sleeper::new())) {
        return value;
    }
    let last = Sleeper::new();
    if let Poll::Ready(value) = poll(&Waker::from(Arc::clone(&last))) {
        return value;
    }
    last.sleep();
    match poll(Waker::noop()) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("woken for nothing"),
    }
}

/// The driver as a task.
struct Task {
    run: Pin<Box<dyn Future<Output = bool> + Send>>,
    sleeper: Arc<Sleeper>,
}

impl Task {
    fn new(driver: Box<Driver>) -> Task {
        Task { run: Box::pin(driver.run()), sleeper: Sleeper::new() }
    }

    /// Polls it once. Says whether it is over.
    fn turn(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.sleeper));
        self.run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }

    /// Runs it to its end in a thread of its own, for which it is woken `most` times at most: the
    /// number that was measured, so that one more is noticed.
    fn spawn(mut self, most: usize) -> JoinHandle<()> {
        spawn(move || {
            while !self.turn() {
                self.sleeper.sleep();
            }
            let times = self.sleeper.times.load(Ordering::Relaxed);
            assert!(times <= most, "the driver was woken {times} times");
        })
    }
}

fn limits() -> Limits {
    Limits { spin: Duration::ZERO, heartbeat: None, stream_items: 16, stream_bytes: 64 << 10, ..Limits::default() }
}

/// A connection to a peer, its driver not started.
fn connected(peer: &Peer, limits: &Limits, skeletons: Vec<Arc<dyn Skeleton>>) -> (Arc<Connection>, Task) {
    let link = farcall_transport::Io::boxed(peer.clone());
    let (session, theirs) = (Session::new([1; 16], 1, limits), Hello::new([2; 16], 1, limits));
    let handshake = Handshake { link, rest: BytesMut::new(), theirs, session, identity: None };
    let services = Arc::new(Services { skeletons, ..Services::empty() });
    let (connection, driver) = Driver::new(handshake, services, Arc::new(Running::default()), "peer".into());
    (Arc::new(connection), Task::new(driver))
}

fn call(streams: Streams) -> Start<'static> {
    Start { row: 0, deadline: None, options: &[], body: Body::Copy(b""), streams }
}

/// Starts a call, waiting for room if there is none.
fn start(connection: &Connection, streams: Streams) -> Option<(CallId, Option<farcall_wire::Sender>)> {
    let mut place: Option<RoomPlace> = None;
    moving(|waker| match connection.start(Bound::Stub(DescribeClient::descriptor()), 0, call(streams), waker, &mut place).unwrap() {
        Started::Sent(id, sender) => Poll::Ready(Some((id, sender))),
        Started::Closed => Poll::Ready(None),
        Started::Full => {
            let waiting = connection.inner.lock().waiting_for_room.waiting.len();
            assert!(waiting <= 1, "one caller waits in {waiting} places");
            Poll::Pending
        }
    })
}

fn answer(connection: &Connection, id: CallId) -> Answer {
    moving(|waker| connection.poll(id, waker).map_or(Poll::Pending, Poll::Ready))
}

fn assert_answered(connection: &Connection) {
    let (id, _) = start(connection, Streams::default()).expect("the connection is open");
    assert!(matches!(answer(connection, id), Answer::Ok(_)));
}

/// A caller queues while the driver parks; the answer comes while the caller registers; the order to
/// close comes while the driver parks.
#[test]
fn a_call_is_written_and_its_answer_noticed() {
    check(TWO_THREADS, || {
        let (connection, task) = connected(&Peer::answering(), &limits(), Vec::new());
        let driver = task.spawn(3);
        assert_answered(&connection);
        drop(connection);
        driver.join().unwrap();
    });
}

/// Whoever comes second finds the driver's waker taken, and relies on the first.
#[test]
fn two_callers_wake_the_driver_once() {
    check(THREE_THREADS, || {
        let (connection, mut task) = connected(&Peer::answering(), &limits(), Vec::new());
        assert!(!task.turn());
        let other = Arc::clone(&connection);
        let second = spawn(move || start(&other, Streams::default()).is_some());
        assert!(start(&connection, Streams::default()).is_some());
        assert!(second.join().unwrap());
        assert_eq!(task.sleeper.times.load(Ordering::Relaxed), 1);
    });
}

/// Two callers queue while the driver parks, or while it goes behind those whose answers it brought.
#[test]
fn two_calls_are_written_and_answered() {
    check(THREE_THREADS, || {
        let (connection, task) = connected(&Peer::answering(), &limits(), Vec::new());
        let (driver, other) = (task.spawn(5), Arc::clone(&connection));
        let second = spawn(move || {
            let (id, _) = start(&other, Streams::default()).expect("the connection is open");
            assert!(matches!(answer(&other, id), Answer::Ok(_)));
        });
        assert_answered(&connection);
        drop(connection);
        second.join().unwrap();
        driver.join().unwrap();
    });
}

/// What is queued under a cork wakes nobody; its drop must.
#[test]
fn the_last_cork_wakes_the_driver() {
    check(TWO_THREADS, || {
        let (connection, task) = connected(&Peer::answering(), &limits(), Vec::new());
        let driver = task.spawn(3);
        let cork = connection.cork();
        let (id, _) = start(&connection, Streams::default()).expect("the connection is open");
        drop(cork);
        assert!(matches!(answer(&connection, id), Answer::Ok(_)));
        drop(connection);
        driver.join().unwrap();
    });
}

/// The driver takes what fills the out-buffer while a caller finds it full.
#[test]
fn a_caller_learns_of_room() {
    check(TWO_THREADS, || {
        let limits = Limits { out_buffer: 0, ..limits() };
        let (connection, task) = connected(&Peer::answering(), &limits, Vec::new());
        let (first, _) = start(&connection, Streams::default()).expect("the connection is open");
        let driver = task.spawn(4);
        assert_answered(&connection);
        assert!(matches!(answer(&connection, first), Answer::Ok(_)));
        drop(connection);
        driver.join().unwrap();
    });
}

/// The link is lost while one caller waits for its answer or room: each ends.
#[test]
fn a_lost_link_leaves_nobody_waiting() {
    check(TWO_THREADS, || {
        let limits = Limits { out_buffer: 0, ..limits() };
        let peer = Peer::silent();
        let (connection, task) = connected(&peer, &limits, Vec::new());
        let (first, _) = start(&connection, Streams::default()).expect("the connection is open");
        peer.hang_up();
        let driver = task.spawn(0);
        if let Some((id, _)) = start(&connection, Streams::default()) {
            assert!(matches!(answer(&connection, id), Answer::Failed(_)));
        }
        assert!(matches!(answer(&connection, first), Answer::Failed(_)));
        driver.join().unwrap();
    });
}

/// A call that was written and not answered yet.
fn written(peer: &Peer, streams: Streams) -> (Arc<Connection>, Task, CallId, Option<farcall_wire::Sender>) {
    let (connection, mut task) = connected(peer, &limits(), Vec::new());
    let (id, sender) = start(&connection, streams).expect("the connection is open");
    assert!(!task.turn());
    (connection, task, id, sender)
}

/// A caller gives up while the driver parks: the peer is told.
#[test]
fn a_cancel_is_written() {
    check(TWO_THREADS, || {
        let peer = Peer::silent();
        let (connection, task, id, _) = written(&peer, Streams::default());
        let driver = task.spawn(2);
        connection.cancel(id);
        peer.await_frame(Kind::Cancel);
        connection.inner.abort();
        driver.join().unwrap();
    });
}

/// An item comes while its reader registers; taking it gives credit, which wakes the driver.
#[test]
fn a_reader_learns_of_an_item_and_its_credit_is_sent() {
    check(THREE_THREADS, || {
        let peer = Peer::silent();
        let (connection, mut task, id, _) = written(&peer, Streams { args: false, results: true });
        peer.say(Header::new(Kind::Reply, flags::STREAM, status::OK, id.0), &[]);
        assert!(!task.turn());
        let Answer::Stream(stream) = answer(&connection, id) else { panic!("not a stream") };
        let driver = task.spawn(4);
        let (sending, half) = (peer.clone(), vec![0; limits().stream_bytes / 2]);
        let sender = spawn(move || sending.say(Header::new(Kind::Data, flags::RESULTS, 0, id.0), &half));
        let item = moving(|waker| connection.inner.poll_item(stream, &mut Default::default(), waker));
        assert!(matches!(item, Item::Item(_)));
        peer.await_frame(Kind::Credit);
        connection.inner.abort();
        sender.join().unwrap();
        driver.join().unwrap();
    });
}

/// Credit comes while a sender registers; what it then sends is written.
#[test]
fn a_sender_learns_of_credit() {
    check(TWO_THREADS, || {
        let peer = Peer::silent();
        let (connection, mut task, id, sender) = written(&peer, Streams { args: true, results: false });
        let (inner, to, mut room) = (&connection.inner, sender.expect("the call has a stream"), None);
        while inner.poll_sendable(to, &mut room, Waker::noop()) == Sendable::Now {
            inner.send_item(to, &[0], &mut bytes::Bytes::new()).unwrap();
        }
        assert!(!task.turn());
        let granted = [u64::MAX.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
        peer.say(Header::new(Kind::Credit, 0, 1, id.0), &granted);
        let driver = task.spawn(3);
        let sendable = moving(|waker| match inner.poll_sendable(to, &mut room, waker) {
            Sendable::Later => Poll::Pending,
            sendable => Poll::Ready(sendable),
        });
        assert_eq!(sendable, Sendable::Now);
        inner.end_items(to, status::OK, Vec::new());
        inner.write_soon();
        peer.await_frame(Kind::End);
        inner.abort();
        driver.join().unwrap();
    });
}

/// What a handler waits for: to be let through so many times. It leaves its waker once and looks
/// without a lock, so that nothing but the parked handlers' own protocol orders the two threads.
#[derive(Default)]
struct Gate {
    opened: loom::sync::atomic::AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.opened.fetch_add(1, Ordering::Release);
        let waker = self.waiting.lock().unwrap().clone();
        waker.into_iter().for_each(Waker::wake);
    }

    async fn opened(&self, times: usize) {
        let mut left = false;
        std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut left, true) {
                *self.waiting.lock().unwrap() = Some(cx.waker().clone());
            }
            match self.opened.load(Ordering::Acquire) >= times {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// A service with one method, which waits.
#[farcall_rpc::service(crate = farcall_rpc)]
trait Passage {
    async fn pass(&self) -> Reply<()>;
}

struct Gatekeeper(Arc<Gate>);

impl Passage for Gatekeeper {
    async fn pass(&self) -> Reply<()> {
        self.0.opened(2).await;
        Ok(())
    }
}

/// The frames of a call to `Passage`.
fn passing() -> Vec<u8> {
    let mut outbound = Session::<()>::new([3; 16], 1, &limits()).outbound;
    let row = outbound.bind_by_value(PassageClient::descriptor()).unwrap();
    outbound.start(0, Start { row, ..call(Streams::default()) }, None).unwrap();
    let mut out = OutBuf::default();
    assert!(outbound.take(&mut out));
    out.small().clone()
}

/// A parked handler is woken twice on another thread while the driver polls it, or parks.
#[test]
fn a_handler_woken_elsewhere_ends_its_call() {
    check(TWO_THREADS, || {
        let (peer, gate) = (Peer::silent(), Arc::new(Gate::default()));
        peer.say_bytes(&passing());
        let (connection, task) = connected(&peer, &limits(), vec![Arc::new(PassageServer::new(Gatekeeper(Arc::clone(&gate))))]);
        let driver = task.spawn(4);
        gate.open();
        gate.open();
        peer.await_frame(Kind::Reply);
        drop(connection);
        driver.join().unwrap();
    });
}

/// A handler that waits at a gate, parked in a set by itself, whose orders are fewer.
struct Passing(Pin<Box<dyn Future<Output = ()> + Send>>);

impl ParkedHandler for Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

fn parked(gate: &Arc<Gate>, times: usize) -> (ParkedSet, Arc<Sleeper>) {
    let (mut set, sleeper, gate) = (ParkedSet::default(), Sleeper::new(), Arc::clone(gate));
    set.register(&Waker::from(Arc::clone(&sleeper)));
    let mut handler = Passing(Box::pin(async move { gate.opened(times).await }));
    assert!(handler.poll(&mut Context::from_waker(set.next_waker())).is_pending());
    set.insert(Entry::of(Box::new(handler)));
    (set, sleeper)
}

/// Whoever wakes a handler that is rung already relies on the poll to come.
#[test]
fn a_parked_handler_sees_what_it_was_woken_for() {
    check(TWO_THREADS, || {
        let gate = Arc::new(Gate::default());
        let (mut set, sleeper) = parked(&gate, 3);
        let opener = spawn(move || (0..3).for_each(|_| gate.open()));
        let mut ended = false;
        while !ended {
            sleeper.sleep();
            set.poll_woken(|entry, cx| Some(entry.handler.poll(cx)), |_, ()| ended = true);
        }
        opener.join().unwrap();
        let times = sleeper.times.load(Ordering::Relaxed);
        assert!(times <= 3, "woken {times} times");
    });
}

/// A handler is put back because there is no room for its reply, and woken meanwhile.
#[test]
fn a_handler_put_back_is_there_once() {
    check(TWO_THREADS, || {
        let gate = Arc::new(Gate::default());
        let (mut set, sleeper) = parked(&gate, 3);
        let opener = spawn(move || (0..3).for_each(|_| gate.open()));
        let (mut ended, mut left, mut full) = (false, false, true);
        while !ended {
            if !left {
                sleeper.sleep();
            }
            let (room, mut polls) = (!std::mem::take(&mut full), 0);
            left = set.poll_woken(
                |entry, cx| {
                    polls += 1;
                    room.then(|| entry.handler.poll(cx))
                },
                |_, ()| ended = true,
            );
            assert!(polls <= 1, "one handler was in the list {polls} times");
        }
        opener.join().unwrap();
    });
}
