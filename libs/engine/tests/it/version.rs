//! What is told of the engine changes with what it computes by.

use std::fs;
use std::path::Path;

#[expect(dead_code, reason = "its `main` is cargo's")]
#[path = "../../build.rs"]
mod build;

fn digest(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    build::digest(folder.path()).unwrap()
}

#[test]
fn sources_that_differ_have_another_digest_wherever_they_lie() {
    let files = [("lib.rs", "mod ops;"), ("ops/sum.rs", "a + b")];
    let [first, second] = files;
    let same = digest(&files);
    assert_eq!(digest(&[second, first]), same, "in another folder");
    assert_eq!(digest(&[first, second, ("notes.md", "")]), same);
    for (what, other) in [
        ("a byte", [first, ("ops/sum.rs", "b + a")]),
        ("a name", [first, ("ops/add.rs", "a + b")]),
        ("a folder", [first, ("sum.rs", "a + b")]),
    ] {
        assert_ne!(digest(&other), same, "{what}");
    }
    assert_ne!(digest(&[first]), same, "a file");
}

#[test]
fn the_version_names_these_very_sources() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let digest = build::digest(&sources).unwrap();
    assert!(digest.len() == 8 && digest.chars().all(|digit| digit.is_ascii_hexdigit()));
    let expected = format!("{}+{digest}", env!("CARGO_PKG_VERSION"));
    assert_eq!(engine::VERSION, expected);
}
