//! Owns the fleet's resource picture: admits jobs to free sites, asks workers to measure themselves,
//! fits a cost model per worker and mode, and keeps it true by what rounds show.
//!
//! It promises that a job leaves `queued` only with free sites that have its data, and `profiling`
//! only with a stored profile of each site that goes on. It does not plan.

pub mod admit;
mod app;
mod cache;
mod config;
mod error;
pub mod fit;
mod handlers;
mod hosts;
mod learn;
mod profiles;
mod queues;
pub mod refine;

pub use app::run;
pub use config::Config;
pub use error::Error;
pub use handlers::measuring::probe;
pub use learn::{teach, weigh};
