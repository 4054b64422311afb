//! `cargo bench --bench cuda [-- --out FOLDER] [-- --shapes MxNxK,...] [-- --types f16,bf16,s8s8]`: products by every kernel that takes them,
//! against cuBLASLt, on one GPU. Operands are random and rotate through more memory than the caches hold; contestants take turns;
//! medians with the 10th and 90th percentile. `-- --memory` measures the driver's memory calls instead. Without a GPU it says so and ends.

mod cublaslt;
mod latencies;
mod machine;
mod ours;
mod report;

use std::path::PathBuf;

use cublaslt::{CublasLt, Heuristic, WORKSPACE_BYTES};
use halfbyte::DType;
use halfbyte::cli::args::shape;
use halfbyte::device::Device;
use halfbyte::device::cuda::Nvidia;
use halfbyte::device::gpu::GpuDevice;
use halfbyte::hardware::cuda;
use machine::{Launch, Machine};
use ours::{Ours, Types};
use report::{PEER, Row, Sample};

/// Turns of each contestant.
const ROUNDS: usize = 31;
/// Squares, and products of transformers with few and with many rows.
const SHAPES: &str = "1024x1024x1024,4096x4096x4096,8192x8192x8192,1x4096x4096,1x8192x8192,16x4096x4096,16x8192x8192,64x8192x8192,\
                      128x4096x4096,512x4096x14336,2048x4096x4096,4096x14336x4096";

type Anyhow<T> = Result<T, String>;

fn argument(name: &str, default: &str) -> String {
    let mut all = std::env::args().skip_while(|a| a != name).skip(1);
    all.next().unwrap_or_else(|| default.into())
}

fn types(name: &str) -> Anyhow<Types> {
    Ok(match name {
        "f32" => (DType::F32, DType::F32, DType::F32),
        "f16" => (DType::F16, DType::F16, DType::F16),
        "bf16" => (DType::BF16, DType::BF16, DType::BF16),
        "s8s8" => (DType::I8, DType::I8, DType::I32),
        other => return Err(format!("{other:?} is not f32, f16, bf16 or s8s8")),
    })
}

fn main() {
    if std::env::args().any(|a| a == "--memory") {
        return end(latencies::open(), |driver| latencies::measure(&driver));
    }
    let device = cuda::devices().and_then(|found| {
        let first = found.first().ok_or("the driver knows no device")?;
        let driver = Nvidia::open(0).map_err(|e| e.to_string())?;
        GpuDevice::new(first.info(), driver).map_err(|e| e.to_string())
    });
    end(device, |device| measure(&device));
}

fn end<D>(device: Anyhow<D>, measure: impl FnOnce(D) -> Anyhow<()>) {
    let done = match device {
        Ok(device) => measure(device),
        Err(why) => return println!("SKIP the CUDA bench: {why}"),
    };
    if let Err(why) = done {
        println!("error: {why}");
        std::process::exit(1);
    }
}

fn measure(device: &GpuDevice<Nvidia>) -> Anyhow<()> {
    // Takes the context to this thread.
    device.reserve(1).map(|r| device.release(r)).map_err(|e| e.to_string())?;
    let machine = Machine::new()?;
    let peer = CublasLt::open().inspect_err(|why| println!("SKIP {PEER}: {why}")).ok();
    let bandwidth = machine.copy_gigabytes_per_second()?;
    println!("{}: copies at {bandwidth:.0} GB/s", device.info().name);
    let mut rows = Vec::new();
    for name in argument("--types", "f16,bf16,s8s8").split(',') {
        for text in argument("--shapes", SHAPES).split(',') {
            rows.extend(product(device, &machine, peer.as_ref(), name, shape(text)?)?);
        }
    }
    let roofs = report::roofs(&rows, bandwidth);
    let folder = PathBuf::from(argument("--out", "target/cuda-bench"));
    let say = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(say)?;
    std::fs::write(folder.join("products.tsv"), report::tsv(&rows, &roofs)).map_err(say)?;
    report::roofline(&rows, &roofs, &folder.join("roofline.svg")).map_err(|e| e.to_string())?;
    println!("{}", report::table(&rows, &roofs));
    for (dtype, mean, least) in report::summary(&rows) {
        println!("{dtype}: our best kernel over {PEER}: geometric mean {mean:.3}, least {least:.3}");
    }
    println!("records in {}", folder.display());
    Ok(())
}

