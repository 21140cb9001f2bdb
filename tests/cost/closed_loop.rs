//! The calls whose cost is counted: so many in flight, each followed by the next.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::{Channel, Io, Limits, Server};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::counted_link::{self, CountedLink};
use crate::counting;
use crate::service::{Office, PostClient, PostServer};

/// Calls before the count begins: tables, buffers and the slots of 256 callers have grown by then.
const WARM_UP: u64 = 16 * 256;
/// Calls that are counted. Whole batches, as before: the count begins and ends at the same place of one.
pub(crate) const COUNTED: u64 = 40 * 256;
/// Longer than it takes on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all the calls together have cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Of client and server together.
    pub(crate) allocations: u64,
    /// Reads and writes of the client's end.
    pub(crate) client_operations: u64,
    /// Reads and writes of the server's end.
    pub(crate) server_operations: u64,
}

/// Both run everything on one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runtime {
    CurrentThread,
    /// Here a task that is woken goes ahead of those that were woken before it: a driver that writes at once when its
    /// first caller has a request writes one frame at a time.
    OneWorker,
}

impl Runtime {
    fn build(self) -> tokio::runtime::Runtime {
        let mut builder = match self {
            Runtime::CurrentThread => Builder::new_current_thread(),
            Runtime::OneWorker => Builder::new_multi_thread(),
        };
        builder.worker_threads(1).enable_all().build().unwrap()
    }
}

/// Runs of which one is to be undisturbed.
const RUNS: u32 = 12;

/// Makes `call` with so many in flight and counts what [`COUNTED`] of them cost.
fn cost<C, F>(runtime: Runtime, inflight: u64, call: C) -> Cost
where
    C: Fn(PostClient) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    runtime.build().block_on(async {
        // As a task: the thread inside `block_on` is not the worker.
        let counted = tokio::time::timeout(PATIENCE, tokio::spawn(closed_loop(inflight, call))).await;
        counted.expect("the calls took too long").expect("a call failed")
    })
}

/// As [`cost`], of the first run of a few that is `fine`, or of the last. A machine that is busy with something else makes handlers look
/// slow, and for the next thousand calls they are run apart, which costs more.
pub(crate) fn undisturbed<C, F>(runtime: Runtime, inflight: u64, call: C, fine: impl Fn(&Cost) -> bool) -> Cost
where
    C: Fn(PostClient) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let first = cost(runtime, inflight, call.clone());
    (1..RUNS).fold(first, |last, _| if fine(&last) { last } else { cost(runtime, inflight, call.clone()) })
}

async fn closed_loop<C, F>(inflight: u64, call: C) -> Cost
where
    C: Fn(PostClient) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let links = counted_link::pair().await;
    let window = Arc::new(Window::over(&links));
    let [near, far] = links;
    let server = Server::builder().serve(PostServer::new(Office)).listen("tcp://127.0.0.1:0").await.unwrap();
    server.serve_link(Io::boxed(far));
    let client = PostClient::from(Channel::over(Io::boxed(near), Limits::default()).await.unwrap());
    let mut callers = JoinSet::new();
    for _ in 0..inflight {
        let (client, call, window) = (client.clone(), call.clone(), window.clone());
        callers.spawn(async move {
            while window.open() {
                call(client.clone()).await;
                window.call_ended();
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("a call failed");
    }
    window.cost()
}

/// The part of a run that is counted, marked by the number of calls that have ended.
struct Window {
    ended: AtomicU64,
    operations: [Arc<AtomicU64>; 2],
    /// The counters when it began, and when it ended.
    marks: Mutex<[[u64; 3]; 2]>,
}

impl Window {
    fn over(links: &[CountedLink; 2]) -> Window {
        let operations = [links[0].operations(), links[1].operations()];
        Window { ended: AtomicU64::new(0), operations, marks: Mutex::default() }
    }

    fn open(&self) -> bool {
        self.ended.load(Relaxed) < WARM_UP + COUNTED
    }

    fn call_ended(&self) {
        match self.ended.fetch_add(1, Relaxed) + 1 {
            WARM_UP => self.mark(0),
            n if n == WARM_UP + COUNTED => self.mark(1),
            _ => {}
        }
    }

    fn mark(&self, which: usize) {
        let [client, server] = [0, 1].map(|side: usize| self.operations[side].load(Relaxed));
        self.marks.lock().unwrap()[which] = [counting::allocations(), client, server];
    }

    /// Allocations are those of the thread that ran all: if a machine so busy that handlers seem slow had another one go on, they
    /// say nothing.
    fn cost(&self) -> Cost {
        let [began, ended] = *self.marks.lock().unwrap();
        let [allocations, client_operations, server_operations] = [0, 1, 2].map(|i: usize| ended[i].saturating_sub(began[i]));
        Cost { allocations, client_operations, server_operations }
    }
}
