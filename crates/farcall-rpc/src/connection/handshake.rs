//! The first bytes of a link: preface and hello, each way, within the handshake's time.

use bytes::BytesMut;
use farcall_core::{Code, Limits, RpcError, Stage};
use farcall_transport::Io;
use farcall_wire::{Hello, PREFACE_LEN, Preface, Session, VERSION, Violation, control, get_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A link whose peer has said who it is.
pub(crate) struct Handshake {
    pub(crate) link: Io,
    /// What was read beyond the hello.
    pub(crate) rest: BytesMut,
    pub(crate) theirs: Hello,
    pub(crate) session: Session<std::task::Waker>,
}

/// Says hello and waits for the peer's. `first` is what was read of it already.
pub(crate) async fn establish(link: Io, first: BytesMut, limits: &Limits, address: &str) -> Result<Handshake, RpcError> {
    let patience = limits.handshake;
    match tokio::time::timeout(patience, exchange(link, first, limits)).await {
        Ok(done) => done.map_err(|e| named(e, address)),
        Err(_) => Err(named(
            RpcError::not_executed(
                Code::Unavailable,
                format!("no hello within {} ms: it may be something other than a farcall port, or overloaded", patience.as_millis()),
            ),
            address,
        )),
    }
}

fn named(e: RpcError, address: &str) -> RpcError {
    let message = format!("{address}: {}", e.message());
    RpcError::not_executed(e.code(), message).with_stage(Stage::Connect)
}

async fn exchange(mut link: Io, mut buf: BytesMut, limits: &Limits) -> Result<Handshake, RpcError> {
    let session = Session::new(random_id(), incarnation(), limits);
    let broken = |e: std::io::Error| RpcError::not_executed(Code::Unavailable, format!("the connection broke during the hello: {e}"));
    link.write_all(&Session::<std::task::Waker>::opening(&session.hello)).await.map_err(broken)?;
    while buf.len() < PREFACE_LEN && !matches!(Preface::parse(&buf), Preface::Foreign) {
        if link.read_buf(&mut buf).await.map_err(broken)? == 0 {
            return Err(closed_early(&buf));
        }
    }
    match Preface::parse(&buf) {
        Preface::Farcall(VERSION) => drop(buf.split_to(PREFACE_LEN)),
        Preface::Farcall(other) => {
            let why = format!("the peer speaks farcall protocol {other}, this side {VERSION}: use the same major version on both");
            return Err(RpcError::not_executed(Code::Unimplemented, why));
        }
        Preface::Partial | Preface::Foreign => return Err(foreign(&buf)),
    }
    loop {
        if let Some(frame) = get_frame(&mut buf, farcall_core::limits::FRAME_BEFORE_HELLO).map_err(broke_protocol)? {
            let theirs = control::expect_hello(frame)?;
            return Ok(Handshake { link, rest: buf, theirs, session });
        }
        if link.read_buf(&mut buf).await.map_err(broken)? == 0 {
            return Err(closed_early(&buf));
        }
    }
}

fn broke_protocol(v: Violation) -> RpcError {
    RpcError::not_executed(Code::InvalidArgument, format!("the peer broke the protocol: {v}"))
}

fn closed_early(got: &[u8]) -> RpcError {
    match got {
        [] => RpcError::not_executed(
            Code::Unavailable,
            "the peer closed the connection without a hello: it may not be a farcall port, or it is shutting down",
        ),
        _ if Preface::parse(got) == Preface::Foreign => foreign(got),
        _ => RpcError::not_executed(Code::Unavailable, "the peer closed the connection in the middle of its hello"),
    }
}

/// What does answer there is a good hint: an HTTP server, a TLS port.
fn foreign(got: &[u8]) -> RpcError {
    let shown: String = String::from_utf8_lossy(&got[..got.len().min(32)]).escape_default().collect();
    RpcError::not_executed(Code::InvalidArgument, format!("not a farcall peer: it answered \"{shown}\"; is the port right?"))
}

/// A session id that nobody else has.
fn random_id() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        // The standard library's only source of random numbers: fresh keys for every map.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    id
}

/// Grows with every start of this process: its start in microseconds since 1970.
fn incarnation() -> u64 {
    use std::sync::OnceLock;
    use std::time::SystemTime;
    static START: OnceLock<u64> = OnceLock::new();
    *START.get_or_init(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64))
}
