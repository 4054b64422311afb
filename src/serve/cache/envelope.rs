//! Answers as bytes for the second level. An envelope tells its format, the whole key, when the answer expires and a keyed hash of all
//! that; what is damaged, cut short, of another format or of another key is refused.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `hbr` and the format's number |
//! | 1 | 0: as it is, 1: an LZ4 block |
//! | 32 | key |
//! | 8 | when it expires, in ms since 1970; all ones: never |
//! | 8 | length of the answer before compression |
//! | n | the answer: the number of tensors, and for each its name, type (onnx.proto), shape and elements |
//! | 32 | BLAKE3 of all of it under the secret |
//!
//! Integers are little-endian; lengths and numbers have 8 bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::queue::CENTURY;
use super::{Answer, Digest};
use crate::base::{DType, Shape, Tensor};

const MAGIC: &[u8] = b"hbr1";
const HEAD: usize = MAGIC.len() + 1 + 32 + 8 + 8;
const SEAL: usize = 32;
const RAW: u8 = 0;
const LZ4: u8 = 1;
/// More axes than any model's tensors have.
const MAX_RANK: u64 = 64;

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// An answer as it is stored, with what is needed to seal and to open it.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// Under which values are sealed.
    pub secret: [u8; 32],
    /// Answers with fewer bytes are not compressed.
    pub compress_from_bytes: usize,
    /// Bytes of the largest answer.
    pub largest_bytes: usize,
}

