#[farcall::service]
pub trait Shop {}

fn main() {}
