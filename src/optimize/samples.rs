//! Samples: inputs of runs, cut out of named arrays.

use crate::base::xorshift::Xorshift;
use crate::base::{Tensor, tensor::size_bytes};
use crate::error::{Error, Result};
use crate::graph::{Dim, Port};
use crate::session::Model;

/// The inputs of one run, by name.
pub type Sample = Vec<(String, Tensor)>;

/// Samples of a model. Clones share the arrays.
#[derive(Debug, Clone)]
pub struct Samples {
    inputs: Vec<(String, Source)>,
    /// Whether every input's first axis is open, so that a run may take several.
    join: bool,
    /// Which samples of the arrays, in order.
    chosen: Vec<usize>,
}

/// The inputs of a run, and which samples of the arrays they are.
pub type Run = (Vec<usize>, Sample);

/// Where an input's samples lie.
#[derive(Debug, Clone)]
enum Source {
    /// So many rows of one array each; runs of several join theirs.
    Rows(Tensor, usize),
    /// Slices along the first axis of an array of one axis more than the input.
    Slices(Tensor),
    /// An array each: samples of different shapes.
    Each(Vec<Tensor>),
}

impl Source {
    fn count(&self) -> usize {
        match self {
            Source::Rows(t, rows) => t.shape()[0] / rows,
            Source::Slices(t) => t.shape()[0],
            Source::Each(all) => all.len(),
        }
    }

    /// These samples, joined where they can be; else the first of them.
    fn at(&self, samples: &[usize]) -> Result<Tensor> {
        match self {
            Source::Rows(t, rows) => gathered(t, *rows, samples),
            Source::Slices(t) => {
                let one = gathered(t, 1, &samples[..1])?;
                one.reshaped(one.shape()[1..].iter().copied().collect())
            }
            Source::Each(all) => Ok(all[samples[0]].clone()),
        }
    }
}

impl Samples {
    /// Samples of one run where they can be joined and nothing else is said.
    pub const BATCH: usize = 16;

