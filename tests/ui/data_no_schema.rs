//! A field's type must have a schema: the error is on the type and says what to do.

#[derive(serde::Serialize, serde::Deserialize)]
struct Bare {
    a: u8,
}

#[farcall::data]
struct Order {
    bare: Vec<Bare>,
}

fn main() {}
