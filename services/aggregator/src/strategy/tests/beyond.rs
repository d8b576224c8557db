//! Zeroth-order rounds with all that goes beyond the paper: whoever knows the scalars comes to the same bytes.

use std::path::Path;
use std::sync::Arc;

use domain::job::Seeds;
use domain::zeroth::{Scalars, Steps};
use engine::train::{Emphasis, Replay};

use super::super::walk::Stretch;
use super::walk::{Bench, STEPS, steps};
use crate::rounds::emphasis::mask;

/// Rounds whose scalars scale the directions of the next.
const WINDOW: usize = 2;
/// The round by whose adapter later ones are masked.
const AFTER: u32 = 2;

/// What a round's directions are multiplied by, for whoever holds the scalars before it and that adapter.
fn emphasis(how: &Steps, log: &[Scalars], masked: Option<&Path>) -> Emphasis {
    let from = log.len().saturating_sub(WINDOW);
    let past = (from..).zip(&log[from..]);
    let past = past.map(|(round, scalars)| (how, STEPS * round as u64, scalars));
    let scaled = Emphasis::default().scaled(0.3, past);
    match masked {
        Some(path) => scaled.masked(Arc::new(mask(path, 0.5).expect("reads"))),
        None => scaled,
    }
}

#[test]
fn a_mask_a_scale_and_uneven_numbers_of_directions_are_replayed_byte_for_byte() {
    let bench = Bench::new();
    let first = bench.start();
    let mut how = Steps {
        perturbations: 4,
        ..steps(Seeds::Shared, 0)
    };
    // Such that some steps need two directions, and some more.
    let (probe, _) = bench.train(&first, how, 1, 0);
    let squares = probe.values().iter().map(|value| f64::from(*value).powi(2));
    how.variance = squares.sum::<f64>() / probe.values().len() as f64 / 2.5;
    let (mut start, mut log, mut masked) = (first.clone(), Vec::new(), None);
    let mut taken = Vec::new();
    for round in 1..=6u32 {
        let mut found = Vec::new();
        for site in 0..3u32 {
            let emphasis = emphasis(&how, &log, masked.as_deref());
            let (scalars, _) = bench.train_by(&emphasis, &start, how, (round.into(), site));
            assert_eq!(scalars.skipped(STEPS as u32, &how), Ok(0));
            taken.extend(scalars.taken(4).map(<[f32]>::len));
            found.push(bench.stored(&format!("scalars-{site}"), &scalars.to_bytes()));
        }
        let stretch = Stretch {
            round,
            steps: how,
            first_step: STEPS * u64::from(round - 1),
            emphasis: emphasis(&how, &log, masked.as_deref()),
        };
        let merge = bench.round(
            round,
            &start,
            found.try_into().expect("three"),
            &format!("round-{round}"),
        );
        let made = stretch.fold(&merge, 0.0).expect("merges");
        log.push(made.mean);
        start = merge.out;
        if round == AFTER {
            masked = Some(start.clone());
        }
    }
    assert!(
        taken.contains(&2) && taken.iter().any(|n| *n > 2),
        "{taken:?}"
    );
    // Somebody who holds the untrained adapter and the log, and fetched what the mask goes by.
    let replay = (0..log.len()).fold(Replay::new(), |replay, at| {
        let masked = masked.as_deref().filter(|_| at >= AFTER as usize);
        let emphasis = emphasis(&how, &log[..at], masked);
        replay.then_by(&how, STEPS * at as u64, &log[at], emphasis)
    });
    let replayed = |replay: &Replay, name: &str| {
        let late = bench.path(name);
        artifacts::tensors::rewrite(&first, &late, |key, values| {
            assert!(replay.apply(key, values));
        })
        .expect("writes");
        std::fs::read(late).expect("reads")
    };
    let end = std::fs::read(&start).expect("reads");
    assert!(replayed(&replay, "late") == end, "the same bytes");
    let plain = (0..log.len()).fold(Replay::new(), |replay, at| {
        replay.then(&how, STEPS * at as u64, &log[at])
    });
    assert!(replayed(&plain, "plain") != end, "it makes a difference");
}
