//! What NVML tells of a device at one moment. A device may refuse any single field: each is there, or says why it is not.

/// A field of a reading.
pub type Known<T> = Result<T, Absent>;

/// Why a field is absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Absent {
    /// Nobody asked.
    #[error("not asked for")]
    NotAsked,
    /// The device, its mode (MIG, WDDM) or its driver does not offer it.
    #[error("not supported")]
    NotSupported,
    /// The user may not see it.
    #[error("no permission")]
    NoPermission,
    /// The library is older than the call.
    #[error("the library has no such call")]
    NoSymbol,
    /// The device fell off the bus.
    #[error("the device is lost")]
    Lost,
    /// The device works again after a reset alone.
    #[error("the device needs a reset")]
    ResetRequired,
    /// Failed this time.
    #[error("{0}")]
    Failed(String),
}

impl Absent {
    /// Whether asking again is of no use.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Absent::NotSupported | Absent::NoPermission | Absent::NoSymbol)
    }

    /// Whether no call of this device will succeed any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Absent::Lost | Absent::ResetRequired)
    }
}

/// Memory of a device. Whether `used` includes what the driver reserves differs by version: decide by `free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Memory {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub used_bytes: u64,
    /// By the driver and firmware; drivers before R510 do not tell it.
    pub reserved_bytes: Option<u64>,
}

/// A process with a context on the device, and its memory where the driver tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Process {
    pub id: u32,
    pub used_bytes: Option<u64>,
}

/// Pages taken out of use (before Ampere), by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Retired {
    pub single_bit: u64,
    pub double_bit: u64,
}

/// Rows of memory replaced by spare ones (from Ampere on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Remapped {
    pub correctable: u32,
    pub uncorrectable: u32,
    /// Some wait for a reset.
    pub pending: bool,
    /// No spare row was left.
    pub failed: bool,
}

bitflags::bitflags! {
    /// Why clocks are below what was asked for (nvmlClocksThrottleReasons). Bits of later drivers are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Throttle: u64 {
        /// Nothing runs.
        const IDLE = 0x1;
        /// Somebody set lower clocks.
        const APPLICATION_CLOCKS = 0x2;
        /// The power limit.
        const SOFTWARE_POWER_CAP = 0x4;
        /// Temperature, power brake or a fast trigger.
        const HARDWARE_SLOWDOWN = 0x8;
        /// Another device of the same group is slower.
        const SYNC_BOOST = 0x10;
        /// Temperature above the operating range.
        const SOFTWARE_THERMAL = 0x20;
        /// Temperature above the slowdown threshold.
        const HARDWARE_THERMAL = 0x40;
        /// The power supply asks for less.
        const HARDWARE_POWER_BRAKE = 0x80;
        /// Clocks of displays.
        const DISPLAY_CLOCKS = 0x100;
        /// All of temperature.
        const THERMAL = Self::SOFTWARE_THERMAL.bits() | Self::HARDWARE_THERMAL.bits();
        /// All of power.
        const POWER = Self::SOFTWARE_POWER_CAP.bits() | Self::HARDWARE_POWER_BRAKE.bits();
        const _ = !0;
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Throttle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.bits())
    }
}

/// What a device is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Identity {
    /// NVML's number of it, which is not CUDA's.
    pub index: Option<u32>,
    pub uuid: String,
    pub name: String,
    /// The number in `/dev/nvidia0`.
    pub minor: Option<u32>,
}

