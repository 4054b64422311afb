//! NVML's real wrapper over a library in its place: each call that is used, with its symbol missing and with every error code.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use halfbyte::hardware::nvml::{Absent, Device, Identity, Memory, Process, Reading, Remapped, Retired, Throttle};
use tempfile::TempDir;

const UUID: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";
const MIB: u64 = 1 << 20;

/// The library as it was built; `None` where no compiler runs.
fn built() -> Option<&'static [u8]> {
    static BUILT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let build = || {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libfake.so");
        let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        compiler.args(["--edition", "2024", "-C", "strip=symbols", "-o"]).arg(&library).arg("tests/nvml/fake_nvml.rs");
        match compiler.output() {
            Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
            Err(why) => {
                println!("SKIP a library in NVML's place: rustc cannot run: {why}");
                return None;
            }
        }
        Some(std::fs::read(library).unwrap())
    };
    BUILT.get_or_init(build).as_deref()
}

/// A copy of the library with state of its own.
struct Fake {
    _folder: TempDir,
    path: PathBuf,
    library: libloading::Library,
}

impl Fake {
    /// Without the symbol of this name, where one is given: another name of the same length stands in its place.
    fn new(without: Option<&str>) -> Option<Self> {
        let mut bytes = built()?.to_vec();
        if let Some(name) = without {
            let name = [&[0], name.as_bytes(), &[0]].concat();
            let places: Vec<_> = bytes.windows(name.len()).enumerate().filter(|w| w.1 == name).map(|w| w.0).collect();
            assert!(!places.is_empty(), "the library has the symbol");
            places.iter().for_each(|at| bytes[at + 1] = b'x');
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnvidia-ml.so.1");
        std::fs::write(&path, bytes).unwrap();
        // SAFETY: the library runs nothing when it is loaded.
        let library = unsafe { libloading::Library::new(&path) }.unwrap();
        Some(Fake { _folder: folder, path, library })
    }

    fn names(&self) -> Vec<String> {
        // SAFETY: the type is the library's; a name lives as long as it.
        let name = unsafe { self.library.get::<extern "C" fn(u32) -> *const c_char>(b"fake_name") }.unwrap();
        let all = (0..).map(|i| name(i)).take_while(|n| !n.is_null());
        // SAFETY: as above.
        all.map(|n| unsafe { CStr::from_ptr(n) }.to_str().unwrap().into()).collect()
    }

    fn fault(&self, call: usize, code: u32) {
        // SAFETY: the type is the library's.
        unsafe { self.library.get::<extern "C" fn(u32, u32)>(b"fake_fault") }.unwrap()(call as u32, code);
    }

    fn calls(&self) -> Vec<u32> {
        // SAFETY: the type is the library's.
        let calls = unsafe { self.library.get::<extern "C" fn(u32) -> u32>(b"fake_calls") }.unwrap();
        (0..self.names().len()).map(|i| calls(i as u32)).collect()
    }

    fn open(&self) -> Result<Device, String> {
        Device::open_at(&self.path, UUID)
    }
}

fn absent(reading: &Reading) -> Vec<(&'static str, Absent)> {
    reading.fields().into_iter().filter_map(|(name, why)| Some((name, why?.clone()))).collect()
}

/// Fields that need a call; empty for those that no field needs.
fn fields_of(call: &str) -> &'static [&'static str] {
    match call {
        "nvmlDeviceGetUtilizationRates" => &["gpu_busy_percent", "memory_busy_percent"],
        "nvmlDeviceGetTemperature" => &["gpu_temperature_c"],
        "nvmlDeviceGetTemperatureThreshold" => &["slowdown_c", "shutdown_c", "memory_max_c"],
        "nvmlDeviceGetFieldValues" => &["memory_temperature_c"],
        "nvmlDeviceGetPowerUsage" => &["power_mw"],
        "nvmlDeviceGetEnforcedPowerLimit" => &["power_limit_mw"],
        "nvmlDeviceGetTotalEnergyConsumption" => &["energy_mj"],
        "nvmlDeviceGetClockInfo" => &["sm_clock_mhz", "memory_clock_mhz"],
        "nvmlDeviceGetCurrentClocksThrottleReasons" => &["throttle"],
        "nvmlDeviceGetTotalEccErrors" => {
            &["ecc_corrected_volatile", "ecc_uncorrected_volatile", "ecc_corrected_aggregate", "ecc_uncorrected_aggregate"]
        }
        "nvmlDeviceGetRetiredPages" | "nvmlDeviceGetRetiredPages_v2" => &["retired"],
        "nvmlDeviceGetRemappedRows" => &["remapped"],
        "nvmlDeviceGetPcieReplayCounter" => &["pcie_replays"],
        "nvmlDeviceGetComputeRunningProcesses_v3" => &["processes"],
        "nvmlDeviceGetMigMode" => &["mig"],
        _ => &[],
    }
}

