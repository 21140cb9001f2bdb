use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(oneway)]
    async fn note(&self, text: String) -> Reply<()>;
}

fn main() {}
