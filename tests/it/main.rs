//! Whole fleets under test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod e2e;
mod emulation;
mod faults;
mod forged;
mod inputs;
mod kills;
mod ranks;
mod storage;
mod wedge;
