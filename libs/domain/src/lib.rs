//! What a job, fleet, profile, plan, round and update *is*, and which transitions are legal.
//!
//! Everything here is pure: no input or output, no clock, no randomness, no runtime. `now` and
//! `seed` are parameters. Every type is parsed once; a value that exists is valid.

pub mod adapter;
pub mod artifact;
pub mod cause;
pub mod correlation;
pub mod drift;
pub mod energy;
pub mod figure;
pub mod fleet;
pub mod grant;
pub mod hub;
pub mod id;
pub mod job;
pub mod object;
pub mod peft;
pub mod plan;
pub mod profile;
pub mod round;
pub mod schedule;
pub mod secret;
pub mod time;
pub mod trace;
pub mod zeroth;
