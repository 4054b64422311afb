//! The host's memory as a device: slabs, or virtual memory management in earnest (Linux). Handles are parts of a file in memory
//! (memfd), reservations are inaccessible pages, mapping is mmap with MAP_FIXED: aliases are the same bytes, what was released
//! is zero when it comes back, and an access to what is not mapped faults.

use super::software::SoftwareStreams;
use super::virtual_device::VirtualDevice;
use super::{Handle, Mapping, Provider, StreamId, Streams};
use crate::error::{Error, Result};

/// Memory of this process. What a driver would refuse is refused by the counting device inside.
pub struct HostMemory {
    counts: VirtualDevice,
    /// What handles are parts of, where there is virtual memory management.
    #[cfg(target_os = "linux")]
    file: Option<std::os::fd::OwnedFd>,
}

fn failed(what: &str) -> Error {
    Error::Device { device: "host".into(), why: format!("{what}: {}", std::io::Error::last_os_error()) }
}

#[cfg(target_os = "linux")]
mod system {
    //! The calls of Linux.

    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::failed;
    use crate::error::Result;

    /// A file in memory.
    pub fn file() -> Result<OwnedFd> {
        // SAFETY: the name is a C string; the descriptor is new and ours.
        unsafe {
            match libc::memfd_create(c"device".as_ptr(), libc::MFD_CLOEXEC) {
                -1 => Err(failed("memfd_create")),
                raw => Ok(OwnedFd::from_raw_fd(raw)),
            }
        }
    }

    pub fn extend(file: &OwnedFd, bytes: u64) -> Result<()> {
        // SAFETY: a system call on a descriptor that is open.
        match unsafe { libc::ftruncate(file.as_raw_fd(), bytes as i64) } {
            0 => Ok(()),
            _ => Err(failed("ftruncate")),
        }
    }

    /// Lets go of the memory behind a part of the file.
    pub fn punch(file: &OwnedFd, offset: u64, bytes: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a system call on a descriptor that is open. Where it fails the memory stays until the file is closed.
        unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, bytes as i64) };
    }

    /// Addresses that may not be touched: anywhere, or in place of what is at `address`.
    pub fn inaccessible(address: Option<u64>, bytes: u64) -> Result<u64> {
        let fixed = if address.is_some() { libc::MAP_FIXED } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
        map(address.unwrap_or(0), bytes, libc::PROT_NONE, flags, -1, 0)
    }

    /// Part of the file at an address that was reserved, not yet accessible.
    pub fn part(file: &OwnedFd, address: u64, bytes: u64, offset: u64) -> Result<u64> {
        map(address, bytes, libc::PROT_NONE, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), offset)
    }

    /// New memory.
    pub fn slab(bytes: u64) -> Result<u64> {
        map(0, bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn map(address: u64, bytes: u64, access: i32, flags: i32, file: i32, offset: u64) -> Result<u64> {
        // SAFETY: fixed addresses lie in ranges that `inaccessible` reserved for this device; others are the system's choice.
        let at = unsafe { libc::mmap(address as *mut _, bytes as usize, access, flags, file, offset as i64) };
        if at == libc::MAP_FAILED { Err(failed("mmap")) } else { Ok(at as u64) }
    }

    pub fn accessible(address: u64, bytes: u64) -> Result<()> {
        // SAFETY: the range is one of this device's.
        match unsafe { libc::mprotect(address as *mut _, bytes as usize, libc::PROT_READ | libc::PROT_WRITE) } {
            0 => Ok(()),
            _ => Err(failed("mprotect")),
        }
    }

    pub fn unmap(address: u64, bytes: u64) {
        // SAFETY: the range was mapped for this device, and nothing uses it any more.
        unsafe { libc::munmap(address as *mut _, bytes as usize) };
    }

    /// Copies between this process's memory and itself; a fault is an error.
    pub fn copy(from: u64, to: u64, bytes: usize) -> Result<()> {
        let part = |at: u64| libc::iovec { iov_base: at as *mut _, iov_len: bytes };
        // SAFETY: the kernel checks both ranges and answers EFAULT where one cannot be accessed.
        let done = unsafe { libc::process_vm_readv(libc::getpid(), &part(to), 1, &part(from), 1, 0) };
        if done == bytes as isize { Ok(()) } else { Err(failed("an access faulted")) }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    //! Slabs of the global allocator; no mapping, and no fault is caught.

    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use super::failed;
    use crate::error::Result;

    fn layout(bytes: u64) -> Result<Layout> {
        Layout::from_size_align(bytes.max(1) as usize, 256).map_err(|_| failed("too large"))
    }

    pub fn slab(bytes: u64) -> Result<u64> {
        // SAFETY: the size is not 0.
        let at = unsafe { alloc_zeroed(layout(bytes)?) };
        if at.is_null() { Err(failed("out of memory")) } else { Ok(at as u64) }
    }

    pub fn unmap(address: u64, bytes: u64) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: given by `slab` with that size, and nothing uses it any more.
            unsafe { dealloc(address as *mut u8, layout) };
        }
    }

    pub fn copy(from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: both ranges are live blocks of the pool, by the contract of `read`, `write` and `copy`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }
}

