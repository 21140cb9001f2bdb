//! Several protocols on one port: the first bytes of a connection tell which.

mod farcall;

use bytes::BytesMut;
use farcall_core::RpcError;
use farcall_transport::Io;

use crate::dispatch::Dispatch;
use crate::method::BoxFuture;
use crate::server::in_text;
#[cfg(feature = "tls")]
pub(crate) use farcall::ALPN;
pub(crate) use farcall::Farcall;

/// What a protocol makes of the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Mine.
    Yes,
    /// Not mine.
    No,
    /// Too few bytes to say.
    More,
}

/// A protocol that a server speaks. farcall's own is always there; others are added with
/// [`ServerBuilder::protocol`](crate::ServerBuilder::protocol) and are asked after it.
pub trait Protocol: Send + Sync + 'static {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// Whether a connection that starts with these bytes (at most 24) is its own.
    fn sniff(&self, first: &[u8]) -> Sniff;

    /// The names that a client may ask for it by in a TLS handshake (ALPN): `h2`, `http/1.1`. The first bytes
    /// decide all the same; what was agreed on is in [`Io::facts`].
    fn alpn(&self) -> &'static [&'static str] {
        &[]
    }

    /// What a peer that began with the bytes `first` is sent if it is not served at all, for it to understand: plaintext
    /// where only TLS is taken, a host with too many connections. The default is the error's message on a line.
    fn refusal(&self, first: &[u8], error: &RpcError) -> Vec<u8> {
        let _ = first;
        in_text(error)
    }

    /// What a peer is sent whose first bytes no protocol of the port knows, if this one prescribes something. The default
    /// is nothing; if all say so, the peer gets the error's message on a line.
    fn answer_unknown(&self, error: &RpcError) -> Option<Vec<u8>> {
        let _ = error;
        None
    }

    /// Serves a connection to its end. Until a first call of it was admitted, or it says [`Dispatch::let_in`], the
    /// connection is [half open](farcall_core::Limits::half_open) and may have to give way to others. `first` holds the bytes that were read already; calls go through
    /// `dispatch`. The future is dropped when the server is, or when the time of a drain is over.
    fn serve(&self, link: Io, first: BytesMut, dispatch: Dispatch) -> BoxFuture<'static, ()>;
}
