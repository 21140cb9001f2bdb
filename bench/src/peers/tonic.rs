//! tonic and prost over plaintext HTTP/2, windows of 1 MiB per stream and 4 MiB per connection.
//!
//! Messages, client and service are written by hand, as tonic-build would generate them, so that the build needs no
//! `protoc`.
use super::{Caller, Items, Mixed, Peer, StreamPeer, Streams, check};
use crate::company;
use crate::config::{ClientConfig, Payload, ServerConfig};
use crate::delay::{self, Delay};
use crate::flow::Meter;
use crate::order;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, Service, tokio_stream};
use tonic::server::{ClientStreamingService, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) struct Tonic;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

impl Peer for Tonic {
    const NAME: &'static str = "tonic";
    const ABOUT: &'static str = "tonic 0.14, prost 0.14, plaintext HTTP/2, windows of 1 and 4 MiB, no compression";
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        let incoming = TcpIncoming::from(config.listen().await?).with_nodelay(Some(true));
        let server =
            Server::builder().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).add_service(Echo);
        Ok(server.serve_with_incoming(incoming).await?)
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", config.addr))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let payload = config.payload;
        Ok(Client { channel: endpoint.connect().await?, payload, order: Order::sample(), block: payload.opaque() })
    }
}

impl StreamPeer for Tonic {
    type Streams = Client;

    async fn open(config: ClientConfig) -> Result<Client> {
        Tonic::connect(config).await
    }
}

// ------------------------------------------------------------------ messages

