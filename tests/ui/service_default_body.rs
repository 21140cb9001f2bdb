use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self) -> Reply<u64> {
        Ok(1)
    }
}

fn main() {}
