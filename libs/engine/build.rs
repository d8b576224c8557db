//! Gives this crate's sources a short digest, for `engine::VERSION`.
//!
//! Promises: another byte in a source file, or another name of one, is another digest; the folder that the
//! workspace lies in, and the machine, are none of it. It tells builds apart and guards against nobody.
//!
//! Cargo finds this file by its name: named in the manifest, it would have to be in the image's skeleton too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Start and factor of FNV-1a with 64 bits.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0000_0100_0000_01b3;

fn main() -> io::Result<()> {
    let digest = digest(Path::new("src"))?;
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rustc-env=ENGINE_DIGEST={digest}");
    Ok(())
}

/// Eight digits that stand for every source file in the folder: where in it they lie, and what they say.
///
/// # Errors
/// A file or a folder cannot be read.
pub fn digest(folder: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    let mut hash = START;
    for file in &files {
        let name = file.strip_prefix(folder).unwrap_or(file);
        hash = fnv(hash, name.to_string_lossy().as_bytes());
        // Neither holds this byte, so what ends one is not taken for the beginning of the next.
        hash = fnv(hash, &[0]);
        hash = fnv(hash, &fs::read(file)?);
        hash = fnv(hash, &[0]);
    }
    Ok(format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff)))
}

/// Every `.rs` file in the folder and those in it, in no order.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FACTOR)
    })
}
