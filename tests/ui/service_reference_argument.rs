use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn name(&self, text: &str) -> Reply<u64>;
}

fn main() {}
