//! As much of gRPC as etcd needs: messages over HTTP/2 streams, statuses, and pings that notice a dead connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farcall_core::protobuf::{self, Messages};
use farcall_core::{Code, RpcError, Schema, TypeSchema};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, RecvStream, SendStream};
use http::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Longest message that is read.
const MAX_MESSAGE: usize = 64 << 20;
/// Longest message that is sent: the server's limit is 1.5 MiB.
pub(crate) const MAX_REQUEST: usize = 1 << 20;
/// Longest text of an error that is kept.
const MAX_TEXT: usize = 500;

/// A connection to one server.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    place: String,
    streams: SendRequest<Bytes>,
    /// True once it is no longer used.
    over: watch::Receiver<bool>,
    end: std::sync::Arc<watch::Sender<bool>>,
}

impl Connection {
    /// Connects. A server that answers no ping within `patience` is given up.
    pub(crate) async fn open(place: &str, patience: Duration) -> Result<Connection, RpcError> {
        let failed = |e: String| unavailable(place, &e);
        let stream = TcpStream::connect(place).await.map_err(|e| failed(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20).max_header_list_size(64 << 10);
        let (streams, mut connection) = builder.handshake(stream).await.map_err(|e| failed(e.to_string()))?;
        let (end, over) = watch::channel(false);
        let end = std::sync::Arc::new(end);
        let mut ended = over.clone();
        let pings = connection.ping_pong();
        let mark = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = answers_pings(pings, patience) => {}
                // Whoever uses it found it wanting, or nobody uses it any more.
                _ = ended.wait_for(|over| *over) => {}
            }
            mark.send_replace(true);
        });
        Ok(Connection { place: place.to_owned(), streams, over, end })
    }

    /// Whether it may still be used.
    pub(crate) fn is_good(&self) -> bool {
        !*self.over.borrow()
    }

    /// It is not used again: the next request goes over another.
    pub(crate) fn give_up(&self) {
        self.end.send_replace(true);
    }

    /// One message there, one back.
    pub(crate) async fn call<Q, A>(&self, method: &Method, request: &Q, token: Option<&str>) -> Result<A, RpcError>
    where
        Q: Serialize + Schema + ?Sized,
        A: DeserializeOwned + Schema,
    {
        let mut stream = self.stream(method, token).await?;
        stream.send(request, true)?;
        let answer = stream.next().await?.ok_or_else(|| unavailable(&self.place, "it answered nothing"))?;
        // The status comes after the message.
        match stream.next::<A>().await? {
            None => Ok(answer),
            // Of a stream that goes on, the first message is the answer.
            Some(_) => Ok(answer),
        }
    }

    /// A stream of messages both ways.
    pub(crate) async fn stream(&self, method: &Method, token: Option<&str>) -> Result<Stream, RpcError> {
        let failed = |e: String| unavailable(&self.place, &e);
        let mut streams = self.streams.clone().ready().await.map_err(|e| failed(e.to_string()))?;
        let uri = format!("http://{}/etcdserverpb.{}", self.place, method.0);
        let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        if method.0 == WATCH.0 {
            // A server that is cut off from the others ends the watch, or nobody would know that it sees nothing.
            request = request.header("hasleader", "true");
        }
        if let Some(token) = token {
            request = request.header("token", token);
        }
        let request = request.body(()).map_err(|e| failed(e.to_string()))?;
        let (response, sender) = streams.send_request(request, false).map_err(|e| failed(e.to_string()))?;
        Ok(Stream { place: self.place.clone(), sender, incoming: Incoming::Headers(response), buffer: BytesMut::new() })
    }
}

async fn answers_pings(pings: Option<h2::PingPong>, patience: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(patience).await;
        match timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
    }
}

