use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self) -> Reply<u64>;
    async fn pay(&self, more: u64) -> Reply<u64>;
}

fn main() {}
