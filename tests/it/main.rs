//! Whole fleets under test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod beyond;
mod chat;
mod choice;
mod classes;
mod coming;
mod commands;
mod credited;
mod disk;
mod e2e;
mod emulation;
mod families;
mod faults;
mod federation;
mod forged;
mod grants;
mod held_out;
mod hub;
mod inputs;
mod kills;
mod memory;
mod mezo;
mod mixed;
mod moved;
mod network;
mod newer;
mod offline;
mod outputs;
mod owners;
mod packing;
mod page;
mod paused;
mod privacy;
mod ranks;
mod rates;
mod replan;
mod report;
mod resume;
mod retention;
mod rounds;
mod rules;
mod secured;
mod settings;
mod shown;
mod simulate;
mod storage;
mod streaming;
mod terminate;
mod tokens;
mod tools;
mod traces;
mod wedge;
mod whole;
mod writing;
