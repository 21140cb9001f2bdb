use farcall::prelude::*;

#[farcall::service]
pub trait Shop: Clone {
    async fn pay(&self) -> Reply<u64>;
}

fn main() {}
