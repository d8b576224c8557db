//! Room on a disk.

use std::io;
use std::path::Path;

/// Bytes that may still be written where `path` lies, by whoever is not the system's administrator.
///
/// # Errors
/// There is no such path, or its file system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(path)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_written_to_has_room_and_one_that_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("nowhere")).is_err());
    }
}
