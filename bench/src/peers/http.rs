//! JSON over HTTP: farcall's own door, called by hyper's client. `http1` has a connection per call in flight, as HTTP/1.1
//! asks for; `http2` has one for all.
use super::farcall::{EchoServer, Provider};
use super::{Caller, Peer, check};
use crate::config::{ClientConfig, Payload, ServerConfig};
use crate::delay::Delay;
use crate::order::Order;
use ::farcall::http::Http;
use ::farcall::{Limits, Server, json};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

pub(crate) struct Http1;
pub(crate) struct Http2;

async fn serve(config: ServerConfig) -> Result<()> {
    let limits = Limits { connections: 1 << 16, ..Limits::default() };
    let server = Server::builder().serve(EchoServer::new(Provider::default())).protocol(Http::new()).limits(limits);
    let server = server.listen(format!("tcp://{}", config.addr)).await?;
    config.announce(server.address().to_string().trim_start_matches("tcp://"))?;
    std::future::pending().await
}

impl Peer for Http1 {
    const NAME: &'static str = "http1";
    const ABOUT: &'static str = "farcall's HTTP door, JSON, hyper 1.12's client over HTTP/1.1, a connection per call in flight";
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        serve(config).await
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        let mut idle = Vec::new();
        for _ in 0..config.inflight {
            let (sender, connection) = http1::handshake(TokioIo::new(config.dial().await?)).await?;
            tokio::spawn(connection);
            idle.push(sender);
        }
        Ok(Client::new(&config, Connections::Http1(Mutex::new(idle))))
    }
}

impl Peer for Http2 {
    const NAME: &'static str = "http2";
    const ABOUT: &'static str = "farcall's HTTP door, JSON, hyper 1.12's client over HTTP/2 without TLS, one connection";
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        serve(config).await
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(config.dial().await?)).await?;
        tokio::spawn(connection);
        Ok(Client::new(&config, Connections::Http2(sender)))
    }
}

enum Connections {
    /// Those without a call.
    Http1(Mutex<Vec<http1::SendRequest<Whole>>>),
    Http2(http2::SendRequest<Whole>),
}

pub(crate) struct Client {
    connections: Connections,
    host: String,
    payload: Payload,
    order: Order,
}

impl Client {
    fn new(config: &ClientConfig, connections: Connections) -> Client {
        Client { connections, host: config.addr.to_string(), payload: config.payload, order: Order::sample() }
    }

    /// Calls a method and gives its result, still JSON.
    async fn post(&self, method: &str, args: &impl Serialize) -> Result<Bytes> {
        let mut body = Vec::new();
        json::encode_into(args, &mut body).map_err(|e| anyhow::anyhow!("{e}"))?;
        let uri = match self.connections {
            Connections::Http1(_) => format!("/Echo/{method}"),
            Connections::Http2(_) => format!("http://{}/Echo/{method}", self.host),
        };
        let request = Request::post(uri).header("host", &self.host).header(CONTENT_TYPE, "application/json");
        let response = self.send(request.body(Whole(body.into()))?).await?;
        ensure!(response.status() == 200, "status {}", response.status());
        whole(response.into_body()).await
    }

    async fn send(&self, request: Request<Whole>) -> Result<Response<Incoming>> {
        let idle = match &self.connections {
            Connections::Http2(sender) => return Ok(sender.clone().send_request(request).await?),
            Connections::Http1(idle) => idle,
        };
        let free = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sender = free().pop().context("more calls than connections")?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        // Its next call waits in `ready` until the body has been read.
        free().insert(0, sender);
        Ok(response)
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

#[derive(Serialize)]
struct Add {
    a: u32,
    b: u64,
}

#[derive(Serialize)]
struct Slow {
    a: u32,
    b: u64,
    delay: Option<Delay>,
}

#[derive(Serialize)]
struct OrderArgs<'a> {
    order: &'a Order,
}

impl Caller for Client {
    async fn call(&self, delay: Option<Delay>) -> Result<()> {
        let sum = |body: Bytes| json::decode::<u64>(&body).map_err(|e| anyhow::anyhow!("{e}"));
        check(match self.payload {
            Payload::Tiny => sum(self.post("add", &Add { a: 7, b: 35_000 }).await?)? == 35_007,
            Payload::Slow(_) => sum(self.post("slow", &Slow { a: 7, b: 35_000, delay }).await?)? == 35_007,
            Payload::Order => {
                let body = self.post("order", &OrderArgs { order: &self.order }).await?;
                let order: Order = json::decode(&body).map_err(|e| anyhow::anyhow!("{e}"))?;
                order.items.len() == self.order.items.len()
            }
            Payload::Bytes(_) => bail!("blocks of bytes are not what JSON is for, and not measured over it"),
        })
    }
}

/// A body in one piece.
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
