//! One of every message, each field set to something that is not its default where that is possible.

use contract::message::control::{Control, Order, Reply};
use contract::message::dead::DeadLetter;
use contract::message::grant::{Answer, Ask};
use contract::message::job::{Credited, Event, JobEvent};
use domain::artifact::{ArtifactRef, Digest};
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::drift::{Parted, Quantity};
use domain::fleet::{Beat, Progress, Stage};
use domain::grant::{Access, Reason, Refusal, SignedUrl, Wanted};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::Kept;
use domain::job::course::{Figure, Measure};
use domain::plan::PlanVersion;
use domain::time::UnixMillis;

mod reports;
mod tasks;
mod zeroth;

pub use reports::{evaluated, failed, probed, report_head, updated};
pub use tasks::{evaluate, probes, train};
pub use zeroth::{longest_walked, walk_beyond, walked};

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
            figure: Some(Figure {
                measure: Measure::RougeL,
                value: 0.25,
            }),
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
        Event::PlanKept {
            version: PlanVersion(2),
            why: "another plan would be the same".to_owned(),
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
        retries: 5,
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
