//! The HTTP door: every service of a server as JSON over HTTP/1.1 and HTTP/2, on the port that farcall's own callers use.
//!
//! `POST /Payment/status` with `{"id": 7}` calls `Payment.status`; `GET /Payment/status?id=7` does too, since it is
//! idempotent; a stream comes as server-sent events; `/openapi.json` describes it all, `/healthz` and `/readyz` are for
//! those who watch over processes. `docs/http.md` is the complete specification, `docs/guide/http.md` shows the way in.
//!
//! Calls go through [`Dispatch`], so handlers, limits, deadlines, keys and observers are the same whichever way a call
//! comes. What this crate knows is HTTP: one file per concept, those without I/O first (`route`, `query`, `headers`,
//! `refusal`, `cors`, `hosts`), then `door` (a request becomes a call and its reply a response), `events` (streams), `link` and
//! `serve` (connections). What it does not do: web pages, compression, cookies, sessions, and streams from a client.

mod body;
mod caller;
mod cors;
mod door;
mod events;
mod headers;
mod hosts;
mod limits;
mod link;
mod openapi;
mod percent;
mod query;
mod refusal;
mod route;
mod serve;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use farcall_core::RpcError;
use farcall_rpc::{Dispatch, Io, Protocol, Sniff};

use hosts::Hosts;

pub use cors::Cors;
pub use limits::HttpLimits;

/// The HTTP door of a server.
///
/// ```
/// use farcall_http::{Cors, Http};
/// use farcall_rpc::Server;
///
/// # async fn run() -> Result<(), farcall_rpc::RpcError> {
/// let door = Http::new().cors(Cors::new().origin("https://shop.example"));
/// let server = Server::builder().protocol(door).listen("tcp://127.0.0.1:0").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Http(Arc<Config>);

#[derive(Debug, Default, Clone)]
pub(crate) struct Config {
    cors: Option<Cors>,
    hosts: Option<Hosts>,
    limits: HttpLimits,
}

impl Http {
    /// A door with the default limits, which lets no page of another origin in.
    pub fn new() -> Http {
        Http::default()
    }

    /// Lets pages of other origins call.
    pub fn cors(self, cors: Cors) -> Http {
        Http(Arc::new(Config { cors: Some(cors), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Answers only requests for this host, or for another that is given so, and the rest with 421: `shop.example`, or
    /// with a port, `127.0.0.1:7000`, if it must be that. Give all names that the server goes by where a browser of this
    /// network may reach it and callers are not asked who they are: else any page may call it, under a name of its own
    /// that it lets stand for this address (DNS rebinding). Default: any host. `/healthz` and `/readyz` are for any.
    pub fn host(self, host: impl AsRef<str>) -> Http {
        let mut config = Arc::unwrap_or_clone(self.0);
        config.hosts.get_or_insert_default().add(host.as_ref());
        Http(Arc::new(config))
    }

    /// Other limits than the default ones.
    pub fn limits(self, limits: HttpLimits) -> Http {
        Http(Arc::new(Config { limits, ..Arc::unwrap_or_clone(self.0) }))
    }
}

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "HTTP/1.1 and HTTP/2"
    }

    fn alpn(&self) -> &'static [&'static str] {
        &["h2", "http/1.1"]
    }

    fn sniff(&self, first: &[u8]) -> Sniff {
        serve::sniff(first)
    }

    fn refusal(&self, first: &[u8], error: &RpcError) -> Vec<u8> {
        if serve::is_http2(first) {
            return refusal::go_away(error);
        }
        let (status, body) = (refusal::status(error.code()), refusal::body(error));
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    }

    /// Bytes that are no protocol's are an invalid preface to HTTP/2, which prescribes how that is said (RFC 9113, 3.4). The
    /// text in it can be read without HTTP/2, too.
    fn answer_unknown(&self, error: &RpcError) -> Option<Vec<u8>> {
        Some(refusal::go_away(error))
    }

    fn serve(&self, link: Io, first: BytesMut, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(serve::serve(Arc::clone(&self.0), link, first, dispatch))
    }
}