/// `Service/Method` of etcd's API.
#[derive(Debug)]
pub(crate) struct Method(pub(crate) &'static str);

pub(crate) const RANGE: Method = Method("KV/Range");
pub(crate) const PUT: Method = Method("KV/Put");
pub(crate) const DELETE: Method = Method("KV/DeleteRange");
pub(crate) const WATCH: Method = Method("Watch/Watch");
pub(crate) const GRANT: Method = Method("Lease/LeaseGrant");
pub(crate) const REVOKE: Method = Method("Lease/LeaseRevoke");
pub(crate) const KEEP_ALIVE: Method = Method("Lease/LeaseKeepAlive");
pub(crate) const AUTHENTICATE: Method = Method("Auth/Authenticate");

enum Incoming {
    Headers(ResponseFuture),
    Body(RecvStream),
}

/// Messages both ways. Dropped, it is cancelled.
pub(crate) struct Stream {
    place: String,
    sender: SendStream<Bytes>,
    incoming: Incoming,
    buffer: BytesMut,
}

impl Stream {
    /// Sends a message; `last` ends our side.
    pub(crate) fn send<Q: Serialize + Schema + ?Sized>(&mut self, message: &Q, last: bool) -> Result<(), RpcError> {
        let internal = |e: farcall_core::CodecError| RpcError::not_sent(Code::Internal, format!("etcd: a request does not encode: {e}"));
        let messages = Messages::of(&TypeSchema::of::<Q>()).map_err(internal)?;
        let mut frame = vec![0; 5];
        protobuf::encode_into(message, &messages, &mut frame).map_err(internal)?;
        let length = frame.len() - 5;
        if length > MAX_REQUEST {
            let text = format!("etcd: a request of {length} bytes: the most is {MAX_REQUEST}");
            return Err(RpcError::not_sent(Code::ResourceExhausted, text));
        }
        frame[1..5].copy_from_slice(&(length as u32).to_be_bytes());
        self.sender.send_data(frame.into(), last).map_err(|e| unavailable(&self.place, &e.to_string()))
    }

    /// The next message; `None` at a good end. May be dropped and asked again.
    pub(crate) async fn next<A: DeserializeOwned + Schema>(&mut self) -> Result<Option<A>, RpcError> {
        loop {
            if let Some(frame) = self.cut()? {
                let messages = Messages::of(&TypeSchema::of::<A>()).map_err(|e| unavailable(&self.place, &e.to_string()))?;
                let decoded = protobuf::decode(&messages, &frame);
                return decoded.map(Some).map_err(|e| unavailable(&self.place, &format!("its answer does not read: {e}")));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// A whole message of what has come.
    fn cut(&mut self) -> Result<Option<Bytes>, RpcError> {
        let Some((&[compressed, a, b, c, d], _)) = self.buffer.split_first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if compressed != 0 || length > MAX_MESSAGE {
            return Err(unavailable(&self.place, "it sent a message that is compressed or too long"));
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(5 + length);
        Ok(Some(frame.split_off(5).freeze()))
    }

    /// Takes what comes next; false at a good end.
    async fn fill(&mut self) -> Result<bool, RpcError> {
        let place = self.place.clone();
        let failed = |e: h2::Error| unavailable(&place, &e.to_string());
        if let Incoming::Headers(response) = &mut self.incoming {
            let response = response.await.map_err(failed)?;
            if response.status() != 200 {
                return Err(unavailable(&place, &format!("HTTP status {}", response.status())));
            }
            // An error without a message comes in the first headers.
            let (head, body) = response.into_parts();
            self.incoming = Incoming::Body(body);
            check(&place, &head.headers)?;
        }
        let Incoming::Body(body) = &mut self.incoming else { return Ok(false) };
        if let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(failed)?;
            body.flow_control().release_capacity(chunk.len()).map_err(failed)?;
            self.buffer.extend_from_slice(&chunk);
            return Ok(true);
        }
        let trailers = body.trailers().await.map_err(failed)?;
        check(&place, &trailers.unwrap_or_default())?;
        Ok(false)
    }
}

/// The status, if it is here and not good.
fn check(place: &str, headers: &http::HeaderMap) -> Result<(), RpcError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => {
            let message: String = text("grpc-message").unwrap_or_default().chars().take(MAX_TEXT).collect();
            Err(RpcError::new(code_of(status.parse().unwrap_or(2), &message), format!("etcd {place}: {message}")))
        }
    }
}

/// gRPC's codes are ours; some that etcd sends mean something else than what they are called.
fn code_of(status: u8, message: &str) -> Code {
    match Code::from_u8(status) {
        Code::InvalidArgument if message.contains("authentication failed") => Code::Unauthenticated,
        Code::InvalidArgument if message.contains("too large") => Code::ResourceExhausted,
        code @ (Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::NotFound
        | Code::Unimplemented) => code,
        // No leader, shutting down, a request that took too long there: another attempt may help.
        _ => Code::Unavailable,
    }
}

pub(crate) fn unavailable(place: &str, what: &str) -> RpcError {
    RpcError::new(Code::Unavailable, format!("etcd {place}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_one_can_do() {
        for (status, message, code) in [
            (14, "etcdserver: no leader", Code::Unavailable),
            (1, "", Code::Unavailable),
            (3, "etcdserver: authentication failed, invalid user ID or password", Code::Unauthenticated),
            (3, "etcdserver: request is too large", Code::ResourceExhausted),
            (7, "etcdserver: permission denied", Code::PermissionDenied),
            (5, "etcdserver: requested lease not found", Code::NotFound),
            (200, "", Code::Unavailable),
        ] {
            assert_eq!(code_of(status, message), code, "{status} {message}");
        }
    }
}
