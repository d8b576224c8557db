//! One file per phase that the profiler drives.

pub mod measuring;
pub mod profiling;
pub mod queued;
pub mod refining;
