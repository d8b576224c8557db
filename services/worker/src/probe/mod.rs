//! Measuring this site on its own data: speed, memory, link. Real steps, bounded in memory and time.
//!
//! It fits nothing and plans nothing; the profiler does.

mod configurations;
mod examination;
mod kernels;
mod measurement;
mod noise;
mod room;
mod sized;
mod start;

pub use examination::Examination;
pub use measurement::{Link, key};
