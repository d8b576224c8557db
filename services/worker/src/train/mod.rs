//! One round of local training: from the merged adapter's leading slices to this site's update.
//!
//! The result follows from plan, model, data, seed, round and worker alone: no clock and no job id
//! goes into it. It does not choose anything: the plan does.

mod course;
mod kept;
mod learnable;
mod lesson;
mod loss;
mod pending;
mod source;
mod stand;

pub use course::{How, Learned, Learner, Passes};
pub use kept::Kept;
pub use learnable::{Lengths, enough, lengths};
pub use lesson::{Lesson, Outcome, Taught, admit, options, pace, sampler, supported};
pub use loss::SharedLoss;
pub use pending::{Figures, Pending};
