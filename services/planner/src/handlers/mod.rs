//! One file per phase that the planner drives.

pub mod planning;
