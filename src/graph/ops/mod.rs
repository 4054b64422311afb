//! The rows of the operator table, a file for each kind.

use super::OpDef;

mod control;
mod conv;
mod gemm;
mod movement;
mod pool;
mod recurrent;
mod reduce;
mod scalar;
mod select;
mod structure;

/// Every operator.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    let tables: [&[OpDef]; 10] = [
        scalar::OPS,
        gemm::OPS,
        conv::OPS,
        pool::OPS,
        reduce::OPS,
        movement::OPS,
        structure::OPS,
        select::OPS,
        recurrent::OPS,
        control::OPS,
    ];
    tables.into_iter().flatten()
}
