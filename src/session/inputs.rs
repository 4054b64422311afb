//! Matches the caller's named tensors with the model's inputs.

use crate::base::{AlignedBytes, TensorView};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Port};

/// The caller's tensors in the graph's order, checked; a misaligned one is copied into `copies`.
pub(crate) fn arrange<'a>(
    graph: &Graph,
    given: &'a [(&str, TensorView<'a>)],
    copies: &'a mut Vec<AlignedBytes>,
) -> Result<Vec<Option<TensorView<'a>>>> {
    let name = |p: &Port| graph.values[p.value.0].name.as_str();
    let ports = || graph.inputs.iter().chain(&graph.optional_inputs);
    if let Some((unknown, _)) = given.iter().find(|(n, _)| !ports().any(|p| name(p) == *n)) {
        let known: Vec<&str> = graph.inputs.iter().map(name).collect();
        return Err(Error::BadInput(format!("the model has no input {unknown:?}; it takes {}", known.join(", "))));
    }
    let mut found = Vec::new();
    for (i, port) in ports().enumerate() {
        let view = given.iter().find(|(n, _)| *n == name(port)).map(|(_, v)| v);
        if let Some(view) = view {
            fits(name(port), port, view)?;
        } else if i < graph.inputs.len() {
            return Err(Error::BadInput(format!("input {:?} is missing", name(port))));
        }
        found.push(view.cloned());
    }
    let misaligned = |v: &TensorView| !(v.bytes.as_ptr() as usize).is_multiple_of(v.dtype.size_bytes());
    for view in found.iter().flatten().filter(|v| misaligned(v)) {
        copies.push(AlignedBytes::copy_of(view.bytes));
    }
    let mut copied = copies.iter();
    for view in found.iter_mut().flatten().filter(|v| misaligned(v)) {
        if let Some(copy) = copied.next() {
            view.bytes = copy;
        }
    }
    Ok(found)
}

/// Whether a tensor is of the element type, rank and known sizes that an input declares, and has as many bytes as its shape says.
pub fn fits(name: &str, port: &Port, view: &TensorView) -> Result<()> {
    let wrong = |why: String| Err(Error::BadInput(format!("input {name:?}: {why}")));
    let want = crate::base::tensor::size_bytes(view.dtype, &view.shape)?;
    if want != view.bytes.len() {
        return wrong(format!("shape {} of {} is {want} bytes, but {} are given", view.shape, view.dtype, view.bytes.len()));
    }
    if let Some(dtype) = port.dtype.filter(|&d| d != view.dtype) {
        return wrong(format!("the model takes {dtype}, not {}", view.dtype));
    }
    let Some(dims) = &port.dims else { return Ok(()) };
    let agrees = |(d, &n): (&Dim, &usize)| if let Dim::Known(k) = d { *k == n } else { true };
    if dims.len() != view.shape.rank() || !dims.iter().zip(view.shape.iter()).all(agrees) {
        return wrong(format!("the model takes shape {}, not {}", describe(dims), view.shape));
    }
    Ok(())
}

/// A declared shape for people: `[batch, 3, ?, ?]`.
pub fn describe(dims: &[Dim]) -> String {
    fn one(dim: &Dim) -> String {
        match dim {
            Dim::Known(n) => n.to_string(),
            Dim::Named(n) => n.clone(),
            Dim::Any => "?".into(),
        }
    }
    format!("[{}]", dims.iter().map(one).collect::<Vec<_>>().join(", "))
}
