//! Schemas of the standard library's types, as serde writes them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::num;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{DefHead, Field, Kind, Payload, Schema, SchemaBuilder, Ty, Variant};

macro_rules! leaf {
    ($($ty:ty => $variant:ident,)*) => {$(
        impl Schema for $ty {
            fn ty(_: &mut SchemaBuilder) -> Ty {
                Ty::$variant
            }
        }
    )*};
}

leaf! {
    bool => Bool,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, u128 => U128, usize => U64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, i128 => I128, isize => I64,
    num::NonZeroU8 => U8, num::NonZeroU16 => U16, num::NonZeroU32 => U32, num::NonZeroU64 => U64,
    num::NonZeroU128 => U128, num::NonZeroUsize => U64,
    num::NonZeroI8 => I8, num::NonZeroI16 => I16, num::NonZeroI32 => I32, num::NonZeroI64 => I64,
    num::NonZeroI128 => I128, num::NonZeroIsize => I64,
    f32 => F32, f64 => F64,
    char => Char, str => Str, String => Str,
    Bytes => Bytes,
    () => Unit,
}

impl<T: ?Sized> Schema for PhantomData<T> {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Unit
    }
}

macro_rules! pointer {
    ($($ty:ty,)*) => {$(
        impl<T: Schema + ?Sized> Schema for $ty {
            fn ty(builder: &mut SchemaBuilder) -> Ty {
                T::ty(builder)
            }
        }
    )*};
}

pointer! { &T, &mut T, Box<T>, Arc<T>, Rc<T>, }

impl<T: Schema + ToOwned + ?Sized> Schema for Cow<'_, T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        T::ty(builder)
    }
}

impl<T: Schema> Schema for Option<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        Ty::Option(Box::new(T::ty(builder)))
    }
}

fn list<T: Schema>(builder: &mut SchemaBuilder) -> Ty {
    Ty::Seq(Box::new(T::ty(builder)))
}

fn map<K: Schema, V: Schema>(builder: &mut SchemaBuilder) -> Ty {
    Ty::Map(Box::new(K::ty(builder)), Box::new(V::ty(builder)))
}

impl<T: Schema> Schema for Vec<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        list::<T>(builder)
    }
}

impl<T: Schema> Schema for [T] {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        list::<T>(builder)
    }
}

impl<T: Schema> Schema for VecDeque<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        list::<T>(builder)
    }
}

impl<T: Schema, S> Schema for HashSet<T, S> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        list::<T>(builder)
    }
}

impl<T: Schema> Schema for BTreeSet<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        list::<T>(builder)
    }
}

impl<K: Schema, V: Schema, S> Schema for HashMap<K, V, S> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        map::<K, V>(builder)
    }
}

impl<K: Schema, V: Schema> Schema for BTreeMap<K, V> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        map::<K, V>(builder)
    }
}

/// serde itself goes to arrays of 32, so the count always fits.
impl<T: Schema, const N: usize> Schema for [T; N] {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        Ty::Array(Box::new(T::ty(builder)), N as u32)
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        impl<$($name: Schema),+> Schema for ($($name,)+) {
            fn ty(builder: &mut SchemaBuilder) -> Ty {
                Ty::Tuple(vec![$($name::ty(builder)),+])
            }
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}

fn field(name: &str, ty: Ty) -> Field {
    Field {
        name: name.to_owned(),
        aliases: Vec::new(),
        default: false,
        must_understand: false,
        docs: String::new(),
        tag: None,
        foreign: None,
        ty,
    }
}

fn variant(name: &str, ty: Ty) -> Variant {
    Variant {
        name: name.to_owned(),
        aliases: Vec::new(),
        other: false,
        docs: String::new(),
        tag: None,
        foreign: None,
        payload: Payload::Newtype(ty),
    }
}

impl Schema for Duration {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let head = DefHead { name: "Duration", ..DefHead::default() };
        builder.define::<Duration>(head, |_| Kind::Struct(vec![field("secs", Ty::U64), field("nanos", Ty::U32)]))
    }
}

impl Schema for SystemTime {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let head = DefHead { name: "SystemTime", ..DefHead::default() };
        builder.define::<SystemTime>(head, |_| Kind::Struct(vec![field("secs_since_epoch", Ty::U64), field("nanos_since_epoch", Ty::U32)]))
    }
}

impl<T: Schema + 'static, E: Schema + 'static> Schema for Result<T, E> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let head = DefHead { name: "Result", args: &[T::ty, E::ty], ..DefHead::default() };
        builder.define::<Result<T, E>>(head, |builder| Kind::Enum(vec![variant("Ok", T::ty(builder)), variant("Err", E::ty(builder))]))
    }
}
