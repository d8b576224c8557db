//! Results that are decided: one file per job, epoch and kind of task, written before it is said.
//!
//! A task that comes again finds its own result here and only says it again. Files of older epochs
//! go when the job's newer ones arrive in number, when the job is dropped, or by age.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use contract::subject::Address;
use domain::id::{Epoch, JobId};
use domain::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::durable;
use crate::report::Report;

/// Sealed results kept of one job.
const KEPT_PER_JOB: usize = 32;
/// Jobs are forgotten after so many milliseconds without a new result: a month, as on the streams.
const KEPT_MS: u64 = 30 * 86_400_000;
/// Most entries of a folder that are looked at.
const ENTRIES: usize = 100_000;

/// A folder of sealed results.
#[derive(Debug, Clone)]
pub struct Sealed {
    dir: PathBuf,
}

impl Sealed {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.to_owned();
        Ok(Self { dir })
    }

    /// The sealed report on a task, if any. A damaged file counts as none and is removed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn find(&self, task: &Address) -> io::Result<Option<Report>> {
        let path = self.path(task);
        let Some(bytes) = durable::read(&path)? else {
            return Ok(None);
        };
        match Report::from_bytes(&bytes) {
            Ok(report) => Ok(Some(report)),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "sealed result is damaged, doing the task again");
                durable::remove(&path)?;
                Ok(None)
            }
        }
    }

    /// Seals the report on a task; the first one stands.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn seal(&self, task: &Address, report: &Report) -> io::Result<()> {
        let path = self.path(task);
        if path.exists() {
            return Ok(());
        }
        let bytes = report.to_bytes().map_err(io::Error::other)?;
        let folder = self.dir.join(task.job.as_str());
        fs::create_dir_all(&folder)?;
        durable::write(&path, &bytes)?;
        let mut all = epochs(&folder)?;
        all.sort_unstable_by_key(|(epoch, _)| std::cmp::Reverse(*epoch));
        all.into_iter()
            .skip(KEPT_PER_JOB)
            .try_for_each(|(_, path)| durable::remove(&path))
    }

    /// Forgets what was sealed of a job below an epoch.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn drop_below(&self, job: &JobId, below: Epoch) -> io::Result<()> {
        let folder = self.dir.join(job.as_str());
        if !folder.is_dir() {
            return Ok(());
        }
        let old = epochs(&folder)?
            .into_iter()
            .filter(|(epoch, _)| *epoch < below);
        for (_, path) in old {
            durable::remove(&path)?;
        }
        // Only an empty folder can be removed; another one is still needed.
        let _ = fs::remove_dir(&folder);
        Ok(())
    }

    /// Forgets jobs that had no new result for a month. One that cannot be forgotten keeps no other.
    ///
    /// # Errors
    /// If the folder cannot be read, or a job not be forgotten.
    pub fn prune(&self, now: UnixMillis) -> io::Result<()> {
        let mut pruned = Ok(());
        for entry in fs::read_dir(&self.dir)?.take(ENTRIES) {
            if let Err(error) = entry.and_then(|entry| expire(&entry, now)) {
                pruned = Err(error);
            }
        }
        pruned
    }

    /// Prunes, and again after each rest, until the token is cancelled: a process may run for years.
    pub async fn prune_every(
        self,
        rest: Duration,
        clock: fn() -> UnixMillis,
        token: CancellationToken,
    ) {
        loop {
            let sealed = self.clone();
            let pruned = tokio::task::spawn_blocking(move || sealed.prune(clock())).await;
            // One that panicked has logged it; the next may do better.
            if let Ok(Err(error)) = pruned {
                tracing::warn!(%error, "old results remain");
            }
            let rest = tokio::time::sleep(rest);
            if token.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    // Invariant: a job id holds letters, digits and `_` only; a kind that is no task's never gets here
    // with a slash, because subjects of addresses are split at dots and kinds are checked below.
    fn path(&self, task: &Address) -> PathBuf {
        let legal = |c: char| c.is_ascii_lowercase() || c == '-';
        let kind: String = task.kind.chars().filter(|c| legal(*c)).take(32).collect();
        let name = format!("{}.{kind}", task.epoch);
        self.dir.join(task.job.as_str()).join(name)
    }
}

/// Forgets a job that had no new result for a month. It may be dropped meanwhile: then it is forgotten already.
fn expire(job: &fs::DirEntry, now: UnixMillis) -> io::Result<()> {
    let Some(about) = durable::absent(job.metadata())? else {
        return Ok(());
    };
    let since = about.modified()?.duration_since(UNIX_EPOCH);
    let changed_ms = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    if now.since(UnixMillis(changed_ms)) <= KEPT_MS {
        return Ok(());
    }
    durable::absent(fs::remove_dir_all(job.path())).map(|_| ())
}

fn epochs(folder: &Path) -> io::Result<Vec<(Epoch, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.take(ENTRIES) {
        let path = entry?.path();
        let epoch = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(epoch) = epoch {
            found.push((Epoch(epoch), path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use contract::message::report::{Failed, Head};
    use domain::cause::Trouble;

    use super::*;

    fn task(epoch: u64) -> Address {
        Address {
            worker: "w".parse().unwrap(),
            job: JobId::from_bits(7),
            epoch: Epoch(epoch),
            kind: "train".to_owned(),
        }
    }

    fn report(detail: &str) -> Report {
        let head = Head {
            worker: "w".parse().unwrap(),
            job: JobId::from_bits(7),
            epoch: Epoch(1),
        };
        Report::Failed(Box::new(Failed {
            head,
            task: "train".to_owned(),
            trouble: Trouble::NotFinite,
            detail: detail.to_owned(),
        }))
    }

    #[test]
    fn a_sealed_report_is_found_by_its_identity_and_the_first_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        assert_eq!(sealed.find(&task(1)).unwrap(), None);
        sealed.seal(&task(1), &report("first")).unwrap();
        sealed.seal(&task(1), &report("second")).unwrap();
        let again = Sealed::open(folder.path()).unwrap();
        assert_eq!(again.find(&task(1)).unwrap(), Some(report("first")));
        assert_eq!(again.find(&task(2)).unwrap(), None);
    }

    #[test]
    fn a_damaged_result_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        sealed.seal(&task(1), &report("whole")).unwrap();
        let path = sealed.path(&task(1));
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 3, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(sealed.find(&task(1)).unwrap(), None, "cut at {cut}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_dropped_job_is_forgotten_below_its_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        for epoch in 1..4 {
            sealed.seal(&task(epoch), &report("x")).unwrap();
        }
        sealed.drop_below(&JobId::from_bits(7), Epoch(3)).unwrap();
        let left: Vec<bool> = (1..4)
            .map(|e| sealed.find(&task(e)).unwrap().is_some())
            .collect();
        assert_eq!(left, [false, false, true]);
        sealed.drop_below(&JobId::from_bits(7), Epoch(9)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        sealed.drop_below(&JobId::from_bits(8), Epoch(9)).unwrap();
    }

    #[test]
    fn only_the_newest_results_of_a_job_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        for epoch in 1..=40 {
            sealed.seal(&task(epoch), &report("x")).unwrap();
        }
        let kept = (1..=40).filter(|e| sealed.find(&task(*e)).unwrap().is_some());
        assert_eq!(kept.collect::<Vec<u64>>(), (9..=40).collect::<Vec<u64>>());
    }

    #[test]
    fn jobs_without_news_for_a_month_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        sealed.seal(&task(1), &report("x")).unwrap();
        let now = chassis::clock::now();
        sealed.prune(now).unwrap();
        assert!(sealed.find(&task(1)).unwrap().is_some());
        sealed.prune(now.plus(KEPT_MS + 60_000)).unwrap();
        assert_eq!(sealed.find(&task(1)).unwrap(), None);
    }

    #[test]
    fn a_job_that_is_dropped_while_it_is_looked_at_is_forgotten_already() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        sealed.seal(&task(1), &report("x")).unwrap();
        let found = fs::read_dir(folder.path()).unwrap().next();
        sealed.drop_below(&JobId::from_bits(7), Epoch(9)).unwrap();
        expire(&found.unwrap().unwrap(), chassis::clock::now()).unwrap();
    }

    #[test]
    fn what_cannot_be_forgotten_keeps_no_job_from_being() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        sealed.seal(&task(1), &report("x")).unwrap();
        // In whatever order they are found, some come before the job.
        for number in 0..32 {
            fs::write(folder.path().join(format!("stray-{number}")), "").unwrap();
        }
        let later = chassis::clock::now().plus(KEPT_MS + 60_000);
        assert!(sealed.prune(later).is_err());
        assert_eq!(sealed.find(&task(1)).unwrap(), None);
    }

    #[tokio::test]
    async fn a_process_that_runs_on_forgets_what_became_old_while_it_ran() {
        /// By how much the clock of this test goes ahead, in milliseconds.
        static AHEAD: AtomicU64 = AtomicU64::new(0);
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealed::open(folder.path()).unwrap();
        sealed.seal(&task(1), &report("x")).unwrap();
        let token = CancellationToken::new();
        let pruning = sealed.clone().prune_every(
            Duration::from_millis(1),
            || chassis::clock::now().plus(AHEAD.fetch_add(KEPT_MS, Ordering::Relaxed)),
            token.clone(),
        );
        let pruning = tokio::spawn(pruning);
        let forgotten = async || sealed.find(&task(1)).unwrap().is_none();
        testkit::wait::until("it is forgotten", Duration::from_secs(20), forgotten).await;
        token.cancel();
        pruning.await.unwrap();
    }
}
