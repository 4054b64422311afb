//! What the wgpu device costs besides its kernels: from nothing to a first result, and to submit a dispatch. `cargo bench --bench shaders`.
//! Kernels are timed by `halfbyte bench gemm --device wgpu`, which compares them with `--kernel`.

use std::sync::Arc;
use std::time::Instant;

use halfbyte::cli::bench_gemm::product;
use halfbyte::device::gpu::{Arg, Driver, Finish, GpuDevice, Launch, Pointer, Resolved, Value, Variant};
use halfbyte::device::wgpu::{Checks, Settings, Wgpu};
use halfbyte::graph::Type;
use halfbyte::hardware::wgpu::{described, opened};
use halfbyte::scalar::arg;
use halfbyte::{DType, Options, Session};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Dispatches in one submission.
const DISPATCHES: usize = 1000;

fn main() -> Anyhow<()> {
    let began = Instant::now();
    let adapters = match opened() {
        Ok(found) => found,
        Err(why) => {
            println!("SKIP the wgpu device: {why}");
            return Ok(());
        }
    };
    let about = described(&adapters[0]);
    let driver = Wgpu::open(&adapters[0], Settings { checks: Checks::None, ..Settings::default() })?;
    let device = GpuDevice::new(about.info(), driver.clone())?;
    let opened_ms = began.elapsed().as_secs_f64() * 1e3;
    let (model, a) = product((DType::F32, DType::F32), [128, 128, 128])?;
    let session = Session::with_device(&model, Options::default(), Arc::new(device))?;
    session.run(&[("a", a.view())])?;
    let first_ms = began.elapsed().as_secs_f64() * 1e3;
    println!("{} ({})", about.name, about.driver);
    println!("device opened after {opened_ms:.0} ms, first result of a 128 x 128 x 128 product after {first_ms:.0} ms");
    println!("encoding and submitting: {:.2} us a dispatch, {DISPATCHES} at once", encode_us(&driver)?);
    Ok(())
}

/// Microseconds of the host for a dispatch of a captured plan; the device works meanwhile.
fn encode_us(driver: &Wgpu) -> Anyhow<f64> {
    let ty = Type::new(DType::F32, [64]);
    let finish = Arc::new(Finish::new(None, &(arg(0) + 1.0), std::slice::from_ref(&ty), &ty)?);
    let (from, to) = (driver.allocate(256)?, driver.allocate(256)?);
    let variant = Variant::named("scalar");
    let launch = Launch::new(variant, [1, 1, 1], vec![Arg::U32(64)]).finished(&finish, Pointer::Null, &[]);
    let function = driver.load(&launch.module)?;
    let mut block = vec![0; 336];
    block[..8].copy_from_slice(&to.to_le_bytes());
    block[8..16].copy_from_slice(&from.to_le_bytes());
    let values = [Value::Bytes(64u32.to_le_bytes().to_vec()), Value::Bytes(block)];
    let resolved = || Resolved { module: &launch.module, grid: [1, 1, 1], values: &values };
    let all: Vec<_> = (0..DISPATCHES).map(|_| (&function, resolved())).collect();
    let graph = driver.capture(&all)?.ok_or("the driver captures nothing")?;
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        driver.synchronize()?;
        let began = Instant::now();
        graph.replay()?;
        // Submits what waits.
        driver.write(to, &[0; 4])?;
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / DISPATCHES as f64);
    }
    Ok(best)
}
