//! Measuring this site on its own data: speed, memory, link. Real steps, bounded in memory and time.
//!
//! It fits nothing and plans nothing; the profiler does.

mod bases;
mod budget;
mod configurations;
mod examination;
mod growth;
mod head;
mod importance;
mod kernels;
mod measurement;
mod noise;
mod peaks;
mod room;
mod scoring;
mod sized;
mod start;
mod stepper;

pub use examination::Examination;
pub use measurement::{Link, key};
