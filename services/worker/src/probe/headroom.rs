//! What part of the allowed memory the heap can really have.
//!
//! `RLIMIT_DATA` counts thread stacks and the allocator's own overhead; plans count heap. The
//! difference is measured, not assumed.

use std::fs;
use std::path::Path;

/// Bytes of the limit that heap can use: the limit without what is counted against it now and is
/// not heap. `root` is `/`; tests give a folder that looks like one.
#[must_use]
pub fn usable_bytes(root: &Path, limit_bytes: u64, heap_bytes: u64) -> u64 {
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let data_bytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(heap_bytes, |kib| kib * 1024);
    limit_bytes.saturating_sub(data_bytes.saturating_sub(heap_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_heap_is_taken_off() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path().join("proc/self");
        fs::create_dir_all(&proc).unwrap();
        fs::write(proc.join("status"), "Name:\tx\nVmData:\t    3000 kB\n").unwrap();
        let kib = |count: u64| count * 1024;
        assert_eq!(
            usable_bytes(folder.path(), kib(10_000), kib(1000)),
            kib(8000)
        );
        assert_eq!(usable_bytes(folder.path(), kib(1000), kib(1000)), 0);
        assert_eq!(usable_bytes(Path::new("/none"), 10, 5), 10);
    }
}
