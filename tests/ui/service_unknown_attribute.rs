use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(retry = 3)]
    async fn pay(&self) -> Reply<u64>;
}

#[farcall::service]
pub trait Till {
    async fn pay(&self, #[serde(skip)] cents: u64) -> Reply<u64>;
}

#[farcall::service]
pub trait Clock {
    async fn at(&self, #[cfg(unix)] zone: u8) -> Reply<u64>;
}

fn main() {}
