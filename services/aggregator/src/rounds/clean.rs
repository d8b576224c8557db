//! What a committed round leaves behind, in the spool and in storage; and what a job leaves in this process.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chassis::failpoint::{Failpoint, hit};
use domain::id::JobId;
use domain::job::Job;
use domain::object::{self, Place};
use domain::round::LATE_ROUNDS;

use crate::Error;
use crate::app::Aggregator;
use crate::handlers::starting;

/// Frees the spool of all that was fetched for this round: what it was merged from, what did not count, the server's
/// moments and the mask's adapter, which the next round may fetch again. Deletes updates that no later round can
/// count, and the server's moments of as long ago. What cannot be deleted now goes with the job.
pub async fn clean(aggregator: &Aggregator, job: &Job, round: u32) {
    free(aggregator, &job.id).await;
    if let Err(error) = remove_merged(aggregator, job, round).await {
        tracing::debug!(%error, "merged files not removed");
    }
    hit(Failpoint::AggregatorCleanAfterSpool);
    let Some(old) = round.checked_sub(LATE_ROUNDS).filter(|old| *old > 0) else {
        return;
    };
    if job.spec.aggregation.optimizer.kind.has_state() {
        let prefix = object::optimizer_prefix(&job.id, old);
        let deleted = aggregator.artifacts.delete_prefix(&prefix);
        let deleted = aggregator.reach.guard(deleted).await;
        if let Err(error) = deleted.and_then(|done| done.map_err(Error::from)) {
            tracing::debug!(%error, prefix, "old moments not deleted");
        }
    }
    if job.spec.retention.keep_updates {
        return;
    }
    // One listing for all sites, those included whose update came too late to be looked at.
    let prefix = object::updates_prefix(&job.id);
    let goes = |key: &str| is_old(key, old);
    let deleted = aggregator.artifacts.delete_chosen(&prefix, goes);
    let deleted = aggregator.reach.guard(deleted).await;
    if let Err(error) = deleted.and_then(|done| done.map_err(Error::from)) {
        tracing::debug!(%error, prefix, "old updates not deleted");
    }
}

/// Lets go of what this process has of a job, in memory and on its disk. All of it can be read, fetched or made again.
pub async fn forget(aggregator: &Aggregator, job: &JobId) {
    aggregator.standings.forget(job);
    aggregator.logs.forget(job);
    aggregator.recent.forget(job);
    free(aggregator, job).await;
    let folder = folders(&aggregator.config.work_dir).join(job.as_str());
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, folder = %folder.display(), "working folder not removed");
        }
        _ => {}
    }
}

async fn free(aggregator: &Aggregator, job: &JobId) {
    if let Err(error) = aggregator.spool.forget(job).await {
        tracing::debug!(%error, %job, "spool not freed");
    }
}

/// Where the jobs' working folders lie.
pub fn folders(work_dir: &Path) -> PathBuf {
    work_dir.join("jobs")
}

/// Removes the working folders that an earlier process left, for the reasons for which a spool begins empty.
///
/// # Errors
/// If one cannot be removed.
pub fn begin_empty(work_dir: &Path) -> Result<(), Error> {
    let jobs = folders(work_dir);
    let failed = |path: &Path, source: io::Error| Error::Folder {
        path: path.display().to_string(),
        source,
    };
    let entries = match jobs.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| failed(&jobs, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(&jobs, error))?;
        if entry.file_name().to_string_lossy().parse::<JobId>().is_ok() {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

/// Removes what the merge wrote here: it lies in storage now.
async fn remove_merged(aggregator: &Aggregator, job: &Job, round: u32) -> Result<(), Error> {
    let folder = starting::folder(aggregator, job).await?;
    for path in [merged_path(&folder, round), moments_path(&folder, round)] {
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                let path = path.display().to_string();
                return Err(Error::Folder { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the merge of a round writes the merged adapter.
pub fn merged_path(folder: &Path, round: u32) -> PathBuf {
    folder.join(format!("round-{round}.safetensors"))
}

/// Where the merge of a round writes the moments of the server's optimizer.
pub fn moments_path(folder: &Path, round: u32) -> PathBuf {
    folder.join(format!("optimizer-{round}.safetensors"))
}

/// Whether an object is part of an update of this round or one before it.
fn is_old(key: &str, old: u32) -> bool {
    matches!(object::parse(key), Some(Place::Update { round, .. }) if round <= old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_without_the_working_folders_of_an_earlier_one() {
        let work_dir = tempfile::tempdir().expect("a folder");
        begin_empty(work_dir.path()).expect("there is none yet");
        let jobs = folders(work_dir.path());
        let (job, other) = (jobs.join("job_00000000000000aa"), jobs.join("notes"));
        for folder in [&job, &other] {
            std::fs::create_dir_all(folder).expect("it is made");
            std::fs::write(folder.join("walked-1"), "x").expect("it is written");
        }
        begin_empty(work_dir.path()).expect("it is emptied");
        assert!(!job.exists() && other.join("walked-1").exists());
    }

    #[test]
    fn only_updates_of_old_rounds_are_deleted() {
        let job = JobId::from_bits(1);
        let part = format!("parts/{}", "ab".repeat(32));
        let update = |round: u32| {
            let worker = "a".parse().expect("legal");
            format!("{}/{part}", object::update_prefix(&job, &worker, round))
        };
        let old: Vec<bool> = [1, 2, 3, 12].map(|round| is_old(&update(round), 2)).into();
        assert_eq!(old, [true, true, false, false]);
        let global = format!("{}/{part}", object::global_prefix(&job));
        for key in [global.as_str(), "jobs/x", "models/y/manifest"] {
            assert!(!is_old(key, 9), "{key}");
        }
    }
}
