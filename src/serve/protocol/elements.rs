//! Elements in JSON: numbers parsed straight into a tensor's buffer, and written from it.

use std::fmt;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Malformed;
use crate::base::{DType, Element, Shape, Tensor};

/// A value in JSON.
#[derive(Clone, Copy, Debug)]
enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

fn integer<T: TryFrom<i128>>(scalar: Scalar) -> Option<T> {
    match scalar {
        Scalar::Unsigned(v) => T::try_from(i128::from(v)).ok(),
        Scalar::Signed(v) => T::try_from(i128::from(v)).ok(),
        Scalar::Float(_) | Scalar::Bool(_) => None,
    }
}

fn double(scalar: Scalar) -> Option<f64> {
    match scalar {
        Scalar::Unsigned(v) => Some(v as f64),
        Scalar::Signed(v) => Some(v as f64),
        Scalar::Float(v) => Some(v),
        Scalar::Bool(_) => None,
    }
}

fn boolean(scalar: Scalar) -> Option<u8> {
    match scalar {
        Scalar::Bool(v) => Some(v.into()),
        Scalar::Unsigned(v @ 0..=1) => Some(v as u8),
        _ => None,
    }
}

/// Fills a tensor from `data`'s text: its elements in a row, or nested as `shape` says. Errors on values outside the type, on another
/// number of them, and on nesting that contradicts the shape. `shape` must have been checked against the limits; the buffer is allocated
/// only where `text` is long enough for so many elements.
pub(super) fn read(at: &str, dtype: DType, shape: Shape, text: &str) -> Result<Tensor, Malformed> {
    let cure = "send its elements in a row, or nested as the shape says";
    let wanted = shape.numel();
    if wanted.saturating_mul(2) > text.len() {
        return Err(Malformed::invalid(at, format!("shape {shape} asks for {wanted} elements, more than are given"), cure));
    }
    let mut tensor = Tensor::zeros(dtype, shape.clone()).map_err(|e| Malformed::invalid(at, e, cure))?;
    let mut view = tensor.view_mut();
    let done = match dtype {
        DType::F32 => fill(text, &shape, view.slice(), |s| double(s).map(|v| v as f32).filter(|v| v.is_finite())),
        DType::F16 => fill(text, &shape, view.slice(), |s| double(s).map(f16::from_f64).filter(|v| v.is_finite())),
        DType::BF16 => fill(text, &shape, view.slice(), |s| double(s).map(bf16::from_f64).filter(|v| v.is_finite())),
        DType::F64 => fill(text, &shape, view.slice(), double),
        DType::I8 => fill::<i8>(text, &shape, view.slice(), integer),
        DType::U8 => fill::<u8>(text, &shape, view.slice(), integer),
        DType::I16 => fill::<i16>(text, &shape, view.slice(), integer),
        DType::U16 => fill::<u16>(text, &shape, view.slice(), integer),
        DType::I32 => fill::<i32>(text, &shape, view.slice(), integer),
        DType::U32 => fill::<u32>(text, &shape, view.slice(), integer),
        DType::I64 => fill::<i64>(text, &shape, view.slice(), integer),
        DType::U64 => fill::<u64>(text, &shape, view.slice(), integer),
        DType::Bool => fill(text, &shape, view.slice(), boolean),
    };
    done.map_err(|e| Malformed::invalid(at, e, cure))?;
    Ok(tensor)
}

fn fill<T: Element>(text: &str, shape: &Shape, into: &mut [T], convert: fn(Scalar) -> Option<T>) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut filled = Filled { into, next: 0, flat: shape.rank() == 0, convert };
    Level { shape, depth: 0, filled: &mut filled }.deserialize(&mut json)?;
    json.end()
}

/// A buffer, filled up to `next`.
struct Filled<'b, T> {
    into: &'b mut [T],
    next: usize,
    /// Elements lie in a row rather than nested.
    flat: bool,
    convert: fn(Scalar) -> Option<T>,
}

/// What lies `depth` arrays deep.
struct Level<'s, 'f, 'b, T> {
    shape: &'s Shape,
    depth: usize,
    filled: &'f mut Filled<'b, T>,
}

impl<T: Element> Level<'_, '_, '_, T> {
    fn scalar<E: serde::de::Error>(self, scalar: Scalar) -> Result<(), E> {
        let Filled { into, next, flat, convert } = self.filled;
        if self.depth == 1 && *next == 0 {
            *flat |= self.shape.rank() != 1;
        }
        if self.depth != if *flat { 1 } else { self.shape.rank() } {
            return Err(E::custom(format!("an element {} arrays deep, where the shape is {}", self.depth, self.shape)));
        }
        let slot = into.get_mut(*next);
        let slot = slot.ok_or_else(|| E::custom(format!("more elements than shape {} has", self.shape)))?;
        let value = convert(scalar);
        *slot = value.ok_or_else(|| E::custom(format!("{scalar:?} does not fit the datatype")))?;
        *next += 1;
        Ok(())
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for Level<'_, '_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Level<'_, '_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers, or arrays of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Level { shape, depth, filled } = self;
        if depth >= shape.rank().max(1) || (depth > 0 && filled.flat) {
            return Err(A::Error::custom(format!("an array {depth} arrays deep, where the shape is {shape}")));
        }
        let mut count = 0;
        while items.next_element_seed(Level { shape, depth: depth + 1, filled })?.is_some() {
            count += 1;
        }
        let wanted = if filled.flat { filled.into.len() } else { shape[depth] };
        if count != wanted && !(count == 0 && filled.into.is_empty()) {
            return Err(A::Error::custom(format!("an array of {count} elements, where shape {shape} asks for {wanted}")));
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(v))
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        self.scalar(Scalar::Unsigned(v))
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        self.scalar(Scalar::Signed(v))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(v))
    }
}

