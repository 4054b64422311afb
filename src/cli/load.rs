//! `halfbyte kernels --load`: every PTX text, assembled by this machine's NVIDIA driver.

use std::process::ExitCode;
use std::time::Instant;

use super::output::{print, print_json, table};
use crate::device::cuda::Nvidia;
use crate::device::gpu::{Driver, Module, Variant, variants};
use crate::error::{Error, Result};
use crate::hardware::{DeviceInfo, cuda};

/// What came of one text.
#[derive(serde::Serialize)]
struct Loaded {
    kernel: &'static str,
    target: &'static str,
    milliseconds: f64,
    registers: Option<i32>,
    /// Of local memory, for each thread: 0 unless the assembler spilled.
    local_bytes: Option<i32>,
    /// The assembler's words.
    error: Option<String>,
}

/// Loads each text that device `ordinal` runs. Fails when one does not load or spills; errors without a GPU.
pub fn load(ordinal: usize, json: bool) -> Result<ExitCode> {
    let missing = |why: String| Error::Device { device: format!("cuda:{ordinal}"), why };
    let found = cuda::devices().map_err(missing)?;
    let info = found.get(ordinal).ok_or_else(|| missing(format!("the driver knows {} devices", found.len())))?.info();
    let driver = Nvidia::open(ordinal)?;
    let runs = |v: &&Variant| v.needs().is_some_and(|needs| info.capabilities.contains(needs));
    let all: Vec<Loaded> = variants().iter().filter(runs).map(|v| one(&driver, v)).collect();
    let bad = all.iter().filter(|l| l.error.is_some() || l.local_bytes.is_some_and(|b| b > 0)).count();
    match json {
        true => print_json(&all)?,
        false => show(&info, &all, bad),
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(driver: &Nvidia, variant: &'static Variant) -> Loaded {
    let began = Instant::now();
    let loaded = Module::plain(variant).and_then(|module| driver.load(&module));
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    let usage = loaded.and_then(|function| driver.usage(&function));
    let [registers, local_bytes] = [0, 1].map(|i| usage.as_ref().ok().map(|u| u[i]));
    Loaded {
        kernel: variant.name,
        target: variant.target,
        milliseconds,
        registers,
        local_bytes,
        error: usage.err().map(|e| e.to_string()),
    }
}

fn show(info: &DeviceInfo, all: &[Loaded], bad: usize) {
    let mut t = table(&["kernel", "target", "ms", "registers", "local bytes", "log"]);
    let text = |n: Option<i32>| n.map_or(String::new(), |n| n.to_string());
    for l in all {
        let (ms, log) = (format!("{:.1}", l.milliseconds), l.error.clone().unwrap_or_default());
        t.add_row([l.kernel.to_string(), l.target.to_string(), ms, text(l.registers), text(l.local_bytes), log]);
    }
    print(&t.to_string());
    print(&format!("{}: {} of {} texts are for this device, {bad} bad", info.name, all.len(), variants().len()));
}
