//! The inputs of a run: from a file, or made.

use super::args::Inputs;
use super::npz;
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::graph::{Dim, Port};
use crate::session::{Model, Sizes, describe, made};

/// The inputs that the arguments ask for, by name.
pub fn inputs(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    match &args.inputs {
        Some(path) => {
            let wanted: Vec<String> = model.inputs().map(|(n, _)| n.to_string()).collect();
            let optional = |n: &str| model.graph().optional_inputs.iter().any(|p| model.graph().values[p.value.0].name == n);
            Ok(npz::read(path)?.into_iter().filter(|(n, _)| wanted.contains(n) || optional(n)).collect())
        }
        None => random(model, args),
    }
}

/// Random inputs of the declared shapes: sizes by `--dim` first, then by `--batch`.
fn random(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    let first = || model.inputs().filter_map(|(_, p)| p.dims.as_ref()?.first());
    if let Some(batch) = args.batch
        && !first().any(|d| !matches!(d, Dim::Known(n) if *n != batch))
    {
        let shape = |(n, p): (&str, &Port)| format!("{n} {}", p.dims.as_deref().map_or("of any rank".into(), describe));
        let all: Vec<String> = model.inputs().map(shape).collect();
        return Err(Error::BadInput(format!("--batch {batch}: no input has a variable first axis: {}", all.join(", "))));
    }
    let given = |key: &str| args.dims.iter().find(|(n, _)| n == key).map(|(_, v)| *v);
    made(model, Sizes { given: &given, batch: args.batch }, args.seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
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
