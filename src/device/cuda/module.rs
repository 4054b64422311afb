//! Modules: machine code that the build assembled for this device, or PTX that the driver assembles.

use std::ffi::{CString, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute as Attribute, CUjit_option as Jit, CUmodule};

use super::context::Context;
use crate::device::gpu::Module;
use crate::error::Result;

/// Bytes of each of the assembler's logs.
const LOG_BYTES: usize = 16 << 10;
/// Dynamic shared memory that needs no leave. Source: CUDA C++ Programming Guide, shared memory of compute capability 7.x and later.
const SHARED_BYTES: u32 = 48 << 10;

/// A loaded module with its one entry.
pub struct Loaded {
    context: Arc<Context>,
    module: CUmodule,
    /// The entry.
    pub function: CUfunction,
    /// Whether it waits by itself for the launch before it (`griddepcontrol.wait`), and so may start before that one's end.
    /// Source: PTX ISA, griddepcontrol; CUDA C++ Programming Guide, programmatic dependent launch.
    pub starts_early: bool,
}

// SAFETY: the driver API may be called from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Loads the module's machine code if there is some for the context's device and the driver takes it, else assembles the text.
    /// Errors with the assembler's log.
    pub fn new(context: &Arc<Context>, module: &Module) -> Result<Loaded> {
        context.enter()?;
        let text = module.text()?;
        let starts_early = text.contains("griddepcontrol.wait");
        let name = module.variant.name;
        let bad = |e: std::ffi::NulError| context.faults.error(format!("{name}: {e}"));
        let (text, entry) = (CString::new(text).map_err(bad)?, CString::new(name).map_err(bad)?);
        let cubin = module.variant.cubin_for(context.compute_capability);
        let raw = match cubin.and_then(|code| load(context, name, code).ok()) {
            Some(raw) => raw,
            None => load(context, name, text.as_bytes_with_nul())?,
        };
        // From here on the module is given back when something fails.
        let mut loaded = Loaded { context: context.clone(), module: raw, function: null_mut(), starts_early };
        // SAFETY: the module lives; the driver writes one pointer.
        let answer = unsafe { sys::cuModuleGetFunction(&mut loaded.function, raw, entry.as_ptr()) };
        context.faults.check(&format!("cuModuleGetFunction {name}"), answer)?;
        loaded.prepare(name, module.variant.shared_bytes)?;
        Ok(loaded)
    }

    fn prepare(&self, name: &str, shared_bytes: u32) -> Result<()> {
        if shared_bytes > SHARED_BYTES {
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function lives as long as its module.
            let answer = unsafe { sys::cuFuncSetAttribute(self.function, most, shared_bytes as c_int) };
            self.context.faults.check(&format!("{shared_bytes} bytes of shared memory for {name}"), answer)?;
        }
        if cfg!(debug_assertions) {
            let spilled = self.attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?;
            if spilled > 0 {
                return Err(self.context.faults.error(format!("{name} spills {spilled} bytes a thread on this driver")));
            }
        }
        Ok(())
    }

    /// What the driver knows of the function.
    fn attribute(&self, attribute: Attribute) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: the function lives; the driver writes one integer.
        let answer = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, self.function) };
        self.context.faults.check("cuFuncGetAttribute", answer)?;
        Ok(value)
    }

    /// Registers and bytes of local memory of a thread.
    pub fn usage(&self) -> Result<[c_int; 2]> {
        self.context.enter()?;
        let registers = self.attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?;
        Ok([registers, self.attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?])
    }
}

/// Loads a text that ends with a 0, or machine code, which knows its length. No target is named: the driver takes the device's own.
fn load(context: &Context, name: &str, image: &[u8]) -> Result<CUmodule> {
    let (mut errors, mut raw) = (vec![0u8; LOG_BYTES], null_mut());
    let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The size goes in the pointer's place. Source: CUDA driver API, CUjit_option.
    let mut values = [errors.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG_BYTES)];
    // SAFETY: the image is as described; there are as many values as options, and the log is as long as said.
    let answer =
        unsafe { sys::cuModuleLoadDataEx(&mut raw, image.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()) };
    let end = errors.iter().position(|&b| b == 0).unwrap_or(LOG_BYTES);
    let log = String::from_utf8_lossy(&errors[..end]);
    context.faults.check(&format!("{name} cannot be loaded: {}", log.trim()), answer)?;
    Ok(raw)
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.context.give_back(|| {
            // SAFETY: nobody has the function any more; launches of it under way are waited for.
            unsafe {
                sys::cuStreamSynchronize(self.context.stream());
                sys::cuModuleUnload(self.module);
            }
        });
    }
}
