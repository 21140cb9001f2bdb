use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self, all: impl Iterator<Item = u64>) -> Reply<u64>;
}

fn main() {}
