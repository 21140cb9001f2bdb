//! The first bytes of a link: preface and hello, each way, within the handshake's time.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use farcall_core::{Code, Credentials, Limits, RpcError, Stage};
use farcall_transport::Io;
use farcall_wire::{Hello, OutBuf, PREFACE_LEN, Preface, Session, VERSION, Violation, control, get_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::driver::LINGER;
use crate::admission::Admission;
use crate::auth::Identity;
use crate::keys::Record;

/// How errors begin that are the peer's fault.
const BROKE: &str = "the peer broke the protocol: ";

/// The first byte of what a TLS port answers to plaintext.
const TLS_ALERT: u8 = 0x15;

/// A link whose peer has said who it is.
pub(crate) struct Handshake {
    pub(crate) link: Io,
    /// What was read beyond the hello.
    pub(crate) rest: BytesMut,
    pub(crate) theirs: Hello,
    pub(crate) session: Session<std::task::Waker>,
    /// Who it has proven to be.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// What a side says and asks in its hello.
#[derive(Default)]
pub(crate) struct Greeting<'a> {
    /// What it shows to prove who it is: openers only.
    pub(crate) credentials: Option<Credentials>,
    /// Who judges what the peer shows: acceptors only.
    pub(crate) admission: Option<&'a Admission>,
    /// Its record of idempotency keys.
    pub(crate) keys: Option<&'a Record>,
    /// Time for it, if that is less than the limit `handshake`.
    pub(crate) within: Option<Duration>,
}

/// Says hello and waits for the peer's. `first` is what was read of it already.
pub(crate) async fn establish(
    mut link: Io,
    mut first: BytesMut,
    limits: &Limits,
    address: &str,
    greeting: Greeting<'_>,
) -> Result<Handshake, RpcError> {
    let patience = greeting.within.map_or(limits.handshake, |within| within.min(limits.handshake));
    match tokio::time::timeout(patience, exchange(&mut link, &mut first, limits, greeting)).await {
        Ok(Ok(Greeted { session, theirs, identity })) => Ok(Handshake { link, rest: first, theirs, session, identity }),
        Ok(Err(refused)) => {
            if let Some(tell) = &refused.tell {
                let mut out = OutBuf::default();
                control::refuse(tell, &mut out);
                let preface = Preface::ours();
                let preface = if refused.silent { &preface[..] } else { &[] };
                last_words(link, &[preface, out.contiguous().unwrap_or_default()].concat()).await;
            }
            Err(named(refused.error, address))
        }
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

/// Why there is no session.
struct Refused {
    error: RpcError,
    /// What the peer is told, if it speaks farcall.
    tell: Option<RpcError>,
    /// Nothing was said to it yet.
    silent: bool,
}

impl From<RpcError> for Refused {
    fn from(error: RpcError) -> Refused {
        Refused { error, tell: None, silent: false }
    }
}

impl From<Violation> for Refused {
    fn from(v: Violation) -> Refused {
        let tell = Some(control::broke(&v));
        Refused { error: RpcError::not_executed(Code::InvalidArgument, format!("{BROKE}{v}")), tell, silent: false }
    }
}

/// What comes of the hellos.
struct Greeted {
    session: Session<std::task::Waker>,
    theirs: Hello,
    identity: Option<Arc<Identity>>,
}

async fn exchange(link: &mut Io, buf: &mut BytesMut, limits: &Limits, greeting: Greeting<'_>) -> Result<Greeted, Refused> {
    let mut session = Session::new(random_id(), incarnation(), limits);
    session.hello.keys = greeting.keys.map(Record::now);
    session.hello.auth = greeting.credentials;
    let opening = Session::<std::task::Waker>::opening(&session.hello);
    session.hello.auth = None;
    // Who asks its peer first who it is has said nothing before it knows: the small limits hold till then.
    let Some(admission) = greeting.admission.filter(|admission| admission.asks()) else {
        say(link, &opening).await?;
        let theirs = hear(link, buf).await?;
        return Ok(Greeted { session, theirs, identity: None });
    };
    let unsaid = |refused: Refused| Refused { silent: true, ..refused };
    let mut theirs = hear(link, buf).await.map_err(unsaid)?;
    let shown = theirs.auth.take();
    let judged = admission.authenticate(&link.facts(), shown.as_ref()).await;
    drop(shown);
    let identity = judged.map_err(|error| Refused { tell: Some(error.clone()), error, silent: true })?;
    say(link, &opening).await?;
    Ok(Greeted { session, theirs, identity })
}

async fn say(link: &mut Io, opening: &[u8]) -> Result<(), RpcError> {
    link.write_all(opening).await.map_err(broken)?;
    // A link that buffers would keep it.
    link.flush().await.map_err(broken)
}

/// Reads the peer's preface and hello.
async fn hear(link: &mut Io, buf: &mut BytesMut) -> Result<Hello, Refused> {
    while buf.len() < PREFACE_LEN && !matches!(Preface::parse(buf), Preface::Foreign) {
        if link.read_buf(buf).await.map_err(broken)? == 0 {
            return Err(closed_early(buf).into());
        }
    }
    match Preface::parse(buf) {
        Preface::Farcall(VERSION) => drop(buf.split_to(PREFACE_LEN)),
        Preface::Farcall(other) => {
            let why = format!("the peer speaks farcall protocol {other}, this side {VERSION}: use the same major version on both");
            let tell = format!("this side speaks farcall protocol {VERSION}, not {other}: use the same major version on both");
            let tell = Some(RpcError::new(Code::Unimplemented, tell));
            return Err(Refused { error: RpcError::not_executed(Code::Unimplemented, why), tell, silent: false });
        }
        Preface::Partial | Preface::Foreign => return Err(foreign(buf).into()),
    }
    loop {
        if let Some(frame) = get_frame(buf, farcall_core::limits::FRAME_BEFORE_HELLO)? {
            return control::expect_hello(frame).map_err(|error| {
                let tell = error.message().strip_prefix(BROKE).map(|v| control::broke(&Violation(v.to_owned())));
                Refused { error, tell, silent: false }
            });
        }
        if link.read_buf(buf).await.map_err(broken)? == 0 {
            return Err(cut_off().into());
        }
    }
}

/// Writes what there is left to say and closes. It reads on for a moment: to close a socket with
/// unread bytes would throw the words away.
pub(crate) async fn last_words(mut link: Io, words: &[u8]) {
    let closing = async {
        if link.write_all(words).await.is_ok() && link.shutdown().await.is_ok() {
            // On the heap: an array would be a part of every connection, whether it ends or not.
            let mut sink = vec![0; 4096];
            while link.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        }
    };
    let _ = tokio::time::timeout(LINGER, closing).await;
}

/// A peer that closes before it has read our hello resets the connection; that is no other case.
fn broken(e: std::io::Error) -> RpcError {
    match e.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => closed_early(&[]),
        _ => RpcError::not_executed(Code::Unavailable, format!("the connection broke during the hello: {e}")),
    }
}

fn closed_early(got: &[u8]) -> RpcError {
    match got {
        [] => RpcError::not_executed(
            Code::Unavailable,
            "the peer closed the connection without a hello: it may not be a farcall port, or it is shutting down",
        ),
        _ if Preface::parse(got) == Preface::Foreign => foreign(got),
        _ => cut_off(),
    }
}

fn cut_off() -> RpcError {
    RpcError::not_executed(Code::Unavailable, "the peer closed the connection in the middle of its hello")
}

/// What does answer there is a good hint: an HTTP server, a TLS port.
fn foreign(got: &[u8]) -> RpcError {
    if let [TLS_ALERT, 3, ..] = got {
        return RpcError::not_executed(Code::FailedPrecondition, "that port speaks TLS: use tls:// instead of tcp://");
    }
    let shown: String = String::from_utf8_lossy(&got[..got.len().min(32)]).escape_default().collect();
    RpcError::not_executed(Code::InvalidArgument, format!("not a farcall peer: it answered \"{shown}\"; is the port right?"))
}

/// Sixteen bytes that nobody else has.
pub(crate) fn random_id() -> [u8; 16] {
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
