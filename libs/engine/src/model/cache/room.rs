//! What else lies in the folder, and what is deleted from it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

/// How an entry's name ends.
pub(super) const EXTENSION: &str = "quantized";
/// How the name of a remembered digest ends.
pub(super) const MEMO: &str = "source";
/// How the name of a file under way begins.
const TEMPORARY: &str = ".under-way-";

/// Remembered digests that are kept, the newest.
const MEMOS: usize = 256;
/// Most files of the folder that are looked at.
const FILES: usize = 100_000;
/// A file under way that is so much older than a new one was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A file that disappears unless it is given a name.
pub(super) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(folder)
}

struct Found {
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
}

/// Deletes the oldest entries until at most `left` bytes of them remain besides `replaced`, which is
/// about to be; and what nobody needs any more.
pub(super) fn make(folder: &Path, left: u64, replaced: &Path) -> io::Result<()> {
    let (mut entries, mut memos, mut under_way) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)?.take(FILES) {
        let path = entry?.path();
        // Somebody else may delete too.
        let Ok(about) = fs::metadata(&path) else {
            continue;
        };
        let found = Found {
            bytes: about.len(),
            written: about.modified()?,
            path,
        };
        let name = found.path.file_name().unwrap_or_default();
        let is_under_way = name.to_string_lossy().starts_with(TEMPORARY);
        match found.path.extension().and_then(|end| end.to_str()) {
            _ if is_under_way => under_way.push(found),
            Some(EXTENSION) if found.path != replaced => entries.push(found),
            Some(MEMO) => memos.push(found),
            _ => {}
        }
    }
    let newest_first = |a: &Found, b: &Found| b.written.cmp(&a.written);
    entries.sort_unstable_by(newest_first);
    memos.sort_unstable_by(newest_first);
    let mut kept = 0u64;
    for entry in entries {
        kept = kept.saturating_add(entry.bytes);
        if kept > left {
            delete(&entry.path);
        }
    }
    memos.iter().skip(MEMOS).for_each(|memo| delete(&memo.path));
    let now = under_way.iter().map(|file| file.written).max();
    for file in under_way {
        let age = now.and_then(|now| now.duration_since(file.written).ok());
        if age.is_some_and(|age| age > ABANDONED) {
            delete(&file.path);
        }
    }
    Ok(())
}

fn delete(path: &Path) {
    // Whoever reads it has it open already; whoever deleted it before us did the same.
    let _ = fs::remove_file(path);
}
