use artifacts::tensors::TensorFile;

use super::super::{Input, Merge, check, files, fresh};
use super::*;

/// An adapter from memory as a file.
fn file(dir: &std::path::Path, name: &str, ranks: &RankTable, adapter: &Memory) -> TensorFile {
    let path = dir.join(name);
    let mut writer = files::create(&path, ranks, &weights()).expect("creates");
    for key in adapter.keys() {
        let ([rows, columns], values) = adapter.get(&key).expect("there").clone();
        let done = Sink::put(&mut writer, &key, [rows, columns], values);
        done.expect("keys come in ascending order");
    }
    writer.finish().expect("finishes");
    TensorFile::open(&path).expect("opens")
}

#[test]
fn files_give_what_memory_gives_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranks = uniform(8);
    let (global, update) = (random(&ranks, 1), random(&uniform(4), 2));
    let updates = vec![(1.0, uniform(4), update.clone())];
    let (expected, expected_folded) = fold(&global, &ranks, &updates).expect("merges");

    let global = file(dir.path(), "global", &ranks, &global);
    let update = file(dir.path(), "update", &uniform(4), &update);
    check(&update, &uniform(4), &weights(), None).expect("as planned");
    let worker = "w0".parse().expect("legal");
    let inputs = [Input {
        worker: &worker,
        weight: 1.0,
        ranks: &uniform(4),
        update: &update,
    }];
    let merge = Merge {
        inputs: &inputs,
        global: &global,
        ranks: &ranks,
        scale: SCALE,
        seed: SEED,
    };
    let mut bytes = Vec::new();
    for name in ["first", "second"] {
        let path = dir.path().join(name);
        let mut writer = files::create(&path, &ranks, &weights()).expect("creates");
        let folded = merge.fold(&mut writer).expect("merges");
        writer.finish().expect("finishes");
        assert_eq!(folded, expected_folded);
        bytes.push(std::fs::read(&path).expect("reads"));
    }
    assert_eq!(bytes[0], bytes[1]);
    let merged = TensorFile::open(&dir.path().join("first")).expect("opens");
    for key in expected.keys() {
        assert_eq!(
            merged.read_f32(&key).expect("reads"),
            expected.get(&key).expect("there").1
        );
    }
    assert_eq!(
        merged.metadata().get("format").map(String::as_str),
        Some("pt")
    );
}

#[test]
fn round_0_can_be_written_to_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("round-0");
    let mut writer = files::create(&path, &uniform(8), &weights()).expect("creates");
    fresh(&uniform(8), &weights(), SEED, &mut writer).expect("writes");
    writer.finish().expect("finishes");
    let written = TensorFile::open(&path).expect("opens");
    check(&written, &uniform(8), &weights(), None).expect("as planned");
}
