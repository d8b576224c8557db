//! Chooses for every worker what it trains, and says why.
//!
//! It promises an immutable plan that fits what was measured, or a refusal that says what is missing.
//! It measures nothing and drives no round.

pub mod allocate;
mod app;
mod config;
mod error;
mod handlers;
mod solving;

pub use app::run;
pub use config::Config;
pub use error::Error;
