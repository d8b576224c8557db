//! A job: what was asked for, how far it is, and which transitions are legal.

pub mod aggregation;
pub mod barred;
pub mod choice;
pub mod course;
pub mod evaluation;
pub mod holding;
pub mod importance;
pub mod labels;
pub mod legality;
pub mod mezo;
pub mod phase;
pub mod planner;
pub mod quorum;
pub mod record;
pub mod rounds;
pub mod sample;
pub mod spec;
pub mod training;

pub use aggregation::{Aggregation, Strategy, Weighting};
pub use choice::Choice;
pub use course::{Course, Kept};
pub use mezo::{Mezo, Seeds, Wire};
pub use phase::{Phase, Resume, Role};
pub use quorum::Quorum;
pub use record::{Held, IllegalTransition, Job, Looks, Owner};
pub use rounds::{Keep, Late, Rounds};
pub use sample::Sample;
pub use spec::Spec;
