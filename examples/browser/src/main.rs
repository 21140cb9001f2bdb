//! A page in a browser calls a provider.
//!
//! `cargo run -p browser`, then open the page that it names. The page comes from another port than the one that it
//! calls, as in the world: so the door must let its origin in. The provider listens on `tcp://127.0.0.1:7000`, or where its
//! argument says.

mod pages;

use std::process::ExitCode;
use std::time::Duration;

use farcall::http::{Cors, Http};
use farcall::{StopSignals, prelude::*};

/// What a line of an order costs.
#[farcall::data]
#[derive(Debug)]
pub struct Quote {
    /// What is asked for.
    pub sku: String,
    /// For how much, in cents.
    pub cents: u64,
}

/// Why there is no quote.
#[farcall::error]
#[derive(Debug)]
pub enum QuoteError {
    /// Nobody sells that.
    Unknown {
        /// What was asked for.
        sku: String,
    },
}

/// What a price came to.
#[farcall::data]
#[derive(Debug)]
pub struct Tick {
    /// Its place in the stream.
    pub number: u64,
    /// The price, in cents.
    pub cents: u64,
}

/// Tells prices.
#[farcall::service]
pub trait Prices {
    /// What so many of something cost.
    #[farcall(idempotent)]
    async fn quote(&self, sku: String, #[serde(default)] qty: u32) -> Reply<Quote, QuoteError>;
    /// The price of something as it changes, so many times.
    #[farcall(idempotent)]
    async fn follow(&self, sku: String, times: u64) -> Reply<Streaming<Tick>>;
}

struct Market;

impl Prices for Market {
    async fn quote(&self, sku: String, qty: u32) -> Reply<Quote, QuoteError> {
        let cents = match sku.as_str() {
            "tea" => 450,
            "coffee" => 600,
            _ => Err(QuoteError::Unknown { sku: sku.clone() })?,
        };
        Ok(Quote { sku, cents: cents * u64::from(qty.max(1)) })
    }

    async fn follow(&self, _sku: String, times: u64) -> Reply<Streaming<Tick>> {
        Ok(Streaming::produce(move |out| async move {
            for number in 1..=times {
                out.send(Tick { number, cents: 450 + number * 37 % 100 }).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("browser: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let signals = StopSignals::new()?;
    let pages = pages::Pages::bind().await?;
    // No page may call it by a name of its own.
    let door = Http::new().cors(Cors::new().origin(pages.origin())).host("127.0.0.1").host("localhost");
    let address = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7000".into());
    let server = Server::builder().serve(PricesServer::new(Market)).protocol(door).listen(address).await?;
    let address = server.address().to_string().replace("tcp://", "http://");
    println!("{}/?door={address}", pages.origin());
    tokio::spawn(pages.serve());
    server.drain_on(signals, Duration::from_secs(5)).await?;
    Ok(())
}
