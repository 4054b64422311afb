//! Snapshots in the words of PyTorch's memory viewer (torch.cuda.memory._snapshot, pytorch.org/memory_viz), pickled as it wants them.

use super::pickle::{Value, pickle};
use super::snapshot::{Segment, Snapshot, SnapshotBlock, Use};
use super::timeline::{EventKind, TimelineEvent};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchSnapshot {
    pub segments: Vec<TorchSegment>,
    /// Events by device.
    pub device_traces: Vec<Vec<TorchEvent>>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchSegment {
    pub device: u32,
    pub address: u64,
    pub total_size: u64,
    pub allocated_size: u64,
    pub active_size: u64,
    pub requested_size: u64,
    pub stream: u16,
    pub segment_type: &'static str,
    pub is_expandable: bool,
    pub blocks: Vec<TorchBlock>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchBlock {
    pub address: u64,
    pub size: u64,
    pub requested_size: u64,
    pub state: &'static str,
    pub frames: Vec<TorchFrame>,
}

/// Where a block comes from: here the account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchFrame {
    pub filename: &'static str,
    pub line: u32,
    pub name: String,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchEvent {
    pub action: &'static str,
    pub addr: u64,
    pub size: u64,
    pub stream: u16,
    pub time_us: u64,
    pub frames: Vec<TorchFrame>,
}

fn frames(owner: &str) -> Vec<TorchFrame> {
    let frame = TorchFrame { filename: "account", line: 0, name: owner.into() };
    if owner.is_empty() { Vec::new() } else { vec![frame] }
}

fn block(block: &SnapshotBlock) -> TorchBlock {
    let state = match block.usage {
        Use::Live => "active_allocated",
        Use::Pending => "active_pending_free",
        Use::Free => "inactive",
    };
    let frames = frames(block.owner.as_deref().unwrap_or_default());
    TorchBlock { address: block.address, size: block.bytes, requested_size: block.requested_bytes, state, frames }
}

fn segment(device: u32, segment: &Segment) -> TorchSegment {
    let sum = |of: fn(&SnapshotBlock) -> bool| segment.blocks.iter().filter(|b| of(b)).map(|b| b.bytes).sum();
    TorchSegment {
        device,
        address: segment.address,
        total_size: segment.bytes,
        allocated_size: sum(|b| b.usage == Use::Live),
        active_size: sum(|b| b.usage != Use::Free),
        requested_size: segment.blocks.iter().map(|b| b.requested_bytes).sum(),
        stream: segment.blocks.iter().find_map(|b| b.stream).unwrap_or_default().0,
        segment_type: "large",
        is_expandable: true,
        blocks: segment.blocks.iter().map(block).collect(),
    }
}

/// A free is requested and completed at once. What was taken from the device is told where it was mapped.
fn events(event: &TimelineEvent) -> Vec<TorchEvent> {
    let actions: &[&'static str] = match event.kind {
        EventKind::Alloc => &["alloc"],
        EventKind::Free => &["free_requested", "free_completed"],
        EventKind::Map => &["segment_map"],
        EventKind::Unmap => &["segment_unmap"],
        EventKind::OutOfMemory => &["oom"],
        EventKind::Grow | EventKind::Shrink => &[],
    };
    let TimelineEvent { time_us, address, bytes, stream, ref owner, .. } = *event;
    let torch = |&action| TorchEvent { action, addr: address, size: bytes, stream: stream.0, time_us, frames: frames(owner) };
    actions.iter().map(torch).collect()
}

impl TorchSnapshot {
    /// Pools as the viewer's devices, numbered in their order.
    pub fn of(pools: &[Snapshot]) -> Self {
        let segments = (0..).zip(pools).flat_map(|(device, pool)| pool.segments.iter().map(move |s| segment(device, s)));
        let traces = pools.iter().map(|pool| pool.timeline.iter().flat_map(events).collect());
        TorchSnapshot { segments: segments.collect(), device_traces: traces.collect() }
    }

    /// The file that the viewer opens.
    pub fn pickle(&self) -> Vec<u8> {
        use Value::{Dict, List};
        let segments = self.segments.iter().map(TorchSegment::value).collect();
        let traces = self.device_traces.iter().map(|events| List(events.iter().map(TorchEvent::value).collect())).collect();
        pickle(&Dict(vec![("segments", List(segments)), ("device_traces", List(traces))]))
    }
}

impl TorchSegment {
    fn value(&self) -> Value<'_> {
        use Value::{Dict, Flag, Int, List, Text};
        Dict(vec![
            ("device", Int(self.device.into())),
            ("address", Int(self.address)),
            ("total_size", Int(self.total_size)),
            ("allocated_size", Int(self.allocated_size)),
            ("active_size", Int(self.active_size)),
            ("requested_size", Int(self.requested_size)),
            ("stream", Int(self.stream.into())),
            ("segment_type", Text(self.segment_type)),
            ("is_expandable", Flag(self.is_expandable)),
            ("blocks", List(self.blocks.iter().map(TorchBlock::value).collect())),
        ])
    }
}

impl TorchBlock {
    fn value(&self) -> Value<'_> {
        use Value::{Dict, Int, Text};
        Dict(vec![
            ("address", Int(self.address)),
            ("size", Int(self.size)),
            ("requested_size", Int(self.requested_size)),
            ("state", Text(self.state)),
            ("frames", frame_values(&self.frames)),
        ])
    }
}

impl TorchEvent {
    fn value(&self) -> Value<'_> {
        use Value::{Dict, Int, Text};
        Dict(vec![
            ("action", Text(self.action)),
            ("addr", Int(self.addr)),
            ("size", Int(self.size)),
            ("stream", Int(self.stream.into())),
            ("time_us", Int(self.time_us)),
            ("frames", frame_values(&self.frames)),
        ])
    }
}

impl TorchFrame {
    fn value(&self) -> Value<'_> {
        use Value::{Dict, Int, Text};
        Dict(vec![("filename", Text(self.filename)), ("line", Int(self.line.into())), ("name", Text(&self.name))])
    }
}

fn frame_values(frames: &[TorchFrame]) -> Value<'_> {
    Value::List(frames.iter().map(TorchFrame::value).collect())
}
