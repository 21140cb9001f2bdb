//! Numbers read as other numbers.

use std::fmt::Display;

use serde::de::Visitor;

use crate::codec::CodecError;
use crate::compact::{Decoder, out_of_range, unzigzag};
use crate::schema::Ty;

/// A type of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
}

/// How many values of one type of number are values of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    All,
    Some,
    /// Some or all, but not exactly: the other type rounds.
    Rounded,
}

impl Number {
    pub(super) fn of(ty: &Ty) -> Option<Number> {
        Some(match ty {
            Ty::U8 => Number::U8,
            Ty::U16 => Number::U16,
            Ty::U32 => Number::U32,
            Ty::U64 => Number::U64,
            Ty::U128 => Number::U128,
            Ty::I8 => Number::I8,
            Ty::I16 => Number::I16,
            Ty::I32 => Number::I32,
            Ty::I64 => Number::I64,
            Ty::I128 => Number::I128,
            Ty::F32 => Number::F32,
            Ty::F64 => Number::F64,
            _ => return None,
        })
    }

    /// Bits that hold a number exactly, the sign's apart, and whether there is a sign.
    fn exact_bits(self) -> (u32, bool) {
        match self {
            Number::U8 => (8, false),
            Number::U16 => (16, false),
            Number::U32 => (32, false),
            Number::U64 => (64, false),
            Number::U128 => (128, false),
            Number::I8 => (7, true),
            Number::I16 => (15, true),
            Number::I32 => (31, true),
            Number::I64 => (63, true),
            Number::I128 => (127, true),
            Number::F32 => (24, true),
            Number::F64 => (53, true),
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Number::F32 | Number::F64)
    }

    pub(super) fn fits(self, to: Number) -> Fit {
        let ((bits, signed), (to_bits, to_signed)) = (self.exact_bits(), to.exact_bits());
        let holds_all = bits <= to_bits && (to_signed || !signed);
        match (self.is_float(), to.is_float()) {
            (true, false) => Fit::Rounded,
            (_, true) if !holds_all => Fit::Rounded,
            _ if holds_all => Fit::All,
            _ => Fit::Some,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Number::U8 => "u8",
            Number::U16 => "u16",
            Number::U32 => "u32",
            Number::U64 => "u64",
            Number::U128 => "u128",
            Number::I8 => "i8",
            Number::I16 => "i16",
            Number::I32 => "i32",
            Number::I64 => "i64",
            Number::I128 => "i128",
            Number::F32 => "f32",
            Number::F64 => "f64",
        }
    }
}

/// Shows a whole number to the visitor as one of the type `to`.
macro_rules! show {
    ($value:expr, $from:expr, $to:expr, $visitor:expr) => {{
        let value = $value;
        macro_rules! fit {
            ($visit:ident) => {
                match value.try_into() {
                    Ok(value) => $visitor.$visit(value),
                    Err(_) => Err(does_not_fit(value, $from, $to)),
                }
            };
        }
        match $to {
            Number::U8 => fit!(visit_u8),
            Number::U16 => fit!(visit_u16),
            Number::U32 => fit!(visit_u32),
            Number::U64 => fit!(visit_u64),
            Number::U128 => fit!(visit_u128),
            Number::I8 => fit!(visit_i8),
            Number::I16 => fit!(visit_i16),
            Number::I32 => fit!(visit_i32),
            Number::I64 => fit!(visit_i64),
            Number::I128 => fit!(visit_i128),
            // The plan lets only types through whose every value is exact here.
            Number::F32 => $visitor.visit_f32(value as f32),
            Number::F64 => $visitor.visit_f64(value as f64),
        }
    }};
}

/// Reads a number of the type `from` and shows it to the visitor as one of the type `to`.
#[inline]
pub(super) fn read<'de, V: Visitor<'de>>(decoder: &mut Decoder<'de>, from: Number, to: Number, visitor: V) -> Result<V::Value, CodecError> {
    match from {
        Number::U8 | Number::U16 | Number::U32 | Number::U64 => show!(unsigned(decoder, from)?, from, to, visitor),
        Number::I8 | Number::I16 | Number::I32 | Number::I64 => show!(signed(decoder, from)?, from, to, visitor),
        Number::U128 => show!(decoder.varint128()?, from, to, visitor),
        Number::I128 => {
            let value = decoder.varint128()?;
            show!((value >> 1) as i128 ^ -((value & 1) as i128), from, to, visitor)
        }
        // Nothing but a wider one holds all of a float.
        Number::F32 => visitor.visit_f64(f32::from_le_bytes(decoder.array()?).into()),
        Number::F64 => visitor.visit_f64(f64::from_le_bytes(decoder.array()?)),
    }
}

/// A writer that sends more than its own type holds is refused as the compact codec refuses it.
#[inline]
fn unsigned(decoder: &mut Decoder<'_>, from: Number) -> Result<u64, CodecError> {
    let most = match from {
        Number::U8 => return Ok(decoder.byte()?.into()),
        Number::U16 => u16::MAX.into(),
        Number::U32 => u32::MAX.into(),
        _ => u64::MAX,
    };
    match decoder.varint()? {
        value if value <= most => Ok(value),
        _ => Err(out_of_range(from.name())),
    }
}

#[inline]
fn signed(decoder: &mut Decoder<'_>, from: Number) -> Result<i64, CodecError> {
    let (least, most) = match from {
        Number::I8 => return Ok((decoder.byte()? as i8).into()),
        Number::I16 => (i16::MIN.into(), i16::MAX.into()),
        Number::I32 => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    };
    match unzigzag(decoder.varint()?) {
        value if (least..=most).contains(&value) => Ok(value),
        _ => Err(out_of_range(from.name())),
    }
}

#[cold]
fn does_not_fit(value: impl Display, from: Number, to: Number) -> CodecError {
    CodecError::new(format!("the number {value} does not fit {}; the writer's type is {}: widen it here", to.name(), from.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Number; 12] = [
        Number::U8,
        Number::U16,
        Number::U32,
        Number::U64,
        Number::U128,
        Number::I8,
        Number::I16,
        Number::I32,
        Number::I64,
        Number::I128,
        Number::F32,
        Number::F64,
    ];

    fn check(from: Number, expected: &str) {
        let letter = |to: &Number| match from.fits(*to) {
            Fit::All => 'a',
            Fit::Some => 's',
            Fit::Rounded => '-',
        };
        assert_eq!(ALL.iter().map(letter).collect::<String>(), expected, "{from:?}");
    }

    /// Columns in the order of `ALL`.
    #[test]
    fn what_fits_what() {
        check(Number::U8, "aaaaasaaaaaa");
        check(Number::U16, "saaaassaaaaa");
        check(Number::U32, "ssaaasssaa-a");
        check(Number::U64, "sssaassssa--");
        check(Number::U128, "ssssasssss--");
        check(Number::I8, "sssssaaaaaaa");
        check(Number::I16, "ssssssaaaaaa");
        check(Number::I32, "sssssssaaa-a");
        check(Number::I64, "ssssssssaa--");
        check(Number::I128, "sssssssssa--");
        check(Number::F32, "----------aa");
        check(Number::F64, "-----------a");
    }
}
