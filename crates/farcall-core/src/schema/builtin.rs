//! Schemas of the standard library's types, as serde writes them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{self, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, RwLock, atomic};
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
    atomic::AtomicBool => Bool,
    atomic::AtomicU8 => U8, atomic::AtomicU16 => U16, atomic::AtomicU32 => U32, atomic::AtomicU64 => U64, atomic::AtomicUsize => U64,
    atomic::AtomicI8 => I8, atomic::AtomicI16 => I16, atomic::AtomicI32 => I32, atomic::AtomicI64 => I64, atomic::AtomicIsize => I64,
    char => Char, str => Str, String => Str,
    // A path that is not UTF-8 cannot be sent: serde refuses it by name.
    Path => Str, PathBuf => Str,
    Bytes => Bytes,
    CStr => Bytes, CString => Bytes,
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

pointer! { &T, &mut T, Box<T>, Arc<T>, Rc<T>, RefCell<T>, Mutex<T>, RwLock<T>, }

impl<T: Schema + ToOwned + ?Sized> Schema for Cow<'_, T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        T::ty(builder)
    }
}

macro_rules! around {
    ($($ty:ty,)*) => {$(
        impl<T: Schema> Schema for $ty {
            fn ty(builder: &mut SchemaBuilder) -> Ty {
                T::ty(builder)
            }
        }
    )*};
}

around! { Wrapping<T>, Saturating<T>, Reverse<T>, Cell<T>, }

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

macro_rules! lists {
    ($($ty:ty,)*) => {$(
        impl<T: Schema> Schema for $ty {
            fn ty(builder: &mut SchemaBuilder) -> Ty {
                list::<T>(builder)
            }
        }
    )*};
}

lists! { VecDeque<T>, LinkedList<T>, BinaryHeap<T>, BTreeSet<T>, }

impl<T: Schema, S> Schema for HashSet<T, S> {
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
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
    A B C D E F G H I J K L M;
    A B C D E F G H I J K L M N;
    A B C D E F G H I J K L M N O;
    A B C D E F G H I J K L M N O P;
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

macro_rules! ranges {
    ($($ty:ident: $($field:literal)+;)*) => {$(
        impl<T: Schema + 'static> Schema for $ty<T> {
            fn ty(builder: &mut SchemaBuilder) -> Ty {
                let head = DefHead { name: stringify!($ty), args: &[T::ty], ..DefHead::default() };
                builder.define::<$ty<T>>(head, |builder| Kind::Struct(vec![$(field($field, T::ty(builder))),+]))
            }
        }
    )*};
}

ranges! {
    Range: "start" "end";
    RangeInclusive: "start" "end";
    RangeFrom: "start";
    RangeTo: "end";
}

impl<T: Schema + 'static> Schema for Bound<T> {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let head = DefHead { name: "Bound", args: &[T::ty], ..DefHead::default() };
        builder.define::<Bound<T>>(head, |builder| {
            let unbounded = Variant { payload: Payload::Unit, ..variant("Unbounded", Ty::Unit) };
            Kind::Enum(vec![unbounded, variant("Included", T::ty(builder)), variant("Excluded", T::ty(builder))])
        })
    }
}

/// What text formats write as text of this format.
pub(super) fn text(layout: Ty, format: &str) -> Ty {
    Ty::Text(Box::new(layout), format.to_owned())
}

impl Schema for Ipv4Addr {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        text(Ty::Array(Box::new(Ty::U8), 4), "ipv4")
    }
}

impl Schema for Ipv6Addr {
    fn ty(_: &mut SchemaBuilder) -> Ty {
        text(Ty::Array(Box::new(Ty::U8), 16), "ipv6")
    }
}

/// One of two addresses.
fn either<T: 'static>(builder: &mut SchemaBuilder, name: &str, format: &str, v4: Ty, v6: Ty) -> Ty {
    let head = DefHead { name, ..DefHead::default() };
    let layout = builder.define::<T>(head, |_| Kind::Enum(vec![variant("V4", v4), variant("V6", v6)]));
    text(layout, format)
}

impl Schema for IpAddr {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let (v4, v6) = (Ipv4Addr::ty(builder), Ipv6Addr::ty(builder));
        either::<IpAddr>(builder, "IpAddr", "ip", v4, v6)
    }
}

impl Schema for SocketAddrV4 {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        text(<(Ipv4Addr, u16)>::ty(builder), "ip:port")
    }
}

/// serde sends neither flow nor scope.
impl Schema for SocketAddrV6 {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        text(<(Ipv6Addr, u16)>::ty(builder), "[ip]:port")
    }
}

impl Schema for SocketAddr {
    fn ty(builder: &mut SchemaBuilder) -> Ty {
        let (v4, v6) = (SocketAddrV4::ty(builder), SocketAddrV6::ty(builder));
        either::<SocketAddr>(builder, "SocketAddr", "ip:port", v4, v6)
    }
}