/// A tensor's elements as a flat JSON array. Floats must be finite: see [`is_sayable`].
pub(super) struct Data<'a>(pub &'a Tensor);

/// Whether JSON has a word for every element: it has none for NaN and infinities.
pub(super) fn is_sayable(tensor: &Tensor) -> bool {
    let all = |finite: Result<bool, crate::Error>| finite.unwrap_or(false);
    match tensor.dtype() {
        DType::F32 => all(tensor.values::<f32>().map(|v| v.iter().all(|x| x.is_finite()))),
        DType::F64 => all(tensor.values::<f64>().map(|v| v.iter().all(|x| x.is_finite()))),
        DType::F16 => all(tensor.values::<f16>().map(|v| v.iter().all(|x| x.is_finite()))),
        DType::BF16 => all(tensor.values::<bf16>().map(|v| v.iter().all(|x| x.is_finite()))),
        _ => true,
    }
}

fn each<T: Element, J: Serialize, S: Serializer>(tensor: &Tensor, to: S, json: fn(T) -> J) -> Result<S::Ok, S::Error> {
    let values = tensor.values::<T>().map_err(serde::ser::Error::custom)?;
    to.collect_seq(values.iter().map(|&v| json(v)))
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Data(tensor) = self;
        match tensor.dtype() {
            DType::F32 => each::<f32, _, S>(tensor, to, |v| v),
            DType::F16 => each::<f16, _, S>(tensor, to, |v| v.to_f32()),
            DType::BF16 => each::<bf16, _, S>(tensor, to, |v| v.to_f32()),
            DType::F64 => each::<f64, _, S>(tensor, to, |v| v),
            DType::I8 => each::<i8, _, S>(tensor, to, |v| v),
            DType::U8 => each::<u8, _, S>(tensor, to, |v| v),
            DType::I16 => each::<i16, _, S>(tensor, to, |v| v),
            DType::U16 => each::<u16, _, S>(tensor, to, |v| v),
            DType::I32 => each::<i32, _, S>(tensor, to, |v| v),
            DType::U32 => each::<u32, _, S>(tensor, to, |v| v),
            DType::I64 => each::<i64, _, S>(tensor, to, |v| v),
            DType::U64 => each::<u64, _, S>(tensor, to, |v| v),
            DType::Bool => each::<u8, _, S>(tensor, to, |v| v != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(dtype: DType, shape: &[usize], text: &str) -> Result<Vec<f64>, String> {
        read("data", dtype, Shape::from(shape), text).map(|t| t.to_f64()).map_err(|e| e.to_string())
    }

    #[test]
    fn elements_come_in_a_row_or_nested_as_the_shape_says() {
        let want = Ok(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(parsed(DType::I32, &[2, 3], "[1,2,3,4,5,6]"), want);
        assert_eq!(parsed(DType::F16, &[2, 3], "[[1,2,3],[4,5,6]]"), want);
        assert_eq!(parsed(DType::U8, &[1, 2, 3], "[[[1,2,3],[4,5,6]]]"), want);
        assert_eq!(parsed(DType::F64, &[], "[2.5]"), Ok(vec![2.5]));
        assert_eq!(parsed(DType::F32, &[2, 0], "[]"), Ok(vec![]));
        assert_eq!(parsed(DType::F32, &[2, 0], "[[],[]]"), Ok(vec![]));
        assert_eq!(parsed(DType::Bool, &[3], "[true,false,1]"), Ok(vec![1.0, 0.0, 1.0]));
    }

    #[test]
    fn what_contradicts_the_shape_is_refused() {
        for text in
            ["[[1,2],[3,4],[5,6]]", "[1,2,3,4,5]", "[1,2,3,4,5,6,7]", "[1,[2,3],4,5,6]", "[[1,2,3],4,5,6]", "[[[1,2,3]],[4,5,6]]"]
        {
            assert!(parsed(DType::I32, &[2, 3], text).is_err(), "{text}");
        }
        assert!(parsed(DType::F32, &[], "2.5e00").is_err());
        assert!(parsed(DType::F32, &[1 << 40], "[1]").unwrap_err().contains("more than are given"));
        assert!(parsed(DType::F32, &[1], "[1] []").is_err());
    }

    #[test]
    fn what_the_datatype_cannot_hold_is_refused() {
        let bad = [
            (DType::U8, "256"),
            (DType::U8, "-1"),
            (DType::I32, "1.5"),
            (DType::F32, "1e39"),
            (DType::F16, "65520"),
            (DType::F64, "1e999"),
            (DType::Bool, "2"),
            (DType::F32, "true"),
            (DType::F32, "null"),
            (DType::F32, "\"1\""),
        ];
        for (dtype, text) in bad {
            assert!(parsed(dtype, &[1], &format!("[{text}]")).is_err(), "{dtype} {text}");
        }
        let largest = read("data", DType::U64, Shape::from([1]), "[18446744073709551615]").unwrap();
        assert_eq!(largest.values::<u64>().unwrap().as_ref(), [u64::MAX]);
    }

    #[test]
    fn floats_come_back_as_they_were() {
        let values: Vec<f64> = (0..2000).map(|i| f64::from_bits(0x3ff0_0000_0000_0001 + i * 0x0001_2345_6789_abcd)).collect();
        let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let tensor = Tensor::new([finite.len()], &finite).unwrap();
        let text = serde_json::to_string(&Data(&tensor)).unwrap();
        assert_eq!(read("data", DType::F64, tensor.shape().clone(), &text).unwrap(), tensor);
        assert!(!is_sayable(&Tensor::vector(&[f32::NAN])) && is_sayable(&tensor));
    }
}
