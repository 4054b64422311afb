//! Ways to quantise a model, tried on samples that nothing was calibrated on.

use super::quantize::{Calibrated, Convolutions, Products};
use super::taps::run;
use super::{Biases, QuantizeOptions, Rounding, Samples};
use crate::calibrate::Calibrator;
use crate::calibrate::compare::Difference;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::pass::layer::{Layer, all_layers};
use crate::session::{Model, Options, Session};

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

/// What [`best_of`] found.
pub struct Best {
    /// The way.
    pub options: QuantizeOptions,
    /// The model, calibrated in that way.
    pub calibrated: Calibrated,
    /// All ways, in their order.
    pub tried: Vec<Tried>,
}

/// Quantises a [`prepared`](super::quantize::prepared) model in all these ways by `calibrate`, and gives the one whose answers to `select` are
/// nearest to the model's own, with the figures of all. `progress` is told of ways tried and all. Errors when there are none, or one fails.
pub fn best_of(
    model: &Model,
    candidates: &[QuantizeOptions],
    calibrate: Option<&Samples>,
    select: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Best> {
    let exact = session(model.graph())?;
    let (layers, _) = all_layers(model.graph());
    let mut tried: Vec<Tried> = Vec::with_capacity(candidates.len());
    let mut best: Option<(f64, &QuantizeOptions, Calibrated)> = None;
    for options in candidates {
        let known = tried.iter().find(|t| effective(&t.options, &layers) == effective(options, &layers));
        let sqnr_db = match known {
            Some(same) => same.sqnr_db,
            None => {
                let calibrated = Calibrated::new(model, options, calibrate, &mut |_, _| ())?;
                let sqnr_db = worst_sqnr_db(&exact, &session(&calibrated.quantized(&[])?.graph)?, select)?;
                // The first of equal ones.
                if best.as_ref().is_none_or(|(most, ..)| sqnr_db > *most) {
                    best = Some((sqnr_db, options, calibrated));
                }
                sqnr_db
            }
        };
        tried.push(Tried { options: options.clone(), sqnr_db });
        progress(tried.len(), candidates.len());
    }
    let (_, options, calibrated) = best.ok_or_else(|| Error::BadInput("no way to quantise was given".into()))?;
    Ok(Best { options: options.clone(), calibrated, tried })
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
    for sample in samples.batches(Samples::BATCH) {
        let sample = sample?;
        let (a, b) = (run(exact, &sample)?, run(changed, &sample)?);
        differences.resize_with(a.len(), Difference::default);
        for ((difference, a), b) in differences.iter_mut().zip(&a).zip(&b) {
            difference.add(&a.to_f64(), &b.to_f64(), 0);
        }
    }
    Ok(differences.iter().map(Difference::sqnr_db).fold(f64::INFINITY, f64::min))
}
