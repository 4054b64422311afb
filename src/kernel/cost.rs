//! Times that predictions are made of.

use crate::hardware::DeviceInfo;

/// Microseconds that one launch takes whatever it does.
pub(super) const LAUNCH_US: f64 = 0.5;

/// Threads that share work of this size; below `least` it is not worth their while.
pub(super) fn threads(info: &DeviceInfo, work: f64, least: f64) -> f64 {
    if work < least { 1.0 } else { info.threads.max(1) as f64 }
}

/// Microseconds of moving so many bytes, read and written together. What fits into a core's own cache moves about four times as
/// fast as what comes from memory, what fits into the shared cache about twice.
pub(super) fn moved_us(info: &DeviceInfo, bytes: f64) -> f64 {
    let times = match bytes {
        b if b <= info.caches.l2_bytes as f64 / 2.0 => 4.0,
        b if b <= info.caches.l3_bytes as f64 / 2.0 => 2.0,
        _ => 1.0,
    };
    bytes / (info.peaks.read_gbps.max(1.0) * times * 1e3)
}
