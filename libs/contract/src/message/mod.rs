//! The messages, one file per family.

pub mod beat;
pub mod control;
pub mod dead;
pub mod grant;
pub mod job;
pub mod report;
mod short;
pub mod task;
