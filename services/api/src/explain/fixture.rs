//! Jobs, workers and beats for tests.

use domain::artifact::{ArtifactRef, Digest};
use domain::fleet::{Beat, DatasetSummary, Progress, Registration, Stage};
use domain::id::{Epoch, JobId};
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

pub fn job(number: u64, participants: &[&str]) -> Job {
    let spec = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#;
    let mut job = Job::submitted(
        JobId::from_bits(number),
        serde_json::from_str(spec).expect("a job"),
        Digest::from_bytes(&[0; 32]),
        "local".parse().expect("legal"),
        UnixMillis(number),
    );
    job.participants = participants
        .iter()
        .map(|name| name.parse().expect("legal"))
        .collect();
    job
}

pub fn artifact() -> ArtifactRef {
    ArtifactRef {
        key: "jobs/x/global".to_owned(),
        sha256: Digest::from_bytes(&[7; 32]),
        bytes: 9,
    }
}

pub fn training(number: u64, participants: &[&str]) -> Job {
    let mut job = job(number, participants);
    job.epoch = Epoch(5);
    job.phase = Phase::Training {
        round: 2,
        global: artifact(),
        opened_at: UnixMillis(0),
        deadline: UnixMillis(600_000),
        asked: Vec::new(),
    };
    job
}

pub fn registration(name: &str, dataset: &str) -> Registration {
    let summary = DatasetSummary {
        records: 10,
        held_out: 4,
        skipped: 0,
    };
    Registration {
        worker: name.parse().expect("legal"),
        version: "0.1.0".to_owned(),
        host: "host".to_owned(),
        started_at: UnixMillis(0),
        memory_limit_bytes: 1 << 30,
        threads: 1,
        datasets: [(dataset.parse().expect("legal"), summary)].into(),
        policy: "every job".to_owned(),
        beat_ms: 3000,
    }
}

pub fn beat(name: &str) -> Beat {
    Beat {
        worker: name.parse().expect("legal"),
        at: UnixMillis(0),
        stage: Stage::Idle,
        counter: 0,
        progress: None,
        memory_bytes: 1,
        retries: 0,
    }
}

pub fn beat_on(name: &str, job: &Job, stage: Stage) -> Beat {
    let progress = Progress {
        job: job.id.clone(),
        epoch: job.epoch,
        round: 2,
        done: 3,
        total: 8,
        loss: Some(0.5),
        tokens_per_second: Some(100.0),
    };
    Beat {
        stage,
        counter: 3,
        progress: Some(progress),
        ..beat(name)
    }
}
