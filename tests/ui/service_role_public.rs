use farcall::prelude::*;

#[farcall::service]
#[farcall(role = "teller")]
pub trait Bank {
    #[farcall(public, role = "manager")]
    async fn pay(&self) -> Reply<()>;
}

fn main() {}
