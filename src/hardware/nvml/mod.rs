//! NVML, NVIDIA's management library: readings of a device, and a watch over them. Readings are data and exist without it.

#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod library;
mod reading;
mod watch;

#[cfg(feature = "cuda")]
pub use device::Device;
#[cfg(feature = "cuda")]
pub(super) use library::devices;
pub use reading::{Absent, Identity, Known, Memory, Process, Reading, Remapped, Retired, Throttle};
pub use watch::Watch;
