//! Types of other crates, behind features: their schemas say what serde does, and they travel in every codec.

use std::fmt::Debug;

use bytes::Bytes;
use farcall_core::codec::{self, CodecId, Made, Shape};
use farcall_core::{Schema, TypeSchema, check};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Schema + Serialize + DeserializeOwned + PartialEq + Debug>(values: &[T], name: &str, json: &str) {
    check::schema_of(values).unwrap();
    let schema = TypeSchema::of::<T>();
    assert_eq!(schema.type_name(), name);
    let made = Made::default();
    let shape = || Some(Shape::new(&schema, &made));
    for value in values {
        for id in [CodecId::Compact, CodecId::Json, CodecId::Xdr, CodecId::Protobuf] {
            let mut out = Vec::new();
            codec::encode_into(id, value, shape, &mut out).unwrap();
            assert_eq!(codec::decode::<T>(id, &Bytes::from(out), shape).unwrap(), *value, "{id}");
        }
    }
    let mut out = Vec::new();
    codec::encode_into(CodecId::Json, &values[0], || None, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), json);
}

#[test]
fn uuids() {
    let id = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    check(&[id, uuid::Uuid::nil()], "text(uuid)", "\"01234567-89ab-cdef-0123-456789abcdef\"");
    assert_eq!(farcall_core::compact::encode(&id).unwrap().len(), 17, "16 bytes and their count, no text");
}

#[test]
fn urls() {
    check(&[url::Url::parse("https://example.org/a?b=c").unwrap()], "text(uri)", "\"https://example.org/a?b=c\"");
}

#[test]
fn decimals_are_exact() {
    let price: rust_decimal::Decimal = "12345678901234567890.123456789".parse().unwrap();
    check(&[price, rust_decimal::Decimal::NEGATIVE_ONE], "text(decimal)", "\"12345678901234567890.123456789\"");
}

#[test]
fn times_of_chrono() {
    use chrono::{DateTime, FixedOffset, Month, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc, Weekday};
    let at: DateTime<Utc> = "2026-11-27T12:30:05.25Z".parse().unwrap();
    check(&[at], "text(date-time)", "\"2026-11-27T12:30:05.250Z\"");
    let there: DateTime<FixedOffset> = "2026-11-27T12:30:05+08:00".parse().unwrap();
    check(&[there], "text(date-time)", "\"2026-11-27T12:30:05+08:00\"");
    let (date, time) = (NaiveDate::from_ymd_opt(2026, 2, 28).unwrap(), NaiveTime::from_hms_opt(1, 2, 3).unwrap());
    check(&[date], "text(date)", "\"2026-02-28\"");
    check(&[time], "text(time)", "\"01:02:03\"");
    check(&[NaiveDateTime::new(date, time)], "text(local date-time)", "\"2026-02-28T01:02:03\"");
    check(&[TimeDelta::new(-5, 7).unwrap()], "(i64, i32)", "[-5,7]");
    check(&[Weekday::Fri], "text(weekday)", "\"Fri\"");
    check(&[Month::May], "text(month)", "\"May\"");
}

#[test]
fn times_of_jiff() {
    use jiff::{SignedDuration, Span, Timestamp, civil};
    check(&["2026-11-27T12:30:05.25Z".parse::<Timestamp>().unwrap()], "text(date-time)", "\"2026-11-27T12:30:05.25Z\"");
    check(&[civil::date(2026, 2, 28)], "text(date)", "\"2026-02-28\"");
    check(&[civil::time(1, 2, 3, 0)], "text(time)", "\"01:02:03\"");
    check(&[civil::datetime(2026, 2, 28, 1, 2, 3, 0)], "text(local date-time)", "\"2026-02-28T01:02:03\"");
    check(&[SignedDuration::new(-5, 0)], "text(duration)", "\"-PT5S\"");
    let span = farcall_core::compact::encode(&Span::new().hours(2)).unwrap();
    assert_eq!(span, *b"\x04PT2H");
}

/// Inside other types, and in what other programs read.
#[test]
fn in_a_type_of_ones_own() {
    #[farcall_core::data(crate = farcall_core)]
    #[derive(Debug, PartialEq)]
    struct Visit {
        id: uuid::Uuid,
        page: Option<url::Url>,
        at: Vec<jiff::Timestamp>,
    }
    let visit = Visit { id: uuid::Uuid::max(), page: Some("https://example.org/".parse().unwrap()), at: vec![jiff::Timestamp::UNIX_EPOCH] };
    assert_eq!(check::schema_of(&[visit]).unwrap(), Vec::<String>::new());
    let shown = TypeSchema::of::<Visit>().describe();
    assert!(shown.contains("id: text(uuid),\n    page: Option<text(uri)>,\n    at: Vec<text(date-time)>,"), "{shown}");
}
