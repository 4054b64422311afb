//! Made-up inputs: of the declared shapes, with numbers that most models take.

use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::error::Result;
use crate::graph::{Dim, Port};
use crate::session::Model;

/// Sizes of the axes that a model leaves open; 1 where nothing is said.
#[derive(Clone, Copy)]
pub struct Sizes<'a> {
    /// By the axis's name, by `INPUT.AXIS` where it has none, or by its number.
    pub given: &'a dyn Fn(&str) -> Option<usize>,
    /// Of open first axes, and of axes of the same name wherever they appear.
    pub batch: Option<usize>,
}

/// Random inputs of the declared shapes, the same for the same seed. Errors where a size overflows.
pub fn made(model: &Model, sizes: Sizes, seed: u64) -> Result<Vec<(String, Tensor)>> {
    let mut random = Xorshift::new(seed);
    let one = |(name, port): (&str, &Port)| {
        let dtype = port.dtype.unwrap_or(DType::F32);
        Ok((name.to_string(), tensor(&mut random, dtype, sizes.shape(model, name, port))?))
    };
    model.inputs().map(one).collect()
}

/// Integers are masks and indices: 0 or 1.
fn tensor(random: &mut Xorshift, dtype: DType, shape: Shape) -> Result<Tensor> {
    let n = shape.checked_numel().unwrap_or(0);
    match dtype {
        DType::I64 => Tensor::new(shape, &(0..n).map(|_| random.below(2) as i64).collect::<Vec<_>>()),
        DType::I32 => Tensor::new(shape, &(0..n).map(|_| random.below(2) as i32).collect::<Vec<_>>()),
        other => random.fill(other, shape),
    }
}

impl Sizes<'_> {
    fn shape(&self, model: &Model, input: &str, port: &Port) -> Shape {
        let leads = |dim: &Dim| model.inputs().any(|(_, p)| p.dims.as_ref().and_then(|d| d.first()) == Some(dim));
        let size = |(i, dim): (usize, &Dim)| {
            let numbered = || (self.given)(&i.to_string());
            let batch = |applies: bool| self.batch.filter(|_| applies);
            match dim {
                Dim::Known(n) => *n,
                Dim::Named(name) => (self.given)(name).or_else(numbered).or_else(|| batch(leads(dim))).unwrap_or(1),
                Dim::Any => (self.given)(&format!("{input}.{i}")).or_else(numbered).or_else(|| batch(i == 0)).unwrap_or(1),
            }
        };
        port.dims.as_deref().unwrap_or(&[]).iter().enumerate().map(size).collect()
    }
}
