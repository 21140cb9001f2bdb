//! A parameter may be borrowed, but only for the call, only shared, and not inside of other types.

use std::borrow::Cow;

use farcall::prelude::*;

#[farcall::service]
pub trait Shop {
    async fn changes(&self, text: &mut String) -> Reply<u64>;
    async fn for_ever(&self, text: &'static str) -> Reply<u64>;
    async fn inside(&self, texts: Vec<&str>) -> Reply<u64>;
    async fn nested(&self, texts: &[&str]) -> Reply<u64>;
    async fn hidden(&self, text: Cow<str>) -> Reply<u64>;
    async fn back(&self) -> Reply<Cow<'_, str>>;
}

fn main() {}