impl HostMemory {
    /// At most `capacity` bytes, with virtual memory management of this granularity (a multiple of the page size; Linux
    /// alone), or in slabs. Errors when the system refuses.
    pub fn new(capacity: u64, granularity: Option<u64>, streams: SoftwareStreams) -> Result<Self> {
        #[cfg(not(target_os = "linux"))]
        let granularity = granularity.and(None);
        Ok(HostMemory {
            counts: VirtualDevice::new(capacity, granularity, streams),
            #[cfg(target_os = "linux")]
            file: granularity.map(|_| system::file()).transpose()?,
        })
    }

    /// What it counted.
    pub fn counts(&self) -> &VirtualDevice {
        &self.counts
    }

    /// Reads device memory. Errors on Linux when a byte is not mapped.
    pub fn read(address: u64, into: &mut [u8]) -> Result<()> {
        system::copy(address, into.as_mut_ptr() as u64, into.len())
    }

    /// Writes device memory. Errors on Linux when a byte is not mapped.
    pub fn write(address: u64, bytes: &[u8]) -> Result<()> {
        let mut writable = bytes.to_vec();
        system::copy(writable.as_mut_ptr() as u64, address, bytes.len())
    }
}

impl Provider for HostMemory {
    fn name(&self) -> &str {
        "host"
    }

    fn capacity_bytes(&self) -> u64 {
        self.counts.capacity_bytes()
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        let address = system::slab(bytes)?;
        self.counts.place(address, bytes, false).inspect_err(|_| system::unmap(address, bytes))?;
        Ok(address)
    }

    fn free(&self, address: u64, bytes: u64) {
        self.counts.free(address, bytes);
        system::unmap(address, bytes);
    }

    fn mapping(&self) -> Option<&dyn Mapping> {
        #[cfg(target_os = "linux")]
        return self.counts.mapping().map(|_| self as &dyn Mapping);
        #[cfg(not(target_os = "linux"))]
        None
    }

    fn streams(&self) -> &dyn Streams {
        self.counts.streams()
    }

    fn copy(&self, stream: StreamId, from: u64, to: u64, bytes: u64) -> Result<()> {
        // A fault shows in the bytes that were not copied.
        self.counts.software().submit(stream, move || drop(system::copy(from, to, bytes as usize)));
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl HostMemory {
    fn file(&self) -> &std::os::fd::OwnedFd {
        self.file.as_ref().expect("invariant: without a file no mapping is offered")
    }

    fn offset(&self, handle: Handle) -> u64 {
        handle * self.capacity_bytes().next_multiple_of(self.granularity_bytes())
    }
}

#[cfg(target_os = "linux")]
impl Mapping for HostMemory {
    fn granularity_bytes(&self) -> u64 {
        self.counts.granularity_bytes()
    }

    fn reserve(&self, bytes: u64) -> Result<u64> {
        let address = system::inaccessible(None, bytes)?;
        self.counts.place(address, bytes, true)?;
        Ok(address)
    }

    fn unreserve(&self, address: u64, bytes: u64) {
        self.counts.unreserve(address, bytes);
        system::unmap(address, bytes);
    }

    /// The handle is its place in the file, counted from the granularity on.
    fn create(&self, bytes: u64) -> Result<Handle> {
        let number = self.counts.create(bytes)?;
        // Places are never used again: the file is as long as all handles ever were, and holds only those that are.
        system::extend(self.file(), self.offset(number) + bytes).inspect_err(|_| self.counts.release(number, bytes))?;
        Ok(number)
    }

    fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()> {
        self.counts.map(address, bytes, handle)?;
        system::part(self.file(), address, bytes, self.offset(handle)).map(|_| ())
    }

    fn set_access(&self, address: u64, bytes: u64) -> Result<()> {
        self.counts.set_access(address, bytes)?;
        system::accessible(address, bytes)
    }

    fn unmap(&self, address: u64, bytes: u64) -> Result<()> {
        self.counts.unmap(address, bytes)?;
        system::inaccessible(Some(address), bytes).map(|_| ())
    }

    fn release(&self, handle: Handle, bytes: u64) {
        self.counts.release(handle, bytes);
        system::punch(self.file(), self.offset(handle), bytes);
    }
}
