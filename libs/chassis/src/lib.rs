//! What every process needs: configuration, telemetry, health, signals, the clock, memory, room on a disk.
//!
//! The only place with a wall clock and with random numbers. It knows nothing of messages, objects
//! or tensors, and depends on no crate of ours but `domain`.

pub mod clock;
pub mod config;
pub mod disk;
pub mod failpoint;
pub mod health;
pub mod memory;
pub mod service;
pub mod signals;
pub mod telemetry;
