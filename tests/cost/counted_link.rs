//! A TCP connection within this process whose reads and writes are counted.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// One end of it.
pub(crate) struct CountedLink {
    stream: TcpStream,
    /// Reads and writes that moved bytes: each is a system call. One that found nothing to do is none, since tokio
    /// knows that the socket is empty or full.
    operations: Arc<AtomicU64>,
}

/// Both ends; Nagle's algorithm is off, as on every link of ours.
pub(crate) async fn pair() -> [CountedLink; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    [near, far].map(|stream| {
        stream.set_nodelay(true).unwrap();
        CountedLink { stream, operations: Arc::default() }
    })
}

impl CountedLink {
    /// Grows with every read and write.
    pub(crate) fn operations(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.operations)
    }

    fn counted<T>(&self, done: Poll<T>) -> Poll<T> {
        if done.is_ready() {
            self.operations.fetch_add(1, Relaxed);
        }
        done
    }
}

impl AsyncRead for CountedLink {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.counted(done)
    }
}

impl AsyncWrite for CountedLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.counted(done)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.counted(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A socket has nothing to flush: not counted.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
