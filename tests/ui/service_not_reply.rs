use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self, amount: u64) -> Result<u64, String>;
}

fn main() {}
