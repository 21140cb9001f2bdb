//! Where tasks run, and how a thread waits for one.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use farcall_core::{Code, RpcError};
use tokio::runtime::{Builder, Handle, Id, Runtime};

thread_local! {
    /// The runtime on whose blocking pool this thread is, where waiting is what a thread is for.
    /// Inside of another runtime that the thread runs itself, it is not.
    static MAY_BLOCK: Cell<Option<Id>> = const { Cell::new(None) };
}

/// The caller's runtime; for a program without one, ours: one worker thread, started at first use.
pub fn handle() -> Handle {
    static OWN: OnceLock<Runtime> = OnceLock::new();
    Handle::try_current().unwrap_or_else(|_| {
        let start = || Builder::new_multi_thread().worker_threads(1).thread_name("farcall").enable_all().build();
        // A process that cannot start a thread cannot make calls, and there is nobody to tell.
        OWN.get_or_init(|| start().unwrap_or_else(|e| panic!("farcall's runtime cannot start: {e}"))).handle().clone()
    })
}

/// Blocks this thread until `future` is done. On a runtime's own thread that is refused: its worker
/// would wait for work that only it could do.
pub(crate) fn wait<F: Future>(future: F) -> Result<F::Output, RpcError> {
    let mut future = pin!(future);
    wait_polling(|cx| (future.as_mut().poll(cx), None))
}

/// As [`wait`], for something that also says when it wants to be polled again unasked.
pub(crate) fn wait_polling<T>(mut poll: impl FnMut(&mut Context<'_>) -> (Poll<T>, Option<Instant>)) -> Result<T, RpcError> {
    if Handle::try_current().is_ok_and(|here| MAY_BLOCK.get() != Some(here.id())) {
        return Err(RpcError::not_sent(
            Code::FailedPrecondition,
            "wait() inside an async runtime would block the thread it needs: use .await, or farcall::spawn_blocking for blocking code",
        ));
    }
    let handle = handle();
    let _inside = handle.enter();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match poll(&mut cx) {
            (Poll::Ready(output), _) => return Ok(output),
            (Poll::Pending, Some(again)) => thread::park_timeout(again.saturating_duration_since(Instant::now())),
            (Poll::Pending, None) => thread::park(),
        }
    }
}

/// Blocks this thread until `future` is done: for programs and threads without a runtime that want
/// what is async only, such as [`batch`](crate::batch) and [`Server::drain`](crate::Server::drain).
/// Inside a runtime it is an error ([`Code::FailedPrecondition`]).
///
/// ```
/// let answer = farcall_rpc::block_on(async { 42 });
/// assert_eq!(answer.unwrap(), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> Result<F::Output, RpcError> {
    wait(future)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `f` on the blocking pool, where [`wait`] is allowed.
pub(crate) fn run_blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> tokio::task::JoinHandle<R> {
    let handle = handle();
    let id = handle.id();
    handle.spawn_blocking(move || {
        struct Reset(Option<Id>);
        impl Drop for Reset {
            fn drop(&mut self) {
                MAY_BLOCK.set(self.0);
            }
        }
        let _reset = Reset(MAY_BLOCK.replace(Some(id)));
        f()
    })
}
