//! Times burn's matrix products through wgpu on the shapes of `halfbyte bench gemm`, and checks their results.

use std::error::Error;
use std::time::{Duration, Instant};

use burn_tensor::{DType, Device, DeviceKind, Tensor, TensorData};

const HELP: &str = "\
Times burn's matrix products through wgpu, for comparison with `halfbyte bench gemm --device wgpu`

Usage: halfbyte-peers [OPTIONS]

Options:
      --shapes <SHAPES>    Shapes MxNxK, separated by commas [default: 256x256x256,512x512x512]
      --dtype <DTYPE>      f32, f16; separated by commas [default: f32, and f16 where the adapter has it]
      --adapter <ADAPTER>  default, cpu, or discrete:N, integrated:N, virtual:N [default: default]
      --seconds <SECONDS>  Measure each product for this long, and at least five times [default: 1]
      --json               Print JSON with the fields of `halfbyte bench gemm --json`, and more
  -h, --help               Print help

The library writes WGSL, or SPIR-V when this is built with `--features vulkan`. It tries its kernels when it meets a shape for the first time:
that call is reported apart.

Examples:
  halfbyte-peers --shapes 128x768x768 --json
  halfbyte-peers --adapter discrete:1 --shapes 4096x4096x4096 --dtype f16
  VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json halfbyte-peers --adapter cpu";

/// What computes: the path that burn was built with.
const KERNEL: &str = if cfg!(feature = "vulkan") { "burn-vulkan" } else { "burn-wgpu" };

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Args {
    shapes: Vec<[usize; 3]>,
    /// Those that the adapter has, when empty.
    dtypes: Vec<DType>,
    adapter: DeviceKind,
    budget: Duration,
    json: bool,
}

/// One product's times; `gflops` at the best of them, as `halfbyte bench gemm` has it.
struct Rate {
    dtype: DType,
    shape: [usize; 3],
    gflops: f64,
    best_us: f64,
    median_us: f64,
    first_call_ms: f64,
    /// The largest difference from a plain product on the sampled rows, over the sum of its terms' magnitudes.
    error: f64,
}

fn main() -> Result<()> {
    let Some(args) = arguments()? else {
        println!("{HELP}");
        return Ok(());
    };
    let device = device(args.adapter);
    eprintln!("{KERNEL} on {}", device.identity().map_or("an adapter without a name".into(), |i| i.name));
    let dtypes = match &args.dtypes[..] {
        [] => [DType::F32, DType::F16].into_iter().filter(|&d| device.supports_dtype(d)).collect(),
        given => given.to_vec(),
    };
    let cases = args.shapes.iter().flat_map(|&shape| dtypes.iter().map(move |&dtype| (shape, dtype)));
    let rates = cases.map(|(shape, dtype)| measure(shape, dtype, &device, args.budget)).collect::<Result<Vec<_>>>()?;
    if args.json {
        println!("[\n{}\n]", rates.iter().map(json).collect::<Vec<_>>().join(",\n"));
    } else {
        println!(
            "{:<16} {:<5} {:>9} {:>11} {:>11} {:>13} {:>8}",
            "M x N x K", "types", "GFLOP/s", "best us", "median us", "first call ms", "error"
        );
        rates.iter().for_each(row);
    }
    Ok(())
}

/// The command line; nothing when help is asked for.
fn arguments() -> Result<Option<Args>> {
    use lexopt::prelude::*;
    let mut args = Args {
        shapes: vec![[256; 3], [512; 3]],
        dtypes: Vec::new(),
        adapter: DeviceKind::DefaultDevice,
        budget: Duration::from_secs(1),
        json: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("shapes") => args.shapes = parser.value()?.parse_with(|s| s.split(',').map(shape).collect::<Result<_>>())?,
            Long("dtype") => args.dtypes = parser.value()?.parse_with(|s| s.split(',').map(dtype).collect::<Result<_>>())?,
            Long("adapter") => args.adapter = parser.value()?.parse_with(adapter)?,
            Long("seconds") => args.budget = parser.value()?.parse_with(seconds)?,
            Long("json") => args.json = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected().into()),
        }
    }
    Ok(Some(args))
}

fn shape(text: &str) -> Result<[usize; 3]> {
    let axes = text.split('x').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    let shape = <[usize; 3]>::try_from(axes).map_err(|_| "a shape is MxNxK")?;
    if shape.contains(&0) { Err("an axis of no elements".into()) } else { Ok(shape) }
}

