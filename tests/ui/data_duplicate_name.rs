//! What travels is found by its name, so a name is one field's or one variant's, whatever gives it.

#[farcall::data]
struct Order {
    #[serde(rename = "total")]
    cents: u64,
    total: u64,
}

#[farcall::data]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(alias = "unitPrice")]
    price: u64,
    unit_price: u64,
}

#[farcall::data]
enum State {
    #[serde(alias = "Lost", alias = "Gone")]
    New,
    #[serde(alias = "Gone", alias = "Lost")]
    Paid,
}

#[farcall::data]
enum Way {
    Sent { by: u64, #[serde(alias = "by")] at: u64 },
}

/// Its own name as an alias, and a name of what does not travel, are nobody else's.
#[farcall::data]
struct Fine {
    #[serde(alias = "id", alias = "id")]
    id: u64,
    #[serde(skip, rename = "id")]
    cache: u64,
}

fn main() {}
