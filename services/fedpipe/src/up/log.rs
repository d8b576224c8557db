//! The children's logs: `STATE/logs/<name>.log`, bounded.
//!
//! A child writes to its file itself (appending), so that no line is lost with this process and idle
//! children cost nothing. Once a file is too large it is copied to `<name>.log.1` and emptied; a line
//! that is written in that moment may be lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log that is larger than this is put away.
const LIMIT_BYTES: u64 = 8 << 20;

/// How much of the end is looked at for its last lines.
const TAIL_BYTES: u64 = 8 << 10;

/// Opens a log for appending, after putting it away if it is too large.
pub fn open(path: &Path) -> io::Result<File> {
    rotate(path, LIMIT_BYTES)?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Puts a log away if it is too large.
pub fn tidy(path: &Path) -> io::Result<()> {
    rotate(path, LIMIT_BYTES)
}

fn rotate(path: &Path, limit_bytes: u64) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() > limit_bytes => {
            fs::copy(path, previous(path))?;
            OpenOptions::new().write(true).open(path)?.set_len(0)
        }
        _ => Ok(()),
    }
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The last lines of a log; none if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut end = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut end)?;
        Ok(end)
    };
    let end = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&end);
    let mut last: Vec<String> = text.lines().rev().take(lines).map(str::to_owned).collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_is_too_large_is_put_away_while_somebody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut writer = open(&path).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        rotate(&path, 100).unwrap();
        assert_eq!(tail(&path, 1), ["two"]);
        rotate(&path, 4).unwrap();
        writer.write_all(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert_eq!(tail(&previous(&path), 9), ["one", "two"]);
    }
}
