//! `raw` with both ends polling their socket for a while before they sleep: what adaptive waiting is compared with.
//!
//! With a core for each end this saves the wake-up, which costs more than the call; on one core it takes from the other
//! end the time to answer.
use super::Peer;
use super::raw::{self, echo};
use crate::config::{ClientConfig, ServerConfig};
use anyhow::Result;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{IoSlice, Result as IoResult};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(crate) struct RawSpin;

impl Peer for RawSpin {
    const NAME: &'static str = "raw-spin";
    const ABOUT: &'static str = "raw, both ends polling their socket for 50 us before they sleep; 64 KiB are copied once more";
    type Caller = raw::Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        let listener = config.listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(Spinning::new(stream)));
        }
    }

    async fn connect(config: ClientConfig) -> Result<raw::Client> {
        Ok(raw::Client::over(Spinning::new(config.dial().await?), config.payload))
    }
}

/// So long after the last bytes it polls.
const SPIN: Duration = Duration::from_micros(50);
/// Bytes of one read.
const CHUNK: usize = 64 << 10;

/// A stream that, with nothing to read, has its task polled again instead of woken, for a while.
struct Spinning {
    stream: TcpStream,
    chunk: Box<[u8]>,
    last: Instant,
}

impl Spinning {
    fn new(stream: TcpStream) -> Spinning {
        Spinning { stream, chunk: vec![0; CHUNK].into(), last: Instant::now() }
    }

    /// Reads what is there now. tokio would not look before its event loop says that there is something.
    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let most = buf.remaining().min(CHUNK);
        match recv(&self.stream, &mut self.chunk[..most], RecvFlags::DONTWAIT) {
            Ok((read, _)) => {
                buf.put_slice(&self.chunk[..read]);
                Poll::Ready(Ok(()))
            }
            Err(Errno::WOULDBLOCK) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for Spinning {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        if let Poll::Ready(read) = self.read_now(buf) {
            self.last = Instant::now();
            return Poll::Ready(read);
        }
        if self.last.elapsed() < SPIN {
            // Behind the tasks that are ready: a caller may have a request.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.last = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Spinning {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
