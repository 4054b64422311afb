//! Typed contents of gRPC messages.

use half::{bf16, f16};

use super::Malformed;
use super::messages::InferTensorContents;
use crate::base::{DType, Element, Shape, Tensor};

/// A tensor of a message's typed contents. Errors when they are of another type, not as many as the shape asks for, or do not fit the type.
pub(super) fn read(at: &str, dtype: DType, shape: Shape, from: &InferTensorContents) -> Result<Tensor, Malformed> {
    let others = from.filled().into_iter().find(|(name, len)| *len > 0 && *name != field(dtype));
    if let Some((name, _)) = others {
        let why = format!("{name} is no place for {}", super::datatype(dtype));
        return Err(Malformed::invalid(at, why, format!("send {}, or raw_input_contents", field(dtype))));
    }
    let Some(tensor) = typed(dtype, &shape, from) else {
        return Err(Malformed::invalid(
            at,
            format!("a value that is no {}", super::datatype(dtype)),
            "send values of the datatype",
        ));
    };
    tensor.map_err(|e| Malformed::invalid(at, e, "send as many elements as the shape says"))
}

/// The field that holds values of a type: f16 and bf16 have none of their own, and go as f32 here.
fn field(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool_contents",
        DType::I8 | DType::I16 | DType::I32 => "int_contents",
        DType::I64 => "int64_contents",
        DType::U8 | DType::U16 | DType::U32 => "uint_contents",
        DType::U64 => "uint64_contents",
        DType::F32 | DType::F16 | DType::BF16 => "fp32_contents",
        DType::F64 => "fp64_contents",
    }
}

/// `None` when a value does not fit.
fn typed(dtype: DType, shape: &Shape, from: &InferTensorContents) -> Option<crate::Result<Tensor>> {
    let finite = |given: f32, rounded: bool| rounded || !given.is_finite();
    match dtype {
        DType::Bool => {
            let bytes: &[u8] = bytemuck::cast_slice(&from.bool_contents);
            Some(Tensor::from_raw(DType::Bool, shape.clone(), bytes))
        }
        DType::I8 => narrowed::<i32, i8>(shape, &from.int_contents, |v| v.try_into().ok()),
        DType::I16 => narrowed::<i32, i16>(shape, &from.int_contents, |v| v.try_into().ok()),
        DType::I32 => Some(Tensor::new(shape.clone(), &from.int_contents)),
        DType::I64 => Some(Tensor::new(shape.clone(), &from.int64_contents)),
        DType::U8 => narrowed::<u32, u8>(shape, &from.uint_contents, |v| v.try_into().ok()),
        DType::U16 => narrowed::<u32, u16>(shape, &from.uint_contents, |v| v.try_into().ok()),
        DType::U32 => Some(Tensor::new(shape.clone(), &from.uint_contents)),
        DType::U64 => Some(Tensor::new(shape.clone(), &from.uint64_contents)),
        DType::F32 => Some(Tensor::new(shape.clone(), &from.fp32_contents)),
        DType::F64 => Some(Tensor::new(shape.clone(), &from.fp64_contents)),
        DType::F16 => narrowed(shape, &from.fp32_contents, |v| Some(f16::from_f32(v)).filter(|r| finite(v, r.is_finite()))),
        DType::BF16 => narrowed(shape, &from.fp32_contents, |v| Some(bf16::from_f32(v)).filter(|r| finite(v, r.is_finite()))),
    }
}

fn narrowed<F: Copy, T: Element>(shape: &Shape, values: &[F], one: impl Fn(F) -> Option<T>) -> Option<crate::Result<Tensor>> {
    let narrow: Vec<T> = values.iter().map(|&v| one(v)).collect::<Option<_>>()?;
    Some(Tensor::new(shape.clone(), &narrow))
}
