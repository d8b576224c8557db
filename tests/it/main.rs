//! Whole fleets under test.

mod e2e;
mod emulation;
mod faults;
mod forged;
mod inputs;
mod kills;
mod ranks;
mod wedge;
