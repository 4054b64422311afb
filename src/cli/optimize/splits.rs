//! The samples that calibrate, choose and show.

use std::path::Path;

use super::command::OptimizeArgs;
use crate::base::Tensor;
use crate::calibrate::{Metric, Paired};
use crate::cli::{npz, samples};
use crate::error::{Error, Result};
use crate::optimize::{Exam, Labels, Samples};
use crate::session::Model;

/// The three of them, no sample in two.
pub struct Splits {
    /// Of ranges; none where no file was given.
    pub calibrate: Option<Samples>,
    /// The selection's inputs.
    pub choosing: Samples,
    /// Chooses layers.
    pub select: Exam,
    /// Shows what the choice costs.
    pub test: Exam,
    /// What answers are judged by.
    pub metric: Metric,
}

impl Splits {
    /// Reads them and asks the original model. Errors where too few samples are there to show that the budget holds.
    pub fn new(args: &OptimizeArgs, model: &Model) -> Result<Self> {
        let metric = args.metric.unwrap_or(if args.labels.is_some() { Metric::Accuracy } else { Metric::Agreement });
        let read = |path: &Path| -> Result<(Samples, Option<Labels>)> {
            let all = samples::read(model, path, &args.select_arrays)?;
            let labels = args.labels.as_ref().map(|name| Labels::new(&array(path, name)?, all.len())).transpose()?;
            Ok((all, labels))
        };
        let (selection, labels) = read(&args.select)?;
        let (choosing, (showing, shown_labels)) = match &args.test {
            Some(path) => (selection, read(path)?),
            None => {
                let [choosing, showing] = selection.halves(args.seed);
                (choosing, (showing, labels.clone()))
            }
        };
        let options = args.running.options(false);
        let (counts, least) = ([choosing.len(), showing.len()], Paired::least(args.budget));
        if !args.unproven && metric.is_rare() && counts.iter().any(|&n| n < least) {
            return Err(Error::BadInput(format!(
                "{} samples to choose by and {} to show it cannot show a drop of {:.2} % or less, even if no answer changes: give {least} of each, \
                 a larger --budget, or --unproven",
                counts[0],
                counts[1],
                args.budget * 100.0
            )));
        }
        Ok(Splits {
            calibrate: args.calibrate.read(model)?,
            select: Exam::new(model, &choosing, metric, labels.as_ref(), &options)?,
            test: Exam::new(model, &showing, metric, shown_labels.as_ref(), &options)?,
            choosing,
            metric,
        })
    }
}

/// An array of a file.
fn array(path: &Path, name: &str) -> Result<Tensor> {
    let found = npz::read_if(path, |n| n == name)?.into_iter().next();
    found.map(|(_, t)| t).ok_or_else(|| Error::File { path: path.display().to_string(), why: format!("no array {name:?}") })
}
