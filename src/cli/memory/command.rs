//! What can be asked of `halfbyte memory`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::figures::{PoolFigures, pools_text};
use super::live::Screen;
use super::machine::Sensors;
use super::{files, machine_text, models};
use crate::cli::args::{Inputs, Running};
use crate::cli::interrupt;
use crate::cli::output::{print, print_json};
use crate::error::{Error, Result};
use crate::memory::prometheus;

/// Arguments of `memory`.
#[derive(Args)]
pub struct MemoryArgs {
    /// ONNX files to load together and run in turn; without any, the devices of this machine are shown.
    pub(super) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) inputs: Inputs,
    #[command(flatten)]
    pub(super) running: Running,
    /// Runs of each model; 20 when neither this nor --for is given.
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub(super) runs: Option<u64>,
    /// Run for so long, e.g. 30s or 10m; Ctrl-C ends it early.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// Draw the sizes of open axes for each run at random, those that --dim gives left alone, batches of up to --batch (8 when left out).
    #[arg(long, conflicts_with = "inputs")]
    pub(super) vary: bool,
    /// The most memory that all models together may hold of a pool, e.g. 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) limit: Option<u64>,
    /// Show it again every so many seconds (1 when left out), on a terminal in place; Ctrl-C ends it.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    pub(super) watch: Option<Duration>,
    /// The last events that are kept for the files.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) events: usize,
    #[command(flatten)]
    pub(super) files: files::Files,
    /// Show a file of --snapshot instead, or write it in another form.
    #[arg(long, value_name = "FILE", conflicts_with = "models")]
    pub(super) open: Option<PathBuf>,
    /// Print Prometheus' text format.
    #[arg(long, conflicts_with = "json")]
    pub(super) prometheus: bool,
    /// Print JSON; with --watch an object a line.
    #[arg(long)]
    pub(super) json: bool,
}

/// Seconds, from a thousandth of one.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no number of seconds");
    let seconds = text.parse::<f64>().ok().filter(|s| *s >= 1e-3).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// A number with one of these units behind it.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.trim().parse::<f64>().ok().filter(|n| *n >= 0.0).map(|n| n * factor)
}

/// `500ms`, `30s`, `10m`, `2h`; seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = with_unit(text, &[("", 1.0), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0)]);
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| format!("{text:?} is no time like 30s or 10m"))
}

/// `4096`, `64KiB`, `512MiB`, `2GiB`; also K, M and G for the same.
pub fn bytes(text: &str) -> Result<u64, String> {
    let [k, m, g] = [10, 20, 30].map(|shift| (1u64 << shift) as f64);
    let units = [("", 1.0), ("B", 1.0), ("K", k), ("KiB", k), ("M", m), ("MiB", m), ("G", g), ("GiB", g)];
    with_unit(text, &units).map(|n| n as u64).ok_or_else(|| format!("{text:?} is no size like 512MiB"))
}

/// Runs the subcommand.
pub fn memory(args: &MemoryArgs) -> Result<ExitCode> {
    match &args.open {
        Some(path) => open(args, path),
        None if args.models.is_empty() => machine(args),
        None => models::run(args),
    }
}

fn open(args: &MemoryArgs, path: &std::path::Path) -> Result<ExitCode> {
    let snapshots = files::open(path)?;
    args.files.write(&snapshots)?;
    let pools: Vec<PoolFigures> = snapshots.iter().map(PoolFigures::of).collect();
    match (args.json, args.prometheus) {
        (true, _) => print_json(&pools)?,
        (_, true) => print(super::figures::prometheus(&pools).trim_end()),
        _ => print(&pools_text(&pools)),
    }
    Ok(ExitCode::SUCCESS)
}

fn machine(args: &MemoryArgs) -> Result<ExitCode> {
    if args.files.any() {
        return Err(Error::BadInput("--snapshot, --torch and --svg show pools: they need models, or --open".into()));
    }
    let mut sensors = Sensors::new();
    let screen = Screen::new(args.watch.is_some() && !args.json && !args.prometheus);
    loop {
        let now = sensors.sample();
        let text = match (args.json, args.prometheus, args.watch) {
            (true, _, None) => return print_json(&now).map(|()| ExitCode::SUCCESS),
            (true, ..) => serde_json::to_string(&now).map_err(|e| Error::BadInput(e.to_string()))?,
            (_, true, _) => prometheus::text(&now.readings(), &[], &now.host.name) + &prometheus::host(&now.host.memory),
            _ => machine_text::text(&now),
        };
        let Some(period) = args.watch else {
            print(text.trim_end());
            return Ok(ExitCode::SUCCESS);
        };
        screen.show(&text);
        interrupt::watch()?;
        if interrupt::sleep(period) {
            screen.end();
            return Ok(ExitCode::SUCCESS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        let times = ["30s", "10m", "2h", "250ms", "1.5", "0"].map(|t| duration(t).map(|d| d.as_millis()));
        assert_eq!(times, [30_000, 600_000, 7_200_000, 250, 1500, 0].map(Ok));
        assert!(["", "s", "-1s", "1y", "nan", "1e300h"].iter().all(|t| duration(t).is_err()));
        assert_eq!(["17", "64KiB", "1.5m", "2GiB"].map(bytes), [17, 64 << 10, 3 << 19, 2 << 30].map(Ok));
        assert!(["", "MiB", "-5", "12 parsecs"].iter().all(|t| bytes(t).is_err()));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(["0", "-1", "x", "1e300"].iter().all(|t| seconds(t).is_err()));
    }
}
