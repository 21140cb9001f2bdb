use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(name = "sayHello")]
    async fn a(&self) -> Reply<u64>;
    #[farcall(name = "sayHello")]
    async fn b(&self) -> Reply<u64>;
}

fn main() {}
