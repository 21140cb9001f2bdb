//! Every number is used once, and is a number.

#[farcall::data]
struct Order {
    #[farcall(tag = 1)]
    id: u64,
    #[farcall(tag = 1)]
    total: u64,
}

#[farcall::data]
struct Zero {
    #[farcall(tag = 0)]
    id: u64,
}

#[farcall::data]
struct Unnamed(#[farcall(tag = 1)] u64, u64);

fn main() {}
