use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn name(&self) -> Reply<&'static str>;
}

fn main() {}
