//! A link as hyper is given it: what was read to tell protocols apart comes first, a client that takes nothing is given
//! up, and a connection ends without cutting off what is on its way.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use farcall_rpc::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::serve::Activity;

/// How long a link is kept after its last byte was written, for the client to read it.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes of which this many, or all that there are, must be taken within the limit `stall`.
pub(crate) const PACE: usize = 16 << 10;
/// Bytes that are thrown away meanwhile.
const MOST_IGNORED: usize = 1 << 20;

/// See the module's text.
pub(crate) struct Link {
    io: Io,
    first: BytesMut,
    /// How long the client may take for [`PACE`].
    stall: Duration,
    /// Since a write had to wait.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since then.
    taken: usize,
    /// Set once our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
    ignored: usize,
    activity: Activity,
}

impl Link {
    pub(crate) fn new(io: Io, first: BytesMut, stall: Duration, activity: Activity) -> Link {
        Link { io, first, stall, stalled: None, taken: 0, lingering: None, ignored: 0, activity }
    }

    /// What a write came to. A byte now and then is no better than none.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        let Poll::Ready(done) = written else { return self.watched(cx, written) };
        let bytes = done.as_ref().copied().unwrap_or_default();
        self.activity.wrote(bytes);
        self.taken += bytes;
        if self.taken >= PACE {
            self.is_taken();
        }
        Poll::Ready(done)
    }

    fn is_taken(&mut self) {
        (self.stalled, self.taken) = (None, 0);
    }

    /// An error if it waits for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, done: Poll<Result<T>>) -> Poll<Result<T>> {
        if done.is_ready() {
            return done;
        }
        let stall = self.stall;
        let alarm = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client takes nothing")))
    }

    /// Reads on until the client closes its side: closing with bytes unread would reset the connection, and the client
    /// might never read its answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut sink = [0; 4096];
        loop {
            if let Some(alarm) = &mut self.lingering
                && alarm.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut sink);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            self.ignored += buf.filled().len();
            if buf.filled().is_empty() || self.ignored > MOST_IGNORED {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..len]);
        self.first.advance(len);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        // TLS would write each slice as a record of its own.
        matches!(self.io, Io::Tcp(_) | Io::Unix(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_ready() {
            self.is_taken();
        }
        self.watched(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.lingering.is_none() {
            let closed = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.watched(cx, closed))?;
            self.lingering = Some(Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        }
        self.poll_linger(cx)
    }
}
