//! Drives the rounds of a job and merges its updates.
//!
//! It promises that a round's decision is stored before anything is merged, that the same decision
//! always gives the same bytes, and that its memory does not grow with the number of workers. It holds
//! no data: what is merged is scored by the workers.

mod app;
mod config;
mod error;
mod handlers;
mod rounds;
pub mod strategy;

pub use app::run;
pub use config::Config;
pub use error::Error;
pub use rounds::emphasis::{mask, scaled};
pub use rounds::published::of_encoder as named_as_encoder;
pub use rounds::rates::factor as rate_factor;
pub use rounds::report::peft_config;
pub use rounds::walk::{steps, together};
pub use rounds::{ask, follow, tasks};
