//! A model's answers, judged.

use super::taps::run;
use super::{Samples, samples};
use crate::base::Tensor;
use crate::calibrate::compare::Difference;
use crate::calibrate::{Answer, Metric, Paired};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::session::{Model, Options, Session};

/// The classes of samples, so many each, numbered as the arrays are that the samples come from.
#[derive(Debug, Clone)]
pub struct Labels {
    classes: Vec<u32>,
    each: usize,
}

impl Labels {
    /// From an array of integers with as many for each of `samples` samples.
    pub fn new(array: &Tensor, samples: usize) -> Result<Self> {
        let count = array.numel();
        if samples == 0 || count == 0 || !count.is_multiple_of(samples) {
            return Err(Error::BadInput(format!("{count} labels for {samples} samples")));
        }
        Ok(Labels { classes: array.to_f64().iter().map(|&v| v as u32).collect(), each: count / samples })
    }

    fn of(&self, sample: usize) -> Result<&[u32]> {
        let classes = self.classes.chunks_exact(self.each).nth(sample);
        classes.ok_or_else(|| Error::BadInput(format!("no label for sample {sample}")))
    }
}

/// Questions to a model, with the right answers and with its own.
pub struct Exam {
    samples: Samples,
    metric: Metric,
    right: Vec<Answer>,
    before: Vec<f64>,
    model: Model,
    options: Options,
}

impl Exam {
    /// Asks the original model. Without labels what it says is right; accuracy needs them, texts may have them. Sessions run as `options`
    /// say; its first output is judged.
    pub fn new(model: &Model, samples: &Samples, metric: Metric, labels: Option<&Labels>, options: &Options) -> Result<Self> {
        let (samples, options) = (samples.clone(), options.clone());
        let mut exam = Exam { samples, metric, right: Vec::new(), before: Vec::new(), model: model.clone(), options };
        let answers = exam.answers(model.graph())?;
        exam.right = match labels {
            Some(labels) if metric == Metric::Accuracy || metric.blank().is_some() => {
                exam.samples.numbers().iter().map(|&at| Ok(metric.labelled(labels.of(at)?))).collect::<Result<_>>()?
            }
            Some(_) => return Err(Error::BadInput(format!("labels say nothing about {metric}"))),
            None if metric == Metric::Accuracy => return Err(Error::BadInput("accuracy needs labels".into())),
            None => answers.clone(),
        };
        exam.before = exam.right.iter().zip(&answers).map(|(right, a)| metric.score(right, a)).collect();
        Ok(exam)
    }

    /// The model that the others are compared with.
    pub fn original(&self) -> &Graph {
        self.model.graph()
    }

    /// Number of questions.
    pub fn questions(&self) -> usize {
        self.right.len()
    }

    /// Scores of the original and of a changed graph.
    pub fn take(&self, graph: &Graph) -> Result<Paired> {
        let mut paired = Paired::new(self.metric.is_rare());
        for ((right, given), before) in self.right.iter().zip(self.answers(graph)?).zip(&self.before) {
            paired.add(*before, self.metric.score(right, &given));
        }
        Ok(paired)
    }

    /// How far a changed graph's first outputs are from the original's, `exact`: [`Exam::outputs`] of as many samples.
    pub fn difference(&self, exact: &[Tensor], graph: &Graph, count: usize) -> Result<Difference> {
        let mut difference = Difference::default();
        for (a, b) in exact.iter().zip(self.outputs(graph, count)?) {
            difference.add(&a.to_f64(), &b.to_f64(), a.shape().last().copied().unwrap_or(0));
        }
        Ok(difference)
    }

    /// First outputs of the first samples, `count` at most.
    pub fn outputs(&self, graph: &Graph, count: usize) -> Result<Vec<Tensor>> {
        self.each(graph, &self.samples.clone().first(count), |_, output| Ok(output))
    }

    fn answers(&self, graph: &Graph) -> Result<Vec<Answer>> {
        let all = self.each(graph, &self.samples, |questions, output| {
            let values = output.to_f64();
            let width = output.shape().last().copied().unwrap_or(1);
            if !output.shape().first().copied().unwrap_or(1).is_multiple_of(questions) || values.is_empty() {
                return Err(Error::BadInput(format!("an output of shape {} for {questions} samples", output.shape())));
            }
            Ok(values.chunks(values.len() / questions).map(|part| self.metric.answer(part, width)).collect::<Vec<_>>())
        })?;
        Ok(all.concat())
    }

    /// Shows the number of samples and the output of each run.
    fn each<T>(&self, graph: &Graph, samples: &Samples, see: impl Fn(usize, Tensor) -> Result<T>) -> Result<Vec<T>> {
        let session = Session::new(&self.model.with_graph(graph.clone()), self.options.clone())?;
        let one = |run_of: Result<samples::Run>| {
            let (numbers, sample) = run_of?;
            let output = run(&session, &sample)?.into_iter().next();
            see(numbers.len(), output.ok_or_else(|| Error::BadInput("a model without outputs".into()))?)
        };
        // Texts may lie along the first axis of the output, where samples would.
        samples.runs(if self.metric.blank().is_some() { 1 } else { Samples::BATCH }).map(one).collect()
    }
}
