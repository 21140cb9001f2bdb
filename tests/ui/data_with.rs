//! A field that is written by someone else's code must say as what.

mod hex {
    pub fn serialize<S: serde::Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:x}"))
    }
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text: String = serde::Deserialize::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[farcall::data]
struct Key {
    #[serde(with = "hex")]
    bits: u64,
}

fn main() {}
