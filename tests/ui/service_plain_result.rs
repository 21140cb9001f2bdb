use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self, amount: u64) -> u64;
}

fn main() {}
