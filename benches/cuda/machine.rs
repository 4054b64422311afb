//! A stream, memory and clocks for peers, beside the device's own driver and in the same context.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUevent, CUstream};

/// A stream of the primary context, which the device's driver holds. The bench runs one process to its end: nothing is given back.
pub struct Machine {
    stream: CUstream,
    events: [CUevent; 2],
}

/// Launches a graph.
pub type Launch = Box<dyn Fn() -> Result<(), String>>;

fn checked(call: &str, result: sys::CUresult) -> Result<(), String> {
    match result as u32 {
        0 => Ok(()),
        code => Err(format!("{call}: {}", halfbyte::hardware::libcuda::describe(code))),
    }
}

impl Machine {
    /// Needs a context current on this thread: a driver's allocation leaves one.
    pub fn new() -> Result<Machine, String> {
        let (mut stream, mut events) = (null_mut(), [null_mut(); 2]);
        // SAFETY: the library was found usable by whoever opened the device; the driver writes pointers.
        unsafe {
            checked("cuStreamCreate", sys::cuStreamCreate(&mut stream, 1))?;
            events.iter_mut().try_for_each(|e| checked("cuEventCreate", sys::cuEventCreate(e, 0)))?;
        }
        Ok(Machine { stream, events })
    }

    pub fn stream(&self) -> *mut c_void {
        self.stream.cast()
    }

    /// Device memory.
    pub fn allocate(&self, bytes: usize) -> Result<u64, String> {
        let mut address = 0;
        // SAFETY: the driver writes one address.
        checked("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) }).map(|()| address)
    }

    pub fn free(&self, address: u64) {
        // SAFETY: given by `allocate`; the driver waits for its use.
        unsafe { sys::cuMemFree_v2(address) };
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        // SAFETY: the bytes live until the stream is synchronised.
        let sent = unsafe { sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        // SAFETY: the stream lives.
        checked("copy", sent).and_then(|()| checked("synchronise", unsafe { sys::cuStreamSynchronize(self.stream) }))
    }

    /// Microseconds on the device of what `work` puts into the stream.
    pub fn time_us(&self, work: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
        // SAFETY: stream and events live.
        checked("cuEventRecord", unsafe { sys::cuEventRecord(self.events[0], self.stream) })?;
        work()?;
        let mut milliseconds = 0f32;
        // SAFETY: as above; both are recorded, and the driver writes one number.
        unsafe {
            checked("cuEventRecord", sys::cuEventRecord(self.events[1], self.stream))?;
            checked("cuEventSynchronize", sys::cuEventSynchronize(self.events[1]))?;
            checked("cuEventElapsedTime", sys::cuEventElapsedTime(&mut milliseconds, self.events[0], self.events[1]))?;
        }
        Ok(f64::from(milliseconds) * 1e3)
    }

    /// What `work` puts into the stream, as one graph: returns something that launches it.
    pub fn graph(&self, work: impl FnOnce() -> Result<(), String>) -> Result<Launch, String> {
        let (mut graph, mut run, stream) = (null_mut(), null_mut(), self.stream);
        // SAFETY: the stream lives; a capture is ended whatever `work` did; the driver writes pointers.
        unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            checked("cuStreamBeginCapture", sys::cuStreamBeginCapture_v2(stream, mode))?;
            let done = work();
            checked("cuStreamEndCapture", sys::cuStreamEndCapture(stream, &mut graph))?;
            done?;
            checked("cuGraphInstantiate", sys::cuGraphInstantiateWithFlags(&mut run, graph, 0))?;
        }
        // SAFETY: neither is given back before the process ends.
        Ok(Box::new(move || checked("cuGraphLaunch", unsafe { sys::cuGraphLaunch(run, stream) })))
    }

    /// Bytes read and written in a second by copies of 1 GiB on the device, the best of ten; 10^9 of them.
    pub fn copy_gigabytes_per_second(&self) -> Result<f64, String> {
        const BYTES: usize = 1 << 30;
        let (from, to) = (self.allocate(BYTES)?, self.allocate(BYTES)?);
        let mut best = f64::INFINITY;
        for _ in 0..10 {
            // SAFETY: both are of this size.
            let copy = || checked("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, BYTES, self.stream) });
            best = best.min(self.time_us(copy)?);
        }
        self.free(from);
        self.free(to);
        Ok(2.0 * BYTES as f64 / best / 1e3)
    }
}
