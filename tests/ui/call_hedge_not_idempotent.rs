use std::time::Duration;

use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn pay(&self, amount: u64) -> Reply<u64>;
}

fn hedged(shop: ShopClient) {
    let _ = shop.pay(1).hedge(Duration::from_millis(5));
}

fn main() {}
