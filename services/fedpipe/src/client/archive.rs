//! Unpacks an adapter's archive: two known files, verified, and nothing else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::artifact::Digest;
use sha2::{Digest as _, Sha256};

/// The files of an adapter.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Bytes of one file at most.
const LIMIT_BYTES: u64 = 8 << 30;

/// Unpacks an archive into a folder. A name that is not expected, a path, a link, a repetition or a
/// wrong digest of the weights is refused, and then the folder's files are not touched.
///
/// # Errors
/// As said, or if the disk refuses.
pub fn unpack(archive: impl Read, folder: &Path, expected: &Digest) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let aside = folder.join(".incoming");
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir(&aside).with_context(|| format!("cannot write into {}", folder.display()))?;
    let unpacked = unpack_into(archive, &aside, expected).and_then(|()| {
        for name in FILES {
            fs::rename(aside.join(name), folder.join(name))?;
        }
        Ok(())
    });
    let _ = fs::remove_dir_all(&aside);
    unpacked
}

fn unpack_into(archive: impl Read, folder: &Path, expected: &Digest) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(name) = FILES.into_iter().find(|name| path.as_os_str() == *name) else {
            bail!(
                "the archive holds {}, which is no file of an adapter",
                path.display()
            );
        };
        ensure!(
            entry.header().entry_type().is_file(),
            "the archive's {name} is not a plain file"
        );
        let size = entry.size();
        ensure!(size <= LIMIT_BYTES, "the archive's {name} has {size} bytes");
        let mut file = File::create_new(folder.join(name))
            .with_context(|| format!("the archive's {name} cannot be written"))?;
        let written = io::copy(&mut entry, &mut file)?;
        ensure!(written == size, "the archive is cut short in {name}");
    }
    for name in FILES {
        ensure!(folder.join(name).is_file(), "the archive holds no {name}");
    }
    let found = digest(&folder.join("adapter_model.safetensors"))?;
    ensure!(
        found == *expected,
        "the adapter is {found} but {expected} was announced"
    );
    Ok(())
}

/// The digest of a file.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> anyhow::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        hasher.update(read);
    }
    Ok(Digest::from_bytes(&hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_old();
            // Not `set_path`, which refuses what an attacker would write.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn check(entries: &[(&str, &[u8])], refused: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        let weights = Digest::from_bytes(&Sha256::digest(b"weights").into());
        let result = unpack(archive(entries).as_slice(), &target, &weights);
        match refused {
            None => {
                result.unwrap();
                assert_eq!(fs::read(target.join(FILES[1])).unwrap(), b"weights");
                assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
            }
            Some(part) => {
                let error = format!("{:#}", result.unwrap_err());
                assert!(error.contains(part), "{error}");
                assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{part}");
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{part}");
            }
        }
    }

    #[test]
    fn an_adapter_is_unpacked_whole_and_verified_or_not_at_all() {
        let (config, weights) = (
            (FILES[0], b"{}".as_slice()),
            (FILES[1], b"weights".as_slice()),
        );
        check(&[config, weights], None);
        check(&[config], Some("no adapter_model.safetensors"));
        check(&[config, (FILES[1], b"weightz")], Some("was announced"));
        check(&[config, weights, ("../evil", b"x")], Some("../evil"));
        check(&[config, weights, ("/etc/evil", b"x")], Some("/etc/evil"));
        check(&[config, config, weights], Some("cannot be written"));
    }
}
