//! One of every message, each field set to something that is not its default where that is possible.

use contract::message::control::{Control, Order, Reply};
use contract::message::dead::DeadLetter;
use contract::message::grant::{Answer, Ask};
use contract::message::job::{Credited, Event, JobEvent};
use contract::message::report::{self, Evaluated, Failed, Probed, Updated};
use contract::message::task::{self, Evaluate, ModelRef, Probe, Train};
use domain::adapter::{Projection, RankTable, WeightName, WeightShape};
use domain::artifact::{ArtifactRef, Digest};
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::drift::{Parted, Quantity};
use domain::fleet::{Beat, Progress, Stage};
use domain::grant::{Access, Reason, Refusal, SignedUrl, Wanted};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::course::{Figure, Measure};
use domain::job::spec::{Base, Compute, Importance, Optimizer, Order as Records, Training};
use domain::job::{Choice, Kept, Mezo, Strategy};
use domain::plan::{Binding, Explanation, PlanVersion, Prediction, Rejected, WorkerPlan};
use domain::profile::{
    self, GradientNoise, ImportanceMethod, Measurement, Mode, ModeMeasurement, Sample,
    WeightImportance,
};
use domain::round::{Score, Update, UpdateMetrics};
use domain::time::UnixMillis;

mod zeroth;
use zeroth::walk;
pub use zeroth::walked;

pub fn worker() -> WorkerName {
    "site-a".parse().unwrap()
}

pub fn job() -> JobId {
    JobId::from_bits(0x0123_4567_89ab_cdef)
}

pub const EPOCH: Epoch = Epoch(7);

fn digest(byte: u8) -> Digest {
    Digest::from_bytes(&[byte; 32])
}

fn artifact() -> ArtifactRef {
    ArtifactRef {
        key: "jobs/job_0123456789abcdef/global/1".to_owned(),
        sha256: digest(0xab),
        bytes: 1234,
    }
}

const TROUBLES: [Trouble; 14] = [
    Trouble::Unreachable,
    Trouble::NoProgress,
    Trouble::PolicyRefused,
    Trouble::DataUnusable,
    Trouble::ModelUnusable,
    Trouble::OutOfMemory,
    Trouble::Crashed,
    Trouble::NotFinite,
    Trouble::UpdateRefused,
    Trouble::StorageUnavailable,
    Trouble::DiskFull,
    Trouble::PlanUnsupported,
    Trouble::TooLate,
    Trouble::Internal,
];

fn site(trouble: Trouble) -> SiteTrouble {
    SiteTrouble {
        worker: worker(),
        trouble,
        detail: "what a person reads".to_owned(),
    }
}

/// Every event there is.
pub fn events() -> Vec<JobEvent> {
    let sites = || vec![worker(), "site-b".parse().unwrap()];
    let events = [
        Event::Submitted,
        Event::Admitted { sites: sites() },
        Event::Profiled { sites: sites() },
        Event::Planned {
            version: PlanVersion(2),
        },
        Event::Opened {
            round: 3,
            deadline: UnixMillis(1_800_000_000_000),
            asked: sites(),
        },
        Event::Closed {
            round: 3,
            sites: sites(),
            missing: TROUBLES.map(site).into(),
            credited: vec![Credited {
                worker: worker(),
                round: 2,
            }],
        },
        Event::Merged { round: 3 },
        Event::Evaluated {
            round: 3,
            records: 160,
            loss: Some(0.5),
            balanced_accuracy: None,
        },
        Event::Stopped {
            round: 3,
            why: "none of the last 2 scores was better".to_owned(),
        },
        Event::Refused {
            site: site(Trouble::UpdateRefused),
        },
        Event::Lost {
            site: site(Trouble::Unreachable),
        },
        Event::Reused {
            site: worker(),
            from: job(),
            measured_at: UnixMillis(1_780_000_000_000),
        },
        Event::Drifted {
            site: worker(),
            by: Some(Parted {
                quantity: Quantity::Seconds,
                predicted: 8.0,
                observed: 12.5,
            }),
        },
        Event::ImportanceMoved {
            since: 2,
            agreement: 0.25,
        },
        Event::Paused,
        Event::Resumed,
        Event::Finished {
            adapter: artifact(),
            kept: Some(Kept {
                round: 2,
                last: 3,
                figure: Some(Figure {
                    measure: Measure::BalancedAccuracy,
                    value: 0.75,
                }),
                why: "the best of 4 scores".to_owned(),
                stopped_early: None,
            }),
        },
        Event::Failed {
            cause: Cause {
                kind: CauseKind::QuorumLost,
                message: "too few sites are left".to_owned(),
                sites: vec![site(Trouble::OutOfMemory)],
            },
        },
        Event::Cancelled,
    ];
    let event = |event| JobEvent {
        job: job(),
        epoch: EPOCH,
        at: UnixMillis(1_790_000_000_000),
        event,
    };
    events.map(event).into()
}

fn task_head(model: ModelRef) -> task::Head {
    task::Head {
        worker: worker(),
        job: job(),
        epoch: EPOCH,
        submitter: "local".parse().unwrap(),
        model,
        dataset: "mail".parse().unwrap(),
        expires_at: UnixMillis(1_790_000_600_000),
    }
}

