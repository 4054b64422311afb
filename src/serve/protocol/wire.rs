//! Counting what a gRPC message holds before it is decoded: a field of two bytes may become a structure of some hundred.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::limits::ENTRIES;
use super::messages::ModelInferRequest;
use super::request::within;
use super::{Limits, Malformed};

/// Decodes an inference request. Errors when it is larger than the limits, holds more than 1024 tensors and parameters, or is no such message.
pub fn decode(body: Bytes, limits: &Limits) -> Result<ModelInferRequest, Malformed> {
    within(body.len(), limits)?;
    let broken = |e| Malformed::invalid("message", e, "send an inference.ModelInferRequest");
    let mut entries = 0;
    count(&body, Level::Request, &mut entries).map_err(broken)?;
    if entries > ENTRIES {
        let why = format!("{entries} tensors, parameters and raw contents");
        return Err(Malformed::too_large("message", why, format!("send at most {ENTRIES}")));
    }
    ModelInferRequest::decode(body).map_err(broken)
}

/// What a message is, by where it stands.
#[derive(Clone, Copy)]
enum Level {
    Request,
    Input,
    Output,
    Contents,
    /// Nothing in it is repeated.
    Leaf,
}

impl Level {
    /// What a field of it is, if it is one of those that are counted.
    fn field(self, tag: u32) -> Option<Level> {
        match (self, tag) {
            (Level::Request, 5) => Some(Level::Input),
            (Level::Request, 6) => Some(Level::Output),
            (Level::Input, 5) => Some(Level::Contents),
            (Level::Request | Level::Input, 4) | (Level::Output, 2) | (Level::Request, 7) | (Level::Contents, 8) => {
                Some(Level::Leaf)
            }
            _ => None,
        }
    }
}

fn count(mut message: &[u8], level: Level, entries: &mut usize) -> Result<(), prost::DecodeError> {
    while message.has_remaining() {
        let (tag, wire) = decode_key(&mut message)?;
        match level.field(tag) {
            Some(inner) if wire == WireType::LengthDelimited => {
                *entries += 1;
                let len = usize::try_from(decode_varint(&mut message)?).ok().filter(|&n| n <= message.len());
                let Some(len) = len else {
                    // Decoding says what is wrong with it, and stops there.
                    return Ok(());
                };
                count_inner(&message[..len], inner, entries)?;
                message.advance(len);
            }
            _ => skip_field(wire, tag, &mut message, DecodeContext::default())?,
        }
    }
    Ok(())
}

fn count_inner(message: &[u8], level: Level, entries: &mut usize) -> Result<(), prost::DecodeError> {
    if matches!(level, Level::Leaf) { Ok(()) } else { count(message, level, entries) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_counted_before_they_are_made() {
        let small = Bytes::from([0x2a, 0].repeat(ENTRIES));
        assert_eq!(decode(small, &Limits::default()).unwrap().inputs.len(), ENTRIES);
        let error = decode(Bytes::from([0x2a, 0].repeat(ENTRIES + 1)), &Limits::default()).unwrap_err();
        assert_eq!(error.fault, super::super::Fault::TooLarge);
        assert!(decode(Bytes::from_static(&[0x2a, 200]), &Limits::default()).is_err());
    }
}
