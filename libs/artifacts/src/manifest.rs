//! The seal of an artifact: which files it has, and which parts each file has.
//!
//! One type serves a single file and a folder (a model). Its canonical form is compact JSON with
//! the fields in the order below and the files in the order of their paths; the digest of a model
//! is the digest of these bytes. A manifest that exists is valid: parts add up, limits hold, and no
//! path leaves the folder it is unpacked into.

use domain::artifact::Digest;
use serde::{Deserialize, Serialize};

use crate::PART_BYTES;
use crate::source::digest_of;

/// The version this code writes and reads.
const VERSION: u32 = 1;
/// Most bytes that a manifest may have.
pub const MANIFEST_BYTES: u64 = 16 * 1024 * 1024;
/// Most files in one artifact.
pub const FILES: usize = 4096;
/// Most parts in one artifact (1 TiB).
pub const PARTS: usize = 131_072;
/// Longest path in one artifact, in bytes.
pub const PATH_BYTES: usize = 512;

/// Why a manifest cannot be true.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of this shape.
    #[error("it cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The same content in another spelling would have two digests.
    #[error("it is not in canonical form")]
    NotCanonical,
    /// Written by a newer fedpipe.
    #[error("its version is {0}, this program reads {VERSION}")]
    Version(u32),
    /// No file, or more files, parts or bytes than is sane.
    #[error("it has {count} {what}, the limit is {limit}")]
    Limit {
        /// Files, parts or bytes.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// A path that is absolute, has `..` in it, or cannot be a file here.
    #[error("`{0}` is not a relative path below the artifact")]
    Path(String),
    /// A path that is there twice, out of order, or both a file and a folder.
    #[error("`{0}` is there twice or out of order")]
    Duplicate(String),
    /// A part that is empty or above the limit.
    #[error("`{path}` has a part of {bytes} bytes")]
    Part {
        /// The file.
        path: String,
        /// The length of the part.
        bytes: u64,
    },
    /// The parts do not make up the file.
    #[error("the parts of `{path}` have {parts} bytes, the file {bytes}")]
    Sum {
        /// The file.
        path: String,
        /// The sum of its parts.
        parts: u64,
        /// What the manifest says of the file.
        bytes: u64,
    },
    /// It is valid, and of something else.
    #[error("it describes something else than was asked for")]
    Other,
}

/// What an artifact consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    version: u32,
    files: Vec<File>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it goes below the artifact's folder, with `/` between segments.
    pub path: String,
    /// Digest of the whole file.
    pub sha256: Digest,
    /// Length of the whole file.
    pub bytes: u64,
    /// What it is made of, in order.
    pub parts: Vec<Part>,
}

/// One object in storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Digest of the part, which is also its name.
    pub sha256: Digest,
    /// Length of the part, 1 to [`PART_BYTES`].
    pub bytes: u64,
}

/// The shape on the wire, before it is believed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    version: u32,
    files: Vec<File>,
}

impl Manifest {
    /// A manifest of these files, in the order of their paths.
    ///
    /// # Errors
    /// Whatever makes it invalid.
    pub fn new(mut files: Vec<File>) -> Result<Self, Error> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        check(&files)?;
        let manifest = Self {
            version: VERSION,
            files,
        };
        limit("bytes", manifest.to_bytes()?.len() as u64, MANIFEST_BYTES)?;
        Ok(manifest)
    }

    /// Reads the canonical form; anything else is refused.
    ///
    /// # Errors
    /// Whatever makes it invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        limit("bytes", bytes.len() as u64, MANIFEST_BYTES)?;
        let Unchecked { version, files } =
            serde_json::from_slice(bytes).map_err(Error::Unreadable)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        check(&files)?;
        let manifest = Self { version, files };
        if manifest.to_bytes()? == bytes {
            Ok(manifest)
        } else {
            Err(Error::NotCanonical)
        }
    }

    /// The canonical form.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it cannot be spelled, which no valid manifest does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::Unreadable)
    }

    /// The digest of the canonical form: the name of a model.
    ///
    /// # Errors
    /// As [`Self::to_bytes`].
    pub fn digest(&self) -> Result<Digest, Error> {
        Ok(digest_of(&self.to_bytes()?))
    }

    /// The files, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The only file, if it is one and lies at the top.
    #[must_use]
    pub fn single_file(&self) -> Option<&File> {
        match self.files.as_slice() {
            [file] if !file.path.contains('/') => Some(file),
            _ => None,
        }
    }

    /// Length of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Invariant: at most PARTS parts of PART_BYTES, far below u64::MAX.
        self.files.iter().map(|file| file.bytes).sum()
    }
}

fn check(files: &[File]) -> Result<(), Error> {
    limit("files", files.len() as u64, FILES as u64)?;
    if files.is_empty() {
        return Err(Error::Limit {
            what: "files",
            count: 0,
            limit: FILES as u64,
        });
    }
    let parts = files.iter().map(|file| file.parts.len()).sum::<usize>();
    limit("parts", parts as u64, PARTS as u64)?;
    files.iter().try_for_each(check_file)?;
    for (before, after) in files.iter().zip(files.iter().skip(1)) {
        if before.path >= after.path {
            return Err(Error::Duplicate(after.path.clone()));
        }
    }
    // `a` and `a/b` need not be neighbours (`a`, `a-`, `a/b`), so every folder is looked up.
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let folder = file.path.get(..end).unwrap_or_default();
            if files
                .binary_search_by(|other| other.path.as_str().cmp(folder))
                .is_ok()
            {
                return Err(Error::Duplicate(folder.to_owned()));
            }
        }
    }
    Ok(())
}

