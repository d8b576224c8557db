//! Small files that are either whole or not there, also after a loss of power.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file under its name only when it is whole: temporary file, sync, rename, sync.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_added_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a file; `None` if it is not there.
///
/// # Errors
/// What the file system says.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    absent(fs::read(path))
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// What the file system says.
pub fn remove(path: &Path) -> io::Result<()> {
    absent(fs::remove_file(path)).map(|_| ())
}

/// What came of it; `None` if what it was done to is not there.
///
/// # Errors
/// Every other error.
pub fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
