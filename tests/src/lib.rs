//! Black-box tests: a whole fleet of processes, driven as people drive it.
//!
//! Here is what the cases share: a fleet under `fedpipe up`, its API, its processes and how they are
//! killed or halted at an exact point, small jobs with their model and data. It imports no service:
//! what it knows of them it knows through the binary, the API and the files of the state folder.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test whose fleet does not behave has failed, and says where"
)]

pub mod api;
pub mod archive;
pub mod bound;
pub mod browser;
pub mod cloud;
pub mod command;
pub mod disk;
pub mod fleet;
pub mod forger;
pub mod job;
pub mod points;
pub mod procs;
pub mod replay;
pub mod secured;
pub mod tensors;
pub mod twin;
pub mod wire;

pub use api::Api;
pub use cloud::Cloud;
pub use fleet::{Fleet, Setup, Site};
pub use job::job;
pub use wire::Wire;

/// Whether the long cases run too (`./run test --full`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("FEDPIPE_TEST_FULL").is_some()
}
