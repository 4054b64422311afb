//! Models run together, and the memory that they take.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::command::MemoryArgs;
use super::figures::{PoolFigures, pools_text};
use super::live::Screen;
use super::outcome::{Leak, Loaded, ModelLine, Outcome};
use super::steady::Maxima;
use crate::base::xorshift::Xorshift;
use crate::cli::inputs::inputs;
use crate::cli::interrupt::{self, INTERRUPTED};
use crate::cli::progress;
use crate::cli::vary::Varied;
use crate::device::Device;
use crate::error::Result;
use crate::hardware::host::HostMemory;
use crate::memory::{Pool, Snapshot};
use crate::session::{Model, Session, model_name};

/// Runs of each model where nothing else is said.
const RUNS: u64 = 20;
/// The largest batch that is drawn where nothing else is said.
const BATCH: usize = 8;
/// How often the view changes.
const PERIOD: Duration = Duration::from_millis(500);

/// How often the system is asked for the process' memory.
const RESIDENT_PERIOD: Duration = Duration::from_millis(10);

/// Runs the models, shows their memory, writes the files. An error of a run is told after that.
pub fn run(args: &MemoryArgs) -> Result<ExitCode> {
    let devices = args.running.devices()?;
    let pools = pools(&devices);
    for (_, pool) in &pools {
        pool.record(args.events);
        args.limit.iter().for_each(|&limit| pool.account().set_limit_bytes(limit));
    }
    interrupt::watch()?;
    let mut loaded = Vec::new();
    let mut tally = Tally::new(pools.len());
    let failure = load(args, &devices, &mut loaded).and_then(|()| drive(args, &mut loaded, &pools, &mut tally)).err();
    let snapshots: Vec<Snapshot> =
        pools.iter().map(|(name, pool)| Snapshot { device: name.clone(), ..pool.snapshot() }).collect();
    let models: Vec<ModelLine> = loaded.iter().map(Loaded::line).collect();
    drop(loaded);
    let outcome = Outcome {
        runs: tally.runs.load(Relaxed),
        seconds: tally.start.elapsed().as_secs_f64(),
        models,
        pools: snapshots.iter().map(PoolFigures::of).collect(),
        reserved: tally.reserved.iter().map(Maxima::halves).collect(),
        resident: tally.resident.halves(),
        leaks: pools.iter().flat_map(|(name, pool)| leaks(name, pool)).collect(),
        interrupted: interrupt::stopped(),
        failure: failure.as_ref().map(ToString::to_string),
    };
    args.files.write(&snapshots)?;
    outcome.show(args)?;
    match failure {
        Some(error) => Err(error),
        None if outcome.interrupted => Ok(ExitCode::from(INTERRUPTED)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The devices' pools by name.
fn pools(devices: &[Arc<dyn Device>]) -> Vec<(String, Pool)> {
    let mut all: Vec<(String, Pool)> = Vec::new();
    for pool in devices.iter().flat_map(|d| d.pools()) {
        let name = pool.account().name();
        let same = all.iter().filter(|(n, _)| n == name || n.starts_with(&format!("{name} #"))).count();
        let name = if same == 0 { name.to_string() } else { format!("{name} #{}", same + 1) };
        all.push((name, pool.clone()));
    }
    all
}

fn leaks(pool: &str, left: &Pool) -> Vec<Leak> {
    left.owners().into_iter().map(|owner| Leak { pool: pool.into(), owner }).collect()
}

/// What was seen until now.
struct Tally {
    start: Instant,
    runs: AtomicU64,
    /// By pool.
    reserved: Vec<Maxima>,
    resident: Maxima,
}

impl Tally {
    fn new(pools: usize) -> Self {
        let reserved = (0..pools).map(|_| Maxima::default()).collect();
        Tally { start: Instant::now(), runs: 0.into(), reserved, resident: Maxima::default() }
    }
}

fn load(args: &MemoryArgs, devices: &[Arc<dyn Device>], loaded: &mut Vec<Loaded>) -> Result<()> {
    for path in &args.models {
        loaded.push(progress::loading(path, || load_one(args, devices, path))?);
    }
    Ok(())
}

fn load_one(args: &MemoryArgs, devices: &[Arc<dyn Device>], path: &Path) -> Result<Loaded> {
    let model = Model::open(path)?;
    let varied = Varied::new(&model, args.inputs.clone(), args.inputs.batch.unwrap_or(BATCH));
    let fixed = if args.vary { Vec::new() } else { inputs(&model, &args.inputs)? };
    let session = Session::with_devices(&model, args.running.options(false), devices.to_vec())?;
    Ok(Loaded { name: model_name(path), session, varied: args.vary.then_some(varied), fixed, runs: 0, time: Duration::ZERO })
}

/// Runs the models in turn as often or as long as asked for, under a view on a thread of its own.
fn drive(args: &MemoryArgs, loaded: &mut [Loaded], pools: &[(String, Pool)], tally: &mut Tally) -> Result<()> {
    let quiet = args.json || args.prometheus;
    let screen = Screen::new(!quiet);
    let shown = screen.is_in_place() || (args.watch.is_some() && !quiet);
    let (start, over) = (Instant::now(), AtomicBool::new(false));
    tally.start = start;
    let Tally { runs, reserved, resident, .. } = tally;
    let runs = &*runs;
    std::thread::scope(|scope| {
        if shown {
            scope.spawn(|| view(args.watch.unwrap_or(PERIOD), &screen, pools, start, runs, &over));
        }
        let (mut random, mut next, models) = (Xorshift::new(args.inputs.seed.wrapping_add(1)), start, loaded.len() as u64);
        let is_enough = |n: u64| match args.duration {
            Some(time) => start.elapsed() >= time,
            None => n >= args.runs.unwrap_or(RUNS).saturating_mul(models),
        };
        let left = (0..).take_while(|&n| !is_enough(n) && !interrupt::stopped());
        let done = left.map(|n: u64| {
            loaded[(n % models) as usize].run(&mut random)?;
            runs.store(n + 1, Relaxed);
            reserved.iter_mut().zip(pools).for_each(|(maxima, (_, pool))| maxima.push(pool.reserved_bytes()));
            if Instant::now() >= next {
                next = Instant::now() + RESIDENT_PERIOD;
                HostMemory::read().resident_bytes.iter().for_each(|&bytes| resident.push(bytes));
            }
            Ok(())
        });
        let done = done.collect();
        over.store(true, Relaxed);
        done
    })
}

/// Shows the pools now and then until it is over.
fn view(period: Duration, screen: &Screen, pools: &[(String, Pool)], start: Instant, runs: &AtomicU64, over: &AtomicBool) {
    let mut next = Instant::now();
    while !over.load(Relaxed) {
        if Instant::now() >= next {
            let figures: Vec<PoolFigures> = pools.iter().map(|(name, pool)| PoolFigures::now(name, pool)).collect();
            let head = format!("{:.1} s, {} runs", start.elapsed().as_secs_f64(), runs.load(Relaxed));
            screen.show(&format!("{head}\n{}", pools_text(&figures)));
            next += period;
        }
        std::thread::sleep(Duration::from_millis(20).min(period));
    }
    screen.clear();
}
