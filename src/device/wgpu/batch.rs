//! Dispatches made ready, and those that wait for their submission.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindingResource, Buffer, BufferBinding, BufferDescriptor, BufferUsages,
};

use super::driver::Wgpu;
use super::pipeline::Pipeline;
use crate::device::gpu::{Binding, HEADER_WORDS, Resolved, Value};
use crate::error::Result;

/// A launch with its buffers.
pub struct Dispatch {
    /// The code.
    pub pipeline: Arc<Pipeline>,
    /// Arguments and operands.
    pub group: BindGroup,
    /// The byte where its arguments begin.
    pub arguments_at: u32,
    /// Workgroups.
    pub grid: [u32; 3],
}

/// A binding of operands: which buffer by its address, from which byte on, and whether it is only read.
#[derive(PartialEq, Eq, Hash)]
struct Bound {
    buffer: u64,
    offset: u64,
    is_constant: bool,
}

/// A point in the order of dispatches: nanoseconds of the device's clock, when it is past.
pub type Mark = Arc<OnceLock<f64>>;

/// What waits.
pub enum Pending {
    /// Dispatches in order, shared with what repeats them.
    Dispatches(Arc<[Dispatch]>),
    /// A point whose time is asked for.
    Mark(Mark),
}

/// The grid as it is dispatched, and whether it is folded: an axis takes `most` workgroups at most.
fn folded(grid: [u32; 3], most: u32) -> ([u32; 3], bool) {
    if grid.iter().all(|&g| g <= most) {
        return (grid, false);
    }
    let total: u64 = grid.iter().map(|&g| u64::from(g)).product();
    let x = total.min(most.into());
    ([x as u32, total.div_ceil(x) as u32, 1], true)
}

