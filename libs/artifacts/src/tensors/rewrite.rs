//! A file made from another: the same tensors, each changed on the way.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use domain::artifact::Digest;
use sha2::{Digest as _, Sha256};

use super::{Error, TensorFile, TensorWriter};

/// Bytes hashed at once.
const CHUNK: usize = 256 * 1024;

/// Copies `from` to `to`, one tensor in memory at a time, each as `change` leaves it; returns the digest of
/// the new file, which is the one of whoever else writes the same tensors. `to` has its name only when it is
/// whole.
///
/// # Errors
/// As [`TensorFile`] and [`TensorWriter`].
pub fn rewrite(
    from: &Path,
    to: &Path,
    mut change: impl FnMut(&str, &mut [f32]),
) -> Result<Digest, Error> {
    let file = TensorFile::open(from)?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let shape = |name: &String| file.shape(name).unwrap_or_default().to_vec();
    let declared = names.iter().map(|name| (name.clone(), shape(name)));
    let mut writer = TensorWriter::create(to, declared, file.metadata().clone())?;
    for name in &names {
        let mut values = file.read_f32(name)?;
        change(name, &mut values);
        writer.write(name, &values)?;
    }
    writer.finish()?;
    digest(to)
}

/// The digest of a file.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> Result<Digest, Error> {
    let io = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        match buffer.get(..read) {
            Some(bytes) if read > 0 => hash.update(bytes),
            _ => return Ok(Digest::from_bytes(&hash.finalize().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_copy_has_the_changed_values_and_its_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to, same] = ["from", "to", "same"].map(|name| folder.path().join(name));
        let marks = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let write = |path: &Path, by: f32| {
            let declared = [("b".to_owned(), vec![2, 2]), ("a".to_owned(), vec![1])];
            let mut writer = TensorWriter::create(path, declared, marks.clone()).unwrap();
            writer.write("a", &[7.0 + by]).unwrap();
            let four = [1.0, 2.0, 3.0, 4.0].map(|value| value + by);
            writer.write("b", &four).unwrap();
            writer.finish().unwrap();
        };
        write(&from, 0.0);
        let mut seen = Vec::new();
        let found = rewrite(&from, &to, |name, values| {
            seen.push(name.to_owned());
            values.iter_mut().for_each(|value| *value += 0.5);
        });
        write(&same, 0.5);
        assert_eq!(seen, ["a", "b"]);
        let bytes = std::fs::read(&to).unwrap();
        assert_eq!(bytes, std::fs::read(&same).unwrap());
        let expected = Digest::from_bytes(&Sha256::digest(bytes).into());
        assert_eq!(found.unwrap(), expected);
        assert!(rewrite(&folder.path().join("none"), &to, |_, _| {}).is_err());
    }
}
