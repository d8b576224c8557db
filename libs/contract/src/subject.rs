//! Subjects, built and read in one place. The worker's name comes first wherever a worker speaks or
//! is spoken to, so that permissions can hold it to its own.

use domain::id::{Epoch, JobId, WorkerName};

/// Every subject of this version starts so.
pub const PREFIX: &str = "fedpipe.v1";

/// Where a job's event is said.
#[must_use]
pub fn job(job: &JobId, epoch: Epoch, event: &str) -> String {
    format!("{PREFIX}.job.{job}.{epoch}.{event}")
}

/// All events of one job.
#[must_use]
pub fn job_events(job: &JobId) -> String {
    format!("{PREFIX}.job.{job}.>")
}

/// Where a worker is given a task.
#[must_use]
pub fn task(worker: &WorkerName, job: &JobId, epoch: Epoch, kind: &str) -> String {
    format!("{PREFIX}.task.{worker}.{job}.{epoch}.{kind}")
}

/// All tasks of one worker.
#[must_use]
pub fn tasks_of(worker: &WorkerName) -> String {
    format!("{PREFIX}.task.{worker}.>")
}

/// All tasks of one job, for purging.
#[must_use]
pub fn tasks_for(job: &JobId) -> String {
    format!("{PREFIX}.task.*.{job}.>")
}

/// Where a worker reports.
#[must_use]
pub fn report(worker: &WorkerName, job: &JobId, epoch: Epoch, kind: &str) -> String {
    format!("{PREFIX}.report.{worker}.{job}.{epoch}.{kind}")
}

/// All reports on one job, for purging.
#[must_use]
pub fn reports_on(job: &JobId) -> String {
    format!("{PREFIX}.report.*.{job}.>")
}

/// Where a worker is spoken to beside its training.
#[must_use]
pub fn control(worker: &WorkerName) -> String {
    format!("{PREFIX}.ctl.{worker}")
}

/// Where a worker shows that it lives.
#[must_use]
pub fn beat(worker: &WorkerName) -> String {
    format!("{PREFIX}.beat.{worker}")
}

/// All beats.
#[must_use]
pub fn beats() -> String {
    format!("{PREFIX}.beat.*")
}

/// Whose beat comes on this subject; `None` for any other. Permissions let a worker beat under its own name only.
#[must_use]
pub fn parse_beat(subject: &str) -> Option<WorkerName> {
    let rest = subject.strip_prefix(PREFIX)?;
    rest.strip_prefix(".beat.")?.parse().ok()
}

/// Where a worker asks to be let at objects in storage.
#[must_use]
pub fn grant(worker: &WorkerName) -> String {
    format!("{PREFIX}.grant.{worker}")
}

/// All such questions.
#[must_use]
pub fn grants() -> String {
    format!("{PREFIX}.grant.*")
}

/// Who asks on this subject; `None` for any other. Permissions let a worker ask under its own name only.
#[must_use]
pub fn parse_grant(subject: &str) -> Option<WorkerName> {
    let rest = subject.strip_prefix(PREFIX)?;
    rest.strip_prefix(".grant.")?.parse().ok()
}

/// Where what could not be handled is laid down.
#[must_use]
pub fn dead(service: &str, subject: &str) -> String {
    let inner = subject
        .strip_prefix(PREFIX)
        .map_or(subject, |rest| rest.trim_start_matches('.'));
    format!("{PREFIX}.dead.{service}.{inner}")
}

/// The inbox prefix of one worker: it can read no other worker's replies, nor, if it is named like a
/// control service, that service's.
#[must_use]
pub fn inbox(worker: &WorkerName) -> String {
    format!("_INBOX_worker-{worker}")
}

/// Who and what a task's or report's subject is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The worker that is spoken to or speaks.
    pub worker: WorkerName,
    /// The job.
    pub job: JobId,
    /// The epoch.
    pub epoch: Epoch,
    /// The kind, last in the subject.
    pub kind: String,
}

/// Reads a task's or a report's subject; `None` for any other.
#[must_use]
pub fn parse_address(subject: &str) -> Option<Address> {
    let mut tokens = subject.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
    if !matches!(tokens.next()?, "task" | "report") {
        return None;
    }
    let worker = tokens.next()?.parse().ok()?;
    let job = tokens.next()?.parse().ok()?;
    let epoch = Epoch(tokens.next()?.parse().ok()?);
    let kind = tokens.next()?.to_owned();
    tokens.next().is_none().then_some(Address {
        worker,
        job,
        epoch,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_printing_and_parsing() {
        let worker: WorkerName = "mail-1".parse().expect("legal");
        let job_id = JobId::from_bits(7);
        let text = task(&worker, &job_id, Epoch(3), "train");
        let read = parse_address(&text).expect("an address");
        assert_eq!(
            (read.worker, read.job, read.epoch, read.kind.as_str()),
            (worker, job_id, Epoch(3), "train")
        );
    }

    #[test]
    fn other_subjects_have_no_address() {
        for text in [
            "fedpipe.v1.beat.w",
            "fedpipe.v2.task.w.j.1.train",
            "fedpipe.v1.task.w.job_0.1.train",
            "",
        ] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
