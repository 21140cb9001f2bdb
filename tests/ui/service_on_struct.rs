#[farcall::service]
pub struct Shop {
    pub name: String,
}

fn main() {}
