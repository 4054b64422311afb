//! `halfbyte bench search`: exact nearest neighbours, how fast and how many of them the smaller storages find.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::args::Running;
use super::interrupt::{self, INTERRUPTED};
use super::measurement::quantile;
use super::output::{print, print_json, table};
use super::{npz, progress};
use crate::base::xorshift::Xorshift;
use crate::base::{Tensor, TensorView, size_text};
use crate::error::{Error, Result};
use crate::search::{Found, Index, IndexOptions, Metric, Storage};

/// Arguments of `bench search`.
#[derive(Args)]
pub struct SearchArgs {
    /// An NPZ file of f32 arrays `vectors` and `queries`, one a row; random ones of length 1 when left out.
    #[arg(long, value_name = "NPZ")]
    vectors: Option<PathBuf>,
    /// Random vectors.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// Numbers of a random vector.
    #[arg(long, default_value_t = 384)]
    numbers: usize,
    /// Queries of one search, separated by commas.
    #[arg(long, default_value = "1,8,64", value_delimiter = ',')]
    at_once: Vec<usize>,
    /// Neighbours of each query.
    #[arg(long, default_value_t = 10)]
    neighbours: usize,
    /// f32, f16, int8; separated by commas.
    #[arg(long, default_value = "f32,f16,int8", value_delimiter = ',', value_parser = storage)]
    storage: Vec<Storage>,
    /// Candidates for each neighbour that int8 compares again by f16 copies; 0 for none.
    #[arg(long, default_value_t = 2)]
    rescore: usize,
}

fn storage(text: &str) -> std::result::Result<Storage, String> {
    match text {
        "f32" => Ok(Storage::F32),
        "f16" => Ok(Storage::F16),
        "int8" => Ok(Storage::Int8),
        _ => Err(format!("{text:?} is none of f32, f16, int8")),
    }
}

#[derive(serde::Serialize)]
struct Timing {
    storage: Storage,
    bytes: usize,
    queries: usize,
    /// Of one search.
    median_us: f64,
    queries_per_second: f64,
    /// Of the neighbours that f32 finds, over all queries.
    recall: f64,
}

/// Runs the subcommand.
pub fn run(args: &SearchArgs, running: &Running, seconds: f64, json: bool) -> Result<ExitCode> {
    let [vectors, queries] = data(args)?;
    let dim = vectors.shape()[1];
    interrupt::watch()?;
    let bar = progress::bar((args.storage.len() * args.at_once.len()) as u64, "searching");
    let made = |storage| {
        let mut index = Index::new(
            dim,
            IndexOptions { metric: Metric::InnerProduct, storage, rescore: args.rescore, session: running.options(false) },
        )?;
        index.add(vectors.view()).map(|()| index)
    };
    let exact = made(Storage::F32)?.search(queries.view(), args.neighbours)?;
    let mut timings = Vec::new();
    for &storage in args.storage.iter().take_while(|_| !interrupt::stopped()) {
        let index = made(storage)?;
        let recall = recall(&exact, &index.search(queries.view(), args.neighbours)?);
        for &count in args.at_once.iter().take_while(|_| !interrupt::stopped()) {
            let median_us = median_us(&index, &queries, count, args.neighbours, seconds)?;
            let queries_per_second = count as f64 * 1e6 / median_us;
            timings.push(Timing { storage, bytes: index.bytes(), queries: count, median_us, queries_per_second, recall });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if json {
        print_json(&timings)?;
    } else {
        let mut t = table(&["storage", "vectors", "queries", "time", "queries/s", "recall"]);
        for m in &timings {
            let figures = [format!("{:.0} us", m.median_us), format!("{:.0}", m.queries_per_second), format!("{:.4}", m.recall)];
            t.add_row([format!("{:?}", m.storage), size_text(m.bytes as u64), m.queries.to_string()].into_iter().chain(figures));
        }
        print(&t.to_string());
    }
    Ok(if interrupt::stopped() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Vectors and queries.
fn data(args: &SearchArgs) -> Result<[Tensor; 2]> {
    let Some(path) = &args.vectors else {
        let made = |rows: usize, seed| Tensor::new([rows, args.numbers], &Xorshift::new(seed).reals(rows * args.numbers, 1.0));
        return Ok([made(args.rows, 1)?, made(256, 2)?]);
    };
    let arrays = npz::read(path)?;
    let named = |name: &str| {
        let found = arrays.iter().find(|(n, t)| n == name && t.shape().rank() == 2).map(|(_, t)| t.clone());
        found.ok_or_else(|| Error::File { path: path.display().to_string(), why: format!("no array {name:?} of two axes") })
    };
    Ok([named("vectors")?, named("queries")?])
}

/// Of searches by turns through the queries.
fn median_us(index: &Index, queries: &Tensor, count: usize, k: usize, seconds: f64) -> Result<f64> {
    let (all, dim) = (queries.values::<f32>()?, index.dim());
    let rows = all.len() / dim;
    let count = count.clamp(1, rows.max(1));
    let (began, mut times) = (Instant::now(), Vec::new());
    for turn in 0.. {
        let first = turn * count % (rows - count + 1);
        let some = TensorView::of([count, dim], &all[first * dim..(first + count) * dim]);
        let start = Instant::now();
        index.search(some, k)?;
        if turn > 0 {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        if interrupt::stopped() || (times.len() >= 5 && began.elapsed().as_secs_f64() > seconds) {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(if times.is_empty() { f64::NAN } else { quantile(&times, 0.5) })
}

/// The share of the neighbours in `exact` that are in `found` too.
fn recall(exact: &Found, found: &Found) -> f64 {
    let lists = exact.ids.chunks(exact.k.max(1)).zip(found.ids.chunks(found.k.max(1)));
    let common: usize = lists.map(|(a, b)| a.iter().filter(|id| b.contains(id)).count()).sum();
    common as f64 / exact.ids.len().max(1) as f64
}
