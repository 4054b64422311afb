//! A library in NVML's place, one device in it. `fake_fault` makes a call fail with a code, `fake_calls` counts calls.
#![crate_type = "cdylib"]
#![allow(non_snake_case, clippy::all)]

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

type Code = u32;
type Device = usize;

const DEVICE: Device = 7;
const UUID: &CStr = c"GPU-00112233-4455-6677-8899-aabbccddeeff";

/// Calls by name, in the order of `fake_name`; each counts its calls and may have a fault.
macro_rules! calls {
    ($($name:ident ( $($arg:ident : $type:ty),* ) $body:block)*) => {
        #[allow(non_camel_case_types)]
        enum Call { $($name),* }
        const NAMES: &[&str] = &[$(concat!(stringify!($name), "\0")),*];
        static FAULTS: [AtomicU32; NAMES.len()] = [const { AtomicU32::new(0) }; NAMES.len()];
        static COUNTS: [AtomicU32; NAMES.len()] = [const { AtomicU32::new(0) }; NAMES.len()];
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> Code {
                COUNTS[Call::$name as usize].fetch_add(1, SeqCst);
                match FAULTS[Call::$name as usize].load(SeqCst) {
                    0 => unsafe { $body },
                    code => code,
                }
            }
        )*
    };
}

#[unsafe(no_mangle)]
extern "C" fn fake_name(call: u32) -> *const c_char {
    NAMES.get(call as usize).map_or(std::ptr::null(), |n| n.as_ptr().cast())
}

#[unsafe(no_mangle)]
extern "C" fn fake_fault(call: u32, code: Code) {
    FAULTS[call as usize].store(code, SeqCst);
}

#[unsafe(no_mangle)]
extern "C" fn fake_calls(call: u32) -> u32 {
    COUNTS[call as usize].load(SeqCst)
}

unsafe fn text(from: &CStr, to: *mut c_char, length: u32) -> Code {
    let bytes = from.to_bytes_with_nul();
    if bytes.len() > length as usize {
        return 7;
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len()) };
    0
}

unsafe fn put<T>(to: *mut T, value: T) -> Code {
    unsafe { to.write_unaligned(value) };
    0
}

#[repr(C)]
struct Process {
    pid: u32,
    bytes: u64,
    instance: u32,
    compute: u32,
}

#[repr(C)]
struct Field {
    id: u32,
    scope: u32,
    timestamp: i64,
    latency: i64,
    kind: u32,
    code: Code,
    value: u64,
}

#[repr(C)]
struct Memory2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

const MIB: u64 = 1 << 20;

calls! {
    nvmlInit_v2() { 0 }
    nvmlShutdown() { 0 }
    nvmlSystemGetDriverVersion(to: *mut c_char, length: u32) { text(c"575.51.03", to, length) }
    nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Device) {
        if CStr::from_ptr(uuid) == UUID { put(device, DEVICE) } else { 6 }
    }
    nvmlDeviceGetCount_v2(count: *mut u32) { put(count, 1) }
    nvmlDeviceGetHandleByIndex_v2(index: u32, device: *mut Device) { if index == 0 { put(device, DEVICE) } else { 2 } }
    nvmlDeviceGetUUID(_d: Device, to: *mut c_char, length: u32) { text(UUID, to, length) }
    nvmlDeviceGetIndex(_d: Device, index: *mut u32) { put(index, 3) }
    nvmlDeviceGetName(_d: Device, to: *mut c_char, length: u32) { text(c"Fake \"GPU\"", to, length) }
    nvmlDeviceGetMinorNumber(_d: Device, minor: *mut u32) { put(minor, 1) }
    nvmlDeviceGetMemoryInfo_v2(_d: Device, to: *mut Memory2) {
        let version = (*to).version;
        if version != 0x0200_0028 { return 25 }
        put(to, Memory2 { version, total: 1000 * MIB, reserved: 10 * MIB, free: 600 * MIB, used: 390 * MIB })
    }
    nvmlDeviceGetMemoryInfo(_d: Device, to: *mut [u64; 3]) { put(to, [1000 * MIB, 600 * MIB, 400 * MIB]) }
    nvmlDeviceGetUtilizationRates(_d: Device, to: *mut [u32; 2]) { put(to, [87, 42]) }
    nvmlDeviceGetTemperature(_d: Device, _sensor: u32, to: *mut u32) { put(to, 61) }
    nvmlDeviceGetTemperatureThreshold(_d: Device, kind: u32, to: *mut u32) {
        put(to, match kind { 0 => 95, 1 => 92, 2 => 105, _ => 88 })
    }
    nvmlDeviceGetFieldValues(_d: Device, count: i32, fields: *mut Field) {
        if count != 1 || (*fields).id != 82 { return 2 }
        (*fields).kind = 1;
        put(&raw mut (*fields).value, 70)
    }
    nvmlDeviceGetPowerUsage(_d: Device, to: *mut u32) { put(to, 312_500) }
    nvmlDeviceGetEnforcedPowerLimit(_d: Device, to: *mut u32) { put(to, 700_000) }
    nvmlDeviceGetTotalEnergyConsumption(_d: Device, to: *mut u64) { put(to, 5_000_000_000) }
    nvmlDeviceGetClockInfo(_d: Device, kind: u32, to: *mut u32) { put(to, if kind == 1 { 1755 } else { 2619 }) }
    nvmlDeviceGetCurrentClocksThrottleReasons(_d: Device, to: *mut u64) { put(to, 0x24) }
    nvmlDeviceGetTotalEccErrors(_d: Device, kind: u32, counter: u32, to: *mut u64) { put(to, u64::from(10 * kind + counter)) }
    nvmlDeviceGetRetiredPages(_d: Device, cause: u32, count: *mut u32, _addresses: *mut u64) {
        put(count, 2 - cause);
        7
    }
    nvmlDeviceGetRetiredPages_v2(_d: Device, cause: u32, count: *mut u32, addresses: *mut u64, times: *mut u64) {
        for i in 0..(2 - cause) as usize {
            put(addresses.add(i), 4096);
            put(times.add(i), 1);
        }
        put(count, 2 - cause)
    }
    nvmlDeviceGetRemappedRows(_d: Device, correctable: *mut u32, uncorrectable: *mut u32, pending: *mut u32, failed: *mut u32) {
        put(correctable, 1) + put(uncorrectable, 2) + put(pending, 1) + put(failed, 0)
    }
    nvmlDeviceGetPcieReplayCounter(_d: Device, to: *mut u32) { put(to, 5) }
    nvmlDeviceGetComputeRunningProcesses_v3(_d: Device, count: *mut u32, to: *mut Process) {
        let room = *count;
        put(count, 2);
        if room < 2 { return 7 }
        put(to, Process { pid: 100, bytes: 300 * MIB, instance: u32::MAX, compute: u32::MAX });
        put(to.add(1), Process { pid: 200, bytes: u64::MAX, instance: u32::MAX, compute: u32::MAX })
    }
    nvmlDeviceGetMigMode(_d: Device, current: *mut u32, pending: *mut u32) { put(current, 0) + put(pending, 0) }
}
