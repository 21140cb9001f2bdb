//! What can go wrong with a call, and what is known about whether it ran.
//!
//! A method returns [`Reply<T, E>`]. `E` is the application's own error; everything else is an
//! [`RpcError`]: a [`Code`] to match on, a message for people, the [`Stage`] that failed, and a
//! [`Certainty`] that says whether calling again could run the method twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of a remote method: `Result<T, RpcError>` without an application error,
/// `Result<T, Error<E>>` with one.
pub type Reply<T, E = Never> = std::result::Result<T, <E as Fault>::Error>;

/// "No application error": the default of [`Reply`]'s second parameter. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Marks a type as an application error, so that `?` lifts it into [`Error<E>`].
/// `#[farcall::error]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a remote method",
    label = "not an application error",
    note = "put #[farcall::error] on `{Self}`"
)]
pub trait AppError {}

/// Chooses the error type of a [`Reply`]: [`RpcError`] for [`Never`], [`Error<E>`] for an
/// application error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a remote method",
    label = "not an application error",
    note = "put #[farcall::error] on `{Self}`"
)]
pub trait Fault: Sized {
    /// What the caller sees.
    type Error: From<RpcError>;

    /// Parts an error into the application's and the system's.
    fn split(error: Self::Error) -> Result<Self, RpcError>;

    /// Wraps an application error that came back from the provider.
    fn lift(self) -> Self::Error;
}

impl Fault for Never {
    type Error = RpcError;

    fn split(error: RpcError) -> Result<Self, RpcError> {
        Err(error)
    }

    fn lift(self) -> RpcError {
        match self {}
    }
}

impl<E: AppError> Fault for E {
    type Error = Error<E>;

    fn split(error: Error<E>) -> Result<Self, RpcError> {
        match error {
            Error::App(e) => Ok(e),
            Error::Rpc(e) => Err(e),
        }
    }

    fn lift(self) -> Error<E> {
        Error::App(self)
    }
}

/// The failure of a call whose method has an application error `E`.
#[derive(Debug, Clone)]
pub enum Error<E> {
    /// The handler ran and answered with its own error.
    App(E),
    /// The call itself failed: see [`RpcError::certainty`] for whether the handler may have run.
    Rpc(RpcError),
}

impl<E> Error<E> {
    /// Turns another service's failure into one of ours, inside a handler:
    /// `stock.ship(id).await.map_err(Error::upstream)?`.
    ///
    /// An application error of that service becomes [`Code::FailedPrecondition`]; its message names
    /// it. A system error keeps its code. Map an error by hand where the caller should see more.
    pub fn upstream(self) -> RpcError
    where
        E: fmt::Debug,
    {
        match self {
            Error::App(e) => RpcError::new(Code::FailedPrecondition, format!("upstream: {e:?}")),
            Error::Rpc(e) => e.upstream(),
        }
    }

    /// The system error, if that is what it is.
    pub fn rpc(&self) -> Option<&RpcError> {
        match self {
            Error::App(_) => None,
            Error::Rpc(e) => Some(e),
        }
    }

    /// The application error, if that is what it is.
    pub fn app(&self) -> Option<&E> {
        match self {
            Error::App(e) => Some(e),
            Error::Rpc(_) => None,
        }
    }
}

impl<E: AppError> From<E> for Error<E> {
    fn from(e: E) -> Self {
        Error::App(e)
    }
}

impl<E> From<RpcError> for Error<E> {
    fn from(e: RpcError) -> Self {
        Error::Rpc(e)
    }
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::App(e) => write!(f, "the provider answered {e:?}"),
            Error::Rpc(e) => e.fmt(f),
        }
    }
}

impl<E: fmt::Debug> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::App(_) => None,
            Error::Rpc(e) => Some(e),
        }
    }
}

