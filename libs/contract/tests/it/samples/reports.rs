//! What a worker answers.

use contract::message::report::{self, Evaluated, Failed, Probed, Updated};
use domain::adapter::{Encoder, Projection, WeightName, WeightShape};
use domain::cause::Trouble;
use domain::job::spec::{Base, Optimizer};
use domain::profile::{
    self, GradientNoise, ImportanceMethod, Measurement, Mode, ModeMeasurement, Sample,
    WeightImportance,
};
use domain::round::answers::Bleu;
use domain::round::{Answers, Score, Update, UpdateMetrics};

use super::{EPOCH, artifact, digest, job, worker};

pub fn report_head() -> report::Head {
    report::Head {
        worker: worker(),
        job: job(),
        epoch: EPOCH,
    }
}

pub fn probed() -> Probed {
    Probed {
        head: report_head(),
        measurement: Measurement {
            model: Some(digest(1)),
            weights: vec![WeightShape {
                name: WeightName::new(1, Projection::Gate),
                out: 64,
                inp: 32,
            }],
            encoder: Encoder::Distilbert,
            layers: 2,
            memory_limit_bytes: 400_000_000,
            threads: 2,
            modes: vec![ModeMeasurement {
                mode: Mode {
                    base: Base::Nf4,
                    kernel: "portable-f32-1".to_owned(),
                    checkpoint: true,
                    optimizer: Optimizer::Adamw,
                },
                base_memory_bytes: 100_000_000,
                samples: vec![Sample {
                    batch: 4,
                    tokens: 512,
                    squares: 65536.0,
                    longest_tokens: 1024,
                    parameters: 1000,
                    step_seconds: 0.5,
                    peak_memory_bytes: 200_000_000,
                }],
                scoring: vec![Sample {
                    batch: 1,
                    tokens: 128,
                    squares: 16384.0,
                    longest_tokens: 0,
                    parameters: 4000,
                    step_seconds: 0.25,
                    peak_memory_bytes: 150_000_000,
                }],
                loss: Some(2.25),
            }],
            noise: Some(GradientNoise {
                signal: 0.5,
                variance: 4.0,
                records: 21,
            }),
            importance: Some(profile::Importance {
                method: ImportanceMethod::Sketch,
                weights: vec![WeightImportance {
                    name: WeightName::new(1, Projection::Gate),
                    energies: vec![0.5, 0.25],
                }],
                agreement: 0.75,
                records: 32,
            }),
            forward_tokens_per_second: 2000.0,
            upload_bytes_per_second: 1e7,
            download_bytes_per_second: 2e7,
            round_trip_ms: 0.5,
            records: 100,
            held_out: 40,
            skipped: 1,
            mean_tokens: 64.5,
            mean_squares: 5000.5,
        },
    }
}

pub fn updated() -> Updated {
    Updated {
        head: report_head(),
        round: 3,
        update: Update {
            adapter: artifact(),
            metrics: UpdateMetrics {
                records: 32,
                tokens: 4096,
                loss: 0.75,
                steps: 8,
                skipped_steps: 0,
                refused_records: 5,
                compute_seconds: 4.0,
                tokens_per_second: 1024.0,
                peak_memory_bytes: 250_000_000,
                bytes_up: 100_000,
                bytes_down: 200_000,
                control_bytes_up: 3000,
                energies: [(WeightName::new(1, Projection::Gate), 0.5)]
                    .into_iter()
                    .collect(),
            },
        },
    }
}

pub fn evaluated() -> Evaluated {
    Evaluated {
        head: report_head(),
        round: 3,
        score: Score {
            records: 40,
            loss_sum: 20.5,
            labelled_tokens: 40,
            confusion: vec![vec![18, 2], vec![3, 17]],
            answers: Some(Answers {
                records: 24,
                exact: 6,
                f1_sum: 12.5,
                rouge_l_sum: 11.25,
                bleu: Bleu {
                    common: [40, 20, 10, 5],
                    total: [50, 30, 20, 10],
                    answer: 50,
                    wanted: 60,
                },
            }),
            seconds: 1.5,
            bytes_down: 200_000,
        },
    }
}

pub fn failed() -> Failed {
    Failed {
        head: report_head(),
        task: "train".to_owned(),
        trouble: Trouble::DiskFull,
        detail: "the cache folder is full".to_owned(),
    }
}
