//! A TLS link over any other link.

use std::cell::RefCell;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::VERSION;
use super::failure::{Here, refused_by_peer};
use crate::facts::{PeerFacts, TlsPeer};
use crate::io::Io;

/// Bytes read from the socket at a time, into a buffer that all links of a thread share.
const CHUNK: usize = 64 << 10;
/// Bytes decrypted at a time without asking the runtime.
const LOOK: usize = 4 << 10;

/// A link that speaks TLS. Its reads and writes are plaintext.
pub struct TlsLink {
    stream: TlsStream<ReadAhead>,
    facts: PeerFacts,
    here: Here,
}

impl TlsLink {
    /// Wraps a stream that has shaken hands.
    pub(super) fn new(stream: TlsStream<ReadAhead>, sni: Option<String>) -> TlsLink {
        let here = if matches!(stream, TlsStream::Client(_)) { Here::Client } else { Here::Server };
        let (link, session) = stream.get_ref();
        let names = session.peer_certificates().and_then(<[_]>::first).map(proven_names).unwrap_or_default();
        let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
        let under = link.io.facts();
        let address = match under.address.strip_prefix("tcp://") {
            Some(rest) => format!("tls://{rest}"),
            None => under.address.clone(),
        };
        let facts = PeerFacts { address, tls: Some(TlsPeer { names, sni, alpn, version: VERSION }), ..under };
        TlsLink { stream, facts, here }
    }

    pub(crate) fn facts(&self) -> &PeerFacts {
        &self.facts
    }

    /// As [`Io::limit_unsent`].
    pub(crate) fn limit_unsent(&self, bytes: u32) {
        self.stream.get_ref().0.io.limit_unsent(bytes);
    }

    /// As [`Io::read_now`]: what has come is decrypted without asking the runtime.
    pub(crate) fn read_now(&mut self, buf: &mut BytesMut) -> usize {
        let ahead = self.ahead();
        let mut came = std::mem::take(&mut ahead.bytes);
        ahead.io.read_now(&mut came);
        (ahead.bytes, ahead.only) = (came, true);
        let mut total = 0;
        while total < CHUNK && !self.ahead().bytes.is_empty() {
            let mut room = [0; LOOK];
            let mut read = ReadBuf::new(&mut room);
            // Nothing is asked that could remember this waker: the bytes are there, or nothing is read.
            let polled = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut read);
            if !matches!(polled, Poll::Ready(Ok(()))) || read.filled().is_empty() {
                break;
            }
            buf.extend_from_slice(read.filled());
            total += read.filled().len();
        }
        self.ahead().only = false;
        total
    }

    fn ahead(&mut self) -> &mut ReadAhead {
        self.stream.get_mut().0
    }
}

/// DNS names and URIs of the subject's alternative names.
pub(crate) fn proven_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(str::to_owned).collect()
}

/// The link below: reads far more at a time than the TLS session asks for (4 KiB), and begins with what was
/// read before it was known to be TLS.
pub(super) struct ReadAhead {
    io: Io,
    bytes: BytesMut,
    /// For the moment nothing but what is there is read.
    only: bool,
}

impl ReadAhead {
    pub(super) fn new(io: Io, first: BytesMut) -> ReadAhead {
        ReadAhead { io, bytes: first, only: false }
    }

    pub(super) fn into_inner(self) -> Io {
        self.io
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let n = buf.remaining().min(self.bytes.len());
        buf.put_slice(&self.bytes[..n]);
        self.bytes.advance(n);
        if self.bytes.is_empty() {
            // A link that has nothing to read keeps no room for it.
            self.bytes = BytesMut::new();
        }
    }
}

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = self.get_mut();
        if !me.bytes.is_empty() {
            me.take(buf);
            return Poll::Ready(Ok(()));
        }
        if me.only {
            return Poll::Pending;
        }
        SHARED.with(|shared| {
            // A link below that is TLS, too, has it in use.
            let Ok(mut chunk) = shared.try_borrow_mut() else { return Pin::new(&mut me.io).poll_read(cx, buf) };
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut me.io).poll_read(cx, &mut read))?;
            let (now, later) = read.filled().split_at(read.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            me.bytes.extend_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl AsyncRead for TlsLink {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = self.get_mut();
        Pin::new(&mut me.stream).poll_read(cx, buf).map_err(|e| refused_by_peer(e, me.here))
    }
}

impl AsyncWrite for TlsLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
