use std::path::Path;

use super::identity::{Identity, Stamp};
use super::*;
use crate::model::{LoadOptions, Matrix, Model};
use crate::ops::Table as _;
use std::os::unix::fs::MetadataExt as _;

fn model_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny.gguf")
}

fn cache(folder: &Path) -> Cache {
    Cache {
        folder: folder.to_owned(),
        limit_bytes: 1 << 20,
    }
}

fn load(path: &Path, cache: &Cache, base: Base) -> Model {
    let options = LoadOptions {
        base,
        cache: Some(cache.clone()),
        ..LoadOptions::default()
    };
    Model::load(path, &options).unwrap()
}

/// Every weight of every matrix.
fn weights(model: &Model) -> Vec<f32> {
    let stacks = model.blocks().iter().flat_map(|block| &block.stacks);
    let output = model.output.as_ref().unwrap_or(&model.embedding);
    let tables = [&model.embedding, output];
    let matrices = tables.into_iter().chain(stacks.map(|stack| &stack.matrix));
    let values = |matrix: &Matrix| {
        matrix
            .rows(0..matrix.count(), &mut Vec::new())
            .unwrap()
            .to_vec()
    };
    matrices.flat_map(values).collect()
}

fn names(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect()
}

fn only_entry(folder: &Path) -> PathBuf {
    let found = names(folder, ".quantized");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// What the entry of this model holds, if it can be relied on.
fn stored(path: &Path, cache: &Cache, base: Base) -> Option<Parts> {
    let source = Source::open(path).unwrap();
    let entry = Entry::of(cache, &source, base).unwrap();
    entry.read(&source.config().unwrap())
}

#[test]
fn what_is_read_back_is_what_was_made_bit_for_bit() {
    for base in [Base::Int8, Base::Nf4] {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let made = load(&model_file(), &cache, base);
        let entry = only_entry(folder.path());
        let written = fs::metadata(&entry).unwrap().ino();
        assert!(stored(&model_file(), &cache, base).is_some());
        let read = load(&model_file(), &cache, base);
        assert_eq!(weights(&read), weights(&made));
        assert_eq!(read.final_norm(), made.final_norm());
        let norms = |model: &Model| -> Vec<Vec<f32>> {
            let norms = |block: &crate::model::Block| {
                [
                    block.attention_norm.weight.clone(),
                    block.feed_forward_norm.weight.clone(),
                ]
            };
            model.blocks().iter().flat_map(norms).collect()
        };
        assert_eq!(norms(&read), norms(&made));
        assert_eq!(read.base_bytes(), made.base_bytes());
        assert_eq!(
            fs::metadata(&entry).unwrap().ino(),
            written,
            "not written again"
        );
    }
}

#[test]
fn other_bases_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    for base in [Base::Source, Base::F32, Base::Bf16] {
        load(&model_file(), &cache(folder.path()), base);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_entry_is_made_again_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let want = weights(&load(&model_file(), &cache, Base::Nf4));
    let path = only_entry(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = [0, 9, 13, 30, 60, 5000, whole.len() - 40, whole.len() - 1]
        .map(|place| {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            bytes
        })
        .to_vec();
    damaged.push(whole[..whole.len() - 1].to_vec());
    damaged.push(whole[..20].to_vec());
    damaged.push(Vec::new());
    damaged.push([&whole[..], &[0]].concat());
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        assert!(stored(&model_file(), &cache, Base::Nf4).is_none());
        assert_eq!(weights(&load(&model_file(), &cache, Base::Nf4)), want);
        assert_eq!(fs::read(&path).unwrap(), whole, "made again");
    }
}

#[test]
fn a_foreign_entry_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    // Another model of the same sizes, whole and with a digest that is right.
    let other = folder.path().join("other.gguf");
    let mut bytes = fs::read(model_file()).unwrap();
    let place = bytes.len() - 1000;
    bytes[place] ^= 1;
    fs::write(&other, bytes).unwrap();
    load(&other, &cache, Base::Int8);
    let foreign = only_entry(folder.path());

    let source = Source::open(&model_file()).unwrap();
    for base in [Base::Int8, Base::Nf4] {
        let entry = Entry::of(&cache, &source, base).unwrap();
        fs::copy(&foreign, &entry.path).unwrap();
        assert!(stored(&model_file(), &cache, base).is_none());
    }
}

