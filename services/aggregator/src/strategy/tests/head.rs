//! A classification head: the plain weighted mean of what the sites sent, under every rule that may have one.

use std::path::{Path, PathBuf};

use artifacts::tensors::TensorFile;
use domain::adapter::{Encoder, HEAD_BIAS, HEAD_WEIGHT, HeadShape};

use super::super::norm::Moved;
use super::super::{check, check_with_head, files, fresh, head};
use super::*;

const HEAD: HeadShape = HeadShape {
    encoder: Encoder::Bert,
    classes: 3,
    width: 80,
};

/// An adapter with a head whose every value is `value`, as a file.
fn write(dir: &Path, name: &str, ranks: &RankTable, seed: u64, value: f32) -> PathBuf {
    let path = dir.join(name);
    let mut writer =
        files::create_with_head(&path, ranks, &weights(), Some(HEAD)).expect("creates");
    let mut put = |key: &str, shape, count| {
        Sink::put(&mut writer, key, shape, vec![value; count]).expect("keys come in order");
    };
    put(HEAD_BIAS, [1, 3], 3);
    put(HEAD_WEIGHT, [3, 80], 240);
    let adapter = random(ranks, seed);
    for key in adapter.keys() {
        let (shape, values) = adapter.get(&key).expect("there").clone();
        Sink::put(&mut writer, &key, shape, values).expect("keys come in order");
    }
    writer.finish().expect("finishes");
    path
}

fn open(path: &Path) -> TensorFile {
    TensorFile::open(path).expect("opens")
}

fn merged(rule: Strategy, inputs: &[Input<'_>], global: &TensorFile, dir: &Path) -> TensorFile {
    let ranks = uniform(4);
    let merge = Merge {
        rule,
        inputs,
        global,
        ranks: &ranks,
        tables: &[],
        scale: SCALE,
        seed: SEED,
        round: 1,
        server: None,
        threads: NonZeroUsize::MIN,
    };
    let path = dir.join(format!("merged-{}", rule.name()));
    let head = head::shape(global);
    let mut out = files::create_with_head(&path, &ranks, &weights(), head).expect("creates");
    merge.fold(&mut out, None).expect("folds");
    out.finish().expect("finishes");
    open(&path)
}

#[test]
fn a_merged_head_is_the_weighted_mean_whatever_the_rule_and_a_late_one_counts_by_its_change() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranks = uniform(4);
    let file = |name: &str, seed, value| open(&write(dir.path(), name, &ranks, seed, value));
    let global = file("global", 1, 1.0);
    let (one, other, before) = (
        file("one", 2, 2.0),
        file("other", 3, 5.0),
        file("before", 4, 4.0),
    );
    let names = ["a", "b"].map(|name| name.parse::<WorkerName>().expect("legal"));
    let input = |site: usize, weight, update, start| Input {
        worker: &names[site],
        weight,
        stretch: 1.0,
        added: false,
        ranks: &ranks,
        update,
        start,
    };
    for rule in [
        Strategy::Product,
        Strategy::Slice,
        Strategy::Fedit,
        Strategy::Sum,
    ] {
        let inputs = [
            input(0, 0.25, &one as &dyn Source, None),
            input(1, 0.75, &other, None),
        ];
        let mean = merged(rule, &inputs, &global, dir.path());
        for key in [HEAD_BIAS, HEAD_WEIGHT] {
            let values = mean.read_f32(key).expect("there");
            assert!(
                values.iter().all(|value| *value == 4.25),
                "{rule:?} {values:?}"
            );
        }
    }
    let late: &dyn Source = &before;
    let inputs = [
        input(0, 0.25, &one as &dyn Source, None),
        input(1, 0.75, &other, Some(late)),
    ];
    let mean = merged(Strategy::Sum, &inputs, &global, dir.path());
    // 1 + ¼·(2 − 1) + ¾·(5 − 4)
    assert_eq!(mean.read_f32(HEAD_BIAS).expect("there"), [2.0; 3]);
}

