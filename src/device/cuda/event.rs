//! Points in the stream, with the device's own time.

use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent, CUevent_flags};

use super::context::Context;
use crate::error::Result;

/// An event of a context.
pub struct Event {
    context: Arc<Context>,
    raw: CUevent,
}

// SAFETY: the driver API may be called from any thread.
unsafe impl Send for Event {}

impl Event {
    /// One that can be recorded again and again.
    pub fn new(context: &Arc<Context>) -> Result<Event> {
        context.enter()?;
        let mut raw = null_mut();
        let flags = CUevent_flags::CU_EVENT_DEFAULT as u32;
        // SAFETY: the driver writes one pointer.
        context.faults.check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Event { context: context.clone(), raw })
    }

    /// Marks the stream's present end.
    pub fn record(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: event and stream live.
        self.context.faults.check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, self.context.stream()) })
    }

    /// Waits until the stream has passed it; at once when it was never recorded.
    pub fn wait(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the event lives.
        self.context.faults.check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw) })
    }

    /// Microseconds from this one to a later one, waiting for it.
    pub fn until_us(&self, later: &Event) -> Result<f64> {
        later.wait()?;
        let mut milliseconds = 0f32;
        // SAFETY: both events live and were recorded; the driver writes one number.
        let answer = unsafe { sys::cuEventElapsedTime(&mut milliseconds, self.raw, later.raw) };
        self.context.faults.check("cuEventElapsedTime", answer)?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.give_back(|| {
            // SAFETY: nobody has the event any more.
            unsafe { sys::cuEventDestroy_v2(self.raw) };
        });
    }
}
