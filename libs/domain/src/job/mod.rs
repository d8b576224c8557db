//! A job: what was asked for, how far it is, and which transitions are legal.

pub mod aggregation;
pub mod choice;
pub mod legality;
pub mod phase;
pub mod planner;
pub mod quorum;
pub mod record;
pub mod spec;

pub use aggregation::{Aggregation, Strategy, Weighting};
pub use choice::Choice;
pub use phase::{Phase, Role};
pub use quorum::Quorum;
pub use record::{Held, IllegalTransition, Job, Owner};
pub use spec::Spec;
