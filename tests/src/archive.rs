//! An adapter as it comes from the API.

use std::collections::BTreeMap;
use std::io::Read;

/// The files of a tar archive.
#[must_use]
pub fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("an archive");
    entries
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("an entry's content");
            (name, content)
        })
        .collect()
}

/// The digest of some bytes, as the API writes it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
