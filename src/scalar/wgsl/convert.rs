//! Elements in storage to values of a domain, and back.

use crate::base::DType;
use crate::scalar::Domain;

/// The type of a formula's values.
pub fn value_type(domain: Domain) -> &'static str {
    match domain {
        Domain::F32 => "f32",
        Domain::F64 => "f64",
        Domain::I64 => "i64",
    }
}

/// How one element is held when read from storage: types of up to 32 bits by their bits in a `u32` whose upper bits are 0, the
/// others as themselves.
pub fn word_type(dtype: DType) -> &'static str {
    match dtype {
        DType::I64 => "i64",
        DType::U64 => "u64",
        DType::F64 => "f64",
        _ => "u32",
    }
}

/// The expression of the domain's value for the word `word` (an expression of [`word_type`]). Exact, but for integers that the
/// domain's floats round. Bool counts as true whatever its bits are.
pub fn loaded(dtype: DType, domain: Domain, word: &str) -> String {
    let value = value_type(domain);
    let number = match dtype {
        DType::F32 => format!("bitcast<f32>({word})"),
        DType::F16 => format!("unpack2x16float({word}).x"),
        DType::BF16 => format!("bitcast<f32>(({word}) << 16u)"),
        DType::Bool => format!("(({word}) != 0u)"),
        DType::I8 => format!("(bitcast<i32>(({word}) << 24u) >> 24u)"),
        DType::I16 => format!("(bitcast<i32>(({word}) << 16u) >> 16u)"),
        DType::I32 => format!("bitcast<i32>({word})"),
        DType::U8 | DType::U16 | DType::U32 | DType::I64 | DType::U64 | DType::F64 => format!("({word})"),
    };
    match (dtype, domain) {
        (DType::F64, _) | (DType::I64, Domain::I64) | (DType::F32 | DType::F16 | DType::BF16, Domain::F32) => number,
        // i64 of a u32 would extend its sign.
        (DType::U32, Domain::I64) => format!("i64(u64{number})"),
        (DType::Bool, _) => format!("{value}(select(0u, 1u, {number}))"),
        _ => format!("{value}({number})"),
    }
}

/// The expression of the word that stores the domain's value `value`, with the upper bits 0. From floats, integers truncate and
/// saturate and NaN is 0, floats round half to even with overflow to infinity; from i64, integers wrap; bool is "not 0".
pub fn stored(dtype: DType, domain: Domain, value: &str) -> String {
    match domain {
        Domain::I64 => from_integer(dtype, value),
        Domain::F32 => from_float(dtype, value, ""),
        Domain::F64 => match dtype {
            DType::F64 => value.into(),
            DType::F32 => format!("bitcast<u32>(f32({value}))"),
            // Rounded to odd first, so that rounding again is as if it were done once.
            DType::F16 | DType::BF16 => from_float(dtype, &format!("hb_odd_f64({value})"), ""),
            _ => from_float(dtype, value, "_f64"),
        },
    }
}

fn from_integer(dtype: DType, value: &str) -> String {
    match dtype {
        DType::Bool => format!("select(0u, 1u, ({value}) != 0li)"),
        DType::I64 => value.into(),
        DType::U64 => format!("u64({value})"),
        DType::F64 => format!("f64({value})"),
        DType::F32 => format!("bitcast<u32>(f32({value}))"),
        DType::F16 => format!("hb_to_f16(f32({value}))"),
        DType::BF16 => format!("hb_to_bf16(f32({value}))"),
        DType::I8 | DType::U8 => format!("hb_low(({value}) & 255li)"),
        DType::I16 | DType::U16 => format!("hb_low(({value}) & 65535li)"),
        DType::I32 | DType::U32 => format!("hb_low({value})"),
    }
}

/// `suffix` names the functions of the float's type.
fn from_float(dtype: DType, value: &str, suffix: &str) -> String {
    match dtype {
        DType::F32 | DType::F64 => format!("bitcast<u32>({value})"),
        DType::F16 => format!("hb_to_f16({value})"),
        DType::BF16 => format!("hb_to_bf16({value})"),
        DType::Bool => format!("select(0u, 1u, hb_true{suffix}({value}))"),
        DType::I8 => format!("(bitcast<u32>(hb_to_i32{suffix}({value}, -128.0, 127.0)) & 255u)"),
        DType::I16 => format!("(bitcast<u32>(hb_to_i32{suffix}({value}, -32768.0, 32767.0)) & 65535u)"),
        DType::I32 => format!("bitcast<u32>(hb_to_i32{suffix}({value}, -2147483648.0, 2147483648.0))"),
        DType::U8 => format!("hb_to_u32{suffix}({value}, 255.0)"),
        DType::U16 => format!("hb_to_u32{suffix}({value}, 65535.0)"),
        DType::U32 => format!("hb_to_u32{suffix}({value}, 4294967296.0)"),
        DType::I64 => format!("hb_join(hb_to_wide{suffix}({value}))"),
        DType::U64 => format!("u64(hb_join(hb_to_wide_unsigned{suffix}({value})))"),
    }
}
