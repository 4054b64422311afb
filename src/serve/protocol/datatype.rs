//! Element types by the protocol's names.

use super::Malformed;
use crate::base::DType;

/// The element type, its name in requests, and its number in model_config.proto's `DataType`.
const TYPES: [(DType, &str, i32); 13] = [
    (DType::Bool, "BOOL", 1),
    (DType::U8, "UINT8", 2),
    (DType::U16, "UINT16", 3),
    (DType::U32, "UINT32", 4),
    (DType::U64, "UINT64", 5),
    (DType::I8, "INT8", 6),
    (DType::I16, "INT16", 7),
    (DType::I32, "INT32", 8),
    (DType::I64, "INT64", 9),
    (DType::F16, "FP16", 10),
    (DType::F32, "FP32", 11),
    (DType::F64, "FP64", 12),
    (DType::BF16, "BF16", 14),
];

fn entry(dtype: DType) -> (DType, &'static str, i32) {
    *TYPES.iter().find(|(d, ..)| *d == dtype).expect("invariant: the table has every type")
}

/// The protocol's name of an element type: `FP32` for f32.
pub fn datatype(dtype: DType) -> &'static str {
    entry(dtype).1
}

/// Its number in a model's configuration.
pub(super) fn number(dtype: DType) -> i32 {
    entry(dtype).2
}

/// The name of such a number: `TYPE_FP32`.
pub(super) fn config_name(number: i32) -> String {
    let known = TYPES.iter().find(|(.., n)| *n == number).map_or("INVALID", |(_, name, _)| name);
    format!("TYPE_{known}")
}

/// The element type of that name. Errors for `BYTES` (no model here takes strings) and for what is no name.
pub fn dtype(at: &str, name: &str) -> Result<DType, Malformed> {
    if let Some((dtype, ..)) = TYPES.iter().find(|(_, n, _)| *n == name) {
        return Ok(*dtype);
    }
    let all = || TYPES.map(|(_, name, _)| name).join(", ");
    match name {
        "BYTES" => {
            Err(Malformed::unsupported(at, "tensors of strings are not supported", "send what the model's metadata asks for"))
        }
        other => Err(Malformed::invalid(at, format!("{other:?} is no datatype"), format!("the datatypes are {}", all()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_name_and_is_found_by_it() {
        for d in DType::ALL {
            assert_eq!(dtype("datatype", datatype(d)), Ok(d));
            assert_eq!(config_name(number(d)), format!("TYPE_{}", datatype(d)));
        }
        assert_eq!(dtype("datatype", "BYTES").unwrap_err().fault, super::super::Fault::Unsupported);
        assert!(dtype("datatype", "float32").unwrap_err().to_string().contains("FP32"));
    }
}
