use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self, (a, b): (u64, u64)) -> Reply<u64>;
}

fn main() {}