#[test]
fn a_model_that_changed_is_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let path = folder.path().join("model.gguf");
    let mut bytes = fs::read(model_file()).unwrap();
    fs::write(&path, &bytes).unwrap();
    let before = weights(&load(&path, &cache, Base::Int8));
    // The same length, within the same tick of the clock.
    let place = bytes.len() - 1000;
    bytes[place] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    let after = weights(&load(&path, &cache, Base::Int8));
    assert_ne!(before, after);
    assert_eq!(names(folder.path(), ".quantized").len(), 2);
}

#[test]
fn the_oldest_entries_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let generous = cache(folder.path());
    load(&model_file(), &generous, Base::Int8);
    let first = only_entry(folder.path());
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    let age = |path: &Path, seconds| {
        let time = written - std::time::Duration::from_secs(seconds);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    age(&first, 60);
    let foreign = folder.path().join("somebody-else.txt");
    fs::write(&foreign, "not ours").unwrap();
    let abandoned = folder.path().join(".under-way-1");
    fs::write(&abandoned, "half").unwrap();
    age(&abandoned, 100_000);

    let limit_bytes = fs::metadata(&first).unwrap().len() + 1;
    let narrow = Cache {
        limit_bytes,
        ..generous.clone()
    };
    load(&model_file(), &narrow, Base::Nf4);
    let left = only_entry(folder.path());
    assert_ne!(left, first, "the older one is gone");
    assert!(foreign.exists() && !abandoned.exists());

    let none = Cache {
        limit_bytes: 10,
        ..generous
    };
    load(&model_file(), &none, Base::Int8);
    assert_eq!(
        only_entry(folder.path()),
        left,
        "what can never fit drops nothing"
    );
    assert!(
        names(folder.path(), "")
            .iter()
            .all(|path| !path.to_string_lossy().contains("under-way"))
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let want = weights(&load(
        &model_file(),
        &cache(&folder.path().join("new")),
        Base::Nf4,
    ));
    for place in [
        file.clone(),
        file.join("below"),
        PathBuf::from("/proc/1/none"),
    ] {
        assert_eq!(
            weights(&load(&model_file(), &cache(&place), Base::Nf4)),
            want
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn any_number_may_load_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let loads: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let load = || weights(&load(&model_file(), &cache, Base::Nf4));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(loads.iter().all(|weights| *weights == loads[0]));
    assert!(stored(&model_file(), &cache, Base::Nf4).is_some());
    only_entry(folder.path());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "the entry and the digest"
    );
}

#[test]
fn a_remembered_digest_is_used_only_if_it_is_whole_and_the_files_rested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::copy(model_file(), &path).unwrap();
    let files = [path.clone()];
    let (stamp, identity) = (Stamp::of(&files).unwrap(), Identity::of(&files).unwrap());
    identity::remember(folder.path(), &stamp, &identity);
    let memo = names(folder.path(), ".source")[0].clone();
    let changed = fs::metadata(&path).unwrap().modified().unwrap();
    let remembered = |at: std::time::SystemTime| {
        let file = fs::File::options().write(true).open(&memo).unwrap();
        file.set_modified(at).unwrap();
    };
    remembered(changed);
    assert_eq!(
        identity::known(folder.path(), &stamp),
        None,
        "it may have changed in this tick"
    );

    let rest = || remembered(changed + std::time::Duration::from_secs(10));
    rest();
    assert_eq!(identity::known(folder.path(), &stamp), Some(identity));

    let whole = fs::read(&memo).unwrap();
    for place in [0, 31, 32, 63] {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&memo, bytes).unwrap();
        rest();
        assert_eq!(identity::known(folder.path(), &stamp), None);
    }
    fs::write(&memo, &whole).unwrap();
    rest();
    fs::write(&path, "changed").unwrap();
    assert_eq!(
        identity::known(folder.path(), &Stamp::of(&files).unwrap()),
        None
    );
}
