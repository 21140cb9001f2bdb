//! tarpc over TCP: length-delimited frames, bincode (its documented fast codec), a task per request on the server
//! (its documented way), request buffers above the number in flight.
use super::{Caller, Peer, check};
use crate::config::{ClientConfig, Payload, ServerConfig};
use crate::delay::{self, Delay};
use crate::order::Order;
use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{ServerError, client, serde_transport, server};
use tokio::net::TcpStream;

// By hand what `#[tarpc::service]` would write: with smallvec 1.16 among the dependencies the blanket impl of its
// expansion does not compile (E0119).

#[derive(Serialize, Deserialize)]
enum Request {
    Add { a: u32, b: u64 },
    Slow { a: u32, b: u64, delay: Option<Delay> },
    Order { order: Order },
    Bytes { data: Bytes },
}

#[derive(Serialize, Deserialize)]
enum Response {
    Add(u64),
    Order(Order),
    Bytes(Bytes),
}

impl tarpc::RequestName for Request {
    fn name(&self) -> &str {
        match self {
            Request::Add { .. } => "Echo.add",
            Request::Slow { .. } => "Echo.slow",
            Request::Order { .. } => "Echo.order",
            Request::Bytes { .. } => "Echo.bytes",
        }
    }
}

#[derive(Clone)]
struct Echo;

impl server::Serve for Echo {
    type Req = Request;
    type Resp = Response;

    async fn serve(self, _: Context, request: Request) -> Result<Response, ServerError> {
        Ok(match request {
            Request::Add { a, b } => Response::Add(u64::from(a) + b),
            Request::Slow { a, b, delay } => {
                delay::pass(delay).await;
                Response::Add(u64::from(a) + b)
            }
            Request::Order { order } => Response::Order(order),
            Request::Bytes { data } => Response::Bytes(data),
        })
    }
}

pub(crate) struct Tarpc;

impl Peer for Tarpc {
    const NAME: &'static str = "tarpc";
    const ABOUT: &'static str = "tarpc 0.38, bincode, length-delimited TCP, task per request, buffers of 1024 or more";
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        let listener = config.listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let buffers = server::Config { pending_response_buffer: BUFFER };
            let channel = BaseChannel::new(buffers, transport(stream));
            tokio::spawn(channel.execute(Echo).for_each(async |request| drop(tokio::spawn(request))));
        }
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        let room = BUFFER.max(config.inflight);
        let mut limits = client::Config::default();
        limits.pending_request_buffer = room;
        limits.max_in_flight_requests = room;
        let channel = client::new(limits, transport(config.dial().await?)).spawn();
        let payload = config.payload;
        Ok(Client { channel, payload, order: Order::sample(), block: payload.opaque() })
    }
}

const BUFFER: usize = 1024;

fn transport<In: for<'a> Deserialize<'a>, Out: Serialize>(
    stream: TcpStream,
) -> serde_transport::Transport<TcpStream, In, Out, Bincode<In, Out>> {
    serde_transport::new(LengthDelimitedCodec::builder().new_framed(stream), Bincode::default())
}

pub(crate) struct Client {
    channel: client::Channel<Request, Response>,
    payload: Payload,
    order: Order,
    block: Bytes,
}

impl Caller for Client {
    async fn call(&self, delay: Option<Delay>) -> Result<()> {
        let request = match self.payload {
            Payload::Tiny => Request::Add { a: 7, b: 35_000 },
            Payload::Slow(_) => Request::Slow { a: 7, b: 35_000, delay },
            Payload::Order => Request::Order { order: self.order.clone() },
            Payload::Bytes(_) => Request::Bytes { data: self.block.clone() },
        };
        let response = self.channel.call(tarpc::context::current(), request).await?;
        check(match response {
            Response::Add(sum) => sum == 35_007,
            Response::Order(order) => order.items.len() == self.order.items.len(),
            Response::Bytes(data) => data.len() == self.block.len(),
        })
    }
}
