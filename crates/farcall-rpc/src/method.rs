//! A method as a type: what the macro makes of each `fn` in a service trait.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::codec::Shape;
use farcall_core::{Code, CodecId, Fault, MethodDescriptor, Reply, RpcError, ServiceDescriptor};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::context::Context;
use crate::early::Arguments;
use crate::stream::{Encoded, Items, Received, Streaming};

/// Bytes above this many are written from where they are instead of being copied.
const SEGMENT: usize = 16 << 10;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A provider in this process, behind its service's object-safe form.
pub type LocalTarget = Arc<dyn Any + Send + Sync>;

/// One method of a service. Implemented by the macro on a marker type per method.
pub trait Method: Sized + Send + Sync + 'static {
    /// The parameters as one struct; encoded, if one of them is borrowed.
    type Args: Arguments<Self>;
    /// The stream beside them: a [`Streaming`] in its form, or `()`.
    #[doc(hidden)]
    type Up: Upload;
    /// The result.
    type Out: Send + 'static;
    /// The application error; [`Never`](farcall_core::Never) if none.
    type Err: Fault<Error: Send> + Serialize + DeserializeOwned + Send + 'static;
    /// How the result is serialized.
    #[doc(hidden)]
    type Form: Form<Self::Out>;
    /// Row in its service's descriptor.
    const INDEX: u16;
    /// No reply, not even an error.
    const ONEWAY: bool;
    /// One of its types has no schema, so all of it travels as JSON.
    const JSON: bool = false;
    /// The service it belongs to.
    fn service() -> &'static ServiceDescriptor;
    /// Calls a provider in this process.
    #[doc(hidden)]
    fn local(target: &LocalTarget, args: Self::Args, up: Self::Up) -> BoxFuture<'static, Reply<Self::Out, Self::Err>>;
}

fn descriptor<M: Method>() -> Option<&'static MethodDescriptor> {
    M::service().methods.get(M::INDEX as usize)
}

/// What a codec may ask of the arguments' type.
pub(crate) fn args_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().and_then(MethodDescriptor::args_shape)
}

/// What a codec may ask of the result's type.
pub(crate) fn result_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().and_then(MethodDescriptor::result_shape)
}

/// What a codec may ask of the application error's type.
pub(crate) fn error_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().and_then(MethodDescriptor::error_shape)
}

/// What a codec may ask of the types of a stream.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ItemShapes {
    pub(crate) item: fn() -> Option<Shape<'static>>,
    pub(crate) error: fn() -> Option<Shape<'static>>,
}

impl ItemShapes {
    /// Of the stream behind the arguments.
    pub(crate) fn of_args<M: Method>() -> ItemShapes {
        ItemShapes {
            item: || descriptor::<M>().and_then(MethodDescriptor::args_item_shape),
            error: || descriptor::<M>().and_then(MethodDescriptor::args_stream_error_shape),
        }
    }

    /// Of the stream that is the result.
    pub(crate) fn of_result<M: Method>() -> ItemShapes {
        ItemShapes {
            item: || descriptor::<M>().and_then(MethodDescriptor::result_item_shape),
            error: || descriptor::<M>().and_then(MethodDescriptor::result_stream_error_shape),
        }
    }
}

/// A method that may run twice: `#[farcall(idempotent)]`.
#[diagnostic::on_unimplemented(
    message = "this method is not idempotent, so it may not run twice",
    note = "if running it twice is the same as once, put #[farcall(idempotent)] on it in the trait"
)]
pub trait Idempotent: Method {}

/// A client of a service: `…Client` types. What registries need to make one.
pub trait Stub: From<crate::Channel> + Clone + Send + Sync + 'static {
    /// What the service is.
    fn descriptor() -> &'static ServiceDescriptor;
}

/// Only what serde writes and reads can be a result or an item of a stream.
#[doc(hidden)]
pub fn travels<T: Travels>() {}

/// Only what serde writes and reads can be an argument; it may borrow.
#[doc(hidden)]
pub fn travels_lent<T: TravelsLent>() {}

/// What can be a result.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in a call",
    label = "serde does not know this type",
    note = "put `#[farcall::data]` on `{Self}`; a type with serde's derives alone travels as JSON"
)]
pub trait Travels {}

impl<T: Serialize + DeserializeOwned> Travels for T {}

/// What can be an argument.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in a call",
    label = "serde does not know this type",
    note = "put `#[farcall::data]` on `{Self}`; a type with serde's derives alone travels as JSON"
)]
pub trait TravelsLent {}

impl<T: Serialize + Deserialize<'static>> TravelsLent for T {}

/// Only an application error can be the error of a method.
#[doc(hidden)]
pub fn is_app_error<T: farcall_core::AppError>() {}

/// A plain `fn` handler of a provider in this process, on the blocking pool.
#[doc(hidden)]
pub async fn local_blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Result<R, RpcError> {
    crate::skeleton::run_blocking_handler(f).await
}

/// A channel of one service was given to the client of another.
#[doc(hidden)]
pub fn wrong_target<M: Method>() -> BoxFuture<'static, Reply<M::Out, M::Err>> {
    let name = &M::service().name;
    let error = RpcError::not_sent(Code::Internal, format!("this local channel leads to another service than {name}"));
    Box::pin(std::future::ready(Err(error.into())))
}

