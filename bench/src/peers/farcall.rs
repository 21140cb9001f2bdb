//! farcall as users get it: generated stub and skeleton, compact codec, default limits and deadline.
use super::{Caller, Items, Mixed, Peer, StreamPeer, Streams, check};
use crate::company;
use crate::config::{Addr, ClientConfig, Payload, ServerConfig};
use crate::delay::{self, Delay};
use crate::flow::Meter;
use crate::order::Order;
use ::farcall::intercept::{AdaptiveLimit, ConcurrencyLimit, RateLimit};
use ::farcall::{Limits, Reply, Server, ServerBuilder, Streaming};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

#[::farcall::service]
pub(crate) trait Echo {
    async fn add(&self, a: u32, b: u64) -> Reply<u64>;
    async fn slow(&self, a: u32, b: u64, delay: Option<Delay>) -> Reply<u64>;
    async fn order(&self, order: Order) -> Reply<Order>;
    async fn bytes(&self, data: Bytes) -> Reply<Bytes>;
    async fn block(&self, len: u64) -> Reply<Bytes>;
    async fn send(&self, item: u64) -> Reply<Streaming<Bytes>>;
    async fn read(&self, items: Streaming<Bytes>) -> Reply<u64>;
}

#[derive(Default)]
pub(crate) struct Provider {
    /// Of the length that was asked for first.
    block: OnceLock<Bytes>,
}

impl Echo for Provider {
    async fn add(&self, a: u32, b: u64) -> Reply<u64> {
        Ok(u64::from(a) + b)
    }

    async fn slow(&self, a: u32, b: u64, delay: Option<Delay>) -> Reply<u64> {
        delay::pass(delay).await;
        Ok(u64::from(a) + b)
    }

    async fn order(&self, order: Order) -> Reply<Order> {
        Ok(order)
    }

    async fn bytes(&self, data: Bytes) -> Reply<Bytes> {
        Ok(data)
    }

    async fn block(&self, len: u64) -> Reply<Bytes> {
        let block = self.block.get_or_init(|| vec![b'x'; len as usize].into());
        Ok(block.slice(..block.len().min(len as usize)))
    }

    async fn send(&self, item: u64) -> Reply<Streaming<Bytes>> {
        let block = Bytes::from(vec![b'x'; item as usize]);
        Ok(Streaming::items(std::iter::repeat(block)))
    }

    async fn read(&self, mut items: Streaming<Bytes>) -> Reply<u64> {
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item?.len() as u64;
        }
        Ok(bytes)
    }
}

pub(crate) struct Farcall;

impl Peer for Farcall {
    const NAME: &'static str = "farcall";
    const ABOUT: &'static str = "farcall, generated stub, compact codec, all checks and the default deadline on";
    const UNIX: bool = true;
    const SECURE: bool = true;
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        serve(config, Server::builder()).await
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        Client::connect(config, Limits::default()).await
    }
}

/// The same with interceptors, to see what they cost.
pub(crate) struct Intercepted;

impl Peer for Intercepted {
    const NAME: &'static str = "intercepted";
    const ABOUT: &'static str = "farcall with three interceptors around the handler: a rate, calls at a time, an adaptive limit";
    const UNIX: bool = true;
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        // Limits that nobody reaches.
        let server = Server::builder()
            .intercept(RateLimit::per_caller(1e9, u32::MAX))
            .intercept(ConcurrencyLimit::per_caller(usize::MAX))
            .intercept(AdaptiveLimit::between(1 << 20, 1 << 20));
        serve(config, server).await
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        Client::connect(config, Limits::default()).await
    }
}

async fn serve(config: ServerConfig, server: ServerBuilder) -> Result<()> {
    // As many connections as the idle ones are, and room for the large reply, without which small calls would wait for it:
    // these limits alone are not the default ones, and cost nothing.
    let limits = Limits { connections: 1 << 16, held: 2 * company::LARGE, ..Limits::default() };
    // One host makes them all.
    let limits = Limits { connections_per_host: limits.connections, half_open: limits.connections, ..limits };
    #[cfg_attr(not(feature = "secure"), expect(unused_mut))]
    let mut server = server.serve(EchoServer::new(Provider::default())).limits(limits);
    #[cfg(feature = "secure")]
    if matches!(config.addr, Addr::Secure(_)) {
        server = server.tls(&crate::certificates::server()?);
    }
    let server = server.listen(address(&config.addr)).await?;
    config.announce(server.address().to_string().trim_start_matches("tcp://"))?;
    std::future::pending().await
}

impl StreamPeer for Farcall {
    type Streams = Client;

    async fn open(config: ClientConfig) -> Result<Client> {
        // For the large reply; streams keep their default limits.
        Client::connect(config, Limits { body: 2 * company::LARGE, ..Limits::default() }).await
    }
}

/// As farcall writes it.
fn address(addr: &Addr) -> String {
    match addr {
        Addr::Tcp(host_and_port) => format!("tcp://{host_and_port}"),
        other => other.to_string(),
    }
}

pub(crate) struct Client {
    echo: EchoClient,
    payload: Payload,
    order: Order,
    block: Bytes,
}

impl Client {
    async fn connect(config: ClientConfig, limits: Limits) -> Result<Client> {
        #[cfg_attr(not(feature = "secure"), expect(unused_mut))]
        let mut connecting = EchoClient::connect(address(&config.addr)).limits(limits);
        #[cfg(feature = "secure")]
        if matches!(config.addr, Addr::Secure(_)) {
            connecting = connecting.tls(&crate::certificates::client()?);
        }
        let echo = connecting.await?;
        let payload = config.payload;
        Ok(Client { echo, payload, order: Order::sample(), block: payload.opaque() })
    }
}

impl Caller for Client {
    async fn call(&self, delay: Option<Delay>) -> Result<()> {
        check(match self.payload {
            Payload::Tiny => self.echo.add(7, 35_000).await? == 35_007,
            Payload::Slow(_) => self.echo.slow(7, 35_000, delay).await? == 35_007,
            Payload::Order => self.echo.order(self.order.clone()).await?.items.len() == self.order.items.len(),
            Payload::Bytes(_) => self.echo.bytes(self.block.clone()).await?.len() == self.block.len(),
        })
    }
}

impl Mixed for Client {
    async fn large(&self, bytes: usize) -> Result<()> {
        check(self.echo.block(bytes as u64).await?.len() == bytes)
    }
}

impl Streams for Client {
    type Items = Incoming;

    async fn download(&self, item: usize) -> Result<Incoming> {
        Ok(Incoming { items: self.echo.send(item as u64).await?, item })
    }

    async fn upload(&self, item: usize, meter: Arc<Meter>) -> Result<u64> {
        let block = Bytes::from(vec![b'x'; item]);
        let items = std::iter::from_fn(move || meter.more(item).then(|| block.clone()));
        Ok(self.echo.read(Streaming::items(items)).await?)
    }
}

pub(crate) struct Incoming {
    items: Streaming<Bytes>,
    /// Bytes of each.
    item: usize,
}

impl Items for Incoming {
    async fn next(&mut self) -> Result<usize> {
        let item = self.items.next().await.context("the stream has ended")??;
        check(item.len() == self.item)?;
        Ok(item.len())
    }
}