/// One reading of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Reading {
    /// Set once the device is lost or needs a reset; nothing is asked of it any more.
    pub lost: Option<Absent>,
    pub memory: Known<Memory>,
    /// Share of the last sample period (1/6 to 1 s) in which a kernel ran.
    pub gpu_busy_percent: Known<u32>,
    /// The same for reads and writes of the device's memory.
    pub memory_busy_percent: Known<u32>,
    pub gpu_temperature_c: Known<u32>,
    pub memory_temperature_c: Known<u32>,
    /// Where clocks are lowered.
    pub slowdown_c: Known<u32>,
    /// Where the device turns itself off.
    pub shutdown_c: Known<u32>,
    /// What the memory bears.
    pub memory_max_c: Known<u32>,
    pub power_mw: Known<u32>,
    /// The lowest of all limits that apply.
    pub power_limit_mw: Known<u32>,
    /// Since the driver was loaded.
    pub energy_mj: Known<u64>,
    pub sm_clock_mhz: Known<u32>,
    pub memory_clock_mhz: Known<u32>,
    pub throttle: Known<Throttle>,
    /// Corrected ECC errors since the driver was loaded.
    pub ecc_corrected_volatile: Known<u64>,
    pub ecc_uncorrected_volatile: Known<u64>,
    /// Corrected ECC errors in the device's life.
    pub ecc_corrected_aggregate: Known<u64>,
    pub ecc_uncorrected_aggregate: Known<u64>,
    pub retired: Known<Retired>,
    pub remapped: Known<Remapped>,
    pub pcie_replays: Known<u32>,
    /// By compute; numbered as the host does, which a container does not.
    pub processes: Known<Vec<Process>>,
    /// Whether the device is split into instances (MIG).
    pub mig: Known<bool>,
}

impl Reading {
    /// A reading without any field, for one reason.
    pub fn absent(why: Absent) -> Self {
        Reading {
            lost: why.is_fatal().then(|| why.clone()),
            memory: Err(why.clone()),
            gpu_busy_percent: Err(why.clone()),
            memory_busy_percent: Err(why.clone()),
            gpu_temperature_c: Err(why.clone()),
            memory_temperature_c: Err(why.clone()),
            slowdown_c: Err(why.clone()),
            shutdown_c: Err(why.clone()),
            memory_max_c: Err(why.clone()),
            power_mw: Err(why.clone()),
            power_limit_mw: Err(why.clone()),
            energy_mj: Err(why.clone()),
            sm_clock_mhz: Err(why.clone()),
            memory_clock_mhz: Err(why.clone()),
            throttle: Err(why.clone()),
            ecc_corrected_volatile: Err(why.clone()),
            ecc_uncorrected_volatile: Err(why.clone()),
            ecc_corrected_aggregate: Err(why.clone()),
            ecc_uncorrected_aggregate: Err(why.clone()),
            retired: Err(why.clone()),
            remapped: Err(why.clone()),
            pcie_replays: Err(why.clone()),
            processes: Err(why.clone()),
            mig: Err(why),
        }
    }

    /// All fields by name, each with why it is absent.
    pub fn fields(&self) -> [(&'static str, Option<&Absent>); 23] {
        [
            ("memory", self.memory.as_ref().err()),
            ("gpu_busy_percent", self.gpu_busy_percent.as_ref().err()),
            ("memory_busy_percent", self.memory_busy_percent.as_ref().err()),
            ("gpu_temperature_c", self.gpu_temperature_c.as_ref().err()),
            ("memory_temperature_c", self.memory_temperature_c.as_ref().err()),
            ("slowdown_c", self.slowdown_c.as_ref().err()),
            ("shutdown_c", self.shutdown_c.as_ref().err()),
            ("memory_max_c", self.memory_max_c.as_ref().err()),
            ("power_mw", self.power_mw.as_ref().err()),
            ("power_limit_mw", self.power_limit_mw.as_ref().err()),
            ("energy_mj", self.energy_mj.as_ref().err()),
            ("sm_clock_mhz", self.sm_clock_mhz.as_ref().err()),
            ("memory_clock_mhz", self.memory_clock_mhz.as_ref().err()),
            ("throttle", self.throttle.as_ref().err()),
            ("ecc_corrected_volatile", self.ecc_corrected_volatile.as_ref().err()),
            ("ecc_uncorrected_volatile", self.ecc_uncorrected_volatile.as_ref().err()),
            ("ecc_corrected_aggregate", self.ecc_corrected_aggregate.as_ref().err()),
            ("ecc_uncorrected_aggregate", self.ecc_uncorrected_aggregate.as_ref().err()),
            ("retired", self.retired.as_ref().err()),
            ("remapped", self.remapped.as_ref().err()),
            ("pcie_replays", self.pcie_replays.as_ref().err()),
            ("processes", self.processes.as_ref().err()),
            ("mig", self.mig.as_ref().err()),
        ]
    }
}
