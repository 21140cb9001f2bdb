//! A link whose other end belongs to the model: it answers calls, or says what it is told to.

use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use farcall_wire::{Frame, Header, Kind, get_frame, status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::sync::Mutex;
use super::Sleeper;

/// Larger than any frame of a model.
const FRAME: usize = 1 << 20;

/// Both ends of the link. The lock is the checker's, so that it knows that what comes in and who looks
/// for it can be in either order.
#[derive(Clone)]
pub(super) struct Peer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    to_driver: BytesMut,
    reader: Option<Waker>,
    from_driver: BytesMut,
    /// Frames that came, but for those that are answered.
    heard: Vec<Header>,
    listener: Option<Arc<Sleeper>>,
    /// Does not answer calls.
    silent: bool,
    over: bool,
}

impl State {
    fn say(&mut self, header: Header, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, ..header };
        self.to_driver.extend_from_slice(&header.to_bytes());
        self.to_driver.extend_from_slice(payload);
    }

    /// Says whether the driver has something to read.
    fn hear(&mut self, frame: Frame) -> bool {
        let header = frame.header;
        match header.kind {
            Kind::Call if !self.silent => {
                self.say(Header::new(Kind::Reply, 0, status::OK, header.id), &[]);
                true
            }
            _ => {
                self.heard.push(header);
                false
            }
        }
    }
}

impl Peer {
    /// Answers every call at once.
    pub(super) fn answering() -> Peer {
        Peer(Arc::default())
    }

    /// Says nothing by itself.
    pub(super) fn silent() -> Peer {
        let state = State { silent: true, ..State::default() };
        Peer(Arc::new(Mutex::new(state)))
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }

    /// Sends a frame to the driver.
    pub(super) fn say(&self, header: Header, payload: &[u8]) {
        self.say_all(|state| state.say(header, payload));
    }

    /// Sends bytes to the driver.
    pub(super) fn say_bytes(&self, bytes: &[u8]) {
        self.say_all(|state| state.to_driver.extend_from_slice(bytes));
    }

    /// Closes the link.
    pub(super) fn hang_up(&self) {
        self.say_all(|state| state.over = true);
    }

    fn say_all(&self, f: impl FnOnce(&mut State)) {
        let reader = self.with(|state| {
            f(state);
            state.reader.take()
        });
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until a frame of this kind came, and takes it.
    pub(super) fn await_frame(&self, kind: Kind) -> Header {
        let sleeper = Sleeper::new();
        loop {
            let heard = self.with(|state| {
                state.listener = Some(Arc::clone(&sleeper));
                let at = state.heard.iter().position(|h| h.kind == kind);
                at.map(|at| state.heard.remove(at))
            });
            match heard {
                Some(header) => return header,
                None => sleeper.sleep(),
            }
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.with(|state| {
            if state.to_driver.is_empty() && !state.over {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let n = state.to_driver.len().min(buf.remaining());
            buf.put_slice(&state.to_driver.split_to(n));
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let (reader, listener) = self.with(|state| {
            state.from_driver.extend_from_slice(bytes);
            let (mut answered, mut heard) = (false, false);
            while let Some(frame) = get_frame(&mut state.from_driver, FRAME).unwrap() {
                match state.hear(frame) {
                    true => answered = true,
                    false => heard = true,
                }
            }
            let reader = if answered { state.reader.take() } else { None };
            (reader, if heard { state.listener.clone() } else { None })
        });
        reader.into_iter().for_each(Waker::wake);
        listener.into_iter().for_each(|l| Waker::from(l).wake());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// What is closed on this side is closed on the other.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.with(|state| state.over = true);
        Poll::Ready(Ok(()))
    }
}
