use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(idempotent)]
    async fn sum(&self, numbers: Streaming<u64>) -> Reply<u64>;
}

fn main() {}
