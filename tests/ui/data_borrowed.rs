//! A type that travels owns its data.

#[farcall::data]
struct Borrowed<'a> {
    #[serde(borrow)]
    name: &'a str,
}

#[farcall::data]
struct Static {
    name: &'static str,
}

fn main() {}