/// The canonical codes, with gRPC's and Connect's names and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The caller went away or withdrew the call.
    Cancelled = 1,
    /// None of the others.
    Unknown = 2,
    /// The arguments are wrong, whatever the state of the system.
    InvalidArgument = 3,
    /// The deadline passed first.
    DeadlineExceeded = 4,
    /// Something asked for is not there.
    NotFound = 5,
    /// Something to be made is there already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A named limit is reached.
    ResourceExhausted = 8,
    /// The system is not in the state the call needs; do not retry before that changes.
    FailedPrecondition = 9,
    /// A conflict with another caller; retry the whole transaction.
    Aborted = 10,
    /// Past the end of something.
    OutOfRange = 11,
    /// The peer does not have this service, method or feature.
    Unimplemented = 12,
    /// A bug: an invariant is broken, or a handler panicked.
    Internal = 13,
    /// The peer cannot be reached or is going away; trying again may help.
    Unavailable = 14,
    /// Data is lost or damaged.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; an unknown number is [`Code::Unknown`].
    pub fn from_u8(n: u8) -> Code {
        use Code::*;
        const ALL: [Code; 16] = [
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        ALL.get((n as usize).wrapping_sub(1)).copied().unwrap_or(Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is known about whether the handler ran. Only for the first two may a method that is not
/// idempotent be called again without an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Certainty {
    /// No complete request left this process.
    NotSent,
    /// The peer says that it did not start the handler.
    NotExecuted,
    /// The request left and nothing more is known, or the handler started and failed.
    MaybeExecuted,
}

impl Certainty {
    /// Whether calling again cannot run the method twice.
    pub fn is_safe_to_retry(self) -> bool {
        self != Certainty::MaybeExecuted
    }

    /// By wire number; unknown numbers mean the careful answer.
    pub fn from_u8(n: u8) -> Certainty {
        match n {
            0 => Certainty::NotSent,
            1 => Certainty::NotExecuted,
            _ => Certainty::MaybeExecuted,
        }
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Certainty::NotSent => "not sent",
            Certainty::NotExecuted => "not executed",
            Certainty::MaybeExecuted => "may have been executed",
        })
    }
}

/// The part of a call's way in which it failed or its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum Stage {
    /// Finding out where the provider is.
    Resolve = 0,
    /// Connecting, and the hello.
    Connect = 1,
    /// Encoding the arguments.
    Encode = 2,
    /// Waiting in this process to be written.
    ClientQueue = 3,
    /// Written; no reply seen yet.
    AwaitingReply = 4,
    /// Received by the provider, not yet started.
    ServerQueue = 5,
    /// Decoding the arguments at the provider.
    Decode = 6,
    /// In the handler.
    Handler = 7,
    /// Decoding the result at the caller.
    Result = 8,
}

impl Stage {
    /// By wire number.
    pub fn from_u8(n: u8) -> Option<Stage> {
        use Stage::*;
        [Resolve, Connect, Encode, ClientQueue, AwaitingReply, ServerQueue, Decode, Handler, Result].get(n as usize).copied()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Resolve => "resolving the address",
            Stage::Connect => "connecting",
            Stage::Encode => "encoding the arguments",
            Stage::ClientQueue => "in the client's queue",
            Stage::AwaitingReply => "awaiting the reply",
            Stage::ServerQueue => "in the server's queue",
            Stage::Decode => "decoding the arguments",
            Stage::Handler => "in the handler",
            Stage::Result => "decoding the result",
        })
    }
}

/// A typed detail of an error: a name of its type and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The name of the type, as sender and receiver agree on it.
    pub type_name: String,
    /// The value, in whatever encoding that name implies.
    pub value: Vec<u8>,
}

