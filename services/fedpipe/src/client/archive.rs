//! Unpacks an adapter's archive, two known files, or that of a model, a few plain ones: verified, and nothing else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::artifact::Digest;
use sha2::{Digest as _, Sha256};

/// The files of an adapter.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Files of a model at most.
const MODEL_FILES: usize = 64;

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// PEFT's two files.
    Adapter,
    /// A folder of Hugging Face transformers: its weights, its configuration, and what its tokenizer needs.
    Model,
}

impl Content {
    /// What it holds in any case, the weights last.
    const fn needed(self) -> [&'static str; 2] {
        match self {
            Self::Adapter => FILES,
            Self::Model => ["config.json", "model.safetensors"],
        }
    }

    /// The name of an entry as a file of the folder; none if it has no place there.
    fn named(self, path: &Path) -> Option<String> {
        let name = path.to_str()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let legal = match self {
            Self::Adapter => FILES.contains(&name),
            Self::Model => name.bytes().all(plain) && !name.starts_with('.') && name.len() <= 100,
        };
        (legal && !name.is_empty()).then(|| name.to_owned())
    }
}

/// Bytes of one file at most.
const LIMIT_BYTES: u64 = 8 << 30;

/// Unpacks an archive into a folder. A name that is not expected, a path, a link, a repetition or a
/// wrong digest of the weights is refused, and then the folder's files are not touched.
///
/// # Errors
/// As said, or if the disk refuses.
pub fn unpack(
    (archive, content): (impl Read, Content),
    folder: &Path,
    expected: &Digest,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let aside = folder.join(".incoming");
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir(&aside).with_context(|| format!("cannot write into {}", folder.display()))?;
    let unpacked = unpack_into((archive, content), &aside, expected).and_then(|names| {
        for name in names {
            fs::rename(aside.join(&name), folder.join(&name))?;
        }
        Ok(())
    });
    let _ = fs::remove_dir_all(&aside);
    unpacked
}

fn unpack_into(
    (archive, content): (impl Read, Content),
    folder: &Path,
    expected: &Digest,
) -> anyhow::Result<Vec<String>> {
    let mut archive = tar::Archive::new(archive);
    let mut names = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(name) = content.named(&path) else {
            bail!(
                "the archive holds {}, which is no file of an adapter or a model",
                path.display()
            );
        };
        ensure!(
            names.len() < MODEL_FILES,
            "the archive holds too many files"
        );
        ensure!(
            entry.header().entry_type().is_file(),
            "the archive's {name} is not a plain file"
        );
        let size = entry.size();
        ensure!(size <= LIMIT_BYTES, "the archive's {name} has {size} bytes");
        let mut file = File::create_new(folder.join(&name))
            .with_context(|| format!("the archive's {name} cannot be written"))?;
        let written = io::copy(&mut entry, &mut file)?;
        ensure!(written == size, "the archive is cut short in {name}");
        names.push(name);
    }
    let [config, weights] = content.needed();
    for name in [config, weights] {
        ensure!(folder.join(name).is_file(), "the archive holds no {name}");
    }
    let found = digest(&folder.join(weights))?;
    ensure!(
        found == *expected,
        "{weights} is {found} but {expected} was announced"
    );
    Ok(names)
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

    fn check(content: Content, entries: &[(&str, &[u8])], refused: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        let weights = Digest::from_bytes(&Sha256::digest(b"weights").into());
        let from = archive(entries);
        let result = unpack((from.as_slice(), content), &target, &weights);
        match refused {
            None => {
                result.unwrap();
                let [_, name] = content.needed();
                assert_eq!(fs::read(target.join(name)).unwrap(), b"weights");
                assert_eq!(fs::read_dir(&target).unwrap().count(), entries.len());
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
        let check = |entries: &[(&str, &[u8])], refused| {
            check(Content::Adapter, entries, refused);
        };
        check(&[config, weights], None);
        check(&[config], Some("no adapter_model.safetensors"));
        check(&[config, (FILES[1], b"weightz")], Some("was announced"));
        check(&[config, weights, ("../evil", b"x")], Some("../evil"));
        check(&[config, weights, ("/etc/evil", b"x")], Some("/etc/evil"));
        check(
            &[config, weights, ("tokenizer.json", b"x")],
            Some("tokenizer"),
        );
        check(&[config, config, weights], Some("cannot be written"));
    }

    #[test]
    fn a_model_is_unpacked_with_its_plain_files_alone() {
        let model: [(&str, &[u8]); 3] = [
            ("config.json", b"{}"),
            ("model.safetensors", b"weights"),
            ("tokenizer.json", b"{}"),
        ];
        let with = |entry: (&'static str, &'static [u8])| [&model[..], &[entry]].concat();
        let check = |entries: &[(&str, &[u8])], refused| check(Content::Model, entries, refused);
        check(&model, None);
        check(&model[..1], Some("no model.safetensors"));
        for name in ["../evil", "/etc/evil", "deep/evil", ".hidden"] {
            check(&with((name, b"x")), Some(name));
        }
    }
}
