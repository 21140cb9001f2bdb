use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(amount: u64) -> Reply<u64>;
}

fn main() {}