/// How a result is serialized.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{T}` cannot travel in a call",
    label = "serde does not know this type, or one in it",
    note = "put `#[farcall::data]` on your own types in it; one with serde's derives alone travels as JSON"
)]
pub trait Form<T>: 'static {
    /// It is not a value but a stream: [`outgoing`](Form::outgoing) and [`incoming`](Form::incoming)
    /// carry it.
    const STREAM: bool = false;
    fn outgoing(_: T, _: CodecId, _: ItemShapes) -> Option<Outgoing> {
        None
    }
    fn incoming(_: Received, _: ItemShapes) -> Option<T> {
        None
    }
    /// As the other side of a call in this process gets it.
    fn local(value: T, _: &Context) -> T {
        value
    }
    /// For bytes that are large and need not be copied: what stands before them in the compact codec
    /// goes into `head`.
    fn segment(_: &T, _head: &mut Vec<u8>) -> Option<Bytes> {
        None
    }
    fn serialize<S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error>;
    fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<T, D::Error>;
}

/// As its serde implementation says.
#[doc(hidden)]
pub struct AsValue;

impl<T: Serialize + DeserializeOwned> Form<T> for AsValue {
    fn serialize<S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
    fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        T::deserialize(d)
    }
}

/// As bytes: serde would take `Vec<u8>` one element at a time, and `Bytes` by copying.
#[doc(hidden)]
pub struct AsBytes;

impl Form<Vec<u8>> for AsBytes {
    fn serialize<S: Serializer>(value: &Vec<u8>, s: S) -> Result<S::Ok, S::Error> {
        farcall_core::byte_vec::serialize(value, s)
    }
    fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        farcall_core::byte_vec::deserialize(d)
    }
}

impl Form<Bytes> for AsBytes {
    fn segment(value: &Bytes, head: &mut Vec<u8>) -> Option<Bytes> {
        if value.len() <= SEGMENT {
            return None;
        }
        // Bytes are their count and they themselves.
        farcall_core::compact::encode_into(&(value.len() as u64), head).ok()?;
        Some(value.clone())
    }
    fn serialize<S: Serializer>(value: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        farcall_core::frame_bytes::serialize(value, s)
    }
    fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        farcall_core::frame_bytes::deserialize(d)
    }
}

/// A stream whose items have the form `F`.
#[doc(hidden)]
pub struct AsStream<F>(PhantomData<F>);

impl<T, E, F> Form<Streaming<T, E>> for AsStream<F>
where
    T: Send + 'static,
    E: Fault<Error: Send> + Serialize + DeserializeOwned + Send + 'static,
    F: Form<T>,
{
    const STREAM: bool = true;
    fn outgoing(stream: Streaming<T, E>, codec: CodecId, shapes: ItemShapes) -> Option<Outgoing> {
        Some(Outgoing(Box::new(Encoded::<T, E, F>::new(stream, codec, shapes))))
    }
    fn incoming(received: Received, shapes: ItemShapes) -> Option<Streaming<T, E>> {
        Some(received.into_streaming::<T, E, F>(shapes))
    }
    fn local(stream: Streaming<T, E>, context: &Context) -> Streaming<T, E> {
        stream.produced_in(context.clone())
    }
    fn serialize<S: Serializer>(_: &Streaming<T, E>, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("a stream is not a value"))
    }
    fn deserialize<'de, D: Deserializer<'de>>(_: D) -> Result<Streaming<T, E>, D::Error> {
        Err(D::Error::custom("a stream is not a value"))
    }
}

/// A stream without its types, on its way out.
#[doc(hidden)]
pub struct Outgoing(pub(crate) Box<dyn Items>);

/// What follows the arguments of a method: a stream in its form, or nothing.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "the items of this stream cannot travel in a call",
    label = "serde does not know their type, or one in it",
    note = "put `#[farcall::data]` on your own types in it; one with serde's derives alone travels as JSON"
)]
pub trait Upload: Send + 'static {
    const STREAM: bool;
    fn outgoing(self, codec: CodecId, shapes: ItemShapes) -> Option<Outgoing>;
    /// As a provider in this process gets it.
    fn local(self, context: &Context) -> Self;
}

impl Upload for () {
    const STREAM: bool = false;
    fn outgoing(self, _: CodecId, _: ItemShapes) -> Option<Outgoing> {
        None
    }
    fn local(self, _: &Context) {}
}

/// A parameter that is a stream, in the form of its items.
#[doc(hidden)]
pub struct StreamArg<S, F> {
    stream: S,
    form: PhantomData<fn() -> F>,
}

impl<S, F> StreamArg<S, F> {
    pub fn new(stream: S) -> Self {
        StreamArg { stream, form: PhantomData }
    }
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: Send + 'static, F: Form<S>> Upload for StreamArg<S, F> {
    const STREAM: bool = true;
    fn outgoing(self, codec: CodecId, shapes: ItemShapes) -> Option<Outgoing> {
        F::outgoing(self.stream, codec, shapes)
    }
    fn local(self, context: &Context) -> Self {
        StreamArg::new(F::local(self.stream, context))
    }
}

/// A result on its way out, in its form.
pub(crate) struct Formed<'a, T, F>(pub(crate) &'a T, pub(crate) std::marker::PhantomData<F>);

impl<T, F: Form<T>> Serialize for Formed<'_, T, F> {
    #[inline]
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        F::serialize(self.0, s)
    }
}

/// A result that came back, in its form.
pub(crate) struct Unformed<T, F>(pub(crate) T, std::marker::PhantomData<F>);

impl<'de, T, F: Form<T>> serde::Deserialize<'de> for Unformed<T, F> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Unformed(F::deserialize(d)?, std::marker::PhantomData))
    }
}
