//! gRPC messages: bytes in, which the call decodes within its limits, and prost's encoding out.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Takes bytes, gives `R`.
pub(super) struct Raw<R>(PhantomData<fn() -> R>);

impl<R> Default for Raw<R> {
    fn default() -> Self {
        Raw(PhantomData)
    }
}

impl<R: Message + 'static> Codec for Raw<R> {
    type Encode = R;
    type Decode = Bytes;
    type Encoder = Raw<R>;
    type Decoder = Raw<R>;

    fn encoder(&mut self) -> Raw<R> {
        Raw::default()
    }

    fn decoder(&mut self) -> Raw<R> {
        Raw::default()
    }
}

impl<R: Message + 'static> Encoder for Raw<R> {
    type Item = R;
    type Error = Status;

    fn encode(&mut self, item: R, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to).map_err(|e| Status::internal(e.to_string()))
    }
}

impl<R> Decoder for Raw<R> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Shares the buffer: tensors in it are not copied.
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
