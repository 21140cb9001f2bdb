use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay<T: Clone>(&self, amount: T) -> Reply<u64>;
}

fn main() {}
