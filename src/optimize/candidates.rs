//! Ways to quantise a model, tried on samples that nothing was calibrated on.

use super::quantize::{Calibrated, Convolutions};
use super::taps::run;
use super::{Biases, QuantizeOptions, Rounding, Samples, Size, Smoothing};
use crate::calibrate::Calibrator;
use crate::calibrate::compare::Difference;
use crate::error::Result;
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

/// What may be better than the best way so far, all else being equal.
type Question = fn(&QuantizeOptions) -> Vec<QuantizeOptions>;

/// In the order they are asked: what changes most is first, what takes longest is last.
const QUESTIONS: [Question; 5] = [depthwise, biases, calibrators, smoothing, rounding];

fn depthwise(best: &QuantizeOptions) -> Vec<QuantizeOptions> {
    let asked = best.convolutions == Convolutions::Static && best.depthwise == Convolutions::Static;
    asked.then(|| QuantizeOptions { depthwise: Convolutions::Weights, ..best.clone() }).into_iter().collect()
}

fn biases(best: &QuantizeOptions) -> Vec<QuantizeOptions> {
    let others = [Biases::Keep, Biases::Alone, Biases::InOrder].into_iter().filter(|b| *b != best.biases);
    others.map(|biases| QuantizeOptions { biases, ..best.clone() }).collect()
}

fn calibrators(best: &QuantizeOptions) -> Vec<QuantizeOptions> {
    let all = [Calibrator::MinMax, Calibrator::Mse, Calibrator::Percentile(99.99), Calibrator::Entropy];
    let others = all.into_iter().filter(|c| *c != best.calibrator);
    others.map(|calibrator| QuantizeOptions { calibrator, ..best.clone() }).collect()
}

fn smoothing(best: &QuantizeOptions) -> Vec<QuantizeOptions> {
    let all = [(0.3, Size::Largest), (0.5, Size::Largest), (0.5, Size::Mean(2)), (0.5, Size::Mean(4))];
    let others = all.map(|(strength, size)| Some(Smoothing { strength, size })).into_iter().filter(|s| *s != best.smooth);
    others.map(|smooth| QuantizeOptions { smooth, ..best.clone() }).collect()
}

fn rounding(best: &QuantizeOptions) -> Vec<QuantizeOptions> {
    let asked = best.rounding != Rounding::Gptq;
    asked.then(|| QuantizeOptions { rounding: Rounding::Gptq, ..best.clone() }).into_iter().collect()
}

/// What [`best_of`] found.
pub struct Best {
    /// The way.
    pub options: QuantizeOptions,
    /// The model, calibrated in that way.
    pub calibrated: Calibrated,
    /// All ways that were tried, in their order.
    pub tried: Vec<Tried>,
}

/// Quantises a [`prepared`](super::quantize::prepared) model as `base` says by `calibrate`, then asks one question after the other what is better
/// than the best so far: depthwise convolutions in floats, other corrections of biases and calibrators for what has ranges, smoothing and GPTQ
/// rounding for products. Better is what answers `select` nearer to the model. Nothing is asked without samples to calibrate on. `progress` is
/// told of ways tried and about how many there are, and ends the search by false. Errors when a way fails.
pub fn best_of(
    model: &Model,
    base: &QuantizeOptions,
    calibrate: Option<&Samples>,
    select: &Samples,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Best> {
    let exact = session(model.graph())?;
    let (layers, _) = all_layers(model.graph());
    let made = |options: &QuantizeOptions| -> Result<(f64, Calibrated)> {
        let calibrated = Calibrated::new(model, options, calibrate, &mut |_, _| ())?;
        Ok((worst_sqnr_db(&exact, &session(&calibrated.quantized(&[])?.graph)?, select)?, calibrated))
    };
    let asked = if calibrate.is_some() { &QUESTIONS[..] } else { &[] };
    let all = 1 + asked.iter().map(|ask| ask(base).len()).sum::<usize>();
    let (sqnr_db, calibrated) = made(base)?;
    let mut best = Best { options: base.clone(), calibrated, tried: vec![Tried { options: base.clone(), sqnr_db }] };
    let mut most = sqnr_db;
    for ask in asked {
        for options in ask(&best.options) {
            if !progress(best.tried.len(), all) {
                return Ok(best);
            }
            if best.tried.iter().any(|t| effective(&t.options, &layers) == effective(&options, &layers)) {
                continue;
            }
            let (sqnr_db, calibrated) = made(&options)?;
            best.tried.push(Tried { options: options.clone(), sqnr_db });
            if sqnr_db > most {
                (most, best.options, best.calibrated) = (sqnr_db, options, calibrated);
            }
        }
    }
    Ok(best)
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
    if !layers.iter().any(|l| l.kind.is_product() && options.rounds(l)) {
        left.smooth = None;
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