fn training() -> Training {
    Training {
        optimizer: Optimizer::Adamw,
        local_steps: 8,
        batch: Choice::Fixed(4),
        sequence_length: 128,
        learning_rate: 0.001,
        weight_decay: 0.25,
        clip_norm: 1.0,
        proximal: 0.0,
        order: Records::Balanced,
        seed: 7,
        mezo: Mezo::default(),
    }
}

fn plan() -> WorkerPlan {
    WorkerPlan {
        ranks: RankTable::uniform(&[Projection::Q, Projection::Down], 2, 8),
        base: Base::Source,
        kernel: "portable-1".to_owned(),
        threads: 2,
        batch: 4,
        local_steps: 8,
        sequence_length: 128,
        checkpoint: true,
        optimizer: Optimizer::Adamw,
        predicted: Prediction {
            step_seconds: 0.5,
            round_seconds: 4.5,
            peak_memory_bytes: 300_000_000,
            upload_bytes: 100_000,
        },
        why: Explanation {
            text: "memory allows no more".to_owned(),
            binding: Binding::Memory,
            rejected: vec![Rejected {
                rank: 16,
                batch: 8,
                because: "needs 400 MB".to_owned(),
                change: None,
                mode: None,
                memory_bytes: None,
                round_seconds: None,
                gain: None,
            }],
            ranks: Vec::new(),
        },
    }
}

/// Tasks that differ in what they may leave out.
pub fn probes() -> [Probe; 2] {
    let probe = |model, base, compute, importance, choices| Probe {
        head: task_head(model),
        targets: Projection::ALL.into(),
        rank_max: 32,
        training: training(),
        base,
        compute,
        importance,
        choices,
        prefix: "jobs/job_0123456789abcdef/probes/site-a".to_owned(),
    };
    let yes_no = vec![" yes".to_owned(), " no".to_owned()];
    let by_path = ModelRef::Path("/models/tiny".to_owned());
    let sketch = Importance::Sketch;
    let mut automatic = probe(by_path, Base::Auto, Compute::Auto, sketch, Vec::new());
    automatic.training = Training::default();
    [
        probe(
            ModelRef::Digest(digest(1)),
            Base::Source,
            Compute::Bf16,
            Importance::Adalora,
            yes_no,
        ),
        automatic,
    ]
}

pub fn train() -> Train {
    Train {
        head: task_head(ModelRef::Digest(digest(1))),
        round: 3,
        global: artifact(),
        scale: 0.5,
        plan: plan(),
        training: training(),
        strategy: Strategy::Residual,
        live: RankTable::uniform(&[Projection::Q, Projection::Down], 2, 16),
        walk: Some(walk()),
        prefix: "jobs/job_0123456789abcdef/updates/3/site-a".to_owned(),
    }
}

pub fn evaluate() -> Evaluate {
    Evaluate {
        head: task_head(ModelRef::Digest(digest(1))),
        round: 3,
        global: artifact(),
        scale: 0.5,
        sample: Some(40),
        choices: vec![" yes".to_owned(), " no".to_owned()],
        plan: plan(),
        walk: Some(walk()),
    }
}

fn report_head() -> report::Head {
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

pub fn controls() -> [Control; 2] {
    let orders = [
        Order::Cancel {
            job: job(),
            below: EPOCH,
        },
        Order::Ping,
    ];
    orders.map(|order| Control {
        worker: worker(),
        order,
    })
}

pub fn reply() -> Reply {
    Reply {
        worker: worker(),
        stopped: true,
    }
}

/// Everything that can be done with an object.
pub fn ask() -> Ask {
    let accesses = [Access::Get, Access::Head, Access::Put, Access::Delete];
    let wanted = accesses.map(|access| Wanted {
        access,
        key: artifact().key,
    });
    Ask {
        worker: worker(),
        job: Some(job()),
        wanted: wanted.into(),
    }
}

/// Granted, refused, and not now.
pub fn answers() -> [Answer; 3] {
    let url = |number| SignedUrl::from(format!("https://storage/fedpipe/{number}?signed"));
    [
        Answer::Granted {
            urls: vec![url(1), url(2)],
            valid_ms: 300_000,
        },
        Answer::Refused(Refusal::of(&artifact().key, Reason::NotTakingPart)),
        Answer::Away {
            detail: "what a person reads".to_owned(),
        },
    ]
}

/// Working, and idle.
pub fn beats() -> [Beat; 2] {
    let beat = |stage, progress| Beat {
        worker: worker(),
        at: UnixMillis(1_790_000_000_000),
        stage,
        counter: 99,
        progress,
        memory_bytes: 250_000_000,
    };
    let progress = Progress {
        job: job(),
        epoch: EPOCH,
        round: 3,
        done: 4,
        total: 8,
        loss: Some(0.75),
        tokens_per_second: Some(1024.0),
    };
    [
        beat(Stage::Training, Some(progress)),
        beat(Stage::Idle, None),
    ]
}

pub fn dead_letter() -> DeadLetter {
    DeadLetter {
        service: "aggregator".to_owned(),
        original: "fedpipe.v1.report.site-a.job_0123456789abcdef.7.updated".to_owned(),
        kind: Some("updated".to_owned()),
        bytes: 17,
        why: "updated cannot be decoded".to_owned(),
        at: UnixMillis(1_790_000_000_000),
    }
}
