//! The only user of `object_store` in fedpipe: local files, S3, and URLs that somebody else signs look
//! alike from here. And of the Hugging Face Hub ([`hub`]), whose models come into the same cache.
//!
//! It promises: content is stored as parts of at most 8 MiB, named by what they contain and sealed
//! by a [`Manifest`]; nothing is overwritten; every transfer resumes where it stopped, is verified
//! part by part and as a whole, has a limit in bytes, and can be stopped with a token; whatever goes
//! wrong is an [`Error`] that answers [`Error::retry`]. Memory is bounded by a few parts.
//!
//! It does not decide which digest is true (that is compare-and-set in KV) and it never compares
//! clocks: pacing and the bandwidth probe use tokio's timer, nothing else does.

pub mod config;
pub mod error;
pub mod store;
pub mod transfer;

mod classify;
mod granted;
mod key;
pub mod manifest;
pub mod measured;
pub mod sign;
mod source;

mod download;
mod prefix;
mod upload;

pub mod model;
pub mod probe;

pub mod cache;
pub mod hub;
pub mod spool;
pub mod tensors;

pub use cache::{CachedModel, ModelCache};
pub use config::Config;
pub use error::{Error, Retry};
pub use granted::Link;
pub use hub::Hub;
pub use manifest::Manifest;
pub use model::ModelRef;
pub use prefix::Usage;
pub use probe::Bandwidth;
pub use sign::{SignError, Signed, Signer};
pub use spool::Spool;
pub use store::Store;
pub use transfer::Transfer;

/// Largest part of an artifact, in bytes; also the unit that an interrupted transfer repeats.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;

/// Parts of one transfer that are on their way at the same time; with [`PART_BYTES`] the bound on
/// a transfer's memory.
pub const PARTS_IN_FLIGHT: usize = 3;
