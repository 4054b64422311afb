//! Runs of a recording as one graph launch: a launch costs the host some microseconds, a graph of many hardly more than one.

use std::collections::HashMap;
use std::sync::Mutex;

use super::driver::{Driver, Graph, Resolved, Value};
use super::recording::{Recording, Step};
use crate::base::lock;
use crate::error::Result;

/// What came of a recording's runs, by the address of the arena: a graph holds addresses.
#[derive(Default)]
pub(super) struct Replays(Mutex<HashMap<u64, Replay>>);

enum Replay {
    /// It ran once, step by step. Most plans never run again, and capturing costs more than it saves them.
    Ran,
    /// Captured at the second run.
    Captured(Box<dyn Graph>),
    /// It has steps on the host, or the driver cannot capture it.
    StepByStep,
}

impl Replays {
    /// Runs the recording, whose steps `step` runs one by one.
    pub fn run<D: Driver>(
        &self,
        driver: &D,
        recording: &Recording<D>,
        arena: u64,
        step: impl Fn(&Step<D::Function>) -> Result<()>,
    ) -> Result<()> {
        let known = lock(&self.0).remove(&arena);
        let next = match known {
            None => Replay::Ran,
            // What cannot be captured may still run.
            Some(Replay::Ran) => capture(driver, recording, arena).ok().flatten().map_or(Replay::StepByStep, Replay::Captured),
            Some(known) => known,
        };
        let done = match &next {
            Replay::Captured(graph) => graph.replay(),
            Replay::Ran | Replay::StepByStep => recording.commands.iter().flatten().try_for_each(step),
        };
        lock(&self.0).insert(arena, next);
        done
    }

    /// Drops what holds an arena that is given back.
    pub fn forget(&self, arena: u64) {
        let removed = lock(&self.0).remove(&arena);
        drop(removed);
    }
}

fn capture<D: Driver>(driver: &D, recording: &Recording<D>, arena: u64) -> Result<Option<Box<dyn Graph>>> {
    let mut values: Vec<Vec<Value>> = Vec::new();
    for step in recording.commands.iter().flatten() {
        let Step::Launch { args, .. } = step else { return Ok(None) };
        values.push(args.iter().map(|a| a.resolve(arena)).collect());
    }
    let launches = recording.commands.iter().flatten().zip(&values).filter_map(|(step, values)| match step {
        Step::Launch { function, module, grid, .. } => Some((function, Resolved { module, grid: *grid, values })),
        Step::Host(_) => None,
    });
    driver.capture(&launches.collect::<Vec<_>>())
}
