use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn connect(&self) -> Reply<u64>;
}

fn main() {}
