//! Schemas of other crates' types, each behind the feature of that crate's name, as serde writes them.

#[allow(unused_imports, reason = "which are used depends on the features")]
use super::{Schema, SchemaBuilder, Ty, builtin::text};

#[allow(unused_macros, reason = "which are used depends on the features")]
macro_rules! texts {
    ($($ty:ty => $layout:ident $format:literal,)*) => {$(
        impl Schema for $ty {
            fn ty(_: &mut SchemaBuilder) -> Ty {
                text(Ty::$layout, $format)
            }
        }
    )*};
}

#[cfg(feature = "uuid")]
texts! {
    ::uuid::Uuid => Bytes "uuid",
    ::uuid::NonNilUuid => Bytes "uuid",
}

#[cfg(feature = "url")]
texts! { ::url::Url => Str "uri", }

// Exact in every format: our feature turns on `serde-str`, without which the crate asks the message what it holds.
#[cfg(feature = "rust_decimal")]
texts! { ::rust_decimal::Decimal => Str "decimal", }

#[cfg(feature = "jiff")]
texts! {
    ::jiff::Timestamp => Str "date-time",
    ::jiff::Zoned => Str "date-time with zone",
    ::jiff::Span => Str "duration",
    ::jiff::SignedDuration => Str "duration",
    ::jiff::civil::DateTime => Str "local date-time",
    ::jiff::civil::Date => Str "date",
    ::jiff::civil::Time => Str "time",
    ::jiff::civil::ISOWeekDate => Str "week date",
}

#[cfg(feature = "chrono")]
texts! {
    ::chrono::NaiveDateTime => Str "local date-time",
    ::chrono::NaiveDate => Str "date",
    ::chrono::NaiveTime => Str "time",
    ::chrono::Weekday => Str "weekday",
    ::chrono::Month => Str "month",
}

#[cfg(feature = "chrono")]
impl<Z: ::chrono::TimeZone> Schema for ::chrono::DateTime<Z> {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        text(Ty::Str, "date-time")
    }
}

/// Seconds and nanoseconds.
#[cfg(feature = "chrono")]
impl Schema for ::chrono::TimeDelta {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Tuple(vec![Ty::I64, Ty::I32])
    }
}
