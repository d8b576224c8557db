//! Where the third-party programs are that tests start: `./run setup` puts them there.
//!
//! Nothing is looked for on the `PATH`: a test that runs has run with the pinned version.

#![expect(
    clippy::panic,
    reason = "a test without its tools cannot go on, and says what to do"
)]

use std::path::{Path, PathBuf};

/// The program `name` (`nats-server`, `weed`) under `$FEDPIPE_TOOLS/bin`, or `.tools/bin` of this
/// workspace.
///
/// # Panics
/// If it is not there, with what to do.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let path = folder().join("bin").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `./run setup` first",
        path.display()
    );
    path
}

/// Everything that `./run setup` fetched: `$FEDPIPE_TOOLS`, or `.tools` of this workspace.
///
/// # Panics
/// If this crate lies outside a workspace.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("FEDPIPE_TOOLS") {
        return folder.into();
    }
    match Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2) {
        Some(workspace) => workspace.join(".tools"),
        None => panic!("testkit does not lie at libs/testkit of a workspace"),
    }
}
