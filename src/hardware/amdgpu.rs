//! AMD GPUs as Linux' driver tells of them under /sys/class/drm (the kernel's Documentation/gpu/amdgpu: driver-misc.rst and thermal.rst).

use std::path::{Path, PathBuf};

use super::nvml::{Absent, Identity, Known, Memory, Reading};

/// A device; each item is a new reading, of the fields that the driver has.
pub struct Device {
    /// `/sys/class/drm/card0/device`.
    folder: PathBuf,
    /// Its sensors.
    sensors: Option<PathBuf>,
}

/// All devices that tell of their memory.
pub fn devices() -> Vec<(Identity, Device)> {
    under(Path::new("/sys/class/drm"))
}

fn under(root: &Path) -> Vec<(Identity, Device)> {
    let cards = entries(root).into_iter().filter_map(|path| {
        let number: u32 = path.file_name()?.to_str()?.strip_prefix("card")?.parse().ok()?;
        let folder = path.join("device");
        let sensors = entries(&folder.join("hwmon")).into_iter().next();
        let told = |file: &str| text(&folder.join(file)).filter(|t| !t.is_empty());
        told("mem_info_vram_total")?;
        let slot = told("uevent").and_then(|all| all.lines().find_map(|l| l.strip_prefix("PCI_SLOT_NAME=").map(String::from)));
        let name = told("product_name").or_else(|| Some(format!("amdgpu {}", told("device")?)));
        let identity = Identity {
            index: Some(number),
            uuid: told("unique_id").or(slot).unwrap_or_default(),
            name: name.unwrap_or_else(|| "amdgpu".into()),
            minor: Some(number),
        };
        Some((identity, Device { folder, sensors }))
    });
    let mut all: Vec<_> = cards.collect();
    all.sort_by_key(|(identity, _)| identity.index);
    all
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

impl Device {
    /// A number of the device.
    fn number(&self, file: &str) -> Known<u64> {
        text(&self.folder.join(file)).and_then(|t| t.parse().ok()).ok_or(Absent::NotSupported)
    }

    /// A number of a sensor, in so many of its units.
    fn sensor(&self, file: &str, unit: u64) -> Known<u32> {
        let path = self.sensors.as_ref().ok_or(Absent::NotSupported)?.join(file);
        let value: u64 = text(&path).and_then(|t| t.parse().ok()).ok_or(Absent::NotSupported)?;
        Ok((value / unit) as u32)
    }

    /// A reading of now.
    pub fn read(&self) -> Reading {
        // Sensors tell thousandths of a degree, millionths of a watt, and Hz.
        const DEGREE: u64 = 1000;
        const MILLIWATT: u64 = 1000;
        const MEGAHERTZ: u64 = 1_000_000;
        let memory = self.number("mem_info_vram_total").and_then(|total_bytes| {
            let used_bytes = self.number("mem_info_vram_used")?;
            Ok(Memory { total_bytes, free_bytes: total_bytes.saturating_sub(used_bytes), used_bytes, reserved_bytes: None })
        });
        let percent = |file: &str| self.number(file).map(|p| p as u32);
        Reading {
            memory,
            gpu_busy_percent: percent("gpu_busy_percent"),
            memory_busy_percent: percent("mem_busy_percent"),
            gpu_temperature_c: self.sensor("temp1_input", DEGREE),
            memory_temperature_c: self.sensor("temp3_input", DEGREE),
            slowdown_c: self.sensor("temp1_crit", DEGREE),
            shutdown_c: self.sensor("temp1_emergency", DEGREE),
            memory_max_c: self.sensor("temp3_crit", DEGREE),
            power_mw: self.sensor("power1_average", MILLIWATT).or_else(|_| self.sensor("power1_input", MILLIWATT)),
            power_limit_mw: self.sensor("power1_cap", MILLIWATT),
            sm_clock_mhz: self.sensor("freq1_input", MEGAHERTZ),
            memory_clock_mhz: self.sensor("freq2_input", MEGAHERTZ),
            ..Reading::absent(Absent::NotSupported)
        }
    }
}

impl Iterator for Device {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        Some(self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_s_files_are_a_reading() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("card1/device/mem_info_vram_total", "17163091968\n"),
            ("card1/device/mem_info_vram_used", "163091968\n"),
            ("card1/device/gpu_busy_percent", "37\n"),
            ("card1/device/uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n"),
            ("card1/device/device", "0x73bf\n"),
            ("card1/device/hwmon/hwmon4/temp1_input", "54000\n"),
            ("card1/device/hwmon/hwmon4/power1_input", "88000000\n"),
            ("card1/device/hwmon/hwmon4/freq1_input", "2105000000\n"),
            ("card0/device/vendor", "0x8086\n"),
            ("card1-DP-1/status", "connected\n"),
        ];
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let [(identity, device)] = &under(root.path())[..] else { panic!("one device tells of its memory") };
        let who = (identity.index, identity.name.as_str(), identity.uuid.as_str());
        assert_eq!(who, (Some(1), "amdgpu 0x73bf", "0000:03:00.0"));
        let reading = device.read();
        let memory =
            Memory { total_bytes: 17_163_091_968, free_bytes: 17_000_000_000, used_bytes: 163_091_968, reserved_bytes: None };
        let expected = Reading {
            memory: Ok(memory),
            gpu_busy_percent: Ok(37),
            gpu_temperature_c: Ok(54),
            power_mw: Ok(88_000),
            sm_clock_mhz: Ok(2105),
            ..Reading::absent(Absent::NotSupported)
        };
        assert_eq!(reading, expected);
        assert!(under(Path::new("/nonexistent")).is_empty());
    }
}
