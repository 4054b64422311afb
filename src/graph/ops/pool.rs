//! Pooling.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::{PoolProblem, Window};
use crate::graph::{Lower, OpDef, Problem, Refusal, Site, Type};

const fn row(name: &'static str, lower: fn(&Site, &[Type]) -> Result<Problem>) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[
    row("MaxPool", |s, _| problem(s, Pooling::Max { indices: s.wants(1), column_major: s.int("storage_order", 0) != 0 })),
    row("AveragePool", |s, _| problem(s, Pooling::Average { include_pad: s.int("count_include_pad", 0) != 0 })),
    row("LpPool", |s, _| problem(s, Pooling::Lp { p: s.int("p", 2) })),
    row("GlobalMaxPool", |s, _| problem(s, Pooling::Max { indices: false, column_major: false })),
    row("GlobalAveragePool", |s, _| problem(s, Pooling::Average { include_pad: false })),
    row("GlobalLpPool", |s, _| problem(s, Pooling::Lp { p: s.int("p", 2) })),
];

fn window(site: &Site) -> Result<Window> {
    let x = &site.ty(0)?.shape;
    if x.rank() < 3 {
        return Err(site.error(format!("an image of shape {x}")));
    }
    let kernel = if site.node.op.starts_with("Global") {
        x[2..].to_vec()
    } else {
        let given = site.ints("kernel_shape").ok_or_else(|| site.error("kernel_shape is missing"))?;
        let sizes: Option<Vec<usize>> = given.iter().map(|&k| usize::try_from(k).ok().filter(|&k| k > 0)).collect();
        sizes.filter(|k| k.len() + 2 == x.rank()).ok_or_else(|| site.error(format!("kernel_shape {given:?} for shape {x}")))?
    };
    Window::new(site, &x[2..], kernel)
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let shape: Shape = x.shape[..2].iter().copied().chain(window(site)?.output).collect();
    let indices = Type::new(DType::I64, shape.clone());
    Ok([Type::new(x.dtype, shape), indices].into_iter().take(site.output_count().max(1)).collect())
}

fn problem(site: &Site, pooling: Pooling) -> Result<Problem> {
    let x = site.ty(0)?;
    let planes = x.shape[0] * x.shape[1];
    Ok(Problem::Pool(PoolProblem { pooling, planes, window: window(site)?, dtype: x.dtype }))
}