fn check_file(file: &File) -> Result<(), Error> {
    if !is_relative(&file.path) {
        return Err(Error::Path(file.path.chars().take(PATH_BYTES).collect()));
    }
    let mut sum = 0u64;
    for part in &file.parts {
        if part.bytes == 0 || part.bytes > PART_BYTES {
            return Err(Error::Part {
                path: file.path.clone(),
                bytes: part.bytes,
            });
        }
        sum += part.bytes;
    }
    if sum == file.bytes {
        Ok(())
    } else {
        Err(Error::Sum {
            path: file.path.clone(),
            parts: sum,
            bytes: file.bytes,
        })
    }
}

/// Whether a path stays below its folder. Names that end in `.partial` are ours, for what is not
/// complete yet.
fn is_relative(path: &str) -> bool {
    path.len() <= PATH_BYTES
        && !path.contains(['\\', ':'])
        && !path.chars().any(char::is_control)
        && path
            .split('/')
            .all(|s| !matches!(s, "" | "." | "..") && !s.ends_with(".partial"))
}

fn limit(what: &'static str, count: u64, limit: u64) -> Result<(), Error> {
    if count <= limit {
        Ok(())
    } else {
        Err(Error::Limit { what, count, limit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(bytes: u64) -> Part {
        Part {
            sha256: digest_of(b"part"),
            bytes,
        }
    }

    fn file(path: &str, parts: &[u64]) -> File {
        File {
            path: path.into(),
            sha256: digest_of(path.as_bytes()),
            bytes: parts.iter().sum(),
            parts: parts.iter().map(|&bytes| part(bytes)).collect(),
        }
    }

    #[test]
    fn the_canonical_form_reads_back_and_ignores_the_order_given() {
        let one = Manifest::new(vec![file("b", &[3]), file("a/c", &[PART_BYTES, 1])]).unwrap();
        let two = Manifest::new(vec![file("a/c", &[PART_BYTES, 1]), file("b", &[3])]).unwrap();
        assert_eq!(one.digest().unwrap(), two.digest().unwrap());
        assert_eq!(Manifest::parse(&one.to_bytes().unwrap()).unwrap(), one);
        assert_eq!(one.bytes(), PART_BYTES + 4);
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in [
            "",
            "/a",
            "../a",
            "a/../../b",
            "a//b",
            "./a",
            "a\\b",
            "c:",
            "a\0",
            "a.partial",
        ] {
            let error = Manifest::new(vec![file(path, &[1])]).unwrap_err();
            assert!(matches!(error, Error::Path(_)), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_path_is_there_once_and_is_not_a_folder_too() {
        for paths in [["a", "a"].as_slice(), &["a", "a-", "a/b"]] {
            let files = paths.iter().map(|path| file(path, &[1])).collect();
            assert!(
                matches!(Manifest::new(files), Err(Error::Duplicate(_))),
                "{paths:?}"
            );
        }
    }

    #[test]
    fn lies_about_lengths_are_refused() {
        let mut wrong_sum = file("a", &[1]);
        wrong_sum.bytes = 2;
        assert!(matches!(
            Manifest::new(vec![wrong_sum]),
            Err(Error::Sum { .. })
        ));
        for bytes in [0, PART_BYTES + 1, u64::MAX] {
            let mut lie = file("a", &[1]);
            lie.parts = vec![part(bytes)];
            assert!(
                matches!(Manifest::new(vec![lie]), Err(Error::Part { .. })),
                "{bytes}"
            );
        }
    }

    #[test]
    fn too_many_files_or_parts_are_refused() {
        let files = (0..=FILES).map(|i| file(&format!("f{i}"), &[])).collect();
        assert!(matches!(
            Manifest::new(files),
            Err(Error::Limit { what: "files", .. })
        ));
        let mut many = file("a", &[]);
        many.parts = vec![part(1); PARTS + 1];
        many.bytes = PARTS as u64 + 1;
        assert!(matches!(
            Manifest::new(vec![many]),
            Err(Error::Limit { what: "parts", .. })
        ));
        assert!(matches!(
            Manifest::new(vec![]),
            Err(Error::Limit { what: "files", .. })
        ));
    }

    #[test]
    fn another_spelling_of_the_same_manifest_is_refused() {
        let bytes = Manifest::new(vec![file("a", &[1])])
            .unwrap()
            .to_bytes()
            .unwrap();
        let spaced = [b" ".as_slice(), &bytes].concat();
        assert!(matches!(Manifest::parse(&spaced), Err(Error::NotCanonical)));
        let newer = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            Manifest::parse(newer.as_bytes()),
            Err(Error::Version(2))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn a_damaged_manifest_is_refused_or_says_something_else(at in 0usize..150, to in any::<u8>()) {
            let manifest = Manifest::new(vec![file("a", &[1])]).unwrap();
            let mut bytes = manifest.to_bytes().unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert_ne!(Manifest::parse(&bytes).ok(), Some(manifest));
        }
    }
}
