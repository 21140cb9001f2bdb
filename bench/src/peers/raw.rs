//! The anchor: the most that plain tokio gives, as frames of `u32 length, u64 id, payload` without any codec.
//!
//! One driver task per connection reads, dispatches and flushes, so that everything ready at one time leaves in one
//! write. A driver that woke several callers must run behind them to find their next requests, but tokio's LIFO slot
//! would run it right after the first; so it wakes itself once and flushes on its next turn.
use super::{Caller, Peer, check};
use crate::config::{Addr, ClientConfig, MAX_PAYLOAD, Payload, ServerConfig};
use crate::delay::{Delay, work};
use anyhow::{Context as _, Result};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::io::poll_read_buf;

pub(crate) struct Raw;

impl Peer for Raw {
    const NAME: &'static str = "raw";
    const ABOUT: &'static str = "tokio, hand-written frames of opaque bytes, one driver per connection, coalesced writes";
    const UNIX: bool = true;
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        match &config.addr {
            Addr::Unix(path) => serve_unix(config.listen_unix(path)?).await,
            _ => serve_tcp(config.listen().await?).await,
        }
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        Ok(match &config.addr {
            Addr::Unix(path) => Client::over(config.dial_unix(path).await?, config.payload),
            _ => Client::over(config.dial().await?, config.payload),
        })
    }
}

async fn serve_tcp(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream));
    }
}

async fn serve_unix(listener: UnixListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream));
    }
}

/// A type parameter and no enum, so that each transport has code of its own.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

// ------------------------------------------------------------------ frames

const HEAD: usize = 12;
/// Read so much at once, or the rest of a larger frame.
const CHUNK: usize = 64 << 10;
/// Holds the largest frame and, behind it, another read.
const BUFFER: usize = MAX_PAYLOAD + 2 * CHUNK;

/// Length of the whole frame that `bytes` begins with, once its header is there.
fn frame_len(bytes: &[u8]) -> IoResult<Option<usize>> {
    let Some(len) = bytes.first_chunk().filter(|_| bytes.len() >= HEAD).map(|len| u32::from_le_bytes(*len) as usize) else {
        return Ok(None);
    };
    if len > MAX_PAYLOAD {
        return Err(Error::new(ErrorKind::InvalidData, format!("frame of {len} bytes")));
    }
    Ok(Some(HEAD + len))
}

/// Room to make for the next read behind `input`.
fn room(input: &[u8]) -> IoResult<usize> {
    let missing = frame_len(input)?.unwrap_or(0).saturating_sub(input.len());
    Ok(missing.max(CHUNK))
}

fn frame_id(frame: &[u8]) -> u64 {
    u64::from_le_bytes(*frame[4..].first_chunk().expect("a whole frame"))
}

fn put_frame(output: &mut Vec<u8>, id: u64, payload: &[u8]) {
    output.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    output.extend_from_slice(&id.to_le_bytes());
    output.extend_from_slice(payload);
}

// ------------------------------------------------------------------ server

