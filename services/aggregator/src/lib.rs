//! Drives the rounds of a job and merges its updates.

pub mod strategy;
