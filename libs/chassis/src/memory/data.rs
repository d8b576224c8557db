//! What `RLIMIT_DATA` counts: every private writable page of the process, whether it is heap, an
//! allocator's slack, a thread's stack or the runtime's.
//!
//! The kernel keeps no high-water mark of it. It grows in an allocation or when a thread starts, so the
//! allocator looks at it after each large allocation, from the first [`data_bytes`] or `reset_peak` on.

use std::fs::File;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Allocations below this are not followed by a look: many of them together show in the next large one.
const SMALLEST_SEEN_BYTES: usize = 64 * 1024;

/// Pages of physical memory, and pages of data and stack: which figures of the file they are.
const RESIDENT: usize = 1;
const DATA: usize = 5;

/// `None` inside: the system has no such file.
static STATM: OnceLock<Option<File>> = OnceLock::new();
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Bytes that count against this process's limit now; 0 where the system does not say.
#[must_use]
pub fn data_bytes() -> u64 {
    figure(DATA)
}

/// Physical memory of this process now, what it shares with others included; 0 where the system does
/// not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    figure(RESIDENT)
}

fn figure(number: usize) -> u64 {
    let statm = STATM.get_or_init(|| File::open("/proc/self/statm").ok());
    let read = statm.as_ref().and_then(|statm| read(statm, number));
    read.unwrap_or(0)
}

/// The most bytes that counted since the last `reset_peak`, as seen after large allocations and now.
#[must_use]
pub fn peak_data_bytes() -> u64 {
    let now = data_bytes();
    PEAK.fetch_max(now, Relaxed).max(now)
}

pub(super) fn reset() {
    PEAK.store(data_bytes(), Relaxed);
}

/// Called by the allocator after a request of so many bytes: neither allocates nor locks.
pub(super) fn look(bytes: usize) {
    if bytes >= SMALLEST_SEEN_BYTES
        && let Some(Some(statm)) = STATM.get()
        && let Some(now) = read(statm, DATA)
    {
        PEAK.fetch_max(now, Relaxed);
    }
}

/// A figure of the file, which are pages, in bytes.
fn read(statm: &File, number: usize) -> Option<u64> {
    let mut text = [0u8; 128];
    let length = rustix::io::pread(statm, &mut text, 0).ok()?;
    let mut figures = text.get(..length)?.split(|byte| *byte == b' ');
    let pages: u64 = str::from_utf8(figures.nth(number)?).ok()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
