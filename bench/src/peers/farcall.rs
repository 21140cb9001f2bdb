//! farcall as users get it: generated stub and skeleton, compact codec, default limits and deadline.
use super::{Caller, Peer, check};
use crate::config::{Addr, ClientConfig, Payload, ServerConfig};
use crate::delay::{self, Delay};
use crate::order::Order;
use ::farcall::{Limits, Reply, Server};
use anyhow::Result;
use bytes::Bytes;

#[::farcall::service]
pub(crate) trait Echo {
    async fn add(&self, a: u32, b: u64) -> Reply<u64>;
    async fn slow(&self, a: u32, b: u64, delay: Option<Delay>) -> Reply<u64>;
    async fn order(&self, order: Order) -> Reply<Order>;
    async fn bytes(&self, data: Bytes) -> Reply<Bytes>;
}

struct Provider;

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
}

pub(crate) struct Farcall;

impl Peer for Farcall {
    const NAME: &'static str = "farcall";
    const ABOUT: &'static str = "farcall, generated stub, compact codec, all checks and the default deadline on";
    const UNIX: bool = true;
    type Caller = Client;

    async fn serve(config: ServerConfig) -> Result<()> {
        // As many as the idle ones are: this limit alone is not the default one, and costs nothing.
        let limits = Limits { connections: 1 << 16, ..Limits::default() };
        let server = Server::builder().serve(EchoServer::new(Provider)).limits(limits).listen(address(&config.addr)).await?;
        config.announce(server.address().to_string().trim_start_matches("tcp://"))?;
        std::future::pending().await
    }

    async fn connect(config: ClientConfig) -> Result<Client> {
        let echo = EchoClient::connect(address(&config.addr)).await?;
        let payload = config.payload;
        Ok(Client { echo, payload, order: Order::sample(), block: payload.opaque() })
    }
}

/// As farcall writes it.
fn address(addr: &Addr) -> String {
    match addr {
        Addr::Tcp(host_and_port) => format!("tcp://{host_and_port}"),
        unix @ Addr::Unix(_) => unix.to_string(),
    }
}

pub(crate) struct Client {
    echo: EchoClient,
    payload: Payload,
    order: Order,
    block: Bytes,
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
