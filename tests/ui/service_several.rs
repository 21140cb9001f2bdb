use farcall::prelude::*;

// Every mistake is shown, not only the first.
#[farcall::service]
pub trait Shop {
    async fn pay(amount: u64) -> Reply<u64>;
    async fn note(&mut self, text: String) -> Reply<()>;
    async fn fine(&self) -> Reply<()>;
    async fn total(&self) -> u64;
}

fn main() {}
