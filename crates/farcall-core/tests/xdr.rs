//! The XDR codec's bytes are those of RFC 4506: checked against bytes written by hand and, where there are `rpcgen`
//! and a C compiler, against the code that they make of `xdr/order.x`.

mod foreign;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use farcall_core::xdr::{decode, encode};
use farcall_core::{Codec, TypeSchema, Xdr};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Line {
    sku: String,
    qty: u32,
    price: i16,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Paid(u64),
    Sent { town: String, door: u8 },
    Split(u16, char),
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
enum Colour {
    Red,
    Green,
    Blue,
}

#[farcall_core::data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Order {
    open: bool,
    small: u8,
    negative: i8,
    id: u64,
    balance: i64,
    wide: i128,
    weight: f32,
    ratio: f64,
    note: String,
    photo: Vec<u8>,
    shades: std::collections::BTreeSet<u8>,
    lines: Vec<Line>,
    attributes: BTreeMap<String, i64>,
    grid: [i32; 3],
    states: Vec<State>,
    paint: Colour,
    coupon: Option<u32>,
    next: Option<Box<Order>>,
}

fn order() -> Order {
    let line = |sku: &str, qty, price| Line { sku: sku.into(), qty, price };
    let inner = Order {
        open: true,
        small: 200,
        negative: -5,
        id: u64::MAX,
        balance: i64::MIN,
        wide: -2,
        weight: 1.5,
        ratio: -0.25,
        note: "grüße".into(),
        photo: vec![1, 2, 255],
        shades: [7, 9].into(),
        lines: vec![line("abc", u32::MAX, -700), line("", 0, 1)],
        attributes: [("k".into(), -1), ("long".into(), 1 << 40)].into(),
        grid: [1, -2, 3],
        states: vec![State::New, State::Paid(7), State::Sent { town: "x".into(), door: 9 }, State::Split(1, '€')],
        paint: Colour::Blue,
        coupon: Some(0),
        next: None,
    };
    Order { coupon: None, paint: Colour::Red, next: Some(inner.clone().into()), ..inner }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encode(value).unwrap();
    assert_eq!(bytes.len() % 4, 0, "{value:?}");
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
}

/// `hex` is written by hand from the RFC, a space where the reader likes one.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, hex: &str) {
    let written: String = encode(&value).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, hex.replace(' ', ""), "{value:?}");
    round_trip(&value);
}

#[test]
fn numbers_are_big_endian_and_fill_four_bytes() {
    check(true, "00000001");
    check((200u8, 60_000u16, u32::MAX), "000000c8 0000ea60 ffffffff");
    check((-5i8, -30_000i16, i32::MIN), "fffffffb ffff8ad0 80000000");
    check((1u64 << 40, -2i64), "0000010000000000 fffffffffffffffe");
    check((1u128, -2i128), "00000000000000000000000000000001 fffffffffffffffffffffffffffffffe");
    check((1.0f32, -2.0f64), "3f800000 c000000000000000");
    check('€', "000020ac");
}

#[test]
fn text_and_bytes_are_filled_up() {
    check(String::new(), "00000000");
    check("sillyprog".to_owned(), "00000009 73696c6c 7970726f 67000000");
    check(Bytes::from_static(&[1, 2, 3, 4]), "00000004 01020304");
}

/// Types of one fingerprint must have the same bytes.
#[test]
fn a_list_of_u8_is_opaque_however_it_is_spelled() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Fast {
        data: Vec<u8>,
        after: u8,
    }
    #[derive(serde::Serialize, serde::Deserialize, farcall_core::Schema, Debug, PartialEq)]
    #[schema(crate = farcall_core)]
    struct Slow {
        data: Vec<u8>,
        after: u8,
    }
    assert_eq!(TypeSchema::of::<Fast>().fingerprint(), TypeSchema::of::<Slow>().fingerprint());
    check(Fast { data: vec![1, 2, 3, 4, 5], after: 6 }, "00000005 0102030405000000 00000006");
    check(Slow { data: vec![1, 2, 3, 4, 5], after: 6 }, "00000005 0102030405000000 00000006");
    check(vec![vec![1u8], vec![], vec![2, 3]], "00000003 00000001 01000000 00000000 00000002 02030000");
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Byte(u8);
    check((vec![Byte(1)], 2u8), "00000001 01000000 00000002");
    // What merely holds a u8 is a struct, an option or an array.
    check(vec![Some(1u8)], "00000001 00000001 00000001");
    check(vec![(1u8,), (2,)], "00000002 00000001 00000002");
    check(vec![[1u8, 2]], "00000001 00000001 00000002");
    check(BTreeMap::from([(1u8, 2u8)]), "00000001 00000001 00000002");
}

