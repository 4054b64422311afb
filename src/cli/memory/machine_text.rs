//! The memory of a machine's devices in words.

use super::machine::{Gpu, Host, Machine};
use crate::base::size_text;
use crate::hardware::nvml::{Absent, Known, Process, Reading, Throttle};
use crate::memory::pressure::Level;

/// Everything, a block a device.
pub fn text(machine: &Machine) -> String {
    let mut blocks = vec![host(&machine.host)];
    blocks.extend(machine.gpus.iter().map(gpu));
    blocks.extend(machine.no_gpus.as_ref().map(|why| format!("GPUs: none: {why}\n")));
    blocks.join("\n")
}

/// A device's lines: a title, then names with what is told of them.
fn block(title: String, level: Level, lines: Vec<(&str, String)>) -> String {
    let line = |(name, value): &(&str, String)| format!("  {name:<12} {value}\n");
    let level = format!("{level:?}").to_lowercase();
    format!("{title}, memory pressure {level}\n") + &lines.iter().filter(|l| !l.1.is_empty()).map(line).collect::<String>()
}

/// Cells of the bar.
const BAR: usize = 32;

/// A bar that is as full as the memory, and the figures.
fn used(total_bytes: u64, free_bytes: u64) -> String {
    let used = total_bytes.saturating_sub(free_bytes);
    let share = used as f64 / total_bytes.max(1) as f64;
    let full = (share * BAR as f64).round() as usize;
    let bar = "█".repeat(full.min(BAR)) + &"░".repeat(BAR - full.min(BAR));
    let [used, total, free] = [used, total_bytes, free_bytes].map(size_text);
    format!("{bar} {:.0} %: {used} of {total} used, {free} free", share * 100.0)
}

fn host(host: &Host) -> String {
    let memory = &host.memory;
    let pair = |a: Option<u64>, b: Option<u64>| a.zip(b);
    let machine = pair(memory.total_bytes, memory.available_bytes);
    let machine = machine.map_or("not told by the system".into(), |(total, free)| used(total, free));
    let container = pair(memory.limit_bytes, memory.limited_used_bytes);
    let process = pair(memory.resident_bytes, memory.peak_resident_bytes);
    let lines = vec![
        ("memory", machine),
        ("container", container.map_or(String::new(), |(most, now)| used(most, most.saturating_sub(now)))),
        ("swapped", memory.swapped_bytes.filter(|b| *b > 0).map_or(String::new(), size_text)),
        (
            "this process",
            process.map_or(String::new(), |(now, most)| format!("{} resident, {} at most", size_text(now), size_text(most))),
        ),
    ];
    block(format!("CPU {}", host.cpu), host.level, lines)
}

fn gpu(gpu: &Gpu) -> String {
    let (reading, who) = (&gpu.reading, &gpu.identity);
    let index = who.index.map_or(String::new(), |i| format!(" {i}"));
    let memory = reading.memory.as_ref().map_or_else(Absent::to_string, |m| used(m.total_bytes, m.free_bytes));
    let mut lines = vec![
        ("memory", memory),
        ("busy", joined([of(&reading.gpu_busy_percent, "% kernels"), of(&reading.memory_busy_percent, "% memory")])),
        ("temperature", temperatures(reading)),
        ("power", power(reading)),
        ("clocks", joined([of(&reading.sm_clock_mhz, "MHz SM"), of(&reading.memory_clock_mhz, "MHz memory")])),
        ("throttled by", reading.throttle.as_ref().map_or(String::new(), |t| throttle(*t))),
        ("errors", errors(reading)),
        ("processes", reading.processes.as_ref().map_or(String::new(), |all| processes(all))),
        ("MIG", if reading.mig == Ok(true) { "split into instances".into() } else { String::new() }),
        ("not told", absent(reading)),
    ];
    lines.extend(gpu.advice.iter().map(|advice| {
        let saves = if advice.saves_bytes > 0 { format!(" (frees {})", size_text(advice.saves_bytes)) } else { String::new() };
        ("advice", format!("{}{saves}", advice.action))
    }));
    block(format!("GPU{index} {} ({})", who.name, who.uuid), gpu.level, lines)
}

/// Parts that there are.
fn joined<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ")
}

/// A field with its unit; empty where it is absent.
fn of<T: std::fmt::Display>(field: &Known<T>, unit: &str) -> String {
    field.as_ref().map_or(String::new(), |v| format!("{v} {unit}"))
}

fn temperatures(r: &Reading) -> String {
    let limit = |field: &Known<u32>, what: &str| field.as_ref().map_or(String::new(), |c| format!(" ({what} {c})"));
    let with = |now: String, limit: String| if now.is_empty() { now } else { now + &limit };
    joined([
        with(of(&r.gpu_temperature_c, "C GPU"), limit(&r.slowdown_c, "slows down at")),
        with(of(&r.memory_temperature_c, "C memory"), limit(&r.memory_max_c, "at most")),
    ])
}

fn power(r: &Reading) -> String {
    let watts = |field: &Known<u32>| field.as_ref().map_or("? W".into(), |mw| format!("{:.0} W", f64::from(*mw) / 1e3));
    match (&r.power_mw, &r.power_limit_mw) {
        (Err(_), Err(_)) => String::new(),
        (now, limit) => format!("{} of {}", watts(now), watts(limit)),
    }
}

fn throttle(reasons: Throttle) -> String {
    let names: Vec<String> = reasons.iter_names().map(|(name, _)| name.to_lowercase().replace('_', " ")).collect();
    // THERMAL and POWER are sums of others.
    let single = |name: &&String| !matches!(name.as_str(), "thermal" | "power");
    names.iter().filter(single).cloned().collect::<Vec<_>>().join(", ")
}

fn errors(r: &Reading) -> String {
    let remapped = r.remapped.as_ref().map_or(String::new(), |rows| {
        let state = if rows.failed {
            ", no spare row was left"
        } else if rows.pending {
            ", some wait for a reset"
        } else {
            ""
        };
        format!("{} rows remapped{state}", rows.correctable + rows.uncorrectable)
    });
    joined([of(&r.ecc_corrected_volatile, "corrected"), of(&r.ecc_uncorrected_volatile, "not corrected"), remapped])
}

fn processes(all: &[Process]) -> String {
    let one = |p: &Process| format!("{} {}", p.id, p.used_bytes.map_or("(not told)".into(), size_text));
    if all.is_empty() { "none".into() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Fields that are absent, by why.
fn absent(reading: &Reading) -> String {
    let fields = reading.fields();
    let mut reasons: Vec<&Absent> = fields.iter().filter_map(|f| f.1).collect();
    reasons.dedup();
    let mut told: Vec<String> = Vec::new();
    for why in reasons {
        let names: Vec<&str> = fields.iter().filter(|f| f.1 == Some(why)).map(|f| f.0).collect();
        let line = format!("{} ({why})", names.join(", "));
        if !told.contains(&line) {
            told.push(line);
        }
    }
    told.join("; ")
}
