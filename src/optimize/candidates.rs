//! Ways to quantise a model, tried on samples that nothing was calibrated on.

use super::quantize::{Convolutions, Products, quantize};
use super::taps::run;
use super::{Biases, QuantizeOptions, Rounding, Samples};
use crate::calibrate::Calibrator;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::pass::layer::{Layer, all_layers};
use crate::session::{Model, Options, Session};

/// Samples of one run where they can be joined.
const BATCH: usize = 16;

/// A way that was tried.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tried {
    /// The way.
    pub options: QuantizeOptions,
    /// Signal to noise of the model's outputs in dB, of the worst one.
    pub sqnr_db: f64,
}

/// `base` and what may be better than it: other calibrators for what has ranges, biases corrected in
/// other ways, depthwise convolutions in floats, GPTQ rounding, smoothing for products. With no samples
/// to calibrate on, `base` alone.
pub fn candidates(base: &QuantizeOptions, calibrated: bool) -> Vec<QuantizeOptions> {
    let mut all = vec![base.clone()];
    if !calibrated {
        return all;
    }
    let mut add = |options: QuantizeOptions| all.push(options);
    if base.convolutions == Convolutions::Static || base.products == Products::Static {
        for calibrator in [Calibrator::MinMax, Calibrator::Mse, Calibrator::Percentile(99.99)] {
            if calibrator != base.calibrator {
                add(QuantizeOptions { calibrator, ..base.clone() });
            }
        }
        for biases in [Biases::Keep, Biases::Alone, Biases::InOrder].into_iter().filter(|b| *b != base.biases) {
            add(QuantizeOptions { biases, ..base.clone() });
        }
        let depthwise = Convolutions::Weights;
        if base.convolutions == Convolutions::Static && base.depthwise == Convolutions::Static {
            add(QuantizeOptions { depthwise, ..base.clone() });
            add(QuantizeOptions { depthwise, biases: Biases::InOrder, ..base.clone() });
        }
    }
    if base.rounding != Rounding::Gptq {
        add(QuantizeOptions { rounding: Rounding::Gptq, ..base.clone() });
    }
    if !matches!(base.products, Products::Keep | Products::Weights) {
        for strength in [0.5, 0.7].into_iter().filter(|s| base.smooth != Some(*s)) {
            add(QuantizeOptions { smooth: Some(strength), ..base.clone() });
        }
    }
    all
}

/// Quantises a [`prepared`](super::quantize::prepared) model in all these ways by `calibrate`, and gives the one whose answers to `select` are
/// nearest to the model's own, with the figures of all. `progress` is told of ways tried and all. Errors when there are none, or one fails.
pub fn best_of(
    model: &Model,
    candidates: &[QuantizeOptions],
    calibrate: Option<&Samples>,
    select: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(QuantizeOptions, Vec<Tried>)> {
    let exact = session(model.graph())?;
    let (layers, _) = all_layers(model.graph());
    let mut tried: Vec<Tried> = Vec::with_capacity(candidates.len());
    for options in candidates {
        let known = tried.iter().find(|t| effective(&t.options, &layers) == effective(options, &layers));
        let sqnr_db = match known {
            Some(same) => same.sqnr_db,
            None => {
                let quantized = quantize(model, options, calibrate, &mut |_, _| ())?;
                worst_sqnr_db(&exact, &session(&quantized.graph)?, select)?
            }
        };
        tried.push(Tried { options: options.clone(), sqnr_db });
        progress(tried.len(), candidates.len());
    }
    // The first of equal ones.
    let better = |a: &Tried, b: &Tried| if b.sqnr_db > a.sqnr_db { b.clone() } else { a.clone() };
    let best = tried.iter().cloned().reduce(|a, b| better(&a, &b));
    let best = best.ok_or_else(|| Error::BadInput("no way to quantise was given".into()))?;
    Ok((best.options, tried))
}

/// The options without what means nothing for these layers.
fn effective(options: &QuantizeOptions, layers: &[Layer]) -> QuantizeOptions {
    let mut left = options.clone();
    if !layers.iter().any(Layer::is_depthwise) {
        left.depthwise = Convolutions::default();
    }
    if !layers.iter().any(|l| options.is_static(l)) {
        left.calibrator = Calibrator::default();
    }
    if !layers.iter().any(|l| matches!(l.op.as_str(), "Conv" | "Gemm")) {
        left.biases = Biases::default();
    }
    left
}

fn session(graph: &Graph) -> Result<Session> {
    Session::new(&Model::from_graph(graph.clone()), Options::default())
}

/// Of the outputs, which may differ in size, each by itself.
fn worst_sqnr_db(exact: &Session, changed: &Session, samples: &Samples) -> Result<f64> {
    let mut differences: Vec<Difference> = Vec::new();
    for sample in samples.batches(BATCH) {
        let sample = sample?;
        let (a, b) = (run(exact, &sample)?, run(changed, &sample)?);
        differences.resize_with(a.len(), Difference::default);
        for ((difference, a), b) in differences.iter_mut().zip(&a).zip(&b) {
            difference.add(&a.to_f64(), &b.to_f64(), 0);
        }
    }
    Ok(differences.iter().map(Difference::sqnr_db).fold(f64::INFINITY, f64::min))
}
