//! A union does not say which field it holds.

#[farcall::data]
union Bits {
    int: u32,
    float: f32,
}

#[farcall::data]
fn not_a_type() {}

fn main() {}
