//! `halfbyte probe`, also `halfbyte-probe`: what the machine has, what it reaches, and which kernels it would run.

use std::process::ExitCode;

use clap::Args;

use super::args::gemm_dtypes;
use super::output::{print, print_json, table};
use super::problems;
use crate::base::size_text;
use crate::error::Result;
use crate::graph::Problem;
use crate::hardware::probe::{CpuSection, CudaDevice, Probe, Section, WgpuAdapter};
use crate::hardware::{DeviceInfo, DeviceKind, cpu};
use crate::kernel::{all, choose};

/// Arguments of `probe`.
#[derive(Args)]
pub struct ProbeArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Answer {
    #[serde(flatten)]
    probe: Probe,
    kernels: Vec<Chosen>,
}

/// What a device would run.
#[derive(serde::Serialize)]
struct Chosen {
    device: DeviceKind,
    name: String,
    picks: Vec<Pick>,
    /// Why there are no picks.
    none_yet: Option<String>,
}

#[derive(serde::Serialize)]
struct Pick {
    problem: String,
    kernel: Option<&'static str>,
    predicted_us: Option<f64>,
    /// Every kernel's reason, when none takes the problem.
    why_none: Option<String>,
}

/// Runs the subcommand.
pub fn probe(args: &ProbeArgs) -> Result<ExitCode> {
    let probe = Probe::new();
    let kernels = devices(&probe).iter().map(chosen).collect::<Result<_>>()?;
    let answer = Answer { probe, kernels };
    if args.json {
        print_json(&answer)?;
    } else {
        show(&answer);
    }
    Ok(ExitCode::SUCCESS)
}

/// The devices found, as the chooser sees them.
fn devices(probe: &Probe) -> Vec<DeviceInfo> {
    let mut all = vec![cpu::info(cpu::info(1).cores)];
    if let Section::Found(found) = &probe.cuda {
        all.extend(found.iter().map(CudaDevice::info));
    }
    if let Section::Found(found) = &probe.wgpu {
        all.extend(found.iter().map(WgpuAdapter::info));
    }
    all
}

/// A square product and a product with one row in each precision, and a convolution.
fn samples() -> Result<Vec<(String, Problem)>> {
    let mut all = Vec::new();
    for dtype in ["f32", "f16", "u8s8"] {
        for [m, n, k] in [[1024, 1024, 1024], [1, 4096, 4096]] {
            all.push((format!("gemm {dtype} {m}x{n}x{k}"), problems::gemm(gemm_dtypes(dtype)?, [m, n, k])?));
        }
    }
    all.push(("conv f32 1x64x56x56, 64 of 3x3".to_string(), problems::conv([1, 64, 56, 56, 64, 3])?));
    Ok(all)
}

fn chosen(info: &DeviceInfo) -> Result<Chosen> {
    let (device, name) = (info.kind, info.name.clone());
    if !all().any(|k| k.device == device) {
        let why = format!("none yet: this version has no {device:?} kernels").to_lowercase();
        return Ok(Chosen { device, name, picks: Vec::new(), none_yet: Some(why) });
    }
    let pick = |(problem, p): (String, Problem)| match choose(info, &p, None) {
        Ok(c) => Pick { problem, kernel: Some(c.kernel.name), predicted_us: Some(c.cost_us), why_none: None },
        Err(why) => Pick { problem, kernel: None, predicted_us: None, why_none: Some(why.to_string()) },
    };
    Ok(Chosen { device, name, picks: samples()?.into_iter().map(pick).collect(), none_yet: None })
}

