//! Figures in Prometheus' text format (version 0.0.4): of devices under the names and units of NVIDIA's dcgm-exporter (its
//! default-counters.csv), of pools under our own.

use super::device::DriverCalls;
use super::{Owner, Stats};
use crate::base::exposition::{family, labels};
use crate::hardware::host::HostMemory;
use crate::hardware::nvml::{Identity, Known, Reading};

/// A metric of a device; a field that is absent gives no sample.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Reading) -> Option<f64>,
}

const fn metric(name: &'static str, kind: &'static str, help: &'static str, value: fn(&Reading) -> Option<f64>) -> Metric {
    Metric { name, kind, help, value }
}

fn known<T: Copy>(field: &Known<T>, number: impl FnOnce(T) -> f64) -> Option<f64> {
    field.as_ref().ok().map(|v| number(*v))
}

const MIB: f64 = (1 << 20) as f64;

#[rustfmt::skip]
const DEVICE: [Metric; 20] = [
    metric("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", |r| known(&r.sm_clock_mhz, f64::from)),
    metric("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", |r| known(&r.memory_clock_mhz, f64::from)),
    metric("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", |r| known(&r.memory_temperature_c, f64::from)),
    metric("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", |r| known(&r.gpu_temperature_c, f64::from)),
    metric("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", |r| known(&r.power_mw, |mw| f64::from(mw) / 1e3)),
    metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).", |r| known(&r.energy_mj, |mj| mj as f64)),
    metric("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", |r| known(&r.pcie_replays, f64::from)),
    metric("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", |r| known(&r.gpu_busy_percent, f64::from)),
    metric("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", |r| known(&r.memory_busy_percent, f64::from)),
    metric("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", |r| known(&r.memory, |m| m.free_bytes as f64 / MIB)),
    metric("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", |r| known(&r.memory, |m| m.used_bytes as f64 / MIB)),
    metric("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "counter", "Total number of single-bit volatile ECC errors.", |r| known(&r.ecc_corrected_volatile, |n| n as f64)),
    metric("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "Total number of double-bit volatile ECC errors.", |r| known(&r.ecc_uncorrected_volatile, |n| n as f64)),
    metric("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "counter", "Total number of single-bit persistent ECC errors.", |r| known(&r.ecc_corrected_aggregate, |n| n as f64)),
    metric("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "counter", "Total number of double-bit persistent ECC errors.", |r| known(&r.ecc_uncorrected_aggregate, |n| n as f64)),
    metric("DCGM_FI_DEV_RETIRED_SBE", "counter", "Total number of retired pages due to single-bit errors.", |r| known(&r.retired, |p| p.single_bit as f64)),
    metric("DCGM_FI_DEV_RETIRED_DBE", "counter", "Total number of retired pages due to double-bit errors.", |r| known(&r.retired, |p| p.double_bit as f64)),
    metric("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for uncorrectable errors", |r| known(&r.remapped, |p| f64::from(p.uncorrectable))),
    metric("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for correctable errors", |r| known(&r.remapped, |p| f64::from(p.correctable))),
    metric("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed", |r| known(&r.remapped, |p| f64::from(u8::from(p.failed)))),
];

/// A metric of a pool.
type PoolMetric = (&'static str, &'static str, fn(&Stats) -> f64);

const POOL: [PoolMetric; 5] = [
    ("halfbyte_mem_live_bytes", "Bytes in live blocks.", |s| s.live_bytes as f64),
    ("halfbyte_mem_reserved_bytes", "Bytes taken from the device.", |s| s.reserved_bytes as f64),
    ("halfbyte_mem_largest_free_bytes", "Largest free range.", |s| s.largest_free_bytes as f64),
    ("halfbyte_mem_padding_bytes", "Bytes of live blocks beyond what was asked for.", |s| s.padding_bytes as f64),
    ("halfbyte_mem_frag_ratio", "Share of free memory that is not in the largest range.", Stats::fragmentation),
];

/// The last readings of devices and figures of pools by name, on this host.
pub fn text(devices: &[(Identity, &Reading)], pools: &[(&str, Stats)], host: &str) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, value } in &DEVICE {
        let samples = devices.iter().filter_map(|(who, reading)| Some((device_labels(who, host), value(reading)?)));
        family(&mut text, name, kind, help, samples);
    }
    for (name, help, value) in POOL {
        family(&mut text, name, "gauge", help, pools.iter().map(|(pool, stats)| (labels(&[("pool", pool)]), value(stats))));
    }
    let rungs = pools.iter().flat_map(|(pool, stats)| {
        let one = |rung: &super::RungCount| (labels(&[("pool", pool), ("rung", rung.rung.name())]), rung.tried);
        stats.rungs.iter().map(one)
    });
    family(&mut text, "halfbyte_oom_ladder_total", "counter", "Times that a rung of the out-of-memory ladder was tried.", rungs);
    let calls = pools
        .iter()
        .flat_map(|(pool, stats)| calls(&stats.calls).map(|(call, n)| (labels(&[("pool", pool), ("call", call)]), n)));
    family(&mut text, "halfbyte_driver_calls_total", "counter", "Calls of the driver.", calls);
    text
}

/// What accounts hold, by pool.
pub fn accounts(pools: &[(&str, Vec<Owner>)]) -> String {
    let mut text = String::new();
    let samples = pools.iter().flat_map(|(pool, owners)| {
        owners.iter().map(move |o| (labels(&[("pool", pool), ("account", &o.account)]), o.live_bytes))
    });
    family(&mut text, "halfbyte_mem_account_bytes", "gauge", "Bytes in live blocks of an account.", samples);
    text
}

/// The host's memory under the names of Prometheus' node_exporter, this process' under those of its clients.
pub fn host(memory: &HostMemory) -> String {
    let gauges = [
        ("node_memory_MemTotal_bytes", "Memory information field MemTotal_bytes.", memory.total_bytes),
        ("node_memory_MemAvailable_bytes", "Memory information field MemAvailable_bytes.", memory.available_bytes),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", memory.resident_bytes),
    ];
    let told = gauges.iter().filter_map(|(name, help, value)| Some((name, help, (*value)?)));
    told.map(|(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n")).collect()
}

fn device_labels(who: &Identity, host: &str) -> String {
    let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
    let (index, device) = (number(who.index), who.minor.map(|n| format!("nvidia{n}")).unwrap_or_default());
    labels(&[("gpu", &index), ("UUID", &who.uuid), ("device", &device), ("modelName", &who.name), ("Hostname", host)])
}

fn calls(calls: &DriverCalls) -> [(&'static str, u64); 10] {
    let DriverCalls { allocate, free, reserve, create, map, set_access, unmap, release, wait, copy } = *calls;
    [
        ("allocate", allocate),
        ("free", free),
        ("reserve", reserve),
        ("create", create),
        ("map", map),
        ("set_access", set_access),
        ("unmap", unmap),
        ("release", release),
        ("wait", wait),
        ("copy", copy),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::nvml::{Absent, Memory};
    use crate::memory::{Rung, RungCount};

    fn stats() -> Stats {
        Stats {
            live_bytes: 60,
            peak_live_bytes: 70,
            reserved_bytes: 100,
            peak_reserved_bytes: 100,
            free_bytes: 40,
            largest_free_bytes: 30,
            padding_bytes: 4,
            requests: 9,
            calls: DriverCalls { create: 3, map: 5, ..DriverCalls::default() },
            rungs: vec![RungCount { rung: Rung::OtherStream, tried: 2, helped: 1, time_us: 8 }],
        }
    }

    #[test]
    fn readings_have_the_names_and_units_of_dcgm_exporter() {
        let memory = Memory { total_bytes: 8 << 30, free_bytes: 6 << 30, used_bytes: 3 << 29, reserved_bytes: None };
        let absent = Reading::absent(Absent::NotSupported);
        let one = Reading { memory: Ok(memory), power_mw: Ok(312_500), energy_mj: Ok(9_007_199_254_740_991), ..absent.clone() };
        let name = "NVIDIA \"H200\" \\ line\nbreak".to_string();
        let first = Identity { index: Some(0), uuid: "GPU-a".into(), name, minor: Some(2) };
        let second = Identity { uuid: "GPU-b".into(), ..Identity::default() };
        let two = Reading { power_mw: Ok(1), ..absent };
        let labels = r#"{gpu="0",UUID="GPU-a",device="nvidia2",modelName="NVIDIA \"H200\" \\ line\nbreak",Hostname="host"}"#;
        let expected = format!(
            r#"# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{labels} 312.5
DCGM_FI_DEV_POWER_USAGE{{gpu="",UUID="GPU-b",device="",modelName="",Hostname="host"}} 0.001
# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{labels} 9007199254740991
# HELP DCGM_FI_DEV_FB_FREE Framebuffer memory free (in MiB).
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{labels} 6144
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{labels} 1536
"#
        );
        assert_eq!(text(&[(first, &one), (second, &two)], &[], "host"), expected);
    }

    #[test]
    fn pools_have_metrics_of_their_own() {
        let all = text(&[], &[("cuda:0", stats())], "host");
        let expected = r#"# HELP halfbyte_mem_live_bytes Bytes in live blocks.
# TYPE halfbyte_mem_live_bytes gauge
halfbyte_mem_live_bytes{pool="cuda:0"} 60
# HELP halfbyte_mem_reserved_bytes Bytes taken from the device.
# TYPE halfbyte_mem_reserved_bytes gauge
halfbyte_mem_reserved_bytes{pool="cuda:0"} 100
# HELP halfbyte_mem_largest_free_bytes Largest free range.
# TYPE halfbyte_mem_largest_free_bytes gauge
halfbyte_mem_largest_free_bytes{pool="cuda:0"} 30
# HELP halfbyte_mem_padding_bytes Bytes of live blocks beyond what was asked for.
# TYPE halfbyte_mem_padding_bytes gauge
halfbyte_mem_padding_bytes{pool="cuda:0"} 4
# HELP halfbyte_mem_frag_ratio Share of free memory that is not in the largest range.
# TYPE halfbyte_mem_frag_ratio gauge
halfbyte_mem_frag_ratio{pool="cuda:0"} 0.25
# HELP halfbyte_oom_ladder_total Times that a rung of the out-of-memory ladder was tried.
# TYPE halfbyte_oom_ladder_total counter
halfbyte_oom_ladder_total{pool="cuda:0",rung="other_stream"} 2
# HELP halfbyte_driver_calls_total Calls of the driver.
# TYPE halfbyte_driver_calls_total counter
halfbyte_driver_calls_total{pool="cuda:0",call="allocate"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="free"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="reserve"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="create"} 3
halfbyte_driver_calls_total{pool="cuda:0",call="map"} 5
halfbyte_driver_calls_total{pool="cuda:0",call="set_access"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="unmap"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="release"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="wait"} 0
halfbyte_driver_calls_total{pool="cuda:0",call="copy"} 0
"#;
        assert_eq!(all, expected);
        assert_eq!(text(&[], &[], "host"), "");
        let owner = Owner { account: "cuda:0/bert".into(), live_bytes: 60, blocks: 2 };
        let sample = "halfbyte_mem_account_bytes{pool=\"cuda:0\",account=\"cuda:0/bert\"} 60\n";
        assert!(accounts(&[("cuda:0", vec![owner])]).ends_with(sample));
    }

    #[test]
    fn a_host_tells_what_it_knows() {
        let memory = HostMemory { total_bytes: Some(9), resident_bytes: Some(4), ..HostMemory::default() };
        let lines: Vec<_> = host(&memory).lines().filter(|l| !l.starts_with('#')).map(String::from).collect();
        assert_eq!(lines, ["node_memory_MemTotal_bytes 9", "process_resident_memory_bytes 4"]);
    }
}
