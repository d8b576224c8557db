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

/// Gives back to the system what was freed in small blocks. By default the allocator keeps them for blocks to come, and they
/// stay resident, which is what a container's limit counts (`RLIMIT_DATA` counts them before and after). It takes milliseconds:
/// worth it when much has just been freed in little pieces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "malloc_trim is a C function")]
pub fn give_back_small_blocks() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: glibc's own function, which may be called from any thread at any time; it takes a number and touches free blocks alone.
    // Whether there was anything to give back is of no matter.
    let _ = unsafe { malloc_trim(0) };
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn give_back_small_blocks() {}

/// The variable that tells glibc how to behave. It is read before a program begins, so whoever starts one sets it.
pub const TUNABLES_VARIABLE: &str = "GLIBC_TUNABLES";

/// Of the stacks of threads that ended, how many bytes are kept for threads to come.
const STACKS: &str = "glibc.pthread.stack_cache_size";

/// What [`TUNABLES_VARIABLE`] must say, `known` being what it says already, for stacks of ended threads to be given back.
/// By default up to 40 MiB of them are kept, and count against a limit as if their threads still ran. Versions
/// before 2.34 do not know it and take no notice.
#[must_use]
pub fn tunables(known: Option<&str>) -> String {
    match known.filter(|known| !known.is_empty()) {
        None => format!("{STACKS}=0"),
        Some(known) if known.contains(STACKS) => known.to_owned(),
        Some(known) => format!("{known}:{STACKS}=0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_already_stays() {
        let own = "glibc.pthread.stack_cache_size=0";
        for (known, want) in [
            (None, own.to_owned()),
            (Some(""), own.to_owned()),
            (Some(own), own.to_owned()),
            (
                Some("glibc.malloc.arena_max=2"),
                format!("glibc.malloc.arena_max=2:{own}"),
            ),
        ] {
            assert_eq!(tunables(known), want);
        }
    }
}