    /// Those of `model` in `arrays`. An input's samples are the rows of the array of its name where the model leaves its first axis open or
    /// gives it a size, the slices of one with one axis more, or the arrays of its name followed by 0, 1, 2 ... (`x0`, `x.0`, `x/0`).
    /// `renamed` says which array an input is in: (input, array). Errors when an input has none, or their numbers differ.
    pub fn new(model: &Model, arrays: &[(String, Tensor)], renamed: &[(String, String)]) -> Result<Self> {
        let mut inputs = Vec::new();
        for (name, port) in model.inputs() {
            let array = renamed.iter().find(|(input, _)| input == name).map_or(name, |(_, array)| array.as_str());
            inputs.push((name.to_string(), source(port, array, arrays)?));
        }
        let count = inputs.iter().map(|(_, s)| s.count()).min().unwrap_or(0);
        if let Some((name, s)) = inputs.iter().find(|(_, s)| s.count() != count) {
            let why = format!("input {name} has {} samples, another one {count}", s.count());
            return Err(Error::BadInput(why));
        }
        if count == 0 {
            return Err(Error::BadInput("no samples".into()));
        }
        let is_open = |port: &Port| !matches!(port.dims.as_deref(), Some([Dim::Known(_), ..]));
        let join = inputs.iter().all(|(_, s)| matches!(s, Source::Rows(..))) && model.inputs().all(|(_, port)| is_open(port));
        Ok(Samples { inputs, join, chosen: (0..count).collect() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Where they lie in the arrays, counted in samples.
    pub fn numbers(&self) -> &[usize] {
        &self.chosen
    }

    /// Whether there are none; never after [`Samples::new`].
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// The first `count` of them, at most all.
    pub fn first(mut self, count: usize) -> Self {
        self.chosen.truncate(count);
        self
    }

    /// Two halves without a common sample, drawn at random; the first has one more where their number is odd.
    pub fn halves(&self, seed: u64) -> [Samples; 2] {
        let mut order = self.chosen.clone();
        let mut random = Xorshift::new(seed);
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        let second = order.split_off(order.len().div_ceil(2));
        [order, second].map(|chosen| Samples { chosen, ..self.clone() })
    }

    /// Inputs of runs of up to `batch` samples each, in order; of one each where they cannot be joined.
    pub fn runs(&self, batch: usize) -> impl ExactSizeIterator<Item = Result<Run>> {
        let step = if self.join { batch.max(1) } else { 1 };
        self.chosen.chunks(step).map(|samples| {
            let inputs = self.inputs.iter().map(|(name, source)| Ok((name.clone(), source.at(samples)?)));
            Ok((samples.to_vec(), inputs.collect::<Result<_>>()?))
        })
    }

    /// The inputs of [`Samples::runs`].
    pub fn batches(&self, batch: usize) -> impl ExactSizeIterator<Item = Result<Sample>> {
        self.runs(batch).map(|run| Ok(run?.1))
    }
}

/// Samples of so many rows each, one behind the other.
fn gathered(t: &Tensor, rows: usize, samples: &[usize]) -> Result<Tensor> {
    let mut shape = t.shape().clone();
    shape[0] = rows;
    let each = size_bytes(t.dtype(), &shape)?;
    shape[0] = rows * samples.len();
    let parts: Vec<&[u8]> = samples.iter().map(|s| &t.bytes()[s * each..(s + 1) * each]).collect();
    Tensor::from_raw(t.dtype(), shape, &parts.concat())
}

fn source(port: &Port, array: &str, arrays: &[(String, Tensor)]) -> Result<Source> {
    if let Some((_, t)) = arrays.iter().find(|(name, _)| name == array) {
        let rank = port.dims.as_ref().map_or(t.shape().rank(), Vec::len);
        let first = port.dims.as_ref().and_then(|d| d.first());
        let rows = if let Some(Dim::Known(n)) = first { *n } else { 1 };
        return match t.shape().rank() {
            r if r == rank && r > 0 && rows > 0 && t.shape()[0].is_multiple_of(rows) => Ok(Source::Rows(t.clone(), rows)),
            r if r == rank + 1 => Ok(Source::Slices(t.clone())),
            _ => {
                let why = format!("array {array:?} of shape {} does not hold samples of an input of {rank} axes", t.shape());
                let each = if rows > 1 { format!(", {rows} rows a sample") } else { String::new() };
                Err(Error::BadInput(format!("{why}{each}: as many axes, or one more with the samples along the first")))
            }
        };
    }
    let numbered = |i: usize| {
        let names = [format!("{array}{i}"), format!("{array}.{i}"), format!("{array}/{i}")];
        arrays.iter().find(|(name, _)| names.contains(name)).map(|(_, t)| t.clone())
    };
    let each: Vec<Tensor> = (0..).map_while(numbered).collect();
    if each.is_empty() {
        let known: Vec<String> = arrays.iter().map(|(name, t)| format!("{name} ({} {})", t.dtype(), t.shape())).collect();
        let why = format!("no array {array:?} for an input of the model; there are {}; say which it is", known.join(", "));
        return Err(Error::BadInput(why));
    }
    Ok(Source::Each(each))
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

    fn array(name: &str, shape: &[usize]) -> (String, Tensor) {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
        (name.into(), Tensor::new(shape, &values).unwrap())
    }

    fn shown(samples: &Samples, batch: usize) -> Vec<String> {
        let show =
            |s: Sample| s.iter().map(|(n, t)| format!("{n} {} from {}", t.shape(), t.to_f64()[0])).collect::<Vec<_>>().join(", ");
        samples.batches(batch).map(|s| show(s.unwrap())).collect()
    }

    #[test]
    fn samples_are_rows_slices_or_arrays_of_their_own() {
        let (open, two) = (Dim::Named("n".into()), Dim::Known(2));
        let rows = model(&[("x", &[open.clone(), Dim::Known(3)])]);
        let samples = Samples::new(&rows, &[array("x", &[5, 3])], &[]).unwrap();
        assert_eq!(shown(&samples, 2), ["x 2x3 from 0", "x 2x3 from 6", "x 1x3 from 12"]);
        assert_eq!(shown(&samples.first(3), 9), ["x 3x3 from 0"]);
        let pairs = model(&[("x", &[two, Dim::Known(3)]), ("y", &[open])]);
        let both = [array("x", &[4, 3]), array("calib", &[2])];
        let samples = Samples::new(&pairs, &both, &[("y".into(), "calib".into())]).unwrap();
        // The model takes two rows, no more: samples of it are never joined.
        assert_eq!(shown(&samples, 16), ["x 2x3 from 0, y 1 from 0", "x 2x3 from 6, y 1 from 1"]);
        let samples = Samples::new(&rows, &[array("x", &[5, 3])], &[]).unwrap();
        let halves = samples.halves(1).map(|h| h.runs(1).map(|r| r.unwrap().0[0]).collect::<Vec<_>>());
        let mut all = halves.concat();
        assert!(halves[0].len() == 3 && halves != samples.halves(2).map(|h| h.chosen));
        all.sort();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        let [half, _] = samples.halves(1);
        let (which, first) = half.runs(2).next().unwrap().unwrap();
        assert_eq!(first[0].1.to_f64()[3], which[1] as f64 * 3.0);
        let samples = Samples::new(&rows, &[array("x", &[2, 4, 3])], &[]).unwrap();
        assert_eq!(shown(&samples, 8), ["x 4x3 from 0", "x 4x3 from 12"]);
        let samples = Samples::new(&rows, &[array("x1", &[2, 3]), array("x0", &[1, 3])], &[]).unwrap();
        assert_eq!(shown(&samples, 8), ["x 1x3 from 0", "x 2x3 from 0"]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_shows_what_there_is() {
        let model = model(&[("x", &[Dim::Any, Dim::Known(3)]), ("y", &[Dim::Any])]);
        let error = |arrays: &[(String, Tensor)]| Samples::new(&model, arrays, &[]).unwrap_err().to_string();
        assert!(error(&[array("data", &[4, 3])]).contains("data (f32 4x3)"));
        assert!(
            error(&[array("x", &[4, 3]), array("y", &[3])]).contains("has 4 samples"),
            "{}",
            error(&[array("x", &[4, 3]), array("y", &[3])])
        );
        assert!(error(&[array("x", &[3]), array("y", &[3])]).contains("\"x\" of shape 3"));
        assert!(error(&[array("x", &[0, 3]), array("y", &[0])]).contains("no samples"));
    }
}
