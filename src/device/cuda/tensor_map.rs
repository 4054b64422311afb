//! Tensor maps in the driver's form.

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Fill, CUtensorMapInterleave as Interleave,
    CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};

use super::fault::Faults;
use crate::device::gpu::Element;
use crate::device::gpu::ResolvedMap;
use crate::error::Result;

/// Encodes a map: elements outside read as 0. Source: CUDA driver API, cuTensorMapEncodeTiled.
pub fn encode(faults: &Faults, map: &ResolvedMap) -> Result<CUtensorMap> {
    let mut encoded = CUtensorMap { opaque: [0; 16] };
    let ones = vec![1u32; map.dims.len()];
    // SAFETY: dims, extents and element strides are as long as the rank says, strides one shorter: launches are checked when
    // they are recorded. The driver writes 128 bytes.
    let answer = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            data_type(map.element),
            map.dims.len() as u32,
            std::ptr::with_exposed_provenance_mut(map.address as usize),
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.extents.as_ptr(),
            ones.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle(map.swizzle_bytes),
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    faults.check(&format!("cuTensorMapEncodeTiled {map:?}"), answer)?;
    Ok(encoded)
}

fn data_type(element: Element) -> DataType {
    match element {
        Element::U8 => DataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        Element::F16 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Element::BF16 => DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        Element::F32 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    }
}

fn swizzle(bytes: u32) -> Swizzle {
    match bytes {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_of_the_size_and_alignment_that_kernels_declare() {
        assert_eq!((size_of::<CUtensorMap>(), align_of::<CUtensorMap>()), (128, 64));
    }
}
