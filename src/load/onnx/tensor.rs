//! TensorProto in all its encodings.

use super::external::Files;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::proto::TensorProto;

/// The tensor, its elements left in the file where the format allows it.
pub(super) fn tensor(proto: &TensorProto, files: &Files) -> Result<Tensor> {
    let at = || format!("tensor {}", proto.name.as_deref().unwrap_or("without a name"));
    let bad = |why: String| Error::BadModel { at: at(), why };
    let number = proto.data_type.unwrap_or(0);
    if let Some(signed) = packed(number) {
        return unpacked(proto, files, signed);
    }
    let dtype = DType::from_onnx(number)
        .ok_or_else(|| Error::Unsupported { at: at(), why: format!("element type {number} of onnx.proto") })?;
    let dim = |&d: &i64| usize::try_from(d).map_err(|_| bad(format!("size {d} is negative")));
    let shape = proto.dims.iter().map(dim).collect::<Result<Shape>>()?;
    let numel = shape.checked_numel().ok_or_else(|| bad(format!("shape {shape} overflows")))?;
    let fits = |e: Error| bad(e.to_string());
    if proto.data_location == Some(1) {
        return Tensor::from_shared(dtype, shape, files.bytes(proto)?).map_err(fits);
    }
    if let Some(raw) = &proto.raw_data {
        // `raw_data` may be set but empty while the typed field holds the elements.
        if !raw.is_empty() || numel == 0 {
            return Tensor::from_shared(dtype, shape, raw.clone()).map_err(fits);
        }
    }
    Tensor::from_raw(dtype, shape, &typed(proto, dtype)).map_err(fits)
}

/// Whether an element type of 4 bits has a sign; `None` of others. INT4 and UINT4 become i8 and u8.
pub(super) fn packed(number: i32) -> Option<bool> {
    match number {
        21 => Some(false),
        22 => Some(true),
        _ => None,
    }
}

/// Elements that lie two in a byte, the first in the lower half. Source: ONNX, "4 bit integer types".
fn unpacked(proto: &TensorProto, files: &Files, signed: bool) -> Result<Tensor> {
    let bad = |why: &str| Error::BadModel { at: format!("tensor {}", proto.name.as_deref().unwrap_or("")), why: why.into() };
    let sizes = proto.dims.iter().map(|&d| usize::try_from(d).map_err(|_| bad("a negative size")));
    let shape = sizes.collect::<Result<Shape>>()?;
    let numel = shape.checked_numel().ok_or_else(|| bad("its shape overflows"))?;
    let bytes = TensorProto { data_type: Some(DType::U8.onnx()), dims: vec![numel.div_ceil(2) as i64], ..proto.clone() };
    let bytes = tensor(&bytes, files)?;
    let halves = bytes.bytes().iter().flat_map(|&b| [b & 15, b >> 4]).take(numel);
    match signed {
        true => Tensor::new(shape, &halves.map(|h| ((h << 4) as i8) >> 4).collect::<Vec<_>>()),
        false => Tensor::new(shape, &halves.collect::<Vec<u8>>()),
    }
}

/// Little-endian bytes of the field that holds elements of `dtype`.
fn typed(proto: &TensorProto, dtype: DType) -> Vec<u8> {
    let narrow = |size: usize| proto.int32_data.iter().flat_map(move |v| v.to_le_bytes().into_iter().take(size)).collect();
    match dtype {
        DType::F32 => bytemuck::cast_slice(&proto.float_data).to_vec(),
        DType::F64 => bytemuck::cast_slice(&proto.double_data).to_vec(),
        DType::I64 => bytemuck::cast_slice(&proto.int64_data).to_vec(),
        DType::U64 => bytemuck::cast_slice(&proto.uint64_data).to_vec(),
        DType::U32 => proto.uint64_data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        other => narrow(other.size_bytes()),
    }
}