/// All contestants at one product, in turns.
fn product(
    device: &GpuDevice<Nvidia>,
    machine: &Machine,
    peer: Option<&CublasLt>,
    name: &str,
    shape: [usize; 3],
) -> Anyhow<Vec<Row>> {
    let say = |e: halfbyte::Error| e.to_string();
    let (kinds, [m, n, k]) = (types(name)?, shape);
    let sizes = [(m * k, kinds.0), (k * n, kinds.1), (m * n, kinds.2)].map(|(n, t)| n * t.size_bytes());
    let bytes: usize = sizes.iter().sum();
    // Three times the last cache lie between two uses of the same bytes.
    let copies = (3 * device.info().caches.l2_bytes.max(1 << 20)).div_ceil(bytes).clamp(2, 64);
    let problem = ours::problem(kinds, shape).map_err(say)?;
    let mut contestants = Vec::new();
    for (kernel, problem) in ours::contestants(device, &problem) {
        match Ours::new(device, kernel, &problem, kinds, shape, copies) {
            Ok(made) => contestants.push((made, Vec::new())),
            Err(why) => println!("{} at {shape:?} {name}: {why}", kernel.name),
        }
    }
    let mut lt = peer.and_then(|peer| {
        let made = Peer::new(peer, machine, name, kinds, shape, copies);
        made.inspect_err(|why| println!("{PEER} at {shape:?} {name}: {why}")).ok().flatten()
    });
    let mut lt_times = Vec::new();
    // The first two turns load, warm up and capture.
    for round in 0..ROUNDS + 2 {
        for (ours, times) in &mut contestants {
            times.extend(Some(ours.time_us().map_err(say)?).filter(|_| round >= 2));
        }
        if let Some(lt) = &mut lt {
            lt_times.extend(Some(lt.time_us(machine)?).filter(|_| round >= 2));
        }
    }
    let row = |peer: &str, times: &[f64]| {
        let sample = Sample::of(times)?;
        Some(Row { peer: peer.into(), dtype: name.into(), shape, bytes: bytes as f64, sample })
    };
    let all = contestants.iter().map(|(ours, times)| row(ours.kernel.name, times)).chain([row(PEER, &lt_times)]);
    Ok(all.flatten().collect())
}

/// cuBLASLt at one product, with its fastest algorithm.
struct Peer<'a> {
    launch: Launch,
    memory: Vec<u64>,
    machine: &'a Machine,
    copies: usize,
}

impl<'a> Peer<'a> {
    /// `None` for types that it is not asked for.
    fn new(
        lt: &'a CublasLt,
        machine: &'a Machine,
        name: &str,
        kinds: Types,
        [m, n, k]: [usize; 3],
        copies: usize,
    ) -> Anyhow<Option<Peer<'a>>> {
        let Some(types) = cublaslt::types(name) else { return Ok(None) };
        let product = lt.product(types, [m, n, k])?;
        let say = |e: halfbyte::Error| e.to_string();
        let (a, w) = (ours::operand(kinds.0, m, k).map_err(say)?, ours::operand(kinds.1, n, k).map_err(say)?);
        let workspace = machine.allocate(WORKSPACE_BYTES)?;
        let (mut memory, mut sets) = (vec![workspace], Vec::new());
        for _ in 0..copies {
            let set = [
                machine.allocate(w.bytes().len())?,
                machine.allocate(a.bytes().len())?,
                machine.allocate(m * n * kinds.2.size_bytes())?,
            ];
            machine.write(set[0], w.bytes())?;
            machine.write(set[1], a.bytes())?;
            memory.extend(set);
            sets.push([set[0], set[1], set[2], workspace]);
        }
        let all = |with: &Heuristic| sets.iter().try_for_each(|&set| lt.run(&product, with, set, machine.stream()));
        let mut best: Option<(f64, Heuristic)> = None;
        for with in &product.algorithms {
            // The second of two, which is warm.
            let Ok(us) = all(with).and_then(|()| machine.time_us(|| all(with))) else { continue };
            if best.as_ref().is_none_or(|(least, _)| us < *least) {
                best = Some((us, *with));
            }
        }
        let (_, with) = best.ok_or("no algorithm runs")?;
        println!("{PEER} {name} {m}x{n}x{k}: best of {} algorithms", product.algorithms.len());
        let launch = machine.graph(|| all(&with))?;
        Ok(Some(Peer { launch, memory, machine, copies }))
    }

    fn time_us(&mut self, machine: &Machine) -> Anyhow<f64> {
        Ok(machine.time_us(|| (self.launch)())? / self.copies as f64)
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.memory.drain(..).for_each(|address| self.machine.free(address));
    }
}
