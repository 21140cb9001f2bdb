//! Attributes that nobody reads are refused.

#[farcall::data]
#[farcall(tag = 1)]
struct Order {
    #[farcall(number = 1)]
    id: u64,
}

#[farcall::data]
struct Line {
    #[farcall(number = 1)]
    id: u64,
}

#[farcall::data(root = farcall)]
struct Root {
    id: u64,
}

#[farcall::data]
#[derive(Debug, serde::Serialize)]
struct Twice {
    id: u64,
}

fn main() {}
