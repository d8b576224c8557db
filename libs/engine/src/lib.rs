//! The only user of candle: models, adapters, training, evaluation and generation.
//!
//! Promises: no gradient is ever computed for a frozen weight; the same inputs and seed give the
//! same bytes, run after run and for any number of threads; every refused input is a typed error
//! that names what was refused.
//!
//! Does not: read clocks, download, log progress, or choose a configuration.

pub mod kernel;
pub mod threads;

pub mod model;
mod normal;
mod source;

pub mod adapter;

pub mod control;

pub mod compute;
pub mod ops;

pub mod data;
pub mod text;

pub mod bench;
pub mod evaluate;
pub mod export;
pub mod generate;
pub mod importance;
pub mod memory;
pub mod metrics;
pub mod plain;
pub mod train;

/// Which engine this is: the version, and as its build (semver's `+`) a digest of the engine's own sources (not of its
/// dependencies), for engines of one version may compute in another order, or faster. What was measured or begun by one is
/// not for another. The same value says that the engine's sources are the same, not that the whole program is: a change of a
/// dependency, a compiler or its flags alone is not seen.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("ENGINE_DIGEST"));
