//! A method as a type: what the macro makes of each `fn` in a service trait.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use farcall_core::codec::Shape;
use farcall_core::{Code, Fault, MethodDescriptor, Reply, RpcError, ServiceDescriptor};
use serde::de::DeserializeOwned;
use serde::{Deserializer, Serialize, Serializer};

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A provider in this process, behind its service's object-safe form.
pub type LocalTarget = Arc<dyn Any + Send + Sync>;

/// One method of a service. Implemented by the macro on a marker type per method.
pub trait Method: Send + Sync + 'static {
    /// The parameters as one struct.
    type Args: Serialize + DeserializeOwned + Send + 'static;
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
    /// The service it belongs to.
    fn service() -> &'static ServiceDescriptor;
    /// Calls a provider in this process.
    #[doc(hidden)]
    fn local(target: &LocalTarget, args: Self::Args) -> BoxFuture<'static, Reply<Self::Out, Self::Err>>;
}

fn descriptor<M: Method>() -> Option<&'static MethodDescriptor> {
    M::service().methods.get(M::INDEX as usize)
}

/// What a codec may ask of the arguments' type.
pub(crate) fn args_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().map(MethodDescriptor::args_shape)
}

/// What a codec may ask of the result's type.
pub(crate) fn result_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().map(MethodDescriptor::result_shape)
}

/// What a codec may ask of the application error's type.
pub(crate) fn error_shape<M: Method>() -> Option<Shape<'static>> {
    descriptor::<M>().and_then(MethodDescriptor::error_shape)
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

/// Only a type with a schema can be an argument or a result.
#[doc(hidden)]
pub fn travels<T: farcall_core::Schema>() {}

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
pub trait Form<T>: 'static {
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

impl Form<bytes::Bytes> for AsBytes {
    fn serialize<S: Serializer>(value: &bytes::Bytes, s: S) -> Result<S::Ok, S::Error> {
        farcall_core::frame_bytes::serialize(value, s)
    }
    fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<bytes::Bytes, D::Error> {
        farcall_core::frame_bytes::deserialize(d)
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
