//! Fields travel by position: nothing can be flattened, nor left out on one side only.

#[farcall::data]
struct Inner {
    a: u8,
}

#[farcall::data]
struct Outer {
    #[serde(flatten)]
    inner: Inner,
    #[serde(skip_serializing)]
    secret: String,
    #[serde(skip_serializing_if = "is_seven")]
    seven: u8,
}

fn is_seven(n: &u8) -> bool {
    *n == 7
}

fn main() {}
