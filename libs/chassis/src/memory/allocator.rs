//! The system's allocator with a count of heap bytes.
//!
//! Counts are what was asked for, without the allocator's own overhead, and nothing that is mapped
//! without it. They cost two relaxed atomic additions per call; the peak may miss a few bytes when
//! threads allocate in the same instant.
#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; every method passes its arguments to System unchanged"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{data, exhaustion};

static CURRENT: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// The allocator a binary declares as its `#[global_allocator]`. Without it every count is 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// Heap bytes in use now.
#[must_use]
pub fn current_bytes() -> u64 {
    CURRENT.load(Relaxed)
}

/// The most heap bytes in use since the start or the last [`reset_peak`].
#[must_use]
pub fn peak_bytes() -> u64 {
    PEAK.load(Relaxed)
}

/// Starts a new measurement of both peaks, from what is in use now.
pub fn reset_peak() {
    data::reset();
    PEAK.store(current_bytes(), Relaxed);
}

fn grow(bytes: usize) {
    let now = CURRENT.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    // Read first: almost every call is below the peak and then writes nothing.
    if now > PEAK.load(Relaxed) {
        PEAK.fetch_max(now, Relaxed);
    }
}

fn shrink(bytes: usize) {
    CURRENT.fetch_sub(bytes as u64, Relaxed);
}

fn counted(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() {
        exhaustion::report(bytes as u64, current_bytes());
    } else {
        grow(bytes);
        data::look(bytes);
    }
    block
}

/// Counts the difference alone: the system moves pages of a large block, it holds no second copy.
fn recounted(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    if block.is_null() {
        exhaustion::report(new as u64, current_bytes());
    } else if new > old {
        grow(new - old);
        data::look(new);
    } else {
        shrink(old - new);
    }
    block
}

// SAFETY: every method hands its arguments to `System`, which upholds the contract, and returns what
// it returned. Counting and reporting neither allocate nor unwind.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let block = unsafe { System.alloc(layout) };
        counted(block, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        counted(block, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the block came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises about block, layout and size are passed on.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        recounted(moved, layout.size(), new_size)
    }
}
