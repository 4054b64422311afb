//! The inputs of a run: from a file, or made.

use super::args::Inputs;
use super::npz;
use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Dim, Port};
use crate::session::{Model, describe};

/// The inputs that the arguments ask for, by name.
pub fn inputs(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    match &args.inputs {
        Some(path) => {
            let wanted: Vec<String> = model.inputs().map(|(n, _)| n.to_string()).collect();
            let optional = |n: &str| model.graph().optional_inputs.iter().any(|p| model.graph().values[p.value.0].name == n);
            Ok(npz::read(path)?.into_iter().filter(|(n, _)| wanted.contains(n) || optional(n)).collect())
        }
        None => made(model, args),
    }
}

/// Random inputs of the declared shapes.
fn made(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    let sizes = Sizes::new(model, args)?;
    let mut random = Xorshift::new(args.seed);
    let one = |(name, port): (&str, &Port)| {
        let shape = sizes.shape(name, port);
        let dtype = port.dtype.unwrap_or(DType::F32);
        Ok((name.to_string(), tensor(&mut random, dtype, shape)?))
    };
    model.inputs().map(one).collect()
}

/// A random tensor that most models take: integers are masks and indices, 0 or 1.
fn tensor(random: &mut Xorshift, dtype: DType, shape: Shape) -> Result<Tensor> {
    let n = shape.checked_numel().unwrap_or(0);
    match dtype {
        DType::I64 => Tensor::new(shape, &(0..n).map(|_| random.below(2) as i64).collect::<Vec<_>>()),
        DType::I32 => Tensor::new(shape, &(0..n).map(|_| random.below(2) as i32).collect::<Vec<_>>()),
        other => random.fill(other, shape),
    }
}

/// Sizes of variable axes.
struct Sizes<'a> {
    args: &'a Inputs,
    /// Names of first axes that `--batch` sets, wherever they appear.
    batch_names: Vec<&'a str>,
}

impl<'a> Sizes<'a> {
    fn new(model: &'a Model, args: &'a Inputs) -> Result<Self> {
        let first = || model.inputs().filter_map(|(_, p)| p.dims.as_ref()?.first());
        if let Some(batch) = args.batch
            && !first().any(|d| !matches!(d, Dim::Known(n) if *n != batch))
        {
            let shape = |(n, p): (&str, &Port)| format!("{n} {}", p.dims.as_deref().map_or("of any rank".into(), describe));
            let all: Vec<String> = model.inputs().map(shape).collect();
            return Err(Error::BadInput(format!("--batch {batch}: no input has a variable first axis: {}", all.join(", "))));
        }
        let named = |d: &'a Dim| if let Dim::Named(n) = d { Some(n.as_str()) } else { None };
        Ok(Sizes { args, batch_names: first().filter_map(named).collect() })
    }

    /// By `--dim` first, then `--batch`, else 1.
    fn shape(&self, input: &str, port: &Port) -> Shape {
        let given = |key: &str| self.args.dims.iter().find(|(n, _)| n == key).map(|(_, v)| *v);
        let size = |(i, d): (usize, &Dim)| {
            let batch = |applies: bool| self.args.batch.filter(|_| applies);
            let numbered = || given(&i.to_string());
            match d {
                Dim::Known(n) => *n,
                Dim::Named(n) => {
                    given(n).or_else(numbered).or_else(|| batch(self.batch_names.contains(&n.as_str()))).unwrap_or(1)
                }
                Dim::Any => given(&format!("{input}.{i}")).or_else(numbered).or_else(|| batch(i == 0)).unwrap_or(1),
            }
        };
        port.dims.as_deref().unwrap_or(&[]).iter().enumerate().map(size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;

    fn model(ports: &[(&str, &[Dim])]) -> Model {
        let mut graph = Graph::default();
        for (name, dims) in ports {
            let value = graph.add_value(*name, None);
            graph.inputs.push(Port { value, dtype: Some(DType::F32), dims: Some(dims.to_vec()) });
        }
        Model::from_graph(graph)
    }

    fn shapes(model: &Model, dims: &[(&str, usize)], batch: Option<usize>) -> Result<Vec<String>> {
        let dims = dims.iter().map(|(n, s)| (n.to_string(), *s)).collect();
        let made = inputs(model, &Inputs { inputs: None, dims, batch, seed: 1 })?;
        Ok(made.iter().map(|(_, t)| t.shape().to_string()).collect())
    }

    #[test]
    fn a_batch_goes_to_open_first_axes_and_wherever_their_name_stands() {
        let named = |n: &str| Dim::Named(n.into());
        let model = model(&[
            ("x", &[named("N"), Dim::Known(3), Dim::Any]),
            ("state", &[Dim::Known(2), named("N")]),
            ("y", &[Dim::Any, named("T")]),
        ]);
        assert_eq!(shapes(&model, &[], None).unwrap(), ["1x3x1", "2x1", "1x1"]);
        assert_eq!(shapes(&model, &[], Some(8)).unwrap(), ["8x3x1", "2x8", "8x1"]);
        assert_eq!(shapes(&model, &[("T", 5), ("x.2", 7)], Some(8)).unwrap(), ["8x3x7", "2x8", "8x5"]);
        assert_eq!(shapes(&model, &[("N", 4)], Some(8)).unwrap(), ["4x3x1", "2x4", "8x1"], "what is named goes first");
    }

    #[test]
    fn a_batch_that_no_input_can_take_is_an_error_that_shows_the_shapes() {
        let fixed = model(&[("x", &[Dim::Known(1), Dim::Known(64)])]);
        let error = shapes(&fixed, &[], Some(8)).unwrap_err().to_string();
        assert!(error.contains("--batch 8") && error.contains("x [1, 64]"), "{error}");
        assert!(shapes(&fixed, &[], Some(1)).is_ok(), "what the file says may be said again");
    }
}
