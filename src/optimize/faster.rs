//! Layers that 8 bits do not make faster on this machine: they stay in floats.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use super::budget::{Attempt, Budget, Found, Step, floats};
use super::turns::by_turns;
use super::{Calibrated, Exam, Sample};
use crate::base::DType;
use crate::error::Result;
use crate::graph::Graph;
use crate::pass::layer::Kind;
use crate::pass::quantize::Scheme;
use crate::session::{Model, Options, Session};

/// Turns of a comparison.
const TURNS: usize = 21;
/// Turns of them that the faster one may lose: of two equally fast ones, one loses no more in 1 of 75 comparisons.
const LOSSES: usize = 5;
/// The faster one takes at most this share of the other's time.
const GAIN: f64 = 0.97;
/// No comparison begins after this time.
const LIMIT: Duration = Duration::from_secs(60);

/// Layers that were tried in floats again.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Reversion {
    /// Their names.
    pub layers: Vec<String>,
    /// What the model takes with them in floats, as a share of the time with them in 8 bits.
    pub time: f64,
    /// Clearly less, so that they stay in floats.
    pub is_kept: bool,
}

/// Puts back into floats what `found` has in 8 bits without being faster for it in sessions of these `options` on this sample: all layers at once, halves of them, and so on down to
/// single ones, and in the end all that are left, each compared with the fastest choice so far by runs in turns. A choice counts as faster where it wins 16 of 21 turns and takes 3 % less; in the end the whole choice is
/// compared with the one in `found` again, and has to stay within the budget. Times differ from call to call, and so may the choice. Errors when the model cannot run.
pub fn faster(
    calibrated: &Calibrated,
    exam: &Exam,
    budget: Budget,
    (sample, options): (&Sample, &Options),
    found: &mut Found,
    step: &mut Step,
) -> Result<Vec<Reversion>> {
    let integer = |l: &&super::quantize::LayerReport| l.kind != Kind::Table && l.scheme.is_some_and(|s| s != Scheme::Weights);
    let layers: Vec<String> = found.quantized.layers.iter().filter(integer).map(|l| l.name.clone()).collect();
    let Attempt { kept: given, stored, is_within: true, .. } = found.attempts[found.chosen].clone() else {
        return Ok(Vec::new());
    };
    let open = |graph: &Graph| Session::new(&Model::from_graph(graph.clone()), options.clone());
    let with = |kept: &[String]| open(&floats(calibrated, kept, stored)?.quantized.graph);
    let (began, all) = (Instant::now(), ranges(layers.len()));
    let first = open(&found.quantized.graph)?;
    let (mut best, mut kept, mut tried) = (None, given.clone(), Vec::new());
    for (done, range) in all.iter().enumerate() {
        let group: Vec<String> = layers[range.clone()].iter().filter(|l| !kept.contains(l)).cloned().collect();
        if !step("timing layers", done, all.len()) || began.elapsed() > LIMIT {
            break;
        }
        if group.is_empty() {
            continue;
        }
        let more = [kept.as_slice(), &group].concat();
        let changed = with(&more)?;
        let (time, is_kept) = compared([best.as_ref().unwrap_or(&first), &changed], sample)?;
        if is_kept {
            (best, kept) = (Some(changed), more);
        }
        tried.push(Reversion { layers: group, time, is_kept });
    }
    let Some(best) = best else { return Ok(tried) };
    let holds = compared([&first, &best], sample)?.1 && adopt(calibrated, exam, budget, (kept, stored), found)?;
    if holds {
        let reverted = found.quantized.layers.iter_mut().filter(|l| layers.contains(&l.name));
        reverted.for_each(|l| l.reason = l.reason.take().map(|_| "8 bits are not faster here".into()));
    } else {
        tried.iter_mut().for_each(|t| t.is_kept = false);
    }
    Ok(tried)
}

/// Makes a choice of layers the one that was found, where the budget holds with it.
fn adopt(
    calibrated: &Calibrated,
    exam: &Exam,
    budget: Budget,
    (kept, stored): (Vec<String>, DType),
    found: &mut Found,
) -> Result<bool> {
    let choice = floats(calibrated, &kept, stored)?;
    let attempt = Attempt::new(exam, &choice.quantized.graph, kept, stored, budget)?;
    let holds = attempt.is_within;
    found.attempts.push(attempt);
    if holds {
        (found.chosen, found.quantized, found.halved) = (found.attempts.len() - 1, choice.quantized, choice.halved);
    }
    Ok(holds)
}

/// The share of the first one's time that the second takes, and whether that is clearly less. Ends as soon as it cannot be.
fn compared(both: [&Session; 2], sample: &Sample) -> Result<(f64, bool)> {
    let mut losses = 0;
    let times = by_turns(both, sample, TURNS, |[first, second]| {
        losses += usize::from(second >= first);
        if losses > LOSSES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let [first, second] = [0, 1].map(|i| median(times.iter().map(|t| t[i]).collect()));
    Ok((second / first, losses <= LOSSES && second <= GAIN * first))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// All of so many, their halves, quarters, down to single ones, and all of those that are left.
fn ranges(count: usize) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut width = count;
    while width > 0 {
        all.extend((0..count).step_by(width).map(|start| start..count.min(start + width)));
        width = if width == 1 { 0 } else { width.div_ceil(2) };
    }
    all.extend((count > 1).then_some(0..count));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_from_all_down_to_each_alone() {
        let groups = ranges(5);
        assert_eq!(groups[..3], [0..5, 0..3, 3..5]);
        assert_eq!(groups[groups.len() - 6..], [0..1, 1..2, 2..3, 3..4, 4..5, 0..5]);
        assert!(ranges(0).is_empty() && ranges(1).len() == 1);
    }

    #[test]
    fn turns_end_when_asked_to_and_have_both_times() {
        let model = Model::open("models/digits-mlp.onnx").unwrap();
        let session = Session::new(&model, Options::default()).unwrap();
        let name = model.inputs().next().unwrap().0.to_string();
        let sample = |rows: usize| vec![(name.clone(), crate::base::Tensor::new([rows, 64], &vec![0.5f32; rows * 64]).unwrap())];
        let mut turns = 0;
        let seen = |_| {
            turns += 1;
            if turns == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let times = by_turns([&session, &session], &sample(4), 9, seen).unwrap();
        assert!(times.len() == 3 && times.iter().flatten().all(|us| *us > 0.0), "{times:?}");
    }
}
