//! A folder that appears whole or not at all.
//!
//! Everything is written into a folder beside the one that was asked for, verified there, and renamed into
//! place. What a killed process leaves is that other folder, never half an export under the name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Error;
use super::error::unwritable;

/// The name of unfinished folders begins so.
const UNFINISHED: &str = ".fedpipe-export-";

/// A folder under way.
pub(super) struct Output {
    wanted: PathBuf,
    beside: TempDir,
}

impl Output {
    /// Begins. Refused where something is there that is not to be replaced; an empty folder is nothing.
    pub(super) fn begin(wanted: &Path, replace: bool) -> Result<Self, Error> {
        if !replace && !is_free(wanted)? {
            return Err(Error::Exists {
                path: wanted.to_owned(),
            });
        }
        let parent = match wanted.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(unwritable(&parent))?;
        let beside = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempdir_in(&parent)
            .map_err(unwritable(&parent))?;
        Ok(Self {
            wanted: wanted.to_owned(),
            beside,
        })
    }

    /// Where to write.
    pub(super) fn folder(&self) -> &Path {
        self.beside.path()
    }

    /// Puts what was written into place. What is replaced goes away only after that.
    pub(super) fn finish(self) -> Result<(), Error> {
        synced(self.beside.path())?;
        let there = fs::symlink_metadata(&self.wanted).is_ok();
        let old = self.beside.path().with_extension("replaced");
        if there {
            fs::rename(&self.wanted, &old).map_err(unwritable(&self.wanted))?;
        }
        let beside = self.beside.keep();
        if let Err(source) = fs::rename(&beside, &self.wanted) {
            // Back as it was; the first failure is what is told.
            let _ = fs::remove_dir_all(&beside);
            if there {
                let _ = fs::rename(&old, &self.wanted);
            }
            return Err(unwritable(&self.wanted)(source));
        }
        readable(&self.wanted)?;
        if there {
            let gone = if old.is_dir() {
                fs::remove_dir_all(&old)
            } else {
                fs::remove_file(&old)
            };
            gone.map_err(unwritable(&old))?;
        }
        Ok(())
    }
}

fn is_free(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(unwritable(path)(source)),
        Ok(about) if about.is_dir() => {
            let mut entries = fs::read_dir(path).map_err(unwritable(path))?;
            Ok(entries.next().is_none())
        }
        Ok(_) => Ok(false),
    }
}

/// Temporary folders are the owner's alone; an export is for whoever may read what is made here.
fn readable(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, mode).map_err(unwritable(folder))
}

/// Has the disk keep every file before it gets its name.
fn synced(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(unwritable(folder))? {
        let path = entry.map_err(unwritable(folder))?.path();
        let file = File::open(&path).map_err(unwritable(&path))?;
        file.sync_all().map_err(unwritable(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(to: &Path, replace: bool, content: &str) -> Result<(), Error> {
        let output = Output::begin(to, replace)?;
        fs::write(output.folder().join("file"), content).unwrap();
        output.finish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_folder_appears_whole_and_is_replaced_only_where_that_is_asked_for() {
        let place = tempfile::tempdir().unwrap();
        let wanted = place.path().join("deep").join("out");
        write(&wanted, false, "one").unwrap();
        assert!(matches!(
            write(&wanted, false, "two"),
            Err(Error::Exists { .. })
        ));
        let content = || fs::read_to_string(wanted.join("file")).unwrap();
        assert_eq!(content(), "one");
        write(&wanted, true, "two").unwrap();
        assert_eq!(content(), "two");
        assert_eq!(
            names(&place.path().join("deep")),
            ["out"],
            "nothing is left beside it"
        );
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let wanted = place.path().join("out");
        fs::create_dir(&wanted).unwrap();
        let output = Output::begin(&wanted, false).unwrap();
        fs::write(output.folder().join("file"), "half").unwrap();
        drop(output);
        assert_eq!(names(place.path()), ["out"]);
        assert!(names(&wanted).is_empty());
    }
}
