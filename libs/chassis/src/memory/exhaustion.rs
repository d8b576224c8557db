//! The last word of a process that runs out of memory, for the process that follows it.
//!
//! A process that is refused memory usually aborts. A marker file that was opened in time receives
//! one line, written without allocating. Being killed by the kernel leaves no word.

use std::fmt::{self, Write};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Error;

/// Requests below this are not reported: whoever is refused so little is not the cause.
const SMALLEST_REPORTED_BYTES: u64 = 64 * 1024;

static MARKER: OnceLock<File> = OnceLock::new();
static REPORTED: AtomicBool = AtomicBool::new(false);

/// What the process asked for when there was no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhaustion {
    /// Bytes of the refused request.
    pub asked_bytes: u64,
    /// Heap bytes in use at that moment.
    pub used_bytes: u64,
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            asked_bytes,
            used_bytes,
        } = self;
        write!(
            f,
            "out of memory: asked for {asked_bytes} bytes with {used_bytes} in use"
        )
    }
}

impl Exhaustion {
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?;
        let rest = line.strip_prefix("out of memory: asked for ")?;
        let (asked, rest) = rest.split_once(" bytes with ")?;
        let used = rest.strip_suffix(" in use")?;
        Some(Self {
            asked_bytes: asked.parse().ok()?,
            used_bytes: used.parse().ok()?,
        })
    }
}

/// Opens the marker file; from now on the first refused request of 64 KiB or more leaves its line
/// there, even if the caller bears the refusal: the word counts only if the process then died. A
/// second call changes nothing: a process has one marker.
///
/// # Errors
/// [`Error::File`] if the file cannot be created.
pub fn report_exhaustion_to(path: &Path) -> Result<(), Error> {
    if MARKER.get().is_some() {
        return Ok(());
    }
    let file = File::create(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    let _ = MARKER.set(file);
    Ok(())
}

/// What the process before this one left at `path`, and removes it. To be called before
/// [`report_exhaustion_to`], which empties the file.
///
/// # Errors
/// [`Error::File`] if the file is there and cannot be read or removed.
pub fn take_exhaustion(path: &Path) -> Result<Option<Exhaustion>, Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            fs::remove_file(path).map_err(failed)?;
            Ok(Exhaustion::parse(&text))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Called by the allocator: neither allocates nor locks.
pub(super) fn report(asked_bytes: u64, used_bytes: u64) {
    if asked_bytes < SMALLEST_REPORTED_BYTES {
        return;
    }
    let Some(marker) = MARKER.get() else { return };
    if REPORTED.swap(true, Relaxed) {
        return;
    }
    let mut line = Line::default();
    let exhaustion = Exhaustion {
        asked_bytes,
        used_bytes,
    };
    if writeln!(line, "{exhaustion}").is_ok() {
        let _ = rustix::io::write(marker, line.written());
    }
}

/// A text on the stack.
struct Line {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 128],
            length: 0,
        }
    }
}

impl Line {
    fn written(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let free = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        free.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_was_asked_and_reads_back() {
        let exhaustion = Exhaustion {
            asked_bytes: u64::MAX,
            used_bytes: u64::MAX,
        };
        let mut line = Line::default();
        writeln!(line, "{exhaustion}").unwrap();
        let text = std::str::from_utf8(line.written()).unwrap();
        assert_eq!(Exhaustion::parse(text), Some(exhaustion));
    }

    #[test]
    fn what_the_last_process_left_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exhausted");
        assert_eq!(take_exhaustion(&path).unwrap(), None);
        fs::write(
            &path,
            "out of memory: asked for 70000 bytes with 5 in use\n",
        )
        .unwrap();
        let left = Exhaustion {
            asked_bytes: 70_000,
            used_bytes: 5,
        };
        assert_eq!(take_exhaustion(&path).unwrap(), Some(left));
        assert_eq!(take_exhaustion(&path).unwrap(), None);
        fs::write(&path, "").unwrap();
        assert_eq!(
            take_exhaustion(&path).unwrap(),
            None,
            "an empty marker is no word"
        );
    }
}
