//! What models took, in the end.

use std::time::{Duration, Instant};

use super::command::MemoryArgs;
use super::figures::{PoolFigures, pools_text, prometheus};
use super::steady::Halves;
use crate::base::xorshift::Xorshift;
use crate::base::{Tensor, size_text};
use crate::cli::output::{print, print_json, table};
use crate::cli::vary::Varied;
use crate::error::Result;
use crate::memory::Owner;
use crate::session::Session;

/// A model that is run.
#[allow(missing_docs)]
pub struct Loaded {
    pub name: String,
    pub session: Session,
    /// Where shapes vary.
    pub varied: Option<Varied>,
    pub fixed: Vec<(String, Tensor)>,
    pub runs: u64,
    pub time: Duration,
}

impl Loaded {
    /// One run.
    pub fn run(&mut self, random: &mut Xorshift) -> Result<()> {
        let start = Instant::now();
        match &self.varied {
            Some(varied) => varied.run(&self.session, random)?,
            None => {
                let named: Vec<_> = self.fixed.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
                self.session.run(&named)?
            }
        };
        self.time += start.elapsed();
        self.runs += 1;
        Ok(())
    }

    /// What it did.
    pub fn line(&self) -> ModelLine {
        let report = self.session.report();
        ModelLine {
            name: self.name.clone(),
            device: report.device_name,
            runs: self.runs,
            mean_ms: if self.runs == 0 { 0.0 } else { self.time.as_secs_f64() * 1e3 / self.runs as f64 },
            weight_bytes: report.weight_bytes as u64,
            arena_bytes: report.arena_bytes as u64,
            plans: report.plans,
            notes: report.notes,
        }
    }
}

/// What a model did.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct ModelLine {
    pub name: String,
    pub device: String,
    pub runs: u64,
    /// Inputs made included.
    pub mean_ms: f64,
    pub weight_bytes: u64,
    /// Of the last plan.
    pub arena_bytes: u64,
    /// Plans kept.
    pub plans: usize,
    pub notes: Vec<String>,
}

/// Blocks that nobody let go of.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct Leak {
    pub pool: String,
    #[serde(flatten)]
    pub owner: Owner,
}

/// All of it.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct Outcome {
    pub runs: u64,
    pub seconds: f64,
    pub models: Vec<ModelLine>,
    /// After the last run, with all models loaded.
    pub pools: Vec<PoolFigures>,
    /// The most that each pool had reserved, in the first and in the second half of the runs.
    pub reserved: Vec<Option<Halves>>,
    /// The same of the process' resident memory.
    pub resident: Option<Halves>,
    /// What is still held once all models are gone.
    pub leaks: Vec<Leak>,
    pub interrupted: bool,
    /// Why runs ended early.
    pub failure: Option<String>,
}

impl Outcome {
    /// In the form that was asked for.
    pub fn show(&self, args: &MemoryArgs) -> Result<()> {
        match (args.json, args.prometheus) {
            (true, _) => return print_json(self),
            (_, true) => print(prometheus(&self.pools).trim_end()),
            _ => print(&self.text()),
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut models = table(&["model", "device", "runs", "mean ms", "weights", "last arena", "plans"]);
        for m in &self.models {
            let [weights, arena] = [m.weight_bytes, m.arena_bytes].map(size_text);
            let (runs, mean, plans) = (m.runs.to_string(), format!("{:.2}", m.mean_ms), m.plans.to_string());
            models.add_row([m.name.clone(), m.device.clone(), runs, mean, weights, arena, plans]);
        }
        let notes = self.models.iter().flat_map(|m| m.notes.iter().map(move |n| format!("note: {}: {n}", m.name)));
        let pools = self.pools.iter().zip(&self.reserved);
        let reserved = pools.filter_map(|(pool, halves)| Some(halves_text(&format!("{} reserved", pool.name), (*halves)?, 0.0)));
        let resident = self.resident.map(|halves| halves_text("process resident", halves, RESIDENT_NOISE));
        let leaks = self.leaks.iter().map(|Leak { pool, owner }| {
            format!("LEAK: {} still holds {} in {} blocks of {pool}", owner.account, size_text(owner.live_bytes), owner.blocks)
        });
        let done = format!("{} runs in {:.1} s", self.runs, self.seconds);
        let parts: Vec<String> = [models.to_string() + "\n", pools_text(&self.pools) + "\n"]
            .into_iter()
            .chain(notes)
            .chain([done])
            .chain(reserved)
            .chain(resident)
            .chain(leaks)
            .chain(self.leaks.is_empty().then(|| "no leaks: all blocks came back when the models were gone".into()))
            .collect();
        parts.join("\n")
    }
}

/// Stacks, plans and the system's own accounting move a process by this part of its memory.
const RESIDENT_NOISE: f64 = 0.01;

/// Growth beyond `noise`, or none, in words.
fn halves_text(what: &str, Halves { first_bytes, second_bytes }: Halves, noise: f64) -> String {
    let grown = second_bytes.saturating_sub(first_bytes);
    let share = grown as f64 / first_bytes.max(1) as f64;
    let verdict = match share <= noise {
        true => "steady".to_string(),
        false => format!("grew by {} ({:.1} %)", size_text(grown), share * 100.0),
    };
    let [first, second] = [first_bytes, second_bytes].map(size_text);
    format!("{what}: {first} at most in the first half of the runs, {second} in the second: {verdict}")
}
