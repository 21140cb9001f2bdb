//! A connection: told apart by its first bytes, driven by hyper to its end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farcall_rpc::{Dispatch, Held, Io, Sniff};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep, sleep};

use crate::Config;
use crate::door::Door;
use crate::link::{Link, PACE};

/// What HTTP/2 connections begin with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What HTTP/1.1 requests begin with.
const METHODS: [&[u8]; 9] = [b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PUT ", b"DELETE ", b"PATCH ", b"TRACE ", b"CONNECT "];
/// The least buffer that hyper takes.
const LEAST_HEADER_BYTES: usize = 8 << 10;
/// HTTP/2: bytes of one stream, and of all, that a client may send before they are read.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// HTTP/2: bytes of one response that wait to be written.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes that the system takes without being able to send them. It asks for more when half of them have gone: that much a
/// client must read within the limit `stall`.
const UNSENT: u32 = 2 * PACE as u32;
/// HTTP/2: streams reset by the client that were not looked at yet, and by us for errors of its; more end the connection.
const RESET_STREAMS: usize = 64;
/// How long a connection that is to end and has nothing under way may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whether these first bytes are HTTP.
pub(crate) fn sniff(first: &[u8]) -> Sniff {
    let mut all = METHODS.iter().copied().chain([PREFACE]);
    match all.clone().any(|known| first.starts_with(known)) {
        true => Sniff::Yes,
        false if all.any(|known| known.starts_with(first)) => Sniff::More,
        false => Sniff::No,
    }
}

/// Whether they are HTTP/2.
pub(crate) fn is_http2(first: &[u8]) -> bool {
    first.starts_with(PREFACE)
}

/// Serves a connection to its end.
pub(crate) async fn serve(config: Arc<Config>, link: Io, first: BytesMut, dispatch: Dispatch) {
    let limits = &config.limits;
    let is_http2 = is_http2(&first);
    let activity = Activity::default();
    link.limit_unsent(UNSENT);
    let io = TokioIo::new(Link::new(link, first, limits.stall, activity.clone()));
    let door = Arc::new(Door::new(Arc::clone(&config), dispatch.clone(), activity.clone()));
    let service = service_fn(move |request| Arc::clone(&door).answer(request));
    match is_http2 {
        false => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle)
                .max_headers(limits.headers)
                .max_buf_size(limits.header_bytes.max(LEAST_HEADER_BYTES))
                .serve_connection(io, service);
            drive(connection, http1::Connection::graceful_shutdown, &dispatch, &activity, None).await;
        }
        true => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.requests)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_pending_accept_reset_streams(RESET_STREAMS)
                .max_local_error_reset_streams(RESET_STREAMS)
                .keep_alive_interval(limits.stall)
                .keep_alive_timeout(limits.stall)
                .serve_connection(io, service);
            let idle = Idle::new(&activity, limits.idle);
            drive(connection, http2::Connection::graceful_shutdown, &dispatch, &activity, Some(idle)).await;
        }
    }
}

/// Polls a connection to its end, and ends it gracefully once the server drains or it has been idle for long.
async fn drive<C: Future>(connection: C, end: fn(Pin<&mut C>), dispatch: &Dispatch, activity: &Activity, mut idle: Option<Idle>) {
    let (mut connection, mut drain) = (pin!(connection), pin!(dispatch.drain()));
    let mut ending: Option<Idle> = None;
    poll_fn(|cx| {
        match &mut ending {
            Some(ending) => {
                // A client that does its part to end the connection has done it by now.
                if ending.poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            None => {
                if drain.as_mut().poll(cx).is_ready() || idle.as_mut().is_some_and(|idle| idle.poll(cx).is_ready()) {
                    ending.insert(Idle::new(activity, FAREWELL)).register(cx);
                    end(connection.as_mut());
                }
            }
        }
        // What went wrong, the client knows better: nobody here could do anything about it.
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Requests of a connection.
#[derive(Clone, Default)]
pub(crate) struct Activity(Arc<Counts>);

#[derive(Default)]
struct Counts {
    running: AtomicUsize,
    begun: AtomicUsize,
    /// Large replies that the client has not taken yet.
    unread: AtomicUsize,
    /// Bytes written to the link.
    written: AtomicUsize,
}

impl Activity {
    /// A request is under way for as long as what is returned exists.
    pub(crate) fn begin(&self) -> Busy {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// A reply as hyper is given it: until the client has taken it, it is counted among what its connection holds, by the
    /// limit `held`, and the connection is not idle.
    pub(crate) fn reply(&self, bytes: Bytes, dispatch: &Dispatch) -> Bytes {
        if bytes.len() <= PACE {
            return bytes;
        }
        let mut held = dispatch.hold();
        // It is there already: if it is too much, the next call is refused.
        let _ = held.grow(bytes.len());
        self.0.unread.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Unread { bytes, activity: self.clone(), _held: held })
    }

    /// So many bytes were written to the link.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.0.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// See [`Activity::reply`].
struct Unread {
    bytes: Bytes,
    activity: Activity,
    _held: Held,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.activity.0.unread.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`Activity::begin`].
pub(crate) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells when nothing was asked for a while, and of what was answered the client took next to nothing. (hyper does the
/// former for HTTP/1.1 alone, and the latter not at all: an HTTP/2 client may keep its windows shut for ever.)
struct Idle {
    activity: Activity,
    time: Duration,
    /// Requests that had begun at the last look.
    seen: usize,
    /// Bytes that were written at the last look.
    written: usize,
    alarm: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(activity: &Activity, time: Duration) -> Idle {
        let seen = activity.0.begun.load(Ordering::Relaxed);
        let written = activity.0.written.load(Ordering::Relaxed);
        Idle { activity: activity.clone(), time, seen, written, alarm: Box::pin(sleep(time)) }
    }

    /// Sees to it that the task is woken in time.
    fn register(&mut self, cx: &mut Context<'_>) {
        if self.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let counts = &self.activity.0;
            let begun = counts.begun.load(Ordering::Relaxed);
            let written = counts.written.load(Ordering::Relaxed);
            let is_read = counts.unread.load(Ordering::Relaxed) > 0 && written.wrapping_sub(self.written) >= PACE;
            if counts.running.load(Ordering::Relaxed) == 0 && begun == self.seen && !is_read {
                return Poll::Ready(());
            }
            (self.seen, self.written) = (begun, written);
            self.alarm.as_mut().reset(Instant::now() + self.time);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_bytes() {
        for yes in ["GET / HTTP/1.1\r\n", "POST /a/b", "OPTIONS *", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            assert_eq!(sniff(yes.as_bytes()), Sniff::Yes, "{yes}");
        }
        for more in ["", "G", "GET", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "P"] {
            assert_eq!(sniff(more.as_bytes()), Sniff::More, "{more}");
        }
        for no in ["get / HTTP/1.1", "GETS /", " GET /", "\r\nGET /", "PRI * HTTP/1.1", "FARC", "\x16\x03\x01"] {
            assert_eq!(sniff(no.as_bytes()), Sniff::No, "{no}");
        }
    }
}
