//! TensorProto in all its encodings.

use std::path::Path;

use super::external;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::proto::TensorProto;

/// The tensor, its elements left in the file where the format allows it.
pub(super) fn tensor(proto: &TensorProto, folder: Option<&Path>) -> Result<Tensor> {
    let at = || format!("tensor {}", proto.name.as_deref().unwrap_or("without a name"));
    let bad = |why: String| Error::BadModel { at: at(), why };
    let number = proto.data_type.unwrap_or(0);
    let dtype = DType::from_onnx(number)
        .ok_or_else(|| Error::Unsupported { at: at(), why: format!("element type {number} of onnx.proto") })?;
    let dim = |&d: &i64| usize::try_from(d).map_err(|_| bad(format!("size {d} is negative")));
    let shape = proto.dims.iter().map(dim).collect::<Result<Shape>>()?;
    let numel = shape.checked_numel().ok_or_else(|| bad(format!("shape {shape} overflows")))?;
    let fits = |e: Error| bad(e.to_string());
    if proto.data_location == Some(1) {
        return Tensor::from_shared(dtype, shape, external::bytes(proto, folder)?).map_err(fits);
    }
    if let Some(raw) = &proto.raw_data {
        // `raw_data` may be set but empty while the typed field holds the elements.
        if !raw.is_empty() || numel == 0 {
            return Tensor::from_shared(dtype, shape, raw.clone()).map_err(fits);
        }
    }
    Tensor::from_raw(dtype, shape, &typed(proto, dtype)).map_err(fits)
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
