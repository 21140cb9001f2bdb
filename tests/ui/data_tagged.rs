//! Variants travel by number, so there is no tag inside them; a variant for the unknown is the last and holds nothing.

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
    Unknown(u8),
}

fn main() {}