#[test]
fn an_update_has_the_head_that_is_demanded_and_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranks = uniform(4);
    let with = open(&write(dir.path(), "with", &ranks, 1, 1.0));
    let path = dir.path().join("without");
    let mut out = files::create(&path, &ranks, &weights()).expect("creates");
    fresh(&ranks, &weights(), SEED, &mut out).expect("writes");
    out.finish().expect("finishes");
    let without = open(&path);
    let judge = |update: &TensorFile, head| {
        let judged = check_with_head(update, (&ranks, head), &weights(), Trains::Both);
        judged.map_err(|refused| refused.to_string())
    };
    assert_eq!(judge(&with, Some(HEAD)), Ok(()));
    assert_eq!(judge(&without, None), Ok(()));
    let missing = judge(&without, Some(HEAD)).expect_err("it has none");
    assert!(
        missing.contains("missing") && missing.contains(HEAD_BIAS),
        "{missing}"
    );
    let extra = check(&with, &ranks, &weights(), Trains::Both).expect_err("nobody asked");
    assert!(extra.to_string().contains(HEAD_WEIGHT), "{extra}");
    let other = HeadShape { classes: 4, ..HEAD };
    let other = judge(&with, Some(other)).expect_err("it has three classes");
    assert!(other.contains("shape"), "{other}");
    let nan = open(&write(dir.path(), "nan", &ranks, 1, f32::NAN));
    let nan = judge(&nan, Some(HEAD)).expect_err("no number");
    assert!(nan.contains("not finite"), "{nan}");
}

#[test]
fn a_heads_change_counts_in_an_updates_norm() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranks = uniform(4);
    let file = |name: &str, value| open(&write(dir.path(), name, &ranks, 1, value));
    let (global, update) = (file("global", 1.0), file("update", 3.0));
    let moved = Moved {
        update: &update,
        global: &global,
        ranks: &ranks,
        weights: &weights(),
        scale: SCALE,
        trained: Trains::Both,
    };
    // The factors are the same; 243 values of the head moved by 2 each.
    let norm = moved.norm().expect("a number");
    assert!((norm - 2.0 * 243f64.sqrt()).abs() < 1e-3, "{norm}");
}

/// Of two sites of equal weight, through files, whose tensors are written in the order of their names.
#[test]
fn a_dense_layer_of_a_head_is_averaged_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranks = uniform(4);
    for encoder in [Encoder::Roberta, Encoder::Distilbert] {
        let shape = HeadShape { encoder, ..HEAD };
        let start = |name: &str, seed| {
            let path = dir.path().join(name);
            let made = files::create_with_head(&path, &ranks, &weights(), Some(shape));
            let mut out = made.expect("creates");
            head::fresh(shape, seed, &mut out).expect("writes");
            fresh(&ranks, &weights(), seed, &mut out).expect("writes");
            out.finish().expect("finishes");
            open(&path)
        };
        let (global, one, other) = (start("global", 1), start("one", 2), start("other", 3));
        let demanded = (&ranks, Some(shape));
        check_with_head(&one, demanded, &weights(), Trains::Both).expect("it is as demanded");
        check_with_head(&one, (&ranks, Some(HEAD)), &weights(), Trains::Both)
            .expect_err("it is another family's");
        let names = ["a", "b"].map(|name| name.parse::<WorkerName>().expect("legal"));
        let input = |site: usize, update| Input {
            worker: &names[site],
            weight: 0.5,
            stretch: 1.0,
            added: false,
            ranks: &ranks,
            update,
            start: None,
        };
        let inputs = [input(0, &one as &dyn Source), input(1, &other)];
        let mean = merged(Strategy::Sum, &inputs, &global, dir.path());
        for (key, _) in head::tensors(shape) {
            let read = |file: &TensorFile| file.read_f32(&key).expect("there");
            let (one, other) = (read(&one), read(&other));
            let both = one.iter().zip(&other).zip(read(&mean));
            for ((one, other), mean) in both {
                assert!((mean - 0.5 * (one + other)).abs() < 1e-7, "{key}");
            }
            assert_eq!(key.ends_with("weight"), one != other, "{key}");
        }
    }
}

#[test]
fn a_job_starts_from_the_same_head_everywhere() {
    let make = || {
        let mut memory = Memory::default();
        head::fresh(HEAD, SEED, &mut memory).expect("writes");
        memory
    };
    assert_eq!(make(), make());
    let (shape, weight) = make().get(HEAD_WEIGHT).expect("there").clone();
    assert_eq!((shape, weight.len()), ([3, 80], 240));
    assert!(weight.iter().any(|value| value.abs() > 1e-3));
}
