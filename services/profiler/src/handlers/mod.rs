//! One file per phase that the profiler drives.

pub mod profiling;
pub mod queued;
