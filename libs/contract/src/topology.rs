//! Streams, consumers and buckets, as data. `bus` creates them from this and from nothing else.

use std::time::Duration;

use domain::artifact::Digest;
use domain::id::{JobId, WorkerName};
use domain::plan::PlanVersion;

use crate::subject::PREFIX;

/// What happens to messages in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Kept until they are too old or too many.
    Limits,
    /// Kept until one consumer has acknowledged them.
    WorkQueue,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name.
    pub name: &'static str,
    /// Last tokens of its subject filter, below the prefix.
    pub subjects: &'static str,
    /// What is kept.
    pub retention: Retention,
    /// One message per subject, and a second one is refused: already said (error 10077).
    pub once_per_subject: bool,
    /// Age limit.
    pub max_age: Duration,
    /// Size limit in bytes; older messages make room. Absent where `once_per_subject` would refuse instead.
    pub max_bytes: Option<i64>,
}

const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// What happens to jobs.
pub const JOBS: Stream = Stream {
    name: "FEDPIPE_JOBS",
    subjects: "job.>",
    retention: Retention::Limits,
    once_per_subject: true,
    max_age: MONTH,
    max_bytes: None,
};

/// What workers are asked to do. A work queue has no memory of what was acknowledged.
pub const TASKS: Stream = Stream {
    name: "FEDPIPE_TASKS",
    subjects: "task.>",
    retention: Retention::WorkQueue,
    once_per_subject: true,
    max_age: MONTH,
    max_bytes: None,
};

/// What workers answer.
pub const REPORTS: Stream = Stream {
    name: "FEDPIPE_REPORTS",
    subjects: "report.>",
    retention: Retention::Limits,
    once_per_subject: true,
    max_age: MONTH,
    max_bytes: None,
};

/// What could not be handled.
pub const DEAD: Stream = Stream {
    name: "FEDPIPE_DEAD",
    subjects: "dead.>",
    retention: Retention::Limits,
    once_per_subject: false,
    max_age: MONTH,
    max_bytes: Some(64 << 20),
};

/// All streams.
pub const STREAMS: [&Stream; 4] = [&JOBS, &TASKS, &REPORTS, &DEAD];

impl Stream {
    /// The subject filter.
    #[must_use]
    pub fn filter(&self) -> String {
        format!("{PREFIX}.{}", self.subjects)
    }
}

/// A key-value bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// `<job>`: the job; `<job>.round.<n>`: a committed round; `<job>.score.<n>`: its score.
    Jobs,
    /// `<worker>`: its registration.
    Workers,
    /// `<job>.<worker>`: what was measured for the job; `measured.<worker>.<model>`: what may be reused.
    Profiles,
    /// `<job>.<version>`: an immutable plan.
    Plans,
}

impl Bucket {
    /// All buckets.
    pub const ALL: [Self; 4] = [Self::Jobs, Self::Workers, Self::Profiles, Self::Plans];

    /// The bucket's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "fedpipe_jobs",
            Self::Workers => "fedpipe_workers",
            Self::Profiles => "fedpipe_profiles",
            Self::Plans => "fedpipe_plans",
        }
    }
}

/// Key of a committed round.
#[must_use]
pub fn round_key(job: &JobId, round: u32) -> String {
    format!("{job}.round.{round}")
}

/// Key of a round's score.
#[must_use]
pub fn score_key(job: &JobId, round: u32) -> String {
    format!("{job}.score.{round}")
}

/// Key of what a worker measured for a job.
#[must_use]
pub fn profile_key(job: &JobId, worker: &WorkerName) -> String {
    format!("{job}.{worker}")
}

/// Key of what a worker measured last with a model, for jobs to come.
#[must_use]
pub fn measured_key(worker: &WorkerName, model: &Digest) -> String {
    let model = model.to_string();
    let hex = model.rsplit(':').next().unwrap_or_default();
    format!("measured.{worker}.{hex}")
}

/// Key of a plan.
#[must_use]
pub fn plan_key(job: &JobId, version: PlanVersion) -> String {
    format!("{job}.{}", version.0)
}

/// Subject on which a worker registers itself: a plain write to its own key.
#[must_use]
pub fn registration_subject(worker: &WorkerName) -> String {
    format!("$KV.{}.{worker}", Bucket::Workers.name())
}

/// The durable consumer of one worker's tasks; created by the control plane.
#[must_use]
pub fn consumer(worker: &WorkerName) -> String {
    format!("worker-{worker}")
}

/// The worker whose consumer has this name, if it is one's.
#[must_use]
pub fn worker_of(consumer: &str) -> Option<WorkerName> {
    consumer.strip_prefix("worker-")?.parse().ok()
}
