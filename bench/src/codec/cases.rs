//! What is measured: a codec, a value, a direction.

use std::hint::black_box;

use farcall::plan::decode_with;
use farcall::{Plan, TypeSchema, compact};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Blob, Lent, Order, Order2, Plain, blob, order, proto, tiny};

/// One thing to do over and over.
pub(crate) struct Case {
    pub(crate) codec: &'static str,
    pub(crate) value: &'static str,
    pub(crate) what: What,
    /// Bytes of the message.
    pub(crate) bytes: usize,
    pub(crate) run: Box<dyn FnMut()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Encode,
    Decode,
    /// A plan out of two schemas.
    Compile,
}

/// A codec: appends a value to a buffer that is used again, and reads it.
type Encode<T> = fn(&T, &mut Vec<u8>);
type Decode<T> = fn(&[u8]) -> T;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    serde_codecs(&mut cases, "tiny", tiny());
    add(&mut cases, "prost", "tiny", proto::Tiny { a: 41, b: 1 << 20 }, prost_encode, prost_decode);
    serde_codecs(&mut cases, "order", order());
    add(&mut cases, "prost", "order", proto::Order::from(order()), prost_encode, prost_decode);
    lent(&mut cases);
    plans(&mut cases);
    serde_codecs(&mut cases, "64 KiB as bytes", Blob { bytes: blob() });
    add(&mut cases, "prost", "64 KiB as bytes", proto::Blob { bytes: blob() }, prost_encode, prost_decode);
    cases.push(copy());
    serde_codecs(&mut cases, "64 KiB as serde has it", Plain { bytes: blob() });
    cases
}

fn add<T: PartialEq + std::fmt::Debug + 'static>(
    cases: &mut Vec<Case>,
    codec: &'static str,
    value: &'static str,
    sample: T,
    encode: Encode<T>,
    decode: Decode<T>,
) {
    let mut message = Vec::new();
    encode(&sample, &mut message);
    assert_eq!(decode(&message), sample, "{codec} does not read what it wrote");
    let (bytes, mut out) = (message.len(), Vec::with_capacity(message.len()));
    let write = move || {
        out.clear();
        encode(black_box(&sample), &mut out);
        black_box(&out);
    };
    cases.push(Case { codec, value, what: What::Encode, bytes, run: Box::new(write) });
    let read = move || drop(black_box(decode(black_box(&message))));
    cases.push(Case { codec, value, what: What::Decode, bytes, run: Box::new(read) });
}

fn serde_codecs<T>(cases: &mut Vec<Case>, value: &'static str, sample: T)
where
    T: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + 'static,
{
    add(cases, "farcall", value, sample.clone(), |v, out| compact::encode_into(v, out).unwrap(), |b| compact::decode(b).unwrap());
    add(cases, "postcard", value, sample.clone(), postcard_encode, |b| postcard::from_bytes(b).unwrap());
    add(cases, "bincode 2", value, sample.clone(), bincode_encode, bincode_decode);
    add(
        cases,
        "rmp-serde",
        value,
        sample.clone(),
        |v, out| rmp_serde::encode::write(out, v).unwrap(),
        |b| rmp_serde::from_slice(b).unwrap(),
    );
    add(
        cases,
        "serde_json",
        value,
        sample.clone(),
        |v, out| serde_json::to_writer(out, v).unwrap(),
        |b| serde_json::from_slice(b).unwrap(),
    );
    let json = |v: &T, out: &mut Vec<u8>| farcall::json::encode_into(v, out).unwrap();
    add(cases, "farcall JSON", value, sample, json, |b| farcall::json::decode(b).unwrap());
}

/// Into the buffer of the caller, as the others do.
fn postcard_encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let owned = std::mem::take(out);
    *out = postcard::to_extend(value, owned).unwrap();
}

fn bincode_encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, out, bincode::config::standard()).unwrap();
}

fn bincode_decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard()).unwrap().0
}

fn prost_encode<T: Message>(value: &T, out: &mut Vec<u8>) {
    value.encode(out).unwrap();
}

fn prost_decode<T: Message + Default>(bytes: &[u8]) -> T {
    T::decode(bytes).unwrap()
}

/// The order with its text borrowed from the message.
fn lent(cases: &mut Vec<Case>) {
    let message = compact::encode(&order()).unwrap();
    let bytes = message.len();
    let read = move || drop(black_box(compact::decode::<Lent<'_>>(black_box(&message)).unwrap()));
    cases.push(Case { codec: "farcall, borrowed", value: "order", what: What::Decode, bytes, run: Box::new(read) });
}

/// Another version of the order, by a plan.
fn plans(cases: &mut Vec<Case>) {
    let (writer, reader) = (TypeSchema::of::<Order>(), TypeSchema::of::<Order2>());
    let plan = Plan::compile(&writer, &reader).unwrap();
    let message = compact::encode(&order()).unwrap();
    let bytes = message.len();
    let read = move || drop(black_box(decode_with::<Order2>(&plan, black_box(&message)).unwrap()));
    cases.push(Case { codec: "farcall, by a plan", value: "order", what: What::Decode, bytes, run: Box::new(read) });
    let compile = move || drop(black_box(Plan::compile(black_box(&writer), &reader).unwrap()));
    cases.push(Case { codec: "farcall, the plan itself", value: "order", what: What::Compile, bytes: 0, run: Box::new(compile) });
}

/// What copying 64 KiB into memory of their own costs.
fn copy() -> Case {
    let bytes = blob();
    let copy = move || drop(black_box(black_box(&bytes).clone()));
    Case { codec: "(a copy)", value: "64 KiB as bytes", what: What::Decode, bytes: crate::types::BLOB, run: Box::new(copy) }
}
