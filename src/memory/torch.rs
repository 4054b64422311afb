//! Snapshots in the words of PyTorch's memory viewer (torch.cuda.memory._snapshot; the viewer wants them pickled).

use super::snapshot::{Segment, Snapshot, SnapshotBlock, Use};
use super::timeline::{EventKind, TimelineEvent};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct TorchSnapshot {
    pub segments: Vec<TorchSegment>,
    /// Events by device; the pool's is device 0.
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

fn segment(segment: &Segment) -> TorchSegment {
    let sum = |of: fn(&SnapshotBlock) -> bool| segment.blocks.iter().filter(|b| of(b)).map(|b| b.bytes).sum();
    TorchSegment {
        device: 0,
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

/// Events of the pool as a whole have no counterpart, but for running out of memory. A free is requested and completed at once.
fn events(event: &TimelineEvent) -> Vec<TorchEvent> {
    let actions: &[&'static str] = match event.kind {
        EventKind::Alloc => &["alloc"],
        EventKind::Free => &["free_requested", "free_completed"],
        EventKind::OutOfMemory => &["oom"],
        EventKind::Grow | EventKind::Shrink => &[],
    };
    let TimelineEvent { time_us, address, bytes, stream, ref owner, .. } = *event;
    let torch = |&action| TorchEvent { action, addr: address, size: bytes, stream: stream.0, time_us, frames: frames(owner) };
    actions.iter().map(torch).collect()
}

impl From<&Snapshot> for TorchSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let segments = snapshot.segments.iter().map(segment).collect();
        TorchSnapshot { segments, device_traces: vec![snapshot.timeline.iter().flat_map(events).collect()] }
    }
}
