//! Memory: how much the process may use, how much it does use, and a word left behind when there is
//! no more.

mod allocator;
mod data;
mod exhaustion;
mod limit;
mod steady;

pub use allocator::{Allocator, current_bytes, peak_bytes, reset_peak};
pub use data::{data_bytes, peak_data_bytes, resident_bytes};
pub use exhaustion::{Exhaustion, report_exhaustion_to, take_exhaustion};
pub use limit::{allowed_bytes, limit_bytes, set_limit, threads};
pub use steady::{TUNABLES_VARIABLE, give_back_large_blocks, give_back_small_blocks, tunables};

use std::path::PathBuf;

/// Why memory could not be measured or limited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the kernel, or the marker, cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `/proc/meminfo` names no total.
    #[error("the machine's memory is unknown")]
    UnknownTotal,
    /// The kernel refused the limit.
    #[error("the limit of {bytes} bytes was refused")]
    Refused {
        /// The limit asked for.
        bytes: u64,
        /// Why.
        source: rustix::io::Errno,
    },
}
