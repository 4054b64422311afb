//! Global memory: named allocations far apart, so that every access past an end is seen.

use super::{Kind, Result, fault};

/// Allocations start at multiples of this.
const SPAN_BITS: u32 = 36;

#[derive(Clone, Debug, Default)]
struct Allocation {
    name: String,
    bytes: Vec<u8>,
    written: Vec<bool>,
}

#[derive(Clone, Debug, Default)]
pub struct Global {
    allocations: Vec<Allocation>,
}

impl Global {
    fn add(&mut self, name: &str, bytes: Vec<u8>, written: bool) -> u64 {
        let written = vec![written; bytes.len()];
        self.allocations.push(Allocation { name: name.into(), bytes, written });
        (self.allocations.len() as u64) << SPAN_BITS
    }

    /// The address of new memory that holds the values.
    pub fn allocate<T: bytemuck::NoUninit>(&mut self, name: &str, values: &[T]) -> u64 {
        self.add(name, bytemuck::cast_slice(values).to_vec(), true)
    }

    /// The address of new memory that nothing was written to.
    pub fn reserve(&mut self, name: &str, bytes: usize) -> u64 {
        self.add(name, vec![0xCD; bytes], false)
    }

    /// Gives an allocation back: accesses of it are errors from then on.
    pub fn release(&mut self, address: u64) {
        if let Ok((i, _)) = self.locate(address, 0) {
            (self.allocations[i].bytes, self.allocations[i].written) = (Vec::new(), Vec::new());
        }
    }

    /// The allocation and the offset of an access.
    fn locate(&self, address: u64, len: usize) -> Result<(usize, usize)> {
        let (index, offset) = ((address >> SPAN_BITS) as usize, (address & ((1 << SPAN_BITS) - 1)) as usize);
        match index.checked_sub(1).and_then(|i| self.allocations.get(i)) {
            Some(a) if offset + len <= a.bytes.len() => Ok((index - 1, offset)),
            Some(a) => fault(Kind::Bounds, format!("{len} bytes at {offset} of {}, which has {}", a.name, a.bytes.len())),
            None => fault(Kind::Bounds, format!("{len} bytes at {address:#x}, where there is nothing")),
        }
    }

    /// Bytes that must have been written.
    pub fn load(&self, address: u64, len: usize) -> Result<&[u8]> {
        let (i, at) = self.locate(address, len)?;
        let a = &self.allocations[i];
        if let Some(n) = (at..at + len).find(|n| !a.written[*n]) {
            return fault(Kind::Uninitialised, format!("byte {n} of {} is read before it is written", a.name));
        }
        Ok(&a.bytes[at..at + len])
    }

    pub fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (i, at) = self.locate(address, bytes.len())?;
        let a = &mut self.allocations[i];
        a.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        a.written[at..at + bytes.len()].fill(true);
        Ok(())
    }

    /// All values of the allocation at an address; an error where one was never written.
    pub fn values<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, address: u64) -> Result<Vec<T>> {
        let (i, _) = self.locate(address, 0)?;
        Ok(bytemuck::pod_collect_to_vec(self.load(address, self.allocations[i].bytes.len())?))
    }

    /// As [`Global::values`], whether or not they were written.
    pub fn bytes(&self, address: u64) -> Result<&[u8]> {
        let (i, _) = self.locate(address, 0)?;
        Ok(&self.allocations[i].bytes)
    }
}
