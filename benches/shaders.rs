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
    let (model, a) = product((DType::F32, DType::F32), [128, 128, 128], false)?;
    let session = Session::with_device(&model, Options::default(), Arc::new(device))?;
    session.run(&[("a", a.view())])?;
    let first_ms = began.elapsed().as_secs_f64() * 1e3;
    println!("{} ({})", about.name, about.driver);
    println!("device opened after {opened_ms:.0} ms, first result of a 128 x 128 x 128 product after {first_ms:.0} ms");
    let (ours_us, one_us, each_us) = (encode_us(&driver)?, bare_us(&adapters[0], 1)?, bare_us(&adapters[0], DISPATCHES)?);
    println!("encoding and submitting, us a dispatch of {DISPATCHES}: {ours_us:.2}");
    println!("  wgpu by itself, one bind group: {one_us:.2} (ratio {:.2})", ours_us / one_us);
    println!("  wgpu by itself, a bind group each: {each_us:.2} (ratio {:.2})", ours_us / each_us);
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
    least_us(|| {
        driver.synchronize()?;
        let began = Instant::now();
        graph.replay()?;
        // Submits what waits.
        driver.write(to, &[0; 4])?;
        Ok(began)
    })
}

/// Microseconds a dispatch from when a round says that it began until it has returned, the least of some rounds.
fn least_us(mut round: impl FnMut() -> Anyhow<Instant>) -> Anyhow<f64> {
    let mut us = |_| Ok(round()?.elapsed().as_secs_f64() * 1e6 / DISPATCHES as f64);
    let all = (0..50).map(&mut us).collect::<Anyhow<Vec<f64>>>()?;
    Ok(all.into_iter().fold(f64::INFINITY, f64::min))
}

/// The same of wgpu by itself, which is what the driver cannot do without: one pipeline with two buffers and arguments, as the kernel
/// above has, and so many bind groups in turn.
fn bare_us(adapter: &wgpu::Adapter, groups: usize) -> Anyhow<f64> {
    use wgpu::BufferUsages as Usage;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let text = "@group(0) @binding(0) var<uniform> n: vec4<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @group(0) @binding(2) var<storage, read_write> x: array<u32>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) t: u32) { y[t] = x[t] + n.x; }";
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let buffer =
        |usage| device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false });
    let buffers = [buffer(Usage::UNIFORM), buffer(Usage::STORAGE | Usage::COPY_DST), buffer(Usage::STORAGE)];
    let entries = [0, 1, 2].map(|i| wgpu::BindGroupEntry { binding: i, resource: buffers[i as usize].as_entire_binding() });
    let layout = pipeline.get_bind_group_layout(0);
    let group = |_| device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
    let groups: Vec<_> = (0..groups).map(group).collect();
    least_us(|| {
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let began = Instant::now();
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            for i in 0..DISPATCHES {
                pass.set_bind_group(0, &groups[i % groups.len()], &[]);
                pass.dispatch_workgroups(1, 1, 1);
            }
        }
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::Poll)?;
        queue.write_buffer(&buffers[1], 0, &[0; 4]);
        Ok(began)
    })
}
