//! What `halfbyte optimize` found, as data.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::command::OptimizeArgs;
use super::splits::Splits;
use crate::base::DType;
use crate::cli::convert::file_bytes;
use crate::cli::measurement::quantile;
use crate::cli::output::{print, table};
use crate::cli::sides::{Side, sides, times};
use crate::error::{Error, Result};
use crate::hardware::DeviceKind;
use crate::optimize::budget::{Attempt, Budget, Found};
use crate::optimize::quantize::LayerReport;
use crate::optimize::{QuantizeOptions, Reversion, Samples, Tried};
use crate::pass::quantize::Scheme;
use crate::session::{Model, Session};

/// Of [`Report`]'s form as JSON.
const SCHEMA_VERSION: u32 = 1;

/// What was decided, before the report is made of it.
pub struct Decided {
    /// The best way of those tried.
    pub options: QuantizeOptions,
    /// Ways to quantise.
    pub tried: Vec<Tried>,
    /// Which layers stayed in floats.
    pub found: Found,
    /// Layers that were tried in floats for speed.
    pub reversions: Vec<Reversion>,
    /// What the test samples say.
    pub shown: Attempt,
    /// Selection and test both say so.
    pub is_within: bool,
    /// Multiplications of each layer for the selection's first sample.
    pub work: Vec<(String, u64)>,
}

/// Everything about an optimisation that its reader may ask.
#[derive(serde::Serialize)]
pub struct Report {
    schema_version: u32,
    tool: &'static str,
    version: &'static str,
    model: Hashed,
    /// The model that was written; none where the budget does not hold.
    output: Option<Hashed>,
    data: Vec<Split>,
    seed: u64,
    pub(super) budget: Budget,
    metric: String,
    configuration: QuantizeOptions,
    /// Whether the budget holds on the selection's and on the test's samples.
    is_within: bool,
    verdict: String,
    /// What became worse beside the score.
    warnings: Vec<String>,
    /// The test's samples.
    pub(super) test: Attempt,
    /// Mean scores of both models there.
    scores: [f64; 2],
    /// Outputs there, of the first one.
    sqnr_db: f64,
    cosine: f64,
    top1_agreement: Option<f64>,
    pub(super) layers: Vec<Line>,
    /// The share of the layers' multiplications that are done on 8-bit integers.
    int8_work: f64,
    pub(super) before: Side,
    pub(super) after: Side,
    latencies: Vec<Latency>,
    machine: Machine,
    ways_tried: Vec<Tried>,
    /// Groups of layers that were tried in floats for speed, by runs of so many samples.
    reversions: Vec<Reversion>,
    timed_batch: usize,
    pub(super) attempts: Vec<Attempt>,
    pub(super) chosen_attempt: usize,
    is_stopped: bool,
    not_run: Vec<String>,
}

/// A file, by what is in it.
#[derive(Clone, serde::Serialize)]
pub struct Hashed {
    path: String,
    bytes: u64,
    sha256: String,
}

impl Hashed {
    /// Of the file as it is now.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Hashed { path: path.display().to_string(), bytes: file_bytes(path), sha256: sha256(path)? })
    }
}

#[derive(serde::Serialize)]
struct Split {
    role: &'static str,
    samples: usize,
    #[serde(flatten)]
    file: Hashed,
}

#[derive(serde::Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    layer: LayerReport,
    /// For the selection's first sample.
    multiplications: u64,
    /// Of the weights in the file.
    pub(super) stored: DType,
    /// Signal to noise of the output with this layer alone quantised; none where all could be at once.
    pub(super) sqnr_db: Option<f64>,
}

#[derive(serde::Serialize)]
struct Latency {
    batch: usize,
    /// Median and 10th and 90th percentile in microseconds.
    before_us: [f64; 3],
    after_us: [f64; 3],
}

impl Latency {
    /// Where the changed model is slower by more than what two measurements of one model differ by.
    fn warning(&self) -> Option<String> {
        let [after, before] = [self.after_us[0], self.before_us[2]];
        (after > before).then(|| {
            format!("SLOWER: a batch of {} takes {:.0} % of the time before", self.batch, 100.0 * after / self.before_us[0])
        })
    }
}

#[derive(serde::Serialize)]
struct Machine {
    device: String,
    threads: usize,
}

/// Hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let fail = |e: std::io::Error| Error::File { path: path.display().to_string(), why: e.to_string() };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(fail)?);
    let mut hash = Sha256::new();
    loop {
        let read = file.fill_buf().map_err(fail)?;
        if read.is_empty() {
            break;
        }
        hash.update(read);
        let count = read.len();
        file.consume(count);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the written model says of itself.
pub fn metadata(args: &OptimizeArgs, model: &Model, source: &Hashed) -> Vec<(String, String)> {
    let own = [
        ("halfbyte.version", env!("CARGO_PKG_VERSION").to_string()),
        ("halfbyte.source_sha256", source.sha256.clone()),
        ("halfbyte.budget", args.budget.to_string()),
    ];
    let others = model.metadata().iter().filter(|(name, _)| own.iter().all(|(mine, _)| mine != name)).cloned();
    others.chain(own.iter().map(|(name, value)| (name.to_string(), value.clone()))).collect()
}

impl Report {
    /// Measures both models, the original one from `source`. The changed one has to be written already, where it is.
    pub fn new(args: &OptimizeArgs, source: Hashed, model: &Model, splits: &Splits, decided: Decided) -> Result<Self> {
        let Decided { options, tried, found, reversions, shown, is_within, work } = decided;
        let changed = model.with_graph(found.quantized.graph.clone());
        let open = |model: &Model| Session::new(model, args.running.options(false));
        let (before, after) = (open(model)?, open(&changed)?);
        let latencies = latencies([&before, &after], &splits.choosing, args.runs)?;
        let difference = splits.test.difference(&splits.test.outputs(model.graph(), usize::MAX)?, changed.graph(), usize::MAX)?;
        let machine = before.report();
        let median_us = latencies.first().map_or([0.0; 2], |l| [l.before_us[0], l.after_us[0]]);
        let output = if is_within { Some(Hashed::new(&args.output)?) } else { None };
        let after_side = Side::new(&args.output, &changed, &after, median_us[1]);
        Ok(Report {
            schema_version: SCHEMA_VERSION,
            tool: "halfbyte",
            version: env!("CARGO_PKG_VERSION"),
            model: source,
            warnings: latencies.iter().filter_map(Latency::warning).collect(),
            data: data(args, splits)?,
            seed: args.seed,
            budget: args.budget(),
            metric: splits.metric.to_string(),
            configuration: options,
            is_within,
            verdict: verdict(&shown, args.budget(), is_within),
            scores: shown.scores.scores(),
            test: shown,
            sqnr_db: difference.sqnr_db(),
            cosine: difference.cosine(),
            top1_agreement: difference.top1_agreement(),
            layers: lines(&found, &work),
            int8_work: int8_work(&found, &work),
            before: Side::new(&args.model, model, &before, median_us[0]),
            // A file that lies there for want of a new one is another model.
            after: Side { file_bytes: output.as_ref().map_or(0, |o| o.bytes), ..after_side },
            output,
            latencies,
            not_run: not_run(machine.device, splits),
            machine: Machine { device: machine.device_name, threads: machine.threads },
            ways_tried: tried,
            reversions,
            timed_batch: args.timed_batch,
            chosen_attempt: found.chosen,
            is_stopped: found.is_stopped,
            attempts: found.attempts,
        })
    }

    /// As text.
    pub fn show(&self) {
        let mut layers = table(&["layer", "kind", "weights", "stored", "alone dB", "why"]);
        for l in &self.layers {
            let alone = l.sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
            let why = l.layer.reason.clone().unwrap_or_default();
            let [kind, weights] = [format!("{:?}", l.layer.kind), l.layer.weights.to_string()];
            layers.add_row([l.layer.name.clone(), kind, weights, l.stored.to_string(), alone, why]);
        }
        print(&layers.to_string());
        print(&sides([&self.before, &self.after]).to_string());
        for l in &self.latencies {
            let times = format!("{:.1} us, {:.1} us", l.before_us[0], l.after_us[0]);
            print(&format!("batch of {}: {times}: {:.2} x faster", l.batch, l.before_us[0] / l.after_us[0].max(1e-9)));
        }
        print(&format!(
            "{}: {:.4} before, {:.4} after; outputs {:.1} dB, cosine {:.6}",
            self.metric, self.scores[0], self.scores[1], self.sqnr_db, self.cosine
        ));
        print(&format!("{:.1} % of the multiplications are of 8-bit integers", 100.0 * self.int8_work));
        let slower: usize = self.reversions.iter().filter(|r| r.is_kept).map(|r| r.layers.len()).sum();
        if slower > 0 {
            print(&format!(
                "{slower} layers stay in floats, which is faster here for a batch of {} (--smallest quantises them)",
                self.timed_batch
            ));
        }
        self.warnings.iter().chain([&self.verdict]).for_each(|line| print(line));
    }
}

/// Of batches of one sample, and of several where they can be joined.
fn latencies(both: [&Session; 2], samples: &Samples, runs: usize) -> Result<Vec<Latency>> {
    let mut all: Vec<Latency> = Vec::new();
    for batch in [1, Samples::BATCH] {
        let Some(run) = samples.runs(batch).next() else { continue };
        let (numbers, inputs) = run?;
        if all.iter().all(|l| l.batch != numbers.len()) {
            let [before_us, after_us] = times(both, &inputs, runs)?.map(|t| [0.5, 0.1, 0.9].map(|share| quantile(&t, share)));
            all.push(Latency { batch: numbers.len(), before_us, after_us });
        }
    }
    Ok(all)
}

fn data(args: &OptimizeArgs, splits: &Splits) -> Result<Vec<Split>> {
    let split = |role, samples, file: &Hashed| Split { role, samples, file: file.clone() };
    let mut all = Vec::new();
    if let (Some(path), Some(samples)) = (&args.calibrate.calibrate, &splits.calibrate) {
        all.push(split("calibrate", samples.len(), &Hashed::new(path)?));
    }
    let select = Hashed::new(&args.select)?;
    all.push(split("select", splits.select.questions(), &select));
    let test = args.test.as_deref().map_or(Ok(select), Hashed::new)?;
    all.push(split("test", splits.test.questions(), &test));
    Ok(all)
}

/// Multiplications of a layer.
fn of(work: &[(String, u64)], layer: &LayerReport) -> u64 {
    work.iter().find(|(name, _)| *name == layer.name).map_or(0, |(_, count)| *count)
}

/// The share of all multiplications that are of 8-bit integers.
fn int8_work(found: &Found, work: &[(String, u64)]) -> f64 {
    let integer = |l: &&LayerReport| l.scheme.is_some_and(|s| s != Scheme::Weights);
    let done: u64 = found.quantized.layers.iter().filter(integer).map(|l| of(work, l)).sum();
    done as f64 / work.iter().map(|(_, count)| count).sum::<u64>().max(1) as f64
}

/// Each layer, as it is in the model.
fn lines(found: &Found, work: &[(String, u64)]) -> Vec<Line> {
    let line = |layer: &LayerReport| Line {
        multiplications: of(work, layer),
        stored: match &layer.scheme {
            Some(_) => DType::I8,
            None if found.halved.contains(&layer.name) => DType::F16,
            None => DType::F32,
        },
        sqnr_db: found.sensitivities.iter().find(|s| s.layer == layer.name).map(|s| s.sqnr_db),
        layer: layer.clone(),
    };
    found.quantized.layers.iter().map(line).collect()
}

/// In one sentence.
fn verdict(shown: &Attempt, budget: Budget, is_within: bool) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let (drop, interval) = (percent(shown.drop), interval(shown.interval95));
    let (most, count) = (percent(budget.drop), shown.scores.count);
    let seen = format!("the score of {count} test samples falls by {drop}, {interval}");
    match (is_within, budget.is_proven, shown.scores.needed(budget.drop)) {
        (true, true, _) => format!("within the budget of {most}: {seen}"),
        (true, false, _) if shown.interval95[1] > budget.drop => format!("NOT PROVEN to be within the budget of {most}: {seen}"),
        (true, false, _) => format!("within the budget of {most}: {seen}"),
        (false, true, Some(needed)) if shown.interval95[1] > budget.drop => {
            format!(
                "NOT SHOWN to be within the budget of {most}: {seen}; about {needed} samples might show it. No model was written"
            )
        }
        _ => format!("NOT WITHIN the budget of {most}: {seen}. No model was written"),
    }
}

/// The 95 % interval of a drop, which too few samples do not have.
pub(super) fn interval(ends: [f64; 2]) -> String {
    match ends.map(|end| format!("{:.2} %", end * 100.0)) {
        [low, high] if ends.iter().all(|end| end.is_finite()) => format!("95 % interval {low} to {high}"),
        _ => "too few samples for an interval".into(),
    }
}

/// What a reader may miss.
fn not_run(device: DeviceKind, splits: &Splits) -> Vec<String> {
    let mut all = vec![
        format!("other devices than {device:?}: answers and times are of this one"),
        "pruning and adapters: `halfbyte prune`, `halfbyte lora`".to_string(),
        "training of any kind: weights are rounded, never learned".to_string(),
    ];
    if splits.calibrate.is_none() {
        all.push("what needs ranges, for want of samples to calibrate on: static convolutions, smoothing, biases".to_string());
    }
    all
}
