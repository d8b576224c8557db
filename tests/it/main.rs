//! Whole fleets under test.

mod e2e;
mod kills;
