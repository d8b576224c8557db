use domain::adapter::RankTable;
use domain::artifact::{ArtifactRef, Digest};
use domain::job::mezo::Mezo;
use domain::round::UpdateMetrics;
use domain::time::UnixMillis;

use super::*;

fn artifact() -> ArtifactRef {
    ArtifactRef {
        key: "k".to_owned(),
        sha256: Digest::from_bytes(&[1; 32]),
        bytes: 1,
    }
}

fn name(text: &str) -> WorkerName {
    text.parse().expect("legal")
}

/// A site in a round, its loss and its difference.
fn site(of: &str, loss: f64, difference: Option<f64>) -> WorkerRound {
    WorkerRound {
        worker: name(of),
        rank: 4,
        batch: 8,
        weight: 0.5,
        withheld_energy: None,
        trained_in: None,
        rate: None,
        difference,
        update: artifact(),
        metrics: UpdateMetrics {
            records: 8,
            tokens: 8,
            loss,
            steps: 1,
            skipped_steps: 0,
            refused_records: 0,
            compute_seconds: 1.0,
            tokens_per_second: 1.0,
            peak_memory_bytes: 1,
            bytes_up: 1,
            bytes_down: 1,
            control_bytes_up: 1,
            energies: domain::energy::EnergyTable::default(),
        },
    }
}

fn round(number: u32, workers: Vec<WorkerRound>) -> Summary {
    Summary {
        round: number,
        global: artifact(),
        side: RankTable::default(),
        scalars: None,
        optimizer: None,
        opened_at: UnixMillis(0),
        committed_at: UnixMillis(1),
        seconds: 1.0,
        overhead_seconds: 0.0,
        dropped_energy: 0.0,
        energies: domain::energy::EnergyTable::default(),
        asked: Vec::new(),
        shrunk: Vec::new(),
        workers,
        missing: Vec::new(),
    }
}

fn losses(number: u32, losses: [f64; 3]) -> Summary {
    let sites = ["a", "b", "c"].into_iter().zip(losses);
    round(
        number,
        sites.map(|(of, loss)| site(of, loss, None)).collect(),
    )
}

fn factors(rates: Rates, past: &[Summary]) -> [f64; 3] {
    let training = Training {
        mezo: Mezo {
            rates,
            ..Mezo::default()
        },
        seed: 7,
        ..Training::default()
    };
    ["a", "b", "c"].map(|of| factor(&training, past.len() as u32 + 1, &name(of), past))
}

fn check(rates: Rates, past: &[Summary], expected: [f64; 3]) {
    let found = factors(rates, past);
    let close = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-12;
    assert!(
        found.iter().zip(&expected).all(close),
        "{rates:?}: {found:?}, not {expected:?}"
    );
}

#[test]
fn the_largest_deviation_from_the_mean_moves_a_rate_by_the_whole_spread() {
    // s̄ = 3, deviations −2, −1, 3: Φ = −2/3, −1/3, 1.
    let past = [losses(1, [1.0, 2.0, 6.0])];
    let expected = [1.0 - 1.0 / 3.0, 1.0 - 1.0 / 6.0, 1.5];
    check(Rates::RoundLoss, &past, expected);
    check(Rates::Fixed, &past, [1.0; 3]);
}

#[test]
fn the_loss_of_one_round_forgets_and_that_of_five_does_not_forget_before_the_sixth() {
    let past = [
        losses(1, [60.0, 0.0, 0.0]),
        losses(2, [1.0, 1.0, 1.0]),
        losses(3, [1.0, 1.0, 1.0]),
        losses(4, [1.0, 1.0, 1.0]),
        losses(5, [1.0, 2.0, 3.0]),
        losses(6, [1.0, 2.0, 6.0]),
    ];
    let early = |rounds: usize| past.get(..rounds).expect("so many");
    check(Rates::RoundLoss, early(5), [0.5, 1.0, 1.5]);
    // Means of five: 12.8, 1, 1.2; their mean 5; deviations 7.8, −4, −3.8.
    let expected = [1.5, 1.0 - 2.0 / 7.8, 1.0 - 1.9 / 7.8];
    check(Rates::FiveRoundLoss, early(5), expected);
    // Without the first round: 1, 1.4, 2.4; mean 1.6; deviations −0.6, −0.2, 0.8.
    let expected = [1.0 - 0.375, 1.0 - 0.125, 1.5];
    check(Rates::FiveRoundLoss, &past, expected);
}

#[test]
fn equal_statistics_leave_all_rates_alone_whatever_is_rounded_off_their_mean() {
    for loss in [0.0, 0.1, 2.3, 1e-300] {
        check(Rates::RoundLoss, &[losses(1, [loss; 3])], [1.0; 3]);
    }
    check(
        Rates::RoundLoss,
        &[losses(1, [2.3, 2.3, 2.3 + 1e-12])],
        [1.0; 3],
    );
    check(Rates::RoundLoss, &[], [1.0; 3]);
    check(
        Rates::ModelDifference,
        &[losses(1, [1.0, 2.0, 3.0])],
        [1.0; 3],
    );
}

#[test]
fn who_was_not_in_the_round_before_or_was_late_has_the_jobs_rate() {
    let mut late = site("b", 100.0, None);
    late.trained_in = Some(1);
    let past = [round(
        2,
        vec![site("a", 1.0, None), late, site("c", 3.0, None)],
    )];
    check(Rates::RoundLoss, &past, [0.5, 1.0, 1.5]);
}

#[test]
fn a_site_whose_every_step_was_skipped_has_no_loss_to_go_by() {
    let mut skipped = site("b", 0.0, None);
    skipped.metrics.skipped_steps = skipped.metrics.steps;
    let latest = round(2, vec![site("a", 1.0, None), skipped, site("c", 3.0, None)]);
    let past = [losses(1, [2.0, 4.0, 4.0]), latest];
    check(Rates::RoundLoss, &past, [0.5, 1.0, 1.5]);
    // Of b's rounds the first alone had one: means 1.5, 4, 3.5, whose own is 3.
    let expected = [0.5, 1.0 + 1.0 / 3.0, 1.0 + 1.0 / 6.0];
    check(Rates::FiveRoundLoss, &past, expected);
}

#[test]
fn differences_are_those_of_the_latest_round() {
    let apart = |number, far: [f64; 3]| {
        let sites = ["a", "b", "c"].into_iter().zip(far);
        let sites = sites.map(|(of, far)| site(of, 1.0, Some(far)));
        round(number, sites.collect())
    };
    let past = [apart(1, [5.0, 1.0, 1.0]), apart(2, [1.0, 2.0, 3.0])];
    check(Rates::ModelDifference, &past, [0.5, 1.0, 1.5]);
}

#[test]
fn drawn_rates_lie_within_the_spread_and_differ_by_site_and_round() {
    let rounds: Vec<Summary> = (1..=40).map(|number| losses(number, [1.0; 3])).collect();
    let all: Vec<f64> = (0..rounds.len())
        .flat_map(|past| factors(Rates::Random, rounds.get(..past).expect("so many")))
        .collect();
    assert!(all.iter().all(|one| (0.5..=1.5).contains(one)));
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!((mean - 1.0).abs() < 0.1, "{mean}");
    let mut distinct = all.clone();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    assert_eq!(distinct.len(), all.len());
}