fn is_whole(call: &str) -> bool {
    ["nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetHandleByUUID"].contains(&call)
}

#[test]
fn every_field_is_read() {
    let Some(fake) = Fake::new(None) else { return };
    let mut device = fake.open().unwrap();
    let expected = Reading {
        lost: None,
        memory: Ok(Memory {
            total_bytes: 1000 * MIB,
            free_bytes: 600 * MIB,
            used_bytes: 390 * MIB,
            reserved_bytes: Some(10 * MIB),
        }),
        gpu_busy_percent: Ok(87),
        memory_busy_percent: Ok(42),
        gpu_temperature_c: Ok(61),
        memory_temperature_c: Ok(70),
        slowdown_c: Ok(92),
        shutdown_c: Ok(95),
        memory_max_c: Ok(105),
        power_mw: Ok(312_500),
        power_limit_mw: Ok(700_000),
        energy_mj: Ok(5_000_000_000),
        sm_clock_mhz: Ok(1755),
        memory_clock_mhz: Ok(2619),
        throttle: Ok(Throttle::SOFTWARE_POWER_CAP | Throttle::SOFTWARE_THERMAL),
        ecc_corrected_volatile: Ok(0),
        ecc_uncorrected_volatile: Ok(10),
        ecc_corrected_aggregate: Ok(1),
        ecc_uncorrected_aggregate: Ok(11),
        retired: Ok(Retired { single_bit: 2, double_bit: 1 }),
        remapped: Ok(Remapped { correctable: 1, uncorrectable: 2, pending: true, failed: false }),
        pcie_replays: Ok(5),
        processes: Ok(vec![Process { id: 100, used_bytes: Some(300 * MIB) }, Process { id: 200, used_bytes: None }]),
        mig: Ok(false),
    };
    assert_eq!(device.read(), expected);
    let called: Vec<_> = fake.names().into_iter().zip(fake.calls()).filter(|c| c.1 == 0).map(|c| c.0).collect();
    let identity = ["nvmlDeviceGetIndex", "nvmlDeviceGetName", "nvmlDeviceGetMinorNumber"];
    let listing = ["nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"];
    let later = [identity.as_slice(), &listing, &["nvmlShutdown", "nvmlDeviceGetMemoryInfo"]].concat();
    assert!(called.iter().all(|c| later.contains(&c.as_str())), "each call of the fake is used: {called:?}");
    let name = Identity { index: Some(3), uuid: UUID.into(), name: "Fake \"GPU\"".into(), minor: Some(1) };
    assert_eq!(device.identity(), name);
}

#[test]
fn a_symbol_that_is_missing_takes_its_own_fields_alone() {
    let Some(whole) = Fake::new(None) else { return };
    for call in whole.names() {
        let fake = Fake::new(Some(&call)).unwrap();
        let mut device = match fake.open() {
            Err(why) => {
                assert!(is_whole(&call) && why.contains("NVML cannot be used"), "{call}: {why}");
                continue;
            }
            Ok(device) => device,
        };
        let (first, second) = (device.read(), device.read());
        assert_eq!(first, second, "{call}");
        assert!(absent(&first).iter().all(|a| a.1 == Absent::NoSymbol), "{call}: {:?}", absent(&first));
        let names: Vec<_> = absent(&first).iter().map(|a| a.0).collect();
        match call.as_str() {
            "nvmlDeviceGetHandleByUUID" => assert_eq!(names.len(), first.fields().len()),
            "nvmlDeviceGetMemoryInfo_v2" => assert_eq!(first.memory.clone().unwrap().reserved_bytes, None),
            _ => assert_eq!(names, fields_of(&call), "{call}"),
        }
        device.identity();
    }
}

