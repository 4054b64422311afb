//! The host's memory, this process' part of it and the limit of its container, as Linux tells them under /proc and /sys.

use std::path::Path;

/// The host's memory; what the system does not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HostMemory {
    /// The machine's.
    pub total_bytes: Option<u64>,
    /// What new work could have without swapping.
    pub available_bytes: Option<u64>,
    /// Memory that was written to disk.
    pub swapped_bytes: Option<u64>,
    /// The most that this process' control group may have: of the container, where there is one.
    pub limit_bytes: Option<u64>,
    /// What the group has, files that can be read again left out.
    pub limited_used_bytes: Option<u64>,
    /// Of this process, in memory.
    pub resident_bytes: Option<u64>,
    /// The most it ever was.
    pub peak_resident_bytes: Option<u64>,
}

impl HostMemory {
    /// Of this moment.
    pub fn read() -> Self {
        Self::under(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }

    fn under(proc: &Path, groups: &Path) -> Self {
        let [memory, status, group] = ["meminfo", "self/status", "self/cgroup"].map(|file| text(&proc.join(file)));
        let limited = group.lines().find_map(|l| l.strip_prefix("0::")).and_then(|own| limited(groups, own));
        let swapped = field(&memory, "SwapTotal:").zip(field(&memory, "SwapFree:"));
        HostMemory {
            total_bytes: field(&memory, "MemTotal:"),
            available_bytes: field(&memory, "MemAvailable:"),
            swapped_bytes: swapped.map(|(all, free)| all.saturating_sub(free)),
            limit_bytes: limited.map(|l| l.0),
            limited_used_bytes: limited.map(|l| l.1),
            resident_bytes: field(&status, "VmRSS:"),
            peak_resident_bytes: field(&status, "VmHWM:"),
        }
    }

    /// All bytes and free ones, of the container where that has fewer left.
    pub fn room(&self) -> Option<(u64, u64)> {
        let machine = self.total_bytes.zip(self.available_bytes);
        let container = self.limit_bytes.zip(self.limited_used_bytes).map(|(all, used)| (all, all.saturating_sub(used)));
        machine.into_iter().chain(container).min_by_key(|room| room.1)
    }
}

/// An empty text where the file cannot be read.
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A line of kB, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The tightest limit of a control group (version 2) and those above it, and what that one uses.
fn limited(groups: &Path, own: &str) -> Option<(u64, u64)> {
    let own = Path::new(own.trim().trim_start_matches('/'));
    let one = |part: &Path| {
        let folder = groups.join(part);
        let number = |file: &str| text(&folder.join(file)).trim().parse::<u64>().ok();
        let files = text(&folder.join("memory.stat"));
        let files = files.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
        let used = number("memory.current")?.saturating_sub(files.unwrap_or(0));
        Some((number("memory.max")?, used))
    };
    own.ancestors().filter_map(one).min_by_key(|(most, used)| most.saturating_sub(*used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_container_decides_where_it_has_less_left() {
        let root = tempfile::tempdir().unwrap();
        let machine = "MemTotal:  8192 kB\nMemFree: 1 kB\nMemAvailable:  4096 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
        let process = "VmHWM:\t    30 kB\nVmRSS:\t    20 kB\n";
        write(root.path(), &[("proc/meminfo", machine), ("proc/self/status", process), ("proc/self/cgroup", "0::/a/b\n")]);
        let read = || HostMemory::under(&root.path().join("proc"), &root.path().join("groups"));
        let mut expected = HostMemory {
            total_bytes: Some(8 << 20),
            available_bytes: Some(4 << 20),
            swapped_bytes: Some(6 << 10),
            resident_bytes: Some(20 << 10),
            peak_resident_bytes: Some(30 << 10),
            ..HostMemory::default()
        };
        assert_eq!((read(), read().room()), (expected, Some((8 << 20, 4 << 20))));
        let groups = [
            ("groups/a/memory.max", "1048576\n"),
            ("groups/a/memory.current", "900000"),
            ("groups/a/memory.stat", "anon 5\ninactive_file 100000\n"),
            ("groups/a/b/memory.max", "max\n"),
            ("groups/a/b/memory.current", "7"),
        ];
        write(root.path(), &groups);
        expected = HostMemory { limit_bytes: Some(1 << 20), limited_used_bytes: Some(800_000), ..expected };
        assert_eq!((read(), read().room()), (expected, Some((1 << 20, (1 << 20) - 800_000))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory() {
        let host = HostMemory::read();
        assert!(host.resident_bytes > Some(1 << 20) && host.peak_resident_bytes >= host.resident_bytes, "{host:?}");
        assert!(host.room().is_some_and(|(all, free)| free < all), "{host:?}");
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(HostMemory::under(nowhere, nowhere), HostMemory::default());
        assert_eq!(HostMemory::default().room(), None);
    }
}