impl Wgpu {
    /// Launches with their arguments in one buffer and their operands bound. Launches of the same buffers share a bind group: wgpu encodes a
    /// dispatch with one of its own in twice the time.
    pub(super) fn ready(&self, launches: &[(&Arc<Pipeline>, &Resolved)]) -> Result<Vec<Dispatch>> {
        let align = u64::from(self.limits.min_uniform_buffer_offset_alignment).max(16);
        let words = |p: &Pipeline| 4 * p.words as u64;
        let longest = launches.iter().map(|(p, _)| words(p)).max().unwrap_or(16);
        let size: u64 = launches.iter().map(|(p, _)| words(p).next_multiple_of(align)).sum();
        let uniforms = self.device.create_buffer(&BufferDescriptor {
            label: Some("arguments"),
            // The last ones too are bound as if they were the longest.
            size: size + longest,
            usage: BufferUsages::UNIFORM | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let arguments = BufferBinding { buffer: &uniforms, offset: 0, size: NonZeroU64::new(longest) };
        let mut groups = HashMap::<Vec<Bound>, BindGroup>::new();
        let mut bytes = Vec::with_capacity(size as usize);
        let mut all = Vec::with_capacity(launches.len());
        for (pipeline, launch) in launches {
            let (grid, is_folded) = folded(launch.grid, self.limits.max_compute_workgroups_per_dimension);
            let mut words = header(launch.grid, is_folded);
            launch.values.iter().for_each(|v| words.extend(value_words(v)));
            if words.len().next_multiple_of(4) != pipeline.words {
                return Err(self.faults.error(format!("{}: {} words for {}", pipeline.name, words.len(), pipeline.words)));
            }
            let bound = self.bound(pipeline, &mut words)?;
            let group = match groups.entry(bound) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => {
                    let group = self.bind(pipeline, new.key(), arguments.clone())?;
                    new.insert(group).clone()
                }
            };
            all.push(Dispatch { pipeline: (*pipeline).clone(), group, arguments_at: bytes.len() as u32, grid });
            bytes.extend_from_slice(bytemuck::cast_slice(&words));
            bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
        }
        self.queue.write_buffer(&uniforms, 0, &bytes);
        self.check()?;
        Ok(all)
    }

    /// What is bound of the operands whose addresses stand in `words`: their buffers as a whole where the adapter binds as much, else from
    /// the operand on. The number of each one's first element takes the place of its address, and whether that is null.
    fn bound(&self, pipeline: &Pipeline, words: &mut [u32]) -> Result<Vec<Bound>> {
        let align = u64::from(self.limits.min_storage_buffer_offset_alignment);
        let wrong = |why: String| self.faults.error(format!("{}: {why}", pipeline.name));
        let one = |binding: &Binding| {
            let address = u64::from(words[binding.word]) | u64::from(words[binding.word + 1]) << 32;
            let (buffer, byte) =
                self.place_or_nothing(address).map_err(|_| wrong(format!("{} is not on the device", binding.name)))?;
            let offset = if buffer.size() <= self.largest_binding() { 0 } else { byte - byte % align };
            let unit = binding.element.bytes();
            if !(byte - offset).is_multiple_of(unit) {
                return Err(wrong(format!("{} begins at byte {byte}, in the middle of an element of {unit}", binding.name)));
            }
            words[binding.word] = ((byte - offset) / unit) as u32;
            words[binding.word + 1] = u32::from(address == 0);
            Ok(Bound { buffer: address - byte, offset, is_constant: binding.is_constant })
        };
        pipeline.bindings.iter().map(one).collect()
    }

    fn bind(&self, pipeline: &Pipeline, bound: &[Bound], arguments: BufferBinding) -> Result<BindGroup> {
        let buffers = bound.iter().map(|b| self.place_or_nothing(b.buffer)).collect::<Result<Vec<_>>>()?;
        let mut entries = vec![BindGroupEntry { binding: 0, resource: BindingResource::Buffer(arguments) }];
        for (i, ((buffer, _), &Bound { offset, .. })) in buffers.iter().zip(bound).enumerate() {
            let size = NonZeroU64::new((buffer.size() - offset).min(self.largest_binding()));
            let resource = BindingResource::Buffer(BufferBinding { buffer, offset, size });
            entries.push(BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let description = BindGroupDescriptor { label: Some(pipeline.name), layout: &pipeline.layout, entries: &entries };
        Ok(self.device.create_bind_group(&description))
    }

    /// Bytes of a binding at most.
    fn largest_binding(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size & !15
    }

    /// The buffer and the byte that an address means, or the buffer of nothing.
    fn place_or_nothing(&self, address: u64) -> Result<(Buffer, u64)> {
        if address == 0 { Ok((self.nothing.clone(), 0)) } else { self.place(address) }
    }
}

/// What stands in front of the arguments.
fn header(grid: [u32; 3], is_folded: bool) -> Vec<u32> {
    let mut words = grid.to_vec();
    words.push(is_folded.into());
    words.resize(HEADER_WORDS, 0);
    words
}

/// An argument's words; one that is no multiple of 4 bytes does not pass the launch's check.
fn value_words(value: &Value) -> Vec<u32> {
    match value {
        Value::Bytes(bytes) => bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Value::Map(_) => Vec::new(),
    }
}

/// Nanoseconds since some point, for devices that cannot tell the time within a pass.
pub fn host_ns() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_beyond_an_axis_are_folded_and_cover_all_blocks() {
        assert_eq!(folded([65535, 3, 2], 65535), ([65535, 3, 2], false));
        for grid in [[65536, 1, 1], [70000, 3, 1], [1 << 20, 1, 7]] {
            let ([x, y, z], is_folded) = folded(grid, 65535);
            let total: u64 = grid.iter().map(|&g| u64::from(g)).product();
            assert!(is_folded && z == 1 && x <= 65535 && u64::from(x) * u64::from(y) >= total, "{grid:?}");
            assert!(u64::from(x) * u64::from(y) - total < u64::from(x), "{grid:?}");
        }
    }
}
