//! What a launch did, counted.

/// Counts of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions that warps executed, and the same by lanes.
    pub warp_instructions: u64,
    pub lane_instructions: u64,
}
