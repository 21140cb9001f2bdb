//! Variants travel by number.

#[farcall::data]
#[serde(untagged)]
enum Id {
    Number(u64),
    Name(String),
}

fn main() {}