fn show(answer: &Answer) {
    show_cpu(&answer.probe.cpu);
    section("CUDA", &answer.probe.cuda, |d| {
        let now = d.readings(&answer.probe.nvml).map_or(String::new(), |n| format!(", now {}", n.state));
        let vmm = match (d.vmm_granularity_bytes, &d.why_no_vmm) {
            (Some(bytes), _) => format!("virtual memory management in steps of {}", size_text(bytes)),
            (None, why) => format!("no virtual memory management: {}", why.as_deref().unwrap_or("not told")),
        };
        format!(
            "{}{now}, compute capability {}, {} SMs at {} MHz, {} at {:.0} GB/s, L2 {}, driver for CUDA {}, {vmm}",
            d.name,
            d.compute_capability,
            d.sms,
            d.clock_khz / 1000,
            size_text(d.memory_bytes as u64),
            d.memory_gbps,
            size_text(d.l2_bytes.max(0) as u64),
            d.driver
        )
    });
    section("NVML", &answer.probe.nvml, |d| {
        format!("{}: {} of {} MiB used, {}, driver {}", d.name, d.used_bytes >> 20, d.total_bytes >> 20, d.state, d.driver)
    });
    section("WGPU", &answer.probe.wgpu, |a| {
        let [least, most] = a.subgroup_sizes;
        let limits = format!(
            "subgroups of {least} to {most}, buffers up to {}, workgroups of {} with {}",
            size_text(a.max_buffer_bytes),
            a.max_workgroup_invocations,
            size_text(a.workgroup_storage_bytes.into())
        );
        format!("{} ({}, {}, {})\n      {limits}\n      {}", a.name, a.kind, a.backend, a.driver, a.features.join(" "))
    });
    for c in &answer.kernels {
        let kind = format!("{:?}", c.device).to_uppercase();
        match &c.none_yet {
            Some(why) => print(&format!("\nKernels on {kind} {}: {why}", c.name)),
            None => picks(&format!("\nKernels that would be chosen on {kind} {}:", c.name), &c.picks),
        }
    }
}

fn picks(title: &str, picks: &[Pick]) {
    print(title);
    let mut t = table(&["problem", "kernel", "predicted us"]);
    for p in picks {
        let kernel = p.kernel.map_or_else(|| format!("none: {}", p.why_none.as_deref().unwrap_or("")), str::to_string);
        t.add_row([p.problem.clone(), kernel, p.predicted_us.map_or(String::new(), |us| format!("{us:.0}"))]);
    }
    print(&t.to_string());
}

fn show_cpu(c: &CpuSection) {
    let t = &c.topology;
    let count = |n: Option<usize>| n.map_or("?".to_string(), |n| n.to_string());
    print(&format!("CPU   {}, {}", c.name, c.capabilities));
    print(&format!(
        "      cores: {} physical, {} logical, {} packages, {} usable here",
        count(t.physical_cores),
        count(t.logical_cores),
        count(t.packages),
        t.usable_cores
    ));
    for n in &t.numa {
        print(&format!("      memory node {}: cores {}, {}", n.node, n.cores, size_text(n.memory_bytes)));
    }
    let caches = [c.caches.l1d_bytes, c.caches.l2_bytes, c.caches.l3_bytes].map(|b| size_text(b as u64));
    print(&format!("      caches {}; memory {}", caches.join(" / "), size_text(c.memory_bytes)));
    let mhz = |v: Option<f64>| v.map_or("unknown".to_string(), |v| format!("{v:.0} MHz"));
    let throttled = t.throttle_events.map_or("throttling unknown".to_string(), |n| format!("throttled {n} times since start"));
    print(&format!("      clock {} now, {} at most, {throttled}", mhz(t.current_mhz), mhz(t.max_mhz)));
    t.untold.iter().for_each(|why| print(&format!("      untold: {why}")));
    for p in &c.measured {
        let peaks = &p.peaks;
        let line =
            format!("{:.0} GFLOP/s f32, {:.0} GOP/s int8, {:.1} GB/s read", peaks.f32_gflops, peaks.int8_gops, peaks.read_gbps);
        print(&format!("      measured on {} thread{}: {line}", p.threads, if p.threads == 1 { "" } else { "s" }));
    }
}

fn section<T>(name: &str, section: &Section<T>, line: impl Fn(&T) -> String) {
    match section {
        Section::Found(all) => all.iter().for_each(|d| print(&format!("{name}  {}", line(d)))),
        Section::Absent(why) => print(&format!("{name}  absent: {why}")),
    }
}
