use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn follow(&self, id: u64) -> Reply<Vec<Streaming<u64>>>;
}

fn main() {}
