//! One file per phase that the aggregator drives.

pub mod ended;
pub mod evaluating;
pub mod finalizing;
pub mod folding;
pub mod paused;
pub mod starting;
pub mod training;
