//! A job: what was asked for, how far it is, and which transitions are legal.

pub mod choice;
pub mod importance;
pub mod phase;
pub mod planner;
pub mod quorum;
pub mod record;
pub mod spec;

pub use choice::Choice;
pub use phase::{Phase, Resume, Role};
pub use quorum::Quorum;
pub use record::{Held, IllegalTransition, Job, Looks, Owner};
pub use spec::Spec;
