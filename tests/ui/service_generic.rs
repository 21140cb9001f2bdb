use farcall::prelude::*;

#[farcall::service]
pub trait Shop<T> {
    async fn pay(&self, amount: T) -> Reply<u64>;
}

fn main() {}
