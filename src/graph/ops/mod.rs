//! The rows of the operator table, a file for each kind.

use super::OpDef;

mod attend;
mod control;
mod conv;
mod dropout;
mod einsum;
mod gemm;
mod lora;
mod movement;
mod normalize;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod scalar;
mod select;
mod structure;
pub(crate) mod top_product;
mod window;

static TABLES: &[&[OpDef]] = &[
    scalar::OPS,
    quantize::OPS,
    gemm::OPS,
    top_product::OPS,
    lora::OPS,
    conv::OPS,
    pool::OPS,
    reduce::OPS,
    normalize::OPS,
    attend::OPS,
    movement::OPS,
    dropout::OPS,
    resize::OPS,
    structure::OPS,
    select::OPS,
    recurrent::OPS,
    control::OPS,
];

/// Every operator.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    TABLES.iter().copied().flatten()
}
