//! What travels of zeroth-order rounds.

use contract::message::report::{Head, Walked};
use domain::id::Epoch;
use domain::job::mezo::{Distribution, Scaling};
use domain::round::UpdateMetrics;
use domain::zeroth::{Committed, GENERATOR, Masked, Scalars, Steps, Walk};

use super::{digest, report_head, updated};

/// Two directions a step, and what a site missed: two rounds of two steps, one step skipped.
pub fn walk() -> Walk {
    let committed = |round: u32, values: [f32; 4]| Committed {
        round,
        first_step: 2 * u64::from(round - 1),
        start: digest(round as u8),
        scalars: Scalars::new(values.to_vec()),
    };
    let skipped = Scalars::SKIPPED;
    Walk {
        steps: Steps {
            generator: GENERATOR,
            seed: 7,
            distribution: Distribution::Rademacher,
            perturbations: 2,
            perturbation: 0.01,
            clip: 50.0,
            rate: 0.0001,
            variance: 0.0,
        },
        rate: Some(0.00015),
        log: vec![
            committed(1, [0.5, -1.25, 3.0, 0.0]),
            committed(2, [skipped, skipped, -0.0, 1e-9]),
        ],
        mask: None,
        scaling: None,
    }
}

/// With all that a job may ask for beyond the paper.
pub fn walk_beyond() -> Walk {
    let plain = walk();
    Walk {
        steps: Steps {
            variance: 0.5,
            ..plain.steps
        },
        mask: Some(Masked {
            share: 0.25,
            after: 1,
            adapter: domain::artifact::ArtifactRef {
                key: "jobs/job_1/global/abcd".to_owned(),
                sha256: digest(9),
                bytes: 4096,
            },
        }),
        scaling: Some(Scaling {
            weight: 0.1,
            rounds: 4,
        }),
        ..plain
    }
}

/// As many scalars as the largest message that is promised to stay below 1 KB.
pub fn walked() -> Walked {
    let scalar = |step: u8| f32::from(step) - 14.5;
    Walked {
        head: report_head(),
        round: 3,
        generator: GENERATOR,
        start: digest(0xab),
        reached: Some(digest(0xcd)),
        scalars: Scalars::new((0..30).map(scalar).collect()),
        metrics: UpdateMetrics {
            skipped_steps: 1,
            energies: domain::energy::EnergyTable::default(),
            ..updated().update.metrics
        },
    }
}

/// The same with the longest name there is, and every count at its largest.
pub fn longest_walked() -> Walked {
    let Walked { head, metrics, .. } = walked();
    Walked {
        head: Head {
            worker: "w".repeat(63).parse().unwrap(),
            epoch: Epoch(u64::MAX),
            ..head
        },
        round: u32::MAX,
        generator: u16::MAX,
        metrics: UpdateMetrics {
            records: u64::MAX,
            tokens: u64::MAX,
            steps: u32::MAX,
            skipped_steps: u32::MAX,
            refused_records: u64::MAX,
            peak_memory_bytes: u64::MAX,
            bytes_up: u64::MAX,
            bytes_down: u64::MAX,
            control_bytes_up: u64::MAX,
            ..metrics
        },
        ..walked()
    }
}
