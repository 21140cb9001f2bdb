use farcall::prelude::*;

#[farcall::service]
#[farcall(role = "teller", role = "teller")]
pub trait Bank {
    async fn pay(&self) -> Reply<()>;
}

fn main() {}
