//! What a committed round leaves behind, in the spool and in storage.

use std::path::{Path, PathBuf};

use chassis::failpoint::{Failpoint, hit};
use domain::artifact::ArtifactRef;
use domain::job::Job;
use domain::object::{self, Place};
use domain::round::{Contribution, LATE_ROUNDS};

use crate::Error;
use crate::app::Aggregator;
use crate::handlers::starting;

/// Frees the spool of what this round was merged from, and deletes updates that no later round can
/// count, and the server's moments of as long ago. What cannot be deleted now goes with the job.
pub async fn clean(
    aggregator: &Aggregator,
    job: &Job,
    round: u32,
    global: &ArtifactRef,
    contributions: &[Contribution],
) {
    let starts = contributions.iter().filter_map(|one| one.credit.as_ref());
    let starts = starts.map(|credit| &credit.global);
    let updates = contributions.iter().map(|one| &one.update.adapter);
    for artifact in updates.chain(starts).chain([global]) {
        if let Err(error) = aggregator.spool.remove(&artifact.sha256).await {
            tracing::debug!(%error, "spool not freed");
        }
    }
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

/// Removes what the merge wrote here: it lies in storage now.
async fn remove_merged(aggregator: &Aggregator, job: &Job, round: u32) -> Result<(), Error> {
    let folder = starting::folder(aggregator, job).await?;
    for path in [merged_path(&folder, round), moments_path(&folder, round)] {
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
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
    use domain::id::JobId;

    use super::*;

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
