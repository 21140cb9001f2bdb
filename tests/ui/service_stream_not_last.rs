use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn upload(&self, chunks: Streaming<u64>, name: String) -> Reply<u64>;
}

fn main() {}
