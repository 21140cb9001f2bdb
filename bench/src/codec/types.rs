//! The values: tiny, an order of 8 lines with 4 attributes, and 64 KiB of bytes; for each codec as its users write them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde::{Deserialize, Serialize};

/// With a hasher that is the same in every run, so that counts are.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

macro_rules! data {
    ($($item:item)*) => {$(
        #[farcall::data]
        #[derive(Clone, Debug, PartialEq)]
        $item
    )*};
}

data! {
    pub(crate) struct Tiny { pub(crate) a: u32, pub(crate) b: u64 }

    pub(crate) struct Order {
        pub(crate) id: u64,
        pub(crate) customer: Customer,
        pub(crate) items: Vec<Item>,
        pub(crate) address: Address,
        pub(crate) coupon: Option<Coupon>,
        pub(crate) created_at: u64,
        pub(crate) updated_at: u64,
        pub(crate) attrs: Map<String, String>,
    }
    pub(crate) struct Customer { pub(crate) name: String, pub(crate) email: String }
    pub(crate) struct Item { pub(crate) sku: String, pub(crate) qty: u32, pub(crate) unit_price: i64 }
    pub(crate) struct Address { street: String, city: String, zip: String, country: String }
    pub(crate) struct Coupon { code: String, percent: u8 }

    // The next version: two fields moved, one renamed, two added with a default, one optional, one wider.
    pub(crate) struct Order2 {
        id: u64,
        buyer_note: Option<String>,
        #[serde(alias = "customer")]
        buyer: Customer,
        address: Address,
        items: Vec<Item2>,
        coupon: Option<Coupon>,
        #[serde(default)]
        priority: u8,
        created_at: u64,
        updated_at: u64,
        attrs: Map<String, String>,
    }
    pub(crate) struct Item2 { qty: u64, sku: String, unit_price: i64, #[serde(default)] gift: bool }

    /// The bytes go as bytes.
    pub(crate) struct Blob { pub(crate) bytes: Vec<u8> }
}

/// The order, borrowed from the message.
#[farcall::data]
pub(crate) struct Lent<'a> {
    id: u64,
    customer: LentCustomer<'a>,
    items: Vec<LentItem<'a>>,
    address: LentAddress<'a>,
    coupon: Option<LentCoupon<'a>>,
    created_at: u64,
    updated_at: u64,
    attrs: Vec<(Word<'a>, Word<'a>)>,
}

#[farcall::data]
pub(crate) struct Word<'a>(Cow<'a, str>);

#[farcall::data]
pub(crate) struct LentCustomer<'a> {
    name: Cow<'a, str>,
    email: Cow<'a, str>,
}

#[farcall::data]
pub(crate) struct LentItem<'a> {
    sku: Cow<'a, str>,
    qty: u32,
    unit_price: i64,
}

#[farcall::data]
pub(crate) struct LentAddress<'a> {
    street: Cow<'a, str>,
    city: Cow<'a, str>,
    zip: Cow<'a, str>,
    country: Cow<'a, str>,
}

#[farcall::data]
pub(crate) struct LentCoupon<'a> {
    code: Cow<'a, str>,
    percent: u8,
}

/// The bytes go one by one, as serde has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) bytes: Vec<u8>,
}

pub(crate) const BLOB: usize = 64 << 10;

pub(crate) fn tiny() -> Tiny {
    Tiny { a: 41, b: 1 << 20 }
}

pub(crate) fn blob() -> Vec<u8> {
    (0..BLOB).map(|n| n as u8).collect()
}

pub(crate) fn order() -> Order {
    let text = |what: &str, n: u32| format!("{what} number {n}");
    Order {
        id: 123_456_789,
        customer: Customer { name: "Ada Lovelace".into(), email: "ada@example.org".into() },
        items: (0..8).map(|n| Item { sku: text("SKU", n), qty: 100 * n, unit_price: 1999 + i64::from(n) }).collect(),
        address: Address { street: "Main street 7".into(), city: "Berlin".into(), zip: "10115".into(), country: "DE".into() },
        coupon: Some(Coupon { code: "SPRING".into(), percent: 15 }),
        created_at: 1_760_000_000_000,
        updated_at: 1_760_000_100_000,
        attrs: (0..4).map(|n| (text("key", n), text("value", n))).collect(),
    }
}

/// The same as prost's users have it.
pub(crate) mod proto {
    use super::Map;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Tiny {
        #[prost(uint32, tag = "1")]
        pub(crate) a: u32,
        #[prost(uint64, tag = "2")]
        pub(crate) b: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Order {
        #[prost(uint64, tag = "1")]
        id: u64,
        #[prost(message, optional, tag = "2")]
        customer: Option<Customer>,
        #[prost(message, repeated, tag = "3")]
        items: Vec<Item>,
        #[prost(message, optional, tag = "4")]
        address: Option<Address>,
        #[prost(message, optional, tag = "5")]
        coupon: Option<Coupon>,
        #[prost(uint64, tag = "6")]
        created_at: u64,
        #[prost(uint64, tag = "7")]
        updated_at: u64,
        #[prost(message, repeated, tag = "8")]
        attrs: Vec<Attr>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Attr {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Customer {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        email: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Item {
        #[prost(string, tag = "1")]
        sku: String,
        #[prost(uint32, tag = "2")]
        qty: u32,
        #[prost(sint64, tag = "3")]
        unit_price: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Address {
        #[prost(string, tag = "1")]
        street: String,
        #[prost(string, tag = "2")]
        city: String,
        #[prost(string, tag = "3")]
        zip: String,
        #[prost(string, tag = "4")]
        country: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Coupon {
        #[prost(string, tag = "1")]
        code: String,
        #[prost(uint32, tag = "2")]
        percent: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Blob {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) bytes: Vec<u8>,
    }

    impl From<super::Order> for Order {
        fn from(order: super::Order) -> Order {
            let super::Address { street, city, zip, country } = order.address;
            let attrs: Map<String, String> = order.attrs;
            Order {
                id: order.id,
                customer: Some(Customer { name: order.customer.name, email: order.customer.email }),
                items: order.items.into_iter().map(|i| Item { sku: i.sku, qty: i.qty, unit_price: i.unit_price }).collect(),
                address: Some(Address { street, city, zip, country }),
                coupon: order.coupon.map(|c| Coupon { code: c.code, percent: c.percent.into() }),
                created_at: order.created_at,
                updated_at: order.updated_at,
                attrs: attrs.into_iter().map(|(key, value)| Attr { key, value }).collect(),
            }
        }
    }
}
