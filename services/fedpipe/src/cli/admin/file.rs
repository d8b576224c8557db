//! Files of secrets: for their owner alone, and never in another's place.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Makes a file that nobody else may read, in a folder that is made if it is missing.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn create(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let write = || -> std::io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => anyhow::bail!(
            "{} is there already, and may be in use. Next: another --output, or remove it first",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_its_owners_alone_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("keys");
        let path = create(&inner, "a.nk", "one").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&inner)), (0o600, 0o700));
        let error = create(&inner, "a.nk", "two").unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one");
    }
}
