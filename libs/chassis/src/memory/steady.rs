//! Memory that is given back is given back to the system, so that what counts against a limit is what is
//! held and not what once was.

/// Blocks from this size on are mapped by themselves and unmapped when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 256 * 1024;

/// Tells the system's allocator to map large blocks by themselves. By default it raises that bound to
/// the largest block that was ever freed, and keeps what is below it: the process then counts as large as
/// it was at its largest, in pieces that the next large block may not fit into.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt is a C function")]
pub fn give_back_large_blocks() {
    const M_MMAP_THRESHOLD: i32 = -3;
    unsafe extern "C" {
        fn mallopt(parameter: i32, value: i32) -> i32;
    }
    // SAFETY: glibc's own function with its own constants; it takes numbers and keeps no pointer.
    let taken = unsafe { mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES) };
    if taken == 0 {
        tracing::warn!("the allocator keeps large blocks that are freed");
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn give_back_large_blocks() {}
