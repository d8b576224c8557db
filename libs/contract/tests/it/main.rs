//! The wire, as it was released.

// Clippy then knows that helper modules are tests, too.
#![cfg(test)]

mod golden;
mod permissions;
mod refusals;
mod samples;
mod subjects;
