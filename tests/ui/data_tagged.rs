//! Variants travel by number, so there is no tag inside them, nor a variant for the unknown.

#[farcall::data]
#[serde(tag = "type")]
enum Event {
    Opened { by: String },
    Closed,
}

#[farcall::data]
enum Colour {
    Red,
    #[serde(other)]
    Unknown,
}

fn main() {}
