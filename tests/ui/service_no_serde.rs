//! What serde does not know cannot travel; said first where a stream holds it.

use farcall::prelude::*;

struct Bare;

#[farcall::service]
pub trait Shop {
    async fn items(&self, bare: Streaming<Bare>) -> Reply<u64>;
}

fn main() {}
