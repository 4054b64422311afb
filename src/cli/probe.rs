//! `halfbyte probe`: what the machine has, and what it reaches.

use std::process::ExitCode;

use clap::Args;

use super::output::{print, print_json};
use crate::error::Result;
use crate::hardware::probe::{Probe, Section};

/// Arguments of `probe`.
#[derive(Args)]
pub struct ProbeArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn probe(args: &ProbeArgs) -> Result<ExitCode> {
    let probe = Probe::new();
    if args.json {
        print_json(&probe)?;
        return Ok(ExitCode::SUCCESS);
    }
    let c = &probe.cpu;
    print(&format!("CPU   {}, {} cores, {}", c.name, c.cores, c.capabilities));
    print(&format!("      caches {} / {} / {} KiB", c.caches.l1d_bytes >> 10, c.caches.l2_bytes >> 10, c.caches.l3_bytes >> 10));
    for p in &c.measured {
        let line = format!(
            "{:.0} GFLOP/s f32, {:.0} GOP/s int8, {:.1} GB/s read",
            p.peaks.f32_gflops, p.peaks.int8_gops, p.peaks.read_gbps
        );
        print(&format!("      measured on {} threads: {line}", p.threads));
    }
    section("CUDA", &probe.cuda, |d| {
        format!("{} (compute capability {}), {} SMs, {} MiB", d.name, d.compute_capability, d.sms, d.memory_bytes >> 20)
    });
    section("NVML", &probe.nvml, |d| {
        format!("{}: {} of {} MiB used, {}", d.name, d.used_bytes >> 20, d.total_bytes >> 20, d.state)
    });
    section("WGPU", &probe.wgpu, |a| format!("{} ({}, {}), {}", a.name, a.kind, a.backend, a.features.join(" ")));
    Ok(ExitCode::SUCCESS)
}

fn section<T>(name: &str, section: &Section<T>, line: impl Fn(&T) -> String) {
    match section {
        Section::Found(all) => all.iter().for_each(|d| print(&format!("{name}  {}", line(d)))),
        Section::Absent(why) => print(&format!("{name}  absent: {why}")),
    }
}