/// One read, all its answers, one write.
pub(super) async fn echo(mut stream: impl Stream) -> IoResult<()> {
    let (mut input, mut output) = (BytesMut::with_capacity(BUFFER), Vec::with_capacity(CHUNK));
    let mut delayed = JoinSet::new();
    loop {
        input.reserve(room(&input)?);
        if poll_fn(|cx| poll_input(&mut stream, &mut input, &mut delayed, &mut output, cx)).await? == 0 && output.is_empty() {
            return Ok(());
        }
        let answered = answer(&input, &mut output, &mut delayed)?;
        input.advance(answered);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
}

/// Answers whose delay is not over yet: a task for each, as a server with slow handlers would have.
type Delayed = JoinSet<(u64, Bytes)>;

/// Ready with the bytes read, or with 0 when delayed answers were put out; with 0 and none of these at the end.
fn poll_input(
    stream: &mut impl Stream,
    input: &mut BytesMut,
    delayed: &mut Delayed,
    output: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<IoResult<usize>> {
    while let Poll::Ready(Some(due)) = delayed.poll_join_next(cx) {
        let (id, payload) = due.map_err(Error::other)?;
        put_frame(output, id, &payload);
    }
    match poll_read_buf(Pin::new(stream), cx, input) {
        Poll::Pending if !output.is_empty() => Poll::Ready(Ok(0)),
        read => read,
    }
}

/// Answers the whole frames of `input`, at once or later, and returns their length. The first byte of a payload says
/// what its handler has to do.
fn answer(input: &[u8], output: &mut Vec<u8>, delayed: &mut Delayed) -> IoResult<usize> {
    let mut rest = input;
    while let Some((frame, behind)) = frame_len(rest)?.and_then(|len| rest.split_at_checked(len)) {
        let (id, payload) = (frame_id(frame), &frame[HEAD..]);
        match Delay::numbered(payload.first().copied().unwrap_or_default()) {
            None => put_frame(output, id, payload),
            Some(Delay::Wait) => later(id, payload, delayed),
            Some(Delay::Work) => {
                work();
                put_frame(output, id, payload);
            }
        }
        rest = behind;
    }
    Ok(input.len() - rest.len())
}

fn later(id: u64, payload: &[u8], delayed: &mut Delayed) {
    let payload = Bytes::copy_from_slice(payload);
    delayed.spawn(async move {
        Delay::Wait.pass().await;
        (id, payload)
    });
}

// ------------------------------------------------------------------ client

pub(crate) struct Client {
    calls: Arc<Calls>,
    payload: Bytes,
    /// Of the calls with a delay.
    slow_payload: Bytes,
}

impl Client {
    pub(super) fn over(stream: impl Stream, payload: Payload) -> Client {
        let calls = Arc::new(Calls::default());
        tokio::spawn(Driver::new(stream, calls.clone()).run());
        Client { calls, payload: payload.opaque(), slow_payload: slow_payload(payload) }
    }
}

fn slow_payload(payload: Payload) -> Bytes {
    let mut block = Vec::from(payload.opaque());
    if let (Payload::Slow(delay), Some(first)) = (payload, block.first_mut()) {
        *first = delay.number();
    }
    block.into()
}

impl Caller for Client {
    async fn call(&self, delay: Option<Delay>) -> Result<()> {
        let payload = if delay.is_none() { &self.payload } else { &self.slow_payload };
        let mut id = None;
        let answer = poll_fn(|cx| self.calls.lock().poll_call(&mut id, payload, cx));
        check(answer.await.context("the connection is closed")?.len() == self.payload.len())
    }
}

/// What the callers and the driver of one connection share.
#[derive(Default)]
struct Calls(Mutex<Table>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    /// First of the vacant slots, which form a list; `slots.len()` if there is none.
    vacant: usize,
    /// Frames for the next write.
    output: Vec<u8>,
    /// Set while the driver has nothing to flush.
    idle_driver: Option<Waker>,
    closed: bool,
}

enum Slot {
    Vacant { next: usize },
    Waiting(Waker),
    Answered(Bytes),
}

impl Table {
    /// The first poll sends, the later ones look for the answer; `None` when the connection is closed.
    fn poll_call(&mut self, sent: &mut Option<usize>, payload: &[u8], cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match *sent {
            Some(id) => self.poll_answer(id, cx),
            None if self.closed => Poll::Ready(None),
            None => {
                *sent = Some(self.begin(payload, cx));
                Poll::Pending
            }
        }
    }

    /// Queues a request; the id is its slot.
    fn begin(&mut self, payload: &[u8], cx: &mut Context<'_>) -> usize {
        let (id, waiting) = (self.vacant, Slot::Waiting(cx.waker().clone()));
        match self.slots.get_mut(id) {
            Some(slot) => {
                let Slot::Vacant { next } = std::mem::replace(slot, waiting) else { unreachable!("listed as vacant") };
                self.vacant = next;
            }
            None => {
                self.slots.push(waiting);
                self.vacant = self.slots.len();
            }
        }
        put_frame(&mut self.output, id as u64, payload);
        if let Some(driver) = self.idle_driver.take() {
            driver.wake();
        }
        id
    }

    fn poll_answer(&mut self, id: usize, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.slots[id] {
            Slot::Waiting(_) if self.closed => Poll::Ready(None),
            Slot::Waiting(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            slot => {
                let Slot::Answered(payload) = std::mem::replace(slot, Slot::Vacant { next: self.vacant }) else {
                    unreachable!("a slot is vacant only between calls")
                };
                self.vacant = id;
                Poll::Ready(Some(payload))
            }
        }
    }

    /// Stores an answer; the caller to wake, unless nobody waits under this id.
    fn answer(&mut self, id: u64, payload: Bytes) -> Option<Waker> {
        let slot = self.slots.get_mut(id as usize).filter(|slot| matches!(slot, Slot::Waiting(_)))?;
        match std::mem::replace(slot, Slot::Answered(payload)) {
            Slot::Waiting(waker) => Some(waker),
            _ => None,
        }
    }

    fn close(&mut self) {
        self.closed = true;
        for slot in &self.slots {
            if let Slot::Waiting(waker) = slot {
                waker.wake_by_ref();
            }
        }
    }
}

/// Where the driver reads. Answers are slices of the buffers, so a buffer is free again when its last answer is
/// dropped. Full ones are kept until then: to free and allocate them, at 64 KiB per answer, made the allocator return
/// memory to the kernel and fault it in again, and more than doubled the CPU per call.
struct Input {
    current: BytesMut,
    /// Oldest first. As many as the answers in flight fill, and one more.
    full: VecDeque<BytesMut>,
}

impl Input {
    fn new() -> Input {
        Input { current: BytesMut::with_capacity(BUFFER), full: VecDeque::new() }
    }

    fn make_room(&mut self) -> IoResult<()> {
        let room = room(&self.current)?;
        // Begins at the front again as soon as it can: that memory is in the cache.
        if self.current.is_empty() && self.current.try_reclaim(BUFFER) || self.current.try_reclaim(room) {
            return Ok(());
        }
        let oldest_is_free = self.full.front_mut().is_some_and(|oldest| oldest.try_reclaim(BUFFER));
        let oldest = if oldest_is_free { self.full.pop_front() } else { None };
        let mut next = oldest.unwrap_or_else(|| BytesMut::with_capacity(BUFFER));
        next.extend_from_slice(&self.current);
        self.current.clear();
        self.full.push_back(std::mem::replace(&mut self.current, next));
        Ok(())
    }
}

/// Reads, dispatches and flushes one connection.
struct Driver<S> {
    stream: S,
    calls: Arc<Calls>,
    input: Input,
    output: Vec<u8>,
    /// So much of `output` is sent.
    sent: usize,
    answered: Vec<Waker>,
    yielded: bool,
}

impl<S: Stream> Driver<S> {
    fn new(stream: S, calls: Arc<Calls>) -> Driver<S> {
        Driver { stream, calls, input: Input::new(), output: Vec::new(), sent: 0, answered: Vec::new(), yielded: false }
    }

    async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll_turn(cx)).await;
        self.calls.lock().close();
        if let Err(error) = ended {
            eprintln!("raw: connection lost: {error}");
        }
    }

    /// Ready when the server has closed the connection.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        let mut woken = 0;
        while let Poll::Ready(read) = self.poll_read(cx) {
            if read? == 0 {
                return Poll::Ready(Ok(()));
            }
            woken += self.dispatch()?;
        }
        // A single caller needs no yield: nobody else can have a request ready.
        self.yielded = woken > 1 && !self.yielded;
        if self.yielded {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_flush(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<IoResult<usize>> {
        self.input.make_room()?;
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input.current)
    }

    /// Hands every whole frame to its caller; how many were woken.
    fn dispatch(&mut self) -> IoResult<usize> {
        let (input, mut table) = (&mut self.input.current, self.calls.lock());
        while let Some(len) = frame_len(input)?.filter(|len| *len <= input.len()) {
            let id = frame_id(input);
            input.advance(HEAD);
            let payload = input.split_to(len - HEAD).freeze();
            self.answered.extend(table.answer(id, payload));
        }
        drop(table);
        let woken = self.answered.len();
        self.answered.drain(..).for_each(Waker::wake);
        Ok(woken)
    }

    /// Never ready but with an error: parked until a caller queues a request, or until the socket takes more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        loop {
            if self.sent == self.output.len() {
                self.output.clear();
                self.sent = 0;
                let mut table = self.calls.lock();
                if table.output.is_empty() {
                    table.idle_driver = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut table.output, &mut self.output);
            }
            self.sent += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output[self.sent..]))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_answered_and_a_partial_one_waits() {
        let mut input = Vec::new();
        put_frame(&mut input, 7, b"abc");
        put_frame(&mut input, 8, b"");
        let whole = input.len();
        input.extend_from_slice(&[9, 0, 0]);
        let mut output = Vec::new();
        assert_eq!(answer(&input, &mut output, &mut JoinSet::new()).unwrap(), whole);
        assert_eq!(output, input[..whole]);
    }

    #[test]
    fn a_waiting_handler_does_not_hold_up_the_next() {
        let mut input = Vec::new();
        put_frame(&mut input, 1, &slow_payload(Payload::Slow(Delay::Wait)));
        let slow = input.len();
        put_frame(&mut input, 2, b"fast");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut output, mut delayed) = (Vec::new(), JoinSet::new());
            assert_eq!(answer(&input, &mut output, &mut delayed).unwrap(), input.len());
            assert_eq!(output, input[slow..]);
            let (id, payload) = delayed.join_next().await.unwrap().unwrap();
            assert_eq!((id, &payload[..]), (1, &input[HEAD..slow]));
        });
    }

    #[test]
    fn an_announced_length_above_the_limit_is_refused() {
        let mut input = Vec::new();
        put_frame(&mut input, 1, b"");
        input[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        answer(&input, &mut Vec::new(), &mut JoinSet::new()).unwrap_err();
    }

    #[test]
    fn slots_are_reused_last_freed_first() {
        let (mut table, mut cx) = (Table::default(), Context::from_waker(Waker::noop()));
        let ids: Vec<_> = (0..3).map(|_| table.begin(b"x", &mut cx)).collect();
        assert_eq!(ids, [0, 1, 2]);
        for id in [0, 2] {
            assert!(table.answer(id as u64, Bytes::new()).is_some());
            assert!(table.answer(id as u64, Bytes::new()).is_none(), "answered twice");
            assert!(table.poll_answer(id, &mut cx).is_ready());
        }
        assert_eq!([2, 0, 3], [(); 3].map(|()| table.begin(b"x", &mut cx)));
    }
}
