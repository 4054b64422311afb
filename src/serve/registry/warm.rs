//! Runs before a version is ready, so that its first request is as fast as its hundredth.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::base::TensorView;
use crate::error::{Error, Result};
use crate::session::{Session, Sizes, made};

/// Runs of a shape before a version is ready.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct WarmUp {
    /// Sizes of open axes.
    pub sizes: BTreeMap<String, usize>,
    /// Time of the first run: it prepares weights, makes the plan, and takes the memory.
    pub first_us: u64,
    /// Time of the next.
    pub then_us: u64,
}

/// Runs each shape twice, on made-up inputs: see [`super::ModelSettings::warm_up`]. Errors with the shape that does not run.
pub fn warm_up(session: &Session, shapes: &[BTreeMap<String, usize>]) -> Result<Vec<WarmUp>> {
    let one = |sizes: &BTreeMap<String, usize>| {
        let given = |axis: &str| sizes.get(axis).copied();
        let made = made(session.model(), Sizes { given: &given, batch: given("batch") }, 1)?;
        let views: Vec<(&str, TensorView)> = made.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
        let run = || {
            let began = Instant::now();
            session.run(&views).map(|_| began.elapsed().as_micros() as u64)
        };
        Ok(WarmUp { sizes: sizes.clone(), first_us: run()?, then_us: run()? })
    };
    let told = |sizes: &BTreeMap<String, usize>, e: Error| match e {
        Error::BadInput(why) => Error::BadInput(format!("warm-up {sizes:?}: {why}")),
        other => other,
    };
    shapes.iter().map(|sizes| one(sizes).map_err(|e| told(sizes, e))).collect()
}
