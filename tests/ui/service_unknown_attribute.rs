use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(retry = 3)]
    async fn pay(&self) -> Reply<u64>;
}

fn main() {}