impl Envelope {
    /// The bytes of an answer that expires at a time (ms since 1970, `u64::MAX` for never).
    pub fn seal(&self, key: &Digest, reply: &Answer, expires_unix_ms: u64) -> Vec<u8> {
        let plain = write(reply);
        // Kept where it saves an eighth: fewer bytes cost less than the time to unpack them.
        let packed = (plain.len() >= self.compress_from_bytes)
            .then(|| lz4_flex::block::compress(&plain))
            .filter(|packed| packed.len() <= plain.len() - plain.len() / 8);
        let (kind, body) = packed.as_ref().map_or((RAW, &plain), |packed| (LZ4, packed));
        let mut bytes = Vec::with_capacity(HEAD + body.len() + SEAL);
        bytes.extend_from_slice(MAGIC);
        bytes.push(kind);
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&expires_unix_ms.to_le_bytes());
        bytes.extend_from_slice(&(plain.len() as u64).to_le_bytes());
        bytes.extend_from_slice(body);
        let seal = blake3::keyed_hash(&self.secret, &bytes);
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// The answer for `key` in `bytes` and how long it may still be given (`None` for ever); `None` unless they are exactly what
    /// [`Envelope::seal`] wrote for this key under this secret, and still valid.
    pub fn open(&self, key: &Digest, bytes: &[u8], now_unix_ms: u64) -> Option<(Answer, Option<Duration>)> {
        let (sealed, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
        // Compared in constant time.
        if blake3::keyed_hash(&self.secret, sealed) != blake3::Hash::from_slice(seal).ok()? {
            return None;
        }
        let mut rest = sealed;
        if take(&mut rest, MAGIC.len())? != MAGIC {
            return None;
        }
        let kind = take(&mut rest, 1)?[0];
        let of_key = take(&mut rest, 32)? == key.0;
        let (expires, plain_bytes) = (take_u64(&mut rest)?, usize::try_from(take_u64(&mut rest)?).ok()?);
        if !of_key || expires <= now_unix_ms || plain_bytes > self.largest_bytes {
            return None;
        }
        let ttl = (expires != u64::MAX).then(|| Duration::from_millis(expires - now_unix_ms).min(CENTURY));
        let reply = match kind {
            RAW if rest.len() == plain_bytes => read(rest)?,
            LZ4 => read(&lz4_flex::block::decompress(rest, plain_bytes).ok()?)?,
            _ => return None,
        };
        Some((reply, ttl))
    }
}

fn write(reply: &Answer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(reply.size_bytes());
    let number = |bytes: &mut Vec<u8>, n: usize| bytes.extend_from_slice(&(n as u64).to_le_bytes());
    number(&mut bytes, reply.len());
    for (name, tensor) in reply.iter() {
        number(&mut bytes, name.len());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(tensor.dtype().onnx() as u8);
        number(&mut bytes, tensor.shape().rank());
        tensor.shape().iter().for_each(|&dim| number(&mut bytes, dim));
        number(&mut bytes, tensor.bytes().len());
        bytes.extend_from_slice(tensor.bytes());
    }
    bytes
}

fn read(mut bytes: &[u8]) -> Option<Answer> {
    let rest = &mut bytes;
    let count = take_u64(rest)?;
    let reply = (0..count).map(|_| read_tensor(rest)).collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then(|| reply.into())
}

fn read_tensor(rest: &mut &[u8]) -> Option<(String, Tensor)> {
    let name = String::from_utf8(take_counted(rest)?.to_vec()).ok()?;
    let dtype = DType::from_onnx(take(rest, 1)?[0].into())?;
    let rank = Some(take_u64(rest)?).filter(|&rank| rank <= MAX_RANK)?;
    let shape = (0..rank).map(|_| usize::try_from(take_u64(rest)?).ok()).collect::<Option<Shape>>()?;
    Some((name, Tensor::from_raw(dtype, shape, take_counted(rest)?).ok()?))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u64(rest)?).ok()?;
    take(rest, len)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope { secret: [7; 32], compress_from_bytes: 256, largest_bytes: 1 << 20 }
    }

    fn reply(len: usize) -> Answer {
        let logits: Vec<f32> = (0..len).map(|i| (i % 5) as f32 - 0.5).collect();
        let all = DType::ALL.map(|d| (format!("{d}"), Tensor::zeros(d, [2, 3]).unwrap()));
        let special = Tensor::vector(&[f32::NAN, -0.0, f32::INFINITY]);
        let odd = [("logits".to_string(), Tensor::vector(&logits)), (String::new(), special), ("s".into(), Tensor::scalar(3i64))];
        odd.into_iter().chain(all).chain([("none".into(), Tensor::zeros(DType::F16, [0, 9]).unwrap())]).collect()
    }

    #[test]
    fn answers_come_back_bit_for_bit() {
        let key = Digest([3; 32]);
        for len in [0, 1, 10_000] {
            let bytes = envelope().seal(&key, &reply(len), u64::MAX);
            let (back, ttl) = envelope().open(&key, &bytes, 5).unwrap();
            assert_eq!((back, ttl), (reply(len), None));
            assert!(len < 10_000 || bytes.len() < len, "{} bytes of {len} repeated floats", bytes.len());
        }
        let bytes = envelope().seal(&key, &reply(1), 1_500);
        assert_eq!(envelope().open(&key, &bytes, 1_000).unwrap().1, Some(Duration::from_millis(500)));
        assert!(envelope().open(&key, &bytes, 1_500).is_none(), "expired");
    }

    #[test]
    fn nothing_else_is_opened() {
        let key = Digest([3; 32]);
        for len in [1, 2_000] {
            let bytes = envelope().seal(&key, &reply(len), u64::MAX);
            assert!(envelope().open(&Digest([4; 32]), &bytes, 0).is_none(), "another request's answer");
            assert!(Envelope { secret: [8; 32], ..envelope() }.open(&key, &bytes, 0).is_none(), "another secret");
            assert!(Envelope { largest_bytes: 64, ..envelope() }.open(&key, &bytes, 0).is_none(), "too large");
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                assert!(envelope().open(&key, &changed, 0).is_none(), "bit of byte {at}");
                assert!(envelope().open(&key, &bytes[..at], 0).is_none(), "cut at {at}");
                assert!(envelope().open(&key, &bytes[at + 1..], 0).is_none(), "begun after {at}");
            }
            assert!(envelope().open(&key, &[&bytes[..], &[0]].concat(), 0).is_none(), "a byte more");
        }
    }

    #[test]
    fn whatever_a_holder_of_the_secret_writes_is_read_or_refused() {
        // Sealed rightly, so that the reader behind the seal sees it.
        let (key, good) = (Digest([3; 32]), write(&reply(1)));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut plain = good.clone();
                plain[at] ^= 1 << bit;
                let head = [MAGIC, &[RAW], &key.0, &u64::MAX.to_le_bytes(), &(plain.len() as u64).to_le_bytes(), &plain].concat();
                let bytes = [&head[..], blake3::keyed_hash(&[7; 32], &head).as_bytes()].concat();
                if let Some((other, _)) = envelope().open(&key, &bytes, 0) {
                    assert_eq!(write(&other), plain, "what is read is what was written");
                }
            }
        }
    }
}
