use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    #[farcall(oneway)]
    async fn log(&self, lines: Streaming<String>);
}

fn main() {}
