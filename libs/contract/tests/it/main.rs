//! The wire, as it was released.

mod golden;
mod permissions;
mod refusals;
mod samples;
mod subjects;