#[test]
fn every_error_code_of_every_call_is_a_reason() {
    let Some(names) = Fake::new(None).map(|f| f.names()) else { return };
    let codes: Vec<u32> = (1..=30).chain([31, 999, u32::MAX]).collect();
    let mut combinations = 0;
    for (i, call) in names.iter().enumerate() {
        let fake = Fake::new(None).unwrap();
        for &code in &codes {
            combinations += 1;
            fake.fault(i, code);
            let Ok(mut device) = fake.open() else {
                assert_eq!(call, "nvmlInit_v2", "{code}");
                continue;
            };
            let before = fake.calls()[i];
            let first = device.read();
            let asked = fake.calls()[i] - before;
            let second = device.read();
            let again = fake.calls()[i] - before - asked;
            check(call, code, &first);
            match code {
                3 | 4 | 13 | 22 | 25 | 26 => assert!(again == 0, "{call} {code}: what is refused for good is asked once"),
                15 | 16 if asked > 0 => {
                    assert!(first.lost.is_some() && second == Reading::absent(first.lost.clone().unwrap()), "{call} {code}");
                    assert_eq!((asked, again), (1, 0), "{call} {code}: nothing is asked of a lost device");
                }
                _ => assert_eq!(asked, again, "{call} {code}: what may pass is asked again"),
            }
            device.identity();
        }
    }
    println!("{combinations} combinations of a call and a code");
}

/// What a reading must lack after this fault.
fn check(call: &str, code: u32, reading: &Reading) {
    let gone = absent(reading);
    let names: Vec<_> = gone.iter().map(|a| a.0).collect();
    // The wrapper takes "too small" for an empty list in calls that count first.
    let counting = ["nvmlDeviceGetRetiredPages", "nvmlDeviceGetComputeRunningProcesses_v3"].contains(&call) && code == 7;
    let fatal = [15, 16].contains(&code);
    match call {
        _ if counting => assert!(names.is_empty(), "{call} {code}: {names:?}"),
        "nvmlDeviceGetHandleByUUID" => assert_eq!(names.len(), reading.fields().len(), "{code}"),
        "nvmlDeviceGetMemoryInfo_v2" if !fatal => {
            assert!(names.is_empty() && reading.memory.clone().unwrap().reserved_bytes.is_none())
        }
        _ if fatal => assert!(fields_of(call).iter().all(|f| names.contains(f)), "{call} {code}: {names:?}"),
        _ => assert_eq!(names, fields_of(call), "{call} {code}"),
    }
    let fits = |why: &Absent| match code {
        3 | 22 | 25 | 26 => *why == Absent::NotSupported,
        4 => *why == Absent::NoPermission,
        13 => *why == Absent::NoSymbol,
        15 => *why == Absent::Lost,
        16 => *why == Absent::ResetRequired,
        _ => matches!(why, Absent::Failed(text) if !text.is_empty()),
    };
    assert!(gone.iter().all(|a| fits(&a.1)), "{call} {code}: {gone:?}");
}

#[test]
fn a_device_that_nobody_knows_and_libraries_that_are_none() {
    let Some(fake) = Fake::new(None) else { return };
    let mut device = Device::open_at(&fake.path, "GPU-another").unwrap();
    let reading = device.read();
    assert!(reading.lost.is_none() && matches!(reading.memory, Err(Absent::Failed(_))), "{reading:?}");
    assert!(Device::open_at(&fake.path, "a\0b").unwrap().read().memory.is_err());
    assert!(Device::open_at("/no/such/library.so", UUID).err().unwrap().contains("not installed"));
}

/// What `halfbyte memory` tells of the library's device.
#[cfg(feature = "cli")]
#[test]
fn the_command_line_shows_what_is_told_and_why_the_rest_is_not() {
    let Some(fake) = Fake::new(Some("nvmlDeviceGetFieldValues")) else { return };
    let memory = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfbyte"));
        let done = command.arg("memory").args(arguments).env("HALFBYTE_NVML", &fake.path).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let said = memory(&[]);
    let expected = [
        "GPU 3 Fake \"GPU\" (GPU-00112233-4455-6677-8899-aabbccddeeff), memory pressure low",
        "40 %: 400.0 MiB of 1000.0 MiB used, 600.0 MiB free",
        "87 % kernels, 42 % memory",
        "61 C GPU (slows down at 92)",
        "312 W of 700 W",
        "software power cap, software thermal",
        "3 rows remapped, some wait for a reset",
        "100 300.0 MiB, 200 (not told)",
        "memory_temperature_c (the library has no such call)",
        "advice       drain the device and reset it",
    ];
    for words in expected {
        assert!(said.contains(words), "{words:?} is missing from\n{said}");
    }
    let json: serde_json::Value = serde_json::from_str(&memory(&["--json"])).unwrap();
    let reading = &json["gpus"][0]["reading"];
    assert!(reading["power_mw"]["Ok"] == 312_500 && reading["memory_temperature_c"]["Err"] == "no_symbol", "{json}");
    let metrics = memory(&["--prometheus"]);
    assert!(metrics.contains("\nDCGM_FI_DEV_FB_FREE{gpu=\"3\",") && !metrics.contains("DCGM_FI_DEV_MEMORY_TEMP"), "{metrics}");
}
