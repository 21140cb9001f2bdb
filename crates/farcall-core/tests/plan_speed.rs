//! What a plan costs. Not run with the other tests, because it means something only when nothing else runs:
//! `cargo test --release -p farcall-core --test plan_speed -- --ignored --nocapture`

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use farcall_core::compact::{decode, encode};
use farcall_core::plan::decode_with;
use farcall_core::{Plan, Schema, TypeSchema};

macro_rules! data {
    ($($item:item)*) => {$(
        #[farcall_core::data(crate = farcall_core)]
        #[derive(Debug, Clone, PartialEq)]
        $item
    )*};
}

data! {
    struct Order {
        id: u64,
        customer: Customer,
        items: Vec<Item>,
        address: Address,
        coupon: Option<Coupon>,
        created_at: u64,
        updated_at: u64,
        attrs: HashMap<String, String>,
    }
    struct Customer { name: String, email: String }
    struct Item { sku: String, qty: u32, unit_price: i64 }
    struct Address { street: String, city: String, zip: String, country: String }
    struct Coupon { code: String, percent: u8 }

    // The next version: two fields moved, one renamed, two added with a default, one optional, one wider.
    struct Order2 {
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
        attrs: HashMap<String, String>,
    }
    struct Item2 { qty: u64, sku: String, unit_price: i64, #[serde(default)] gift: bool }

    // A version that moved nothing.
    struct Order3 {
        id: u64,
        customer: Customer,
        items: Vec<Item3>,
        address: Address,
        coupon: Option<Coupon>,
        created_at: u64,
        updated_at: u64,
        note: Option<String>,
        attrs: HashMap<String, String>,
    }
    struct Item3 { sku: String, qty: u64, unit_price: i64, gift: Option<bool> }
}

fn order() -> Order {
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

/// The shortest of many rounds, for one run.
fn least(mut run: impl FnMut()) -> Duration {
    const RUNS: u32 = 500;
    let round = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..RUNS).for_each(|_| run());
        start.elapsed() / RUNS
    };
    (0..200).map(|_| round(&mut run)).min().unwrap_or_default()
}

fn plan<W: Schema, R: Schema>() -> Plan {
    Plan::compile(&TypeSchema::of::<W>(), &TypeSchema::of::<R>()).unwrap()
}

#[test]
#[ignore = "measures time"]
fn what_a_plan_costs() {
    let bytes = encode(&order()).unwrap();
    let (moved, kept) = (plan::<Order, Order2>(), plan::<Order, Order3>());
    let matched = least(|| drop(black_box(decode::<Order>(black_box(&bytes)).unwrap())));
    let moved = least(|| drop(black_box(decode_with::<Order2>(&moved, black_box(&bytes)).unwrap())));
    let kept = least(|| drop(black_box(decode_with::<Order3>(&kept, black_box(&bytes)).unwrap())));
    let (writer, reader) = (TypeSchema::of::<Order>(), TypeSchema::of::<Order2>());
    let compile = least(|| drop(black_box(Plan::compile(black_box(&writer), &reader).unwrap())));
    let ratio = |time: Duration| time.as_secs_f64() / matched.as_secs_f64();
    println!("an order of {} bytes", bytes.len());
    println!("decode, same type          {matched:?}");
    println!("decode, fields moved       {moved:?}, {:.2} of it", ratio(moved));
    println!("decode, no fields moved    {kept:?}, {:.2} of it", ratio(kept));
    println!("compile the plan           {compile:?}");
    assert!(ratio(moved) <= 1.35 && ratio(kept) <= 1.35, "a mismatched decode costs too much");
    assert!(compile <= Duration::from_micros(20), "a plan costs too much");
}
