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
mod moved;
mod network;
mod offline;
mod outputs;
mod owners;
mod page;
mod privacy;
mod ranks;
mod rates;
mod replan;
mod resume;
mod retention;
mod rounds;
mod rules;
mod secured;
mod simulate;
mod storage;
mod tokens;
mod traces;
mod wedge;