#[test]
fn options_lists_and_maps() {
    check((Some(7u32), None::<u32>), "00000001 00000007 00000000");
    check(vec![1u16, 2], "00000002 00000001 00000002");
    check([1u16, 2], "00000001 00000002");
    check(BTreeMap::from([("k".to_owned(), 1u8)]), "00000001 00000001 6b000000 00000001");
    check(((), 1u8), "00000001");
}

#[test]
fn enums_are_unions() {
    check(Colour::Blue, "00000002");
    check(State::New, "00000000");
    check(State::Paid(1), "00000001 0000000000000001");
    check(State::Sent { town: "x".into(), door: 9 }, "00000002 00000001 78000000 00000009");
    check(State::Split(1, 'a'), "00000003 00000001 00000061");
}

#[test]
fn a_field_left_out_is_a_zero() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u64>,
        b: u8,
    }
    check(Sparse { a: None, b: 7 }, "00000000 00000007");
    check(Sparse { a: Some(1), b: 7 }, "00000001 0000000000000001 00000007");
}

#[test]
fn an_encoder_pads_from_its_own_begin() {
    let mut out = vec![9];
    Xdr::encode_into("a", || None, &mut out).unwrap();
    assert_eq!(out, [9, 0, 0, 0, 1, b'a', 0, 0, 0]);
}

#[test]
fn large_bytes_are_slices_of_the_frame() {
    #[farcall_core::data(crate = farcall_core)]
    struct Photo {
        data: Bytes,
    }
    let frame = Bytes::from(encode(&Photo { data: vec![7; 5000].into() }).unwrap());
    let read: Photo = Xdr::decode(&frame, || None).unwrap();
    assert!(frame.as_ptr_range().contains(&read.data.as_ptr()));
}

/// What rpcgen's code wrote, kept for machines without it.
const WRITTEN_BY_C: &[u8] = include_bytes!("xdr/order.xdr");

#[test]
fn an_order_is_what_c_wrote() {
    assert_eq!(encode(&order()).unwrap(), WRITTEN_BY_C);
    assert_eq!(decode::<Order>(WRITTEN_BY_C).unwrap(), order());
}

/// What C reads out of our bytes is what we wrote, and what it writes is what we write.
#[test]
fn rpcgen_reads_and_writes_the_same() {
    if !foreign::have("XDR against C code", &["rpcgen", "gcc"], &["/usr/include/tirpc/rpc/rpc.h"]) {
        return;
    }
    let ours = encode(&order()).unwrap();
    let (echoed, shown) = foreign::pipe(Command::new(build()), &ours);
    assert_eq!(shown, SHOWN);
    assert_eq!(echoed, ours);
    assert_eq!(echoed, WRITTEN_BY_C);
}

/// The order as C shows it.
const SHOWN: &str = "\
open=1 small=200 negative=-5 id=18446744073709551615 balance=-9223372036854775808
wide=fffffffffffffffffffffffffffffffe
weight=1.5 ratio=-0.25 note=grüße
photo=0102ff
shades=0709
line=abc 4294967295 -700
line= 0 1
attribute=k -1
attribute=long 1099511627776
grid=1 -2 3
state=new
state=paid 7
state=sent x 9
state=split 1 8364
paint=0 coupon=none
next:
open=1 small=200 negative=-5 id=18446744073709551615 balance=-9223372036854775808
wide=fffffffffffffffffffffffffffffffe
weight=1.5 ratio=-0.25 note=grüße
photo=0102ff
shades=0709
line=abc 4294967295 -700
line= 0 1
attribute=k -1
attribute=long 1099511627776
grid=1 -2 3
state=new
state=paid 7
state=sent x 9
state=split 1 8364
paint=2 coupon=0
";

/// Makes the program that reads and writes orders.
fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xdr");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("xdr-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["order.x", "order.c"] {
        std::fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    for (option, output) in [("-h", "order.h"), ("-c", "order_xdr.c")] {
        // It does not overwrite what is there.
        let _ = std::fs::remove_file(folder.join(output));
        foreign::pipe(Command::new("rpcgen").args([option, "-o", output, "order.x"]).current_dir(&folder), b"");
    }
    let arguments = ["-w", "-I/usr/include/tirpc", "order.c", "order_xdr.c", "-ltirpc", "-o", "order"];
    foreign::pipe(Command::new("gcc").args(arguments).current_dir(&folder), b"");
    folder.join("order")
}
