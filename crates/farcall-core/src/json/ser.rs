//! The encoder: serde_json's, but for numbers that browsers or JSON do not have, with a limit to how deep values nest, and
//! with the place in its errors.

use std::cell::{Cell, RefCell};

use serde::ser::{self, Error as _, Serialize, Serializer};

use super::{MAX_DEPTH, MAX_SAFE_INTEGER, MAX_WRAPPED, not_finite, too_deep};
use crate::codec::Step;

/// How deep the value is that is being written, and the steps to an error, innermost first.
pub(super) struct Trail {
    levels: Cell<u32>,
    wrapped: Cell<u32>,
    steps: RefCell<Vec<Step>>,
}

impl Trail {
    pub(super) fn new() -> Trail {
        Trail { levels: Cell::new(MAX_DEPTH), wrapped: Cell::new(MAX_WRAPPED), steps: RefCell::default() }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps.into_inner()
    }

    #[cold]
    fn leave(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

/// A serializer through which every value passes.
pub(super) struct Writer<'t, S> {
    inner: S,
    trail: &'t Trail,
}

impl<'t, S> Writer<'t, S> {
    pub(super) fn new(inner: S, trail: &'t Trail) -> Writer<'t, S> {
        Writer { inner, trail }
    }
}

impl<'t, S: Serializer> Writer<'t, S> {
    /// Begins arrays and objects, one in the other. The reader refuses them where a number would still do, even empty.
    fn begin<T>(self, levels: u32, begin: impl FnOnce(S) -> Result<T, S::Error>) -> Result<T, S::Error> {
        match self.trail.levels.get() > levels {
            true => begin(self.inner),
            false => Err(S::Error::custom(too_deep())),
        }
    }

    fn parts<C>(self, begin: impl FnOnce(S) -> Result<C, S::Error>) -> Result<Parts<'t, C>, S::Error> {
        let trail = self.trail;
        self.begin(1, begin).map(|inner| Parts { inner, trail, variant: None, at: 0 })
    }

    fn parts_of<C>(self, variant: &'static str, begin: impl FnOnce(S) -> Result<C, S::Error>) -> Result<Parts<'t, C>, S::Error> {
        let trail = self.trail;
        self.begin(2, begin).map(|inner| Parts { inner, trail, variant: Some(variant), at: 0 })
    }
}

/// A value on its way into a [`Writer`].
struct Inside<'a, 't, T: ?Sized> {
    value: &'a T,
    trail: &'t Trail,
    /// Levels of JSON between it and what it is in: none for what an `Option` or a newtype holds.
    levels: u32,
}

impl<T: Serialize + ?Sized> Serialize for Inside<'_, '_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (left, taken) = match self.levels {
            0 => (&self.trail.wrapped, 1),
            levels => (&self.trail.levels, levels),
        };
        let Some(less) = left.get().checked_sub(taken) else { return Err(S::Error::custom(too_deep())) };
        left.set(less);
        let written = self.value.serialize(Writer::new(to, self.trail))?;
        left.set(less + taken);
        Ok(written)
    }
}

macro_rules! same {
    ($($method:ident($value:ty);)*) => {$(
        fn $method(self, value: $value) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

macro_rules! wide {
    ($($method:ident($value:ty): $is_safe:expr;)*) => {$(
        fn $method(self, value: $value) -> Result<S::Ok, S::Error> {
            let is_safe: fn($value) -> bool = $is_safe;
            if is_safe(value) { self.inner.$method(value) } else { self.inner.collect_str(&value) }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident($value:ty);)*) => {$(
        fn $method(self, value: $value) -> Result<S::Ok, S::Error> {
            match not_finite(value.into()) {
                None => self.inner.$method(value),
                Some(word) => self.inner.serialize_str(word),
            }
        }
    )*};
}

impl<'t, S: Serializer> Serializer for Writer<'t, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'t, S::SerializeSeq>;
    type SerializeTuple = Parts<'t, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'t, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'t, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'t, S::SerializeMap>;
    type SerializeStruct = Parts<'t, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'t, S::SerializeStructVariant>;

    same! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    wide! {
        serialize_u64(u64): |value| value <= MAX_SAFE_INTEGER;
        serialize_i64(i64): |value| value.unsigned_abs() <= MAX_SAFE_INTEGER;
        serialize_u128(u128): |value| value <= MAX_SAFE_INTEGER.into();
        serialize_i128(i128): |value| value.unsigned_abs() <= MAX_SAFE_INTEGER.into();
    }

    floats! {
        serialize_f32(f32);
        serialize_f64(f64);
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Inside { value, trail: self.trail, levels: 0 })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Inside { value, trail: self.trail, levels: 0 })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let trail = self.trail;
        let inside = Inside { value, trail, levels: 1 };
        let written = self.begin(1, |inner| inner.serialize_newtype_variant(name, index, variant, &inside));
        written.inspect_err(|_| trail.leave(Step::Variant(None, variant.into())))
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.parts(|inner| inner.serialize_seq(count))
    }

    fn serialize_tuple(self, count: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.parts(|inner| inner.serialize_tuple(count))
    }

    fn serialize_tuple_struct(self, name: &'static str, count: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.parts(|inner| inner.serialize_tuple_struct(name, count))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.parts_of(variant, |inner| inner.serialize_tuple_variant(name, index, variant, count))
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.parts(|inner| inner.serialize_map(count))
    }

    fn serialize_struct(self, name: &'static str, count: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.parts(|inner| inner.serialize_struct(name, count))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.parts_of(variant, |inner| inner.serialize_struct_variant(name, index, variant, count))
    }
}

/// The parts of a value, as they come.
pub(super) struct Parts<'t, C> {
    inner: C,
    trail: &'t Trail,
    /// Of the enum whose parts these are: its object is one more level.
    variant: Option<&'static str>,
    at: usize,
}

impl<'t, C> Parts<'t, C> {
    fn inside<'a, T: ?Sized>(&self, value: &'a T) -> Inside<'a, 't, T> {
        Inside { value, trail: self.trail, levels: 1 + u32::from(self.variant.is_some()) }
    }

    #[cold]
    fn leave(&self, step: Step) {
        self.trail.leave(step);
        if let Some(variant) = self.variant {
            self.trail.leave(Step::Variant(None, variant.into()));
        }
    }
}

macro_rules! unnamed {
    ($($compound:ident::$method:ident: $step:expr;)*) => {$(
        impl<C: ser::$compound> ser::$compound for Parts<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let inside = self.inside(value);
                let step: fn(usize) -> Step = $step;
                self.inner.$method(&inside).inspect_err(|_| self.leave(step(self.at)))?;
                self.at += 1;
                Ok(())
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

unnamed! {
    SerializeSeq::serialize_element: Step::Index;
    SerializeTuple::serialize_element: Step::Index;
    SerializeTupleStruct::serialize_field: Step::Index;
    SerializeTupleVariant::serialize_field: Step::Index;
}

macro_rules! named {
    ($($compound:ident;)*) => {$(
        impl<C: ser::$compound> ser::$compound for Parts<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), C::Error> {
                let inside = self.inside(value);
                self.inner.serialize_field(name, &inside).inspect_err(|_| self.leave(Step::Field(None, name.into())))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: ser::SerializeMap> ser::SerializeMap for Parts<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    /// Keys are strings anyway.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(key).inspect_err(|_| self.leave(Step::Index(self.at)))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let inside = self.inside(value);
        self.inner.serialize_value(&inside).inspect_err(|_| self.leave(Step::Index(self.at)))?;
        self.at += 1;
        Ok(())
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
