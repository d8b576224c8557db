//! Whole fleets under test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod commands;
mod disk;
mod e2e;
mod emulation;
mod faults;
mod forged;
mod grants;
mod inputs;
mod kills;
mod memory;
mod mezo;
mod mixed;
mod network;
mod offline;
mod owners;
mod privacy;
mod ranks;
mod rates;
mod replan;
mod retention;
mod rounds;
mod rules;
mod simulate;
mod storage;
mod wedge;
