use artifacts::tensors::TensorFile;

use std::path::Path;

use domain::job::Aggregation;
use domain::job::aggregation::{ServerKind, ServerOptimizer};

use super::super::{Member, Round, Share, check, files, fresh};
use super::*;

/// An adapter from memory as a file.
fn file(dir: &Path, name: &str, ranks: &RankTable, adapter: &Memory) -> TensorFile {
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

/// A round over two files.
fn round(
    dir: &Path,
    rule: Strategy,
    updates: &[(f64, RankTable, Memory)],
    ranks: &RankTable,
) -> Round {
    let members = updates
        .iter()
        .enumerate()
        .map(|(index, (weight, ranks, update))| {
            let name = format!("w{index}");
            let adapter = sent(rule, update);
            let path = dir.join(format!("update-{index}"));
            write(&path, &adapter);
            Member {
                started: None,
                worker: name.parse().expect("legal"),
                ranks: ranks.clone(),
                share: Share {
                    weight: *weight,
                    stretch: 1.0,
                    added: false,
                },
                update: path,
            }
        });
    let kind = if rule.keeps_coordinates() {
        ServerKind::Fedadam
    } else {
        ServerKind::Fedavg
    };
    Round {
        aggregation: Aggregation {
            strategy: rule,
            optimizer: ServerOptimizer {
                kind,
                ..ServerOptimizer::default()
            },
            ..Aggregation::default()
        },
        round: 1,
        start: dir.join("global"),
        state: None,
        members: members.collect(),
        weights: weights(),
        ranks: ranks.clone(),
        tables: Vec::new(),
        scale: SCALE,
        seed: SEED,
        out: dir.join("merged"),
        state_out: dir.join("moments"),
        threads: NonZeroUsize::MIN,
    }
}

fn write(path: &Path, adapter: &Memory) {
    let mut later = files::Later::create(path).expect("creates");
    for key in adapter.keys() {
        let (shape, values) = adapter.get(&key).expect("there").clone();
        later.put(&key, shape, values).expect("writes");
    }
    later.finish().expect("finishes");
}

#[test]
fn files_give_what_memory_gives_byte_for_byte_under_every_rule() {
    for rule in Strategy::ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let ranks = uniform(8);
        let start = random(&ranks, 1);
        file(dir.path(), "global", &ranks, &start);
        let updates: Vec<_> = [(0.25, 2), (0.75, 3)]
            .map(|(share, seed)| (share, ranks.clone(), random(&ranks, seed)))
            .into();
        let made = round(dir.path(), rule, &updates, &ranks);
        let sent: Vec<_> = updates
            .iter()
            .map(|(share, ranks, update)| (*share, ranks.clone(), sent(rule, update)))
            .collect();
        let optimizer = &made.aggregation.optimizer;
        let case = Case {
            optimizer: made.has_state().then_some((optimizer, None)),
            ..Case::new(rule, &start, &ranks, &sent)
        };
        let (expected, expected_folded, moments) = case.merge().expect("merges");
        let mut bytes = Vec::new();
        for _ in 0..2 {
            assert_eq!(made.merge().expect("merges"), expected_folded);
            bytes.push(std::fs::read(&made.out).expect("reads"));
            std::fs::remove_file(&made.out).expect("removes");
        }
        assert_eq!(bytes[0], bytes[1], "{}", rule.name());
        std::fs::write(&made.out, &bytes[0]).expect("writes");
        let merged = TensorFile::open(&made.out).expect("opens");
        assert_eq!(Source::keys(&merged), expected.keys());
        for key in expected.keys() {
            let values = merged.read_f32(&key).expect("reads");
            assert_eq!(values, expected.get(&key).expect("there").1, "{key}");
        }
        let format = merged.metadata().get("format").map(String::as_str);
        assert_eq!(format, Some("pt"));
        if made.has_state() {
            let state = TensorFile::open(&made.state_out).expect("opens");
            assert_eq!(Source::keys(&state), moments.keys());
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("reads").collect();
        assert_eq!(left.len(), 4 + usize::from(made.has_state()), "{left:?}");
    }
}

#[test]
fn round_0_can_be_written_to_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("round-0");
    let mut writer = files::create(&path, &uniform(8), &weights()).expect("creates");
    fresh(&uniform(8), &weights(), SEED, &mut writer).expect("writes");
    writer.finish().expect("finishes");
    let written = TensorFile::open(&path).expect("opens");
    check(&written, &uniform(8), &weights(), Trains::Both).expect("as planned");
}
