//! How the CPU's cores are arranged and clocked, as Linux tells it under /sys and /proc.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Cores, packages, memory nodes and clocks. What the system does not tell is `None`, and [`Topology::untold`] says why.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Topology {
    /// Cores that this process may use: affinity and container limits counted.
    pub usable_cores: usize,
    /// Hardware threads that are on.
    pub logical_cores: Option<usize>,
    /// Cores, each with one or more hardware threads.
    pub physical_cores: Option<usize>,
    /// Sockets.
    pub packages: Option<usize>,
    /// Memory nodes.
    pub numa: Vec<NumaNode>,
    /// Clock now, mean over all cores.
    pub current_mhz: Option<f64>,
    /// The fastest core's highest clock.
    pub max_mhz: Option<f64>,
    /// How often cores have slowed down because of heat since the system started.
    pub throttle_events: Option<u64>,
    /// What is missing, and why.
    pub untold: Vec<String>,
}

/// Memory with the cores close to it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NumaNode {
    /// The system's number.
    pub node: usize,
    /// Its cores, as a list of ranges.
    pub cores: String,
    /// Its memory.
    pub memory_bytes: u64,
}

impl Topology {
    /// This machine's.
    pub fn read() -> Self {
        let usable_cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Topology { usable_cores, ..Self::under(Path::new("/sys/devices/system"), Path::new("/proc")) }
    }

    fn under(sys: &Path, proc: &Path) -> Self {
        let cpus: Vec<PathBuf> =
            numbered(&sys.join("cpu"), "cpu").into_iter().map(|(_, p)| p).filter(|p| p.join("topology").is_dir()).collect();
        let distinct = |what: &str| {
            let all: BTreeSet<String> = cpus.iter().filter_map(|p| text(&p.join("topology").join(what))).collect();
            (!all.is_empty()).then_some(all.len())
        };
        let numbers = |what: &str| cpus.iter().filter_map(|p| text(&p.join(what))?.parse::<f64>().ok()).collect::<Vec<_>>();
        let mean = |v: &[f64]| (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64);
        // Files of the clock driver are in kHz.
        let driver_mhz = mean(&numbers("cpufreq/scaling_cur_freq")).map(|khz| khz / 1e3);
        let max_mhz = numbers("cpufreq/cpuinfo_max_freq").into_iter().reduce(f64::max).map(|khz| khz / 1e3);
        let throttled = numbers("thermal_throttle/core_throttle_count");
        let mut found = Topology {
            usable_cores: 0,
            logical_cores: (!cpus.is_empty()).then_some(cpus.len()),
            physical_cores: distinct("thread_siblings_list"),
            packages: distinct("physical_package_id"),
            numa: numa(&sys.join("node")),
            current_mhz: driver_mhz.or_else(|| mean(&cpuinfo_mhz(proc))),
            max_mhz,
            throttle_events: (!throttled.is_empty()).then(|| throttled.iter().sum::<f64>() as u64),
            untold: Vec::new(),
        };
        found.untold = found.missing(sys);
        found
    }

    fn missing(&self, sys: &Path) -> Vec<String> {
        let under = sys.display();
        let checks = [
            (self.physical_cores.is_none(), format!("cores and packages: {under}/cpu/cpu*/topology is absent")),
            (self.numa.is_empty(), format!("memory nodes: {under}/node is absent")),
            (self.current_mhz.is_none(), "current clock: neither cpufreq nor /proc/cpuinfo tells it".to_string()),
            (self.max_mhz.is_none(), format!("highest clock: {under}/cpu/cpu*/cpufreq is absent, as in most virtual machines")),
            (self.throttle_events.is_none(), format!("throttling: {under}/cpu/cpu*/thermal_throttle is absent")),
        ];
        checks.into_iter().filter_map(|(absent, why)| absent.then_some(why)).collect()
    }
}

fn text(file: &Path) -> Option<String> {
    Some(std::fs::read_to_string(file).ok()?.trim().to_string())
}

/// The entries of `folder` that are called `prefix` and a number, in order.
fn numbered(folder: &Path, prefix: &str) -> Vec<(usize, PathBuf)> {
    let number = |p: &Path| p.file_name()?.to_str()?.strip_prefix(prefix)?.parse::<usize>().ok();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<(usize, PathBuf)> = entries.filter_map(|p| Some((number(&p)?, p))).collect();
    found.sort();
    found
}

fn numa(folder: &Path) -> Vec<NumaNode> {
    let one = |(node, path): (usize, PathBuf)| {
        let meminfo = text(&path.join("meminfo")).unwrap_or_default();
        let total = meminfo.lines().find_map(|l| l.split_once("MemTotal:")).map(|(_, v)| v.trim_end_matches("kB").trim());
        let memory_bytes = total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10;
        Some(NumaNode { node, cores: text(&path.join("cpulist"))?, memory_bytes })
    };
    numbered(folder, "node").into_iter().filter_map(one).collect()
}

fn cpuinfo_mhz(proc: &Path) -> Vec<f64> {
    let info = text(&proc.join("cpuinfo")).unwrap_or_default();
    let values = info.lines().filter(|l| l.starts_with("cpu MHz")).filter_map(|l| l.split_once(':'));
    values.filter_map(|(_, v)| v.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn two_packages_of_one_core_with_two_threads_each() {
        let root = tempfile::tempdir().unwrap();
        for cpu in 0..4 {
            let (package, siblings) = if cpu % 2 == 0 { ("0\n", "0,2\n") } else { ("1\n", "1,3\n") };
            let own = |what: &str| format!("cpu/cpu{cpu}/{what}");
            let (mhz, throttled) = (format!("{}000\n", 1000 + 100 * cpu), format!("{cpu}\n"));
            let files = [
                (own("topology/physical_package_id"), package),
                (own("topology/thread_siblings_list"), siblings),
                (own("cpufreq/scaling_cur_freq"), &mhz),
                (own("cpufreq/cpuinfo_max_freq"), "3500000\n"),
                (own("thermal_throttle/core_throttle_count"), &throttled),
            ];
            write(root.path(), &files.each_ref().map(|(n, c)| (n.as_str(), *c)));
        }
        write(root.path(), &[("cpu/cpufreq/x", ""), ("node/node1/cpulist", "1,3\n"), ("node/node0/cpulist", "0,2\n")]);
        write(root.path(), &[("node/node0/meminfo", "Node 0 MemTotal:       2048 kB\nNode 0 MemFree: 1 kB\n")]);
        let found = Topology::under(root.path(), Path::new("/no/such/folder"));
        assert_eq!((found.logical_cores, found.physical_cores, found.packages), (Some(4), Some(2), Some(2)));
        assert_eq!((found.current_mhz, found.max_mhz, found.throttle_events), (Some(1150.0), Some(3500.0), Some(6)));
        let nodes: Vec<_> = found.numa.iter().map(|n| (n.node, n.cores.as_str(), n.memory_bytes)).collect();
        assert_eq!(nodes, [(0, "0,2", 2 << 20), (1, "1,3", 0)]);
        assert!(found.untold.is_empty(), "{:?}", found.untold);
    }

    #[test]
    fn a_system_that_tells_nothing_is_said_to() {
        let found = Topology::under(Path::new("/no/such/folder"), Path::new("/no/such/folder"));
        assert_eq!(found.untold.len(), 5, "{:?}", found.untold);
    }
}
