use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn follow(&self, id: u64) -> Streaming<u64>;
}

fn main() {}
