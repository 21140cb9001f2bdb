use farcall::prelude::*;

#[farcall::service]
pub trait Bank {
    #[farcall(role = "")]
    async fn pay(&self) -> Reply<()>;
    #[farcall(role = "teller, manager")]
    async fn audit(&self) -> Reply<()>;
}

fn main() {}
