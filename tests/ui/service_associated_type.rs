use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    type Money;
    async fn pay(&self) -> Reply<u64>;
}

fn main() {}
