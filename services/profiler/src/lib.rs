//! Owns the fleet's resource picture: admits jobs to free sites, asks workers to measure themselves,
//! fits a cost model per worker.
//!
//! It promises that a job leaves `queued` only with free sites that have its data, and `profiling`
//! only with a stored profile of each site that goes on. It does not plan.

pub mod admit;
mod app;
mod config;
mod error;
pub mod fit;
mod handlers;

pub use app::run;
pub use config::Config;
pub use error::Error;
pub use handlers::profiling::probe;