fn dtype(text: &str) -> Result<DType> {
    match text {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        _ => Err(format!("{text} is neither f32 nor f16").into()),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

fn adapter(text: &str) -> Result<DeviceKind> {
    let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
    let number = number.parse()?;
    match kind {
        "default" => Ok(DeviceKind::DefaultDevice),
        "cpu" => Ok(DeviceKind::Cpu),
        "discrete" => Ok(DeviceKind::DiscreteGpu(number)),
        "integrated" => Ok(DeviceKind::IntegratedGpu(number)),
        "virtual" => Ok(DeviceKind::VirtualGpu(number)),
        _ => Err(format!("{text} is no kind of adapter").into()),
    }
}

fn device(adapter: DeviceKind) -> Device {
    #[cfg(feature = "vulkan")]
    return Device::vulkan(adapter);
    #[cfg(not(feature = "vulkan"))]
    Device::wgpu(adapter)
}

/// Times C = A B, A [m, k] and B [k, n], both on the device beforehand.
fn measure(shape: [usize; 3], dtype: DType, device: &Device, budget: Duration) -> Result<Rate> {
    let [m, n, k] = shape;
    let mut random = Random(1);
    let (a, b) = (random.values(m * k), random.values(k * n));
    let upload = |v: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), shape), (device, dtype));
    let (left, right) = (upload(&a, [m, k]), upload(&b, [k, n]));
    device.sync()?;
    // Of `calls` products one after the other, the time of one in microseconds: the wait for the device is shared by all.
    let time_us = |calls: usize| -> Result<f64> {
        let start = Instant::now();
        (0..calls).for_each(|_| drop(left.clone().matmul(right.clone())));
        device.sync()?;
        Ok(start.elapsed().as_secs_f64() * 1e6 / calls as f64)
    };
    let first_call_ms = time_us(1)? / 1e3;
    let error = error(&a, &b, shape, &left.clone().matmul(right.clone()).try_into_data()?.try_into_vec_as::<f32>()?);
    let calls = (10_000.0 / time_us(1)?).ceil().clamp(1.0, 100.0) as usize;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || start.elapsed() < budget {
        times.push(time_us(calls)?);
    }
    times.sort_by(f64::total_cmp);
    let bound = if dtype == DType::F16 { 1e-3 } else { 1e-6 };
    if error.is_nan() || error > bound {
        return Err(format!("{m}x{n}x{k} {dtype:?}: wrong results: {error:.1e} from a plain product, at most {bound:.0e}").into());
    }
    let (best_us, median_us) = (times[0], times[times.len() / 2]);
    Ok(Rate { dtype, shape, gflops: 2.0 * (m * n * k) as f64 / best_us / 1e3, best_us, median_us, first_call_ms, error })
}

/// Pseudo-random numbers by xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    /// Multiples of 1/64 in [-1, 1), which f16 holds exactly.
    fn values(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 57) as f32 / 64.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }
}

/// The largest error of `c` on up to eight rows from the first to the last, over the sum of its terms' magnitudes.
fn error(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], c: &[f32]) -> f64 {
    let sampled = m.min(8);
    let mut largest = 0.0f64;
    for row in (0..sampled).map(|i| i * (m - 1) / (sampled - 1).max(1)) {
        let (mut sums, mut magnitudes) = (vec![0.0; n], vec![0.0; n]);
        for (&a, b) in a[row * k..][..k].iter().zip(b.chunks_exact(n)) {
            for ((sum, magnitude), &b) in sums.iter_mut().zip(&mut magnitudes).zip(b) {
                let product = f64::from(a) * f64::from(b);
                *sum += product;
                *magnitude += product.abs();
            }
        }
        let errors = c[row * n..][..n].iter().zip(sums.iter().zip(&magnitudes));
        let of_row = errors.map(|(&c, (sum, magnitude))| (f64::from(c) - sum).abs() / magnitude.max(1.0));
        // In this order a NaN is the largest of all.
        largest = of_row.fold(largest, |l, e| if l.total_cmp(&e).is_lt() { e } else { l });
    }
    largest
}

fn name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "f32" }
}

fn json(r: &Rate) -> String {
    let Rate { dtype, shape: [m, n, k], gflops, best_us, median_us, first_call_ms, error } = r;
    format!(
        r#"  {{"kernel": "{KERNEL}", "dtype": "{}", "threads": 1, "m": {m}, "n": {n}, "k": {k}, "gflops": {gflops}, "share_of_peak": null, "best_us": {best_us}, "median_us": {median_us}, "first_call_ms": {first_call_ms}, "error": {error}}}"#,
        name(*dtype)
    )
}

fn row(r: &Rate) {
    let [m, n, k] = r.shape;
    println!(
        "{:<16} {:<5} {:>9.2} {:>11.1} {:>11.1} {:>13.1} {:>8.1e}",
        format!("{m}x{n}x{k}"),
        name(r.dtype),
        r.gflops,
        r.best_us,
        r.median_us,
        r.first_call_ms,
        r.error
    );
}
