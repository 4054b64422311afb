//! `halfbyte bench batching`: the batch scheduler and its peers on virtual devices, beside the exact offline optimum.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::interrupt::{self, INTERRUPTED};
use super::output::{print, print_json, table};
use super::progress;
use crate::error::{Error, Result};
use crate::serve::simulate::arrivals::{self, Source};
use crate::serve::simulate::{Device, Figures, Row, Study, contenders, rows};

/// Requests of a run, and of one with `--quick`.
const REQUESTS: [usize; 2] = [8000, 1500];

/// Arguments of `bench batching`.
#[derive(Args)]
pub struct BatchingArgs {
    /// Spread of batch times: the standard deviation of their logarithm.
    #[arg(long, default_value_t = 0.2)]
    noise: f64,
    /// Seeds of arrivals and noise, separated by commas.
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_values_t = [7, 12345, 998_877])]
    seeds: Vec<u64>,
    /// Recorded arrivals besides: a table with a header whose first column is a time; may be given several times.
    #[arg(long, value_name = "FILE.csv")]
    arrivals: Vec<PathBuf>,
    /// Fewer requests and one seed.
    #[arg(long)]
    quick: bool,
}

/// A row as printed: the optimum's rate, and everyone's figures.
#[derive(serde::Serialize)]
struct Answer {
    device: &'static str,
    arrivals: String,
    /// The optimum's rate as a share of the capacity.
    oracle: f64,
    figures: Vec<Figures>,
}

impl BatchingArgs {
    fn study(&self) -> Result<Study> {
        if !(0.0..=1.0).contains(&self.noise) {
            return Err(Error::BadInput(format!("--noise {}: wanted from 0 to 1", self.noise)));
        }
        let seeds = if self.quick { self.seeds[..1].to_vec() } else { self.seeds.clone() };
        Ok(Study { target_s: 0.02, noise: self.noise, requests: REQUESTS[usize::from(self.quick)], seeds })
    }

    fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = vec![Source::Poisson, Source::Bursts];
        for path in &self.arrivals {
            sources.push(arrivals::read(path)?);
        }
        Ok(sources)
    }
}

/// Runs the subcommand.
pub fn run(args: &BatchingArgs, json: bool) -> Result<ExitCode> {
    let (study, sources) = (args.study()?, args.sources()?);
    interrupt::watch()?;
    let bar = progress::bar((Device::ALL.len() * sources.len() * (1 + contenders().len())) as u64, "simulating");
    let rows: Vec<Row> = rows(&study, &sources, || bar.inc(1));
    let (contenders, mut answers) = (contenders(), Vec::new());
    for row in &rows {
        let figures = contenders.iter().take_while(|_| !interrupt::stopped()).map(|contender| {
            bar.inc(1);
            study.figures(row, contender)
        });
        let figures: Vec<Figures> = figures.collect();
        let oracle = row.oracle_rate / row.device.capacity();
        answers.push(Answer { device: row.device.name, arrivals: row.source.name().into(), oracle, figures });
    }
    bar.finish_and_clear();
    if json {
        print_json(&answers)?
    } else {
        show(&answers, args.noise)
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn show(answers: &[Answer], noise: f64) {
    let names: Vec<&str> = contenders().iter().map(|c| c.name).collect();
    let one = |title: &str, figure: fn(&Figures) -> f64, digits: usize| {
        let mut t = table(&[&["device", "arrivals", "optimum"], &names[..]].concat());
        for answer in answers {
            let mut cells = vec![answer.device.to_string(), answer.arrivals.clone(), format!("{:.1}", 100.0 * answer.oracle)];
            cells.extend(answer.figures.iter().map(|f| format!("{:.digits$}", figure(f))));
            t.add_row(cells);
        }
        print(&format!("{title}\n{t}"));
    };
    let title = format!("Highest rate with 99 % in time, % of the optimum's (its own: % of capacity); noise {noise}");
    one(&title, |f| 100.0 * f.rate_of_oracle, 1);
    one("Goodput at 130 % of capacity, % of capacity", |f| 100.0 * f.goodput, 1);
    one("Added median latency at 2 % of capacity, ms", |f| f.added_ms, 2);
}
