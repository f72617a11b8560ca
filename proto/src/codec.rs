//! How messages are encoded: with protobuf, and buffers of their size.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Bytes that each direction of a call has for its messages from the start. It grows with a longer message. An
/// agent's are a few hundred bytes, and tonic's 8 KiB would be a third of all that a stream costs the coordinator
/// (tonic 0.14, `src/codec/mod.rs`, `DEFAULT_CODEC_BUFFER_SIZE`).
const BUFFER: usize = 512;
/// Bytes of messages that wait together before they are sent; those of an agent never do.
const SEND_AT: usize = 16 * 1024;

/// Protobuf in small buffers.
#[derive(Debug)]
pub struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, SEND_AT)
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}