#[derive(Clone, PartialEq, Message)]
struct AddRequest {
    #[prost(uint32, tag = "1")]
    a: u32,
    #[prost(uint64, tag = "2")]
    b: u64,
    /// By its number; 0, which takes no bytes, is none.
    #[prost(uint32, tag = "3")]
    delay: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AddReply {
    #[prost(uint64, tag = "1")]
    sum: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Block {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// A number of bytes: asked for, or read.
#[derive(Clone, PartialEq, Message)]
struct Length {
    #[prost(uint64, tag = "1")]
    bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
struct LineItem {
    #[prost(string, tag = "1")]
    sku: String,
    #[prost(string, tag = "2")]
    title: String,
    #[prost(uint32, tag = "3")]
    quantity: u32,
    #[prost(uint64, tag = "4")]
    unit_price_cents: u64,
    #[prost(double, tag = "5")]
    discount: f64,
    #[prost(string, repeated, tag = "6")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    customer: String,
    #[prost(string, tag = "3")]
    email: String,
    #[prost(string, tag = "4")]
    currency: String,
    #[prost(uint64, tag = "5")]
    created_at_ms: u64,
    #[prost(bool, tag = "6")]
    paid: bool,
    #[prost(message, repeated, tag = "7")]
    items: Vec<LineItem>,
}

impl Order {
    fn sample() -> Order {
        let order::Order { id, customer, email, currency, created_at_ms, paid, items } = order::Order::sample();
        Order { id, customer, email, currency, created_at_ms, paid, items: items.into_iter().map(LineItem::from).collect() }
    }
}

impl From<order::LineItem> for LineItem {
    fn from(item: order::LineItem) -> LineItem {
        let order::LineItem { sku, title, quantity, unit_price_cents, discount, tags } = item;
        LineItem { sku, title, quantity, unit_price_cents, discount, tags }
    }
}

// ------------------------------------------------------------------ server

const ADD: &str = "/bench.Echo/Add";
const ORDER: &str = "/bench.Echo/Order";
const BLOCK: &str = "/bench.Echo/Block";
const LARGE: &str = "/bench.Echo/Large";
const SEND: &str = "/bench.Echo/Send";
const READ: &str = "/bench.Echo/Read";

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            ADD => Box::pin(unary::<AddRequest, AddReply>(request, Add)),
            ORDER => Box::pin(unary::<Order, Order>(request, Same)),
            BLOCK => Box::pin(unary::<Block, Block>(request, Same)),
            LARGE => Box::pin(unary::<Length, Block>(request, Large)),
            SEND => Box::pin(async {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<Block, Length>::default());
                Ok(grpc.server_streaming(Send, request).await)
            }),
            READ => Box::pin(async {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<Length, Block>::default());
                Ok(grpc.client_streaming(Read, request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}

async fn unary<Req, Rep>(
    request: http::Request<Body>,
    method: impl UnaryService<Req, Response = Rep>,
) -> Result<http::Response<Body>, Infallible>
where
    Req: Message + Default + 'static,
    Rep: Message + 'static,
{
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Rep, Req>::default());
    Ok(grpc.unary(method, request).await)
}

/// The method behind `ADD`.
struct Add;

impl UnaryService<AddRequest> for Add {
    type Response = AddReply;
    type Future = BoxFuture<Response<AddReply>, Status>;

    fn call(&mut self, request: Request<AddRequest>) -> Self::Future {
        let AddRequest { a, b, delay } = request.into_inner();
        Box::pin(async move {
            delay::pass(Delay::numbered(delay as u8)).await;
            Ok(Response::new(AddReply { sum: u64::from(a) + b }))
        })
    }
}

/// The methods that return their argument.
struct Same;

impl<M: Message + 'static> UnaryService<M> for Same {
    type Response = M;
    type Future = BoxFuture<Response<M>, Status>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

fn block(len: u64) -> Block {
    Block { data: vec![b'x'; len as usize].into() }
}

/// The method behind `LARGE`.
struct Large;

impl UnaryService<Length> for Large {
    type Response = Block;
    type Future = BoxFuture<Response<Block>, Status>;

    fn call(&mut self, request: Request<Length>) -> Self::Future {
        /// Of the length that was asked for first.
        static LARGEST: OnceLock<Block> = OnceLock::new();
        let len = request.into_inner().bytes;
        Box::pin(async move {
            let data = &LARGEST.get_or_init(|| block(len)).data;
            Ok(Response::new(Block { data: data.slice(..data.len().min(len as usize)) }))
        })
    }
}

/// The method behind `SEND`.
struct Send;

impl ServerStreamingService<Length> for Send {
    type Response = Block;
    type ResponseStream = BoxStream<Block>;
    type Future = BoxFuture<Response<BoxStream<Block>>, Status>;

    fn call(&mut self, request: Request<Length>) -> Self::Future {
        let items = std::iter::repeat(block(request.into_inner().bytes)).map(Ok);
        Box::pin(async move { Ok(Response::new(Box::pin(tokio_stream::iter(items)) as BoxStream<Block>)) })
    }
}

/// The method behind `READ`.
struct Read;

impl ClientStreamingService<Block> for Read {
    type Response = Length;
    type Future = BoxFuture<Response<Length>, Status>;

    fn call(&mut self, request: Request<Streaming<Block>>) -> Self::Future {
        Box::pin(async move {
            let (mut items, mut bytes) = (request.into_inner(), 0);
            while let Some(item) = items.message().await? {
                bytes += item.data.len() as u64;
            }
            Ok(Response::new(Length { bytes }))
        })
    }
}

// ------------------------------------------------------------------ client

pub(crate) struct Client {
    channel: Channel,
    payload: Payload,
    order: Order,
    block: Bytes,
}

impl Client {
    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(2 * company::LARGE);
        grpc.ready().await?;
        Ok(grpc)
    }

    async fn unary<Req, Rep>(&self, path: &'static str, request: Req) -> Result<Rep>
    where
        Req: Message + 'static,
        Rep: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Req, Rep>::default();
        Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}

impl Caller for Client {
    async fn call(&self, delay: Option<Delay>) -> Result<()> {
        check(match self.payload {
            Payload::Tiny | Payload::Slow(_) => {
                let delay = delay.map_or(0, |delay| delay.number().into());
                self.unary::<_, AddReply>(ADD, AddRequest { a: 7, b: 35_000, delay }).await?.sum == 35_007
            }
            Payload::Order => self.unary::<_, Order>(ORDER, self.order.clone()).await?.items.len() == self.order.items.len(),
            Payload::Bytes(_) => {
                let answer: Block = self.unary(BLOCK, Block { data: self.block.clone() }).await?;
                answer.data.len() == self.block.len()
            }
        })
    }
}

impl Mixed for Client {
    async fn large(&self, bytes: usize) -> Result<()> {
        let answer: Block = self.unary(LARGE, Length { bytes: bytes as u64 }).await?;
        check(answer.data.len() == bytes)
    }
}

impl Streams for Client {
    type Items = Incoming;

    async fn download(&self, item: usize) -> Result<Incoming> {
        let request = Request::new(Length { bytes: item as u64 });
        let codec = ProstCodec::<Length, Block>::default();
        let answer = self.ready().await?.server_streaming(request, PathAndQuery::from_static(SEND), codec).await?;
        Ok(Incoming { items: answer.into_inner(), item })
    }

    async fn upload(&self, item: usize, meter: Arc<Meter>) -> Result<u64> {
        let block_of = block(item as u64);
        let items = std::iter::from_fn(move || meter.more(item).then(|| block_of.clone()));
        let request = Request::new(tokio_stream::iter(items));
        let codec = ProstCodec::<Block, Length>::default();
        let answer = self.ready().await?.client_streaming(request, PathAndQuery::from_static(READ), codec).await?;
        Ok(answer.into_inner().bytes)
    }
}

pub(crate) struct Incoming {
    items: Streaming<Block>,
    /// Bytes of each.
    item: usize,
}

impl Items for Incoming {
    async fn next(&mut self) -> Result<usize> {
        let item = self.items.message().await?.context("the stream has ended")?;
        check(item.data.len() == self.item)?;
        Ok(item.data.len())
    }
}
