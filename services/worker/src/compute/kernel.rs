//! The name under which a machine's arithmetic is known to plans.

/// Engine and arithmetic of this build. Two workers of the same kernel give the same bytes for the
/// same work, whatever their number of threads: the engine promises it. Raise the number with every
/// change of the engine that changes a result.
pub const KERNEL: &str = "portable-f32-1";
