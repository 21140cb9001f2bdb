//! A type that travels owns its data, or borrows as a `Cow`.

use std::borrow::Cow;

#[farcall::data]
struct Borrowed<'a> {
    #[serde(borrow)]
    name: &'a str,
}

#[farcall::data]
struct Static {
    name: &'static str,
}

#[farcall::error]
enum Refused<'a> {
    Why(Cow<'a, str>),
}

fn main() {}
