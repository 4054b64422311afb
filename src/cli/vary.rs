//! Runs whose shapes vary: sizes of axes that a model leaves open are drawn at random.

use std::collections::BTreeSet;

use super::args::Inputs;
use super::inputs::inputs;
use crate::base::xorshift::Xorshift;
use crate::error::{Error, Result};
use crate::graph::Dim;
use crate::session::{Model, Outputs, Session};

/// Sizes of open axes other than batches: lengths, and sides of images that networks take (some only one of them).
const LENGTHS: [usize; 9] = [32, 48, 64, 96, 128, 160, 192, 256, 320];
/// Draws of a run's axes before a model that refuses them is given up.
const DRAWS: usize = 32;

/// Random shapes of a model's inputs.
pub struct Varied {
    axes: Vec<String>,
    batch: usize,
    given: Inputs,
}

impl Varied {
    /// Batches of up to `batch`; sizes that are given stay.
    pub fn new(model: &Model, given: Inputs, batch: usize) -> Self {
        Varied { axes: open_axes(model, &given), batch, given: Inputs { batch: None, ..given } }
    }

    /// A run of axes drawn at random. Shapes that the model refuses are drawn again; errors when it refuses all of many, or for memory.
    pub fn run(&self, session: &Session, random: &mut Xorshift) -> Result<Outputs> {
        let mut refused = Error::BadInput("no shape was drawn".into());
        for _ in 0..DRAWS {
            let drawn = self.axes.iter().map(|name| (name.clone(), drawn(name, self.batch, random)));
            let dims = self.given.dims.iter().cloned().chain(drawn).collect();
            let made = inputs(session.model(), &Inputs { dims, ..self.given.clone() })?;
            let named: Vec<_> = made.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
            match session.run(&named) {
                Err(e) if !e.is_memory() => refused = e,
                done => return done,
            }
        }
        Err(refused)
    }
}

/// Names of the axes that a model leaves open, as `--dim` takes them; not those that are given.
fn open_axes(model: &Model, given: &Inputs) -> Vec<String> {
    let is_given = |name: &str| given.dims.iter().any(|(n, _)| n == name);
    let mut names = BTreeSet::new();
    for (input, port) in model.inputs() {
        for (i, dim) in port.dims.as_deref().unwrap_or(&[]).iter().enumerate().filter(|(i, _)| !is_given(&i.to_string())) {
            match dim {
                Dim::Named(n) => drop(names.insert(n.clone())),
                Dim::Any => drop(names.insert(format!("{input}.{i}"))),
                Dim::Known(_) => {}
            }
        }
    }
    names.into_iter().filter(|name| !is_given(name)).collect()
}

/// A size: small for a first axis or one that is named like a batch, else a length.
fn drawn(axis: &str, batch: usize, random: &mut Xorshift) -> usize {
    let is_batch = axis.ends_with(".0") || axis.to_lowercase().contains("batch") || axis == "N" || axis.starts_with("unk__");
    if is_batch { 1 + random.below(batch.max(1)) } else { LENGTHS[random.below(LENGTHS.len())] }
}
