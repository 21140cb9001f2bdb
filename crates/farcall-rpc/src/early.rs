//! Arguments: as a struct of owned values, or, if a parameter is borrowed, encoded when the stub was called.
//!
//! A call outlives what it was given: it is sent later, in another task, in a codec that its options choose. Owned
//! arguments wait as they are. Borrowed ones are written at once, into one allocation, in the codec that most likely
//! carries them; should another be chosen, they are read and written again.

use std::marker::PhantomData;

use bytes::Bytes;
use farcall_core::{Code, CodecError, CodecId, RpcError, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::method::{Method, args_shape};
use crate::scratch;
use crate::skeleton::Incoming;

/// Encoded arguments of more bytes than this keep their buffer; smaller ones are copied out of it.
const KEEP_BUFFER: usize = 16 << 10;

/// A method with a borrowed parameter.
#[doc(hidden)]
pub trait Lending: Method {
    /// Its arguments, for as long as they are borrowed.
    type Lent<'a>: Serialize + Deserialize<'a> + Send;
}

/// What a call holds of its arguments until it is sent.
#[doc(hidden)]
pub trait Arguments<M>: Sized + Send + 'static {
    /// Writes them: into the buffer, which is empty, or as what is returned.
    fn encode(self, codec: CodecId, buffer: &mut Vec<u8>) -> Result<Option<Bytes>, CodecError>;
    /// Those of a call that came in, for who answers without a handler.
    fn received(call: &Incoming) -> Result<Self, RpcError>;
    /// As bytes, to be looked at later.
    fn keep(&self) -> Vec<u8>;
    /// What was kept.
    fn kept(bytes: &[u8]) -> Option<Self>;
}

/// The codec that arguments of a method wait in.
const fn waiting_codec<M: Method>() -> CodecId {
    if M::JSON { CodecId::Json } else { CodecId::Compact }
}

impl<M: Method, A: Serialize + DeserializeOwned + Send + 'static> Arguments<M> for A {
    #[inline]
    fn encode(self, codec: CodecId, buffer: &mut Vec<u8>) -> Result<Option<Bytes>, CodecError> {
        codec::encode_into(codec, &self, args_shape::<M>, buffer).map(|()| None)
    }

    fn received(call: &Incoming) -> Result<A, RpcError> {
        call.args_as::<M, A>()
    }

    fn keep(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What was decoded can be encoded.
        let _ = codec::encode_into(waiting_codec::<M>(), self, args_shape::<M>, &mut bytes);
        bytes
    }

    fn kept(bytes: &[u8]) -> Option<A> {
        codec::decode(waiting_codec::<M>(), &Bytes::copy_from_slice(bytes), args_shape::<M>).ok()
    }
}

/// Borrowed arguments, encoded.
#[doc(hidden)]
pub struct Early<M> {
    encoded: Result<Bytes, CodecError>,
    method: PhantomData<fn() -> M>,
}

impl<M: Lending> Early<M> {
    /// The codec that they wait in.
    const CODEC: CodecId = waiting_codec::<M>();

    pub fn new(args: M::Lent<'_>) -> Early<M> {
        let mut buffer = scratch::take();
        let encoded = match codec::encode_into(Self::CODEC, &args, args_shape::<M>, &mut buffer) {
            Ok(()) if buffer.len() > KEEP_BUFFER => Ok(scratch::lend(std::mem::take(&mut buffer))),
            Ok(()) => Ok(Bytes::copy_from_slice(&buffer)),
            Err(error) => Err(error),
        };
        scratch::give(buffer);
        Early { encoded, method: PhantomData }
    }

    /// As a provider in this process gets them.
    pub fn read(&self) -> Result<M::Lent<'_>, RpcError> {
        let read = match &self.encoded {
            Ok(bytes) => codec::decode_lent(Self::CODEC, bytes, args_shape::<M>),
            Err(error) => Err(error.clone()),
        };
        read.map_err(|e| RpcError::not_sent(Code::InvalidArgument, format!("the arguments cannot be passed on: {e}")))
    }

    fn write_again(bytes: &Bytes, codec: CodecId, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        let args: M::Lent<'_> = codec::decode_lent(Self::CODEC, bytes, args_shape::<M>)?;
        codec::encode_into(codec, &args, args_shape::<M>, buffer)
    }
}

impl<M: Lending> Arguments<M> for Early<M> {
    fn encode(self, codec: CodecId, buffer: &mut Vec<u8>) -> Result<Option<Bytes>, CodecError> {
        let bytes = self.encoded?;
        match codec == Self::CODEC {
            true => Ok(Some(bytes)),
            false => Self::write_again(&bytes, codec, buffer).map(|()| None),
        }
    }

    fn received(call: &Incoming) -> Result<Early<M>, RpcError> {
        call.lender::<M>().args().map(Early::new)
    }

    fn keep(&self) -> Vec<u8> {
        self.encoded.as_ref().map(|bytes| bytes.to_vec()).unwrap_or_default()
    }

    fn kept(bytes: &[u8]) -> Option<Early<M>> {
        Some(Early { encoded: Ok(Bytes::copy_from_slice(bytes)), method: PhantomData })
    }
}