/// The failure of a call that is not the application's own. One pointer wide, cheap to clone.
///
/// ```
/// use farcall_core::{Certainty, Code, RpcError};
/// let e = RpcError::new(Code::Unavailable, "nobody listens").with_certainty(Certainty::NotSent);
/// assert_eq!(e.code(), Code::Unavailable);
/// assert!(e.certainty().is_safe_to_retry());
/// ```
#[derive(Clone)]
pub struct RpcError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    certainty: Certainty,
    stage: Option<Stage>,
    message: String,
    method: Option<String>,
    peer: Option<String>,
    details: Vec<Detail>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl RpcError {
    /// A new error. Its certainty is [`Certainty::MaybeExecuted`] until somebody who knows better
    /// says so.
    pub fn new(code: Code, message: impl Into<String>) -> RpcError {
        RpcError(Arc::new(Inner {
            code,
            certainty: Certainty::MaybeExecuted,
            stage: None,
            message: message.into(),
            method: None,
            peer: None,
            details: Vec::new(),
            source: None,
        }))
    }

    /// An error of a call that never left this process.
    pub fn not_sent(code: Code, message: impl Into<String>) -> RpcError {
        RpcError::new(code, message).with_certainty(Certainty::NotSent)
    }

    /// An error of a call whose handler was not started.
    pub fn not_executed(code: Code, message: impl Into<String>) -> RpcError {
        RpcError::new(code, message).with_certainty(Certainty::NotExecuted)
    }

    /// Turns the failure of a call to another service into one of ours, inside a handler; the code is
    /// kept. `?` alone does the same, when the error leaves the handler.
    pub fn upstream(self) -> RpcError {
        RpcError::new(self.code(), format!("upstream: {self}")).with_source(self)
    }

    /// The code to match on.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Whether the handler may have run.
    pub fn certainty(&self) -> Certainty {
        self.0.certainty
    }

    /// Where on its way the call failed.
    pub fn stage(&self) -> Option<Stage> {
        self.0.stage
    }

    /// The text for people, without code, method and peer.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// `Service.method`, where known.
    pub fn method(&self) -> Option<&str> {
        self.0.method.as_deref()
    }

    /// The address of the other side, where known.
    pub fn peer(&self) -> Option<&str> {
        self.0.peer.as_deref()
    }

    /// Typed details from the provider.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    fn edit(mut self, f: impl FnOnce(&mut Inner)) -> RpcError {
        f(Arc::make_mut(&mut self.0));
        self
    }

    /// Sets what is known about execution.
    pub fn with_certainty(self, certainty: Certainty) -> RpcError {
        self.edit(|e| e.certainty = certainty)
    }

    /// Sets the stage.
    pub fn with_stage(self, stage: Stage) -> RpcError {
        self.edit(|e| e.stage = Some(stage))
    }

    /// Names the method, unless one is named already.
    pub fn with_method(self, method: impl Into<String>) -> RpcError {
        self.edit(|e| e.method = e.method.take().or_else(|| Some(method.into())))
    }

    /// Names the peer, unless one is named already.
    pub fn with_peer(self, peer: impl Into<String>) -> RpcError {
        self.edit(|e| e.peer = e.peer.take().or_else(|| Some(peer.into())))
    }

    /// Attaches a typed detail.
    pub fn with_detail(self, detail: Detail) -> RpcError {
        self.edit(|e| e.details.push(detail))
    }

    /// Attaches the cause.
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> RpcError {
        self.edit(|e| e.source = Some(Arc::new(source)))
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        // A refused binding names the method itself, because it is shown without a call too.
        if let Some(method) = e.method.as_ref().filter(|m| !e.message.starts_with(m.as_str())) {
            write!(f, "{method}: ")?;
        }
        write!(f, "{}", e.message)?;
        write!(f, " [{}, {}", e.code, e.certainty)?;
        if let Some(peer) = &e.peer {
            write!(f, ", peer {peer}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        f.debug_struct("RpcError")
            .field("code", &e.code)
            .field("certainty", &e.certainty)
            .field("stage", &e.stage)
            .field("message", &e.message)
            .field("method", &e.method)
            .field("peer", &e.peer)
            .field("details", &e.details)
            .finish()
    }
}

impl std::error::Error for RpcError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// `200 ms`, `1.5 s`: durations as error messages show them.
pub fn display_duration(d: Duration) -> String {
    match d.as_millis() {
        0..10_000 => format!("{} ms", d.as_millis()),
        _ => format!("{:.1} s", d.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Declined;
    impl AppError for Declined {}
    #[derive(Debug)]
    struct SoldOut;
    impl AppError for SoldOut {}

    fn status() -> Reply<u8> {
        Err(RpcError::not_sent(Code::Unavailable, "down"))
    }
    fn ship() -> Reply<u8, SoldOut> {
        Err(SoldOut)?
    }
    fn pay(first: bool) -> Reply<u8, Declined> {
        match first {
            true => Ok(status()?),
            false => Ok(ship().map_err(Error::upstream)?),
        }
    }

    #[test]
    fn question_mark_lifts_both_kinds() {
        let e = pay(true).unwrap_err();
        assert_eq!(e.rpc().unwrap().certainty(), Certainty::NotSent);
        let e = pay(false).unwrap_err();
        assert_eq!(e.rpc().unwrap().code(), Code::FailedPrecondition);
        assert!(e.to_string().contains("SoldOut"), "{e}");
        assert_eq!(<Declined as Fault>::split(Declined.lift()).unwrap(), Declined);
    }

    #[test]
    fn codes_keep_their_numbers() {
        for n in 1..=16u8 {
            assert_eq!(Code::from_u8(n) as u8, n);
        }
        assert_eq!(Code::from_u8(0), Code::Unknown);
        assert_eq!(Code::from_u8(200), Code::Unknown);
    }

    #[test]
    fn the_text_says_code_certainty_and_peer() {
        let e = RpcError::not_executed(Code::Unimplemented, "no such method").with_method("Pay.pay").with_peer("tcp://h:1");
        assert_eq!(e.to_string(), "Pay.pay: no such method [Unimplemented, not executed, peer tcp://h:1]");
    }
}
