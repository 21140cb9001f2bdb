use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn merge(&self, left: Streaming<u64>, right: Streaming<u64>) -> Reply<u64>;
}

fn main() {}
