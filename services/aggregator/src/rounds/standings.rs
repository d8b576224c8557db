//! What each participant owes or has delivered in the open round. A memory of checked updates, so
//! that each is read once; it can be lost, the reports and what is in storage are still there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use domain::cause::{SiteTrouble, Trouble};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::Job;
use domain::round::Standing;

/// What is known of one epoch.
type Known = (Epoch, BTreeMap<WorkerName, Standing>);

/// Per job, of one epoch at a time.
#[derive(Debug, Default)]
pub struct Standings(Mutex<HashMap<JobId, Known>>);

impl Standings {
    /// What is known of this epoch.
    pub fn of(&self, job: &Job) -> BTreeMap<WorkerName, Standing> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = known.get(&job.id).filter(|(epoch, _)| *epoch == job.epoch);
        current
            .map(|(_, standings)| standings.clone())
            .unwrap_or_default()
    }

    /// Remembers what became known.
    pub fn keep(&self, job: &Job, standings: &BTreeMap<WorkerName, Standing>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(job.id.clone(), (job.epoch, standings.clone()));
    }

    /// Forgets a job.
    pub fn forget(&self, job: &JobId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(job);
    }

    /// Who is still waited for, and who was lost.
    pub fn troubles(&self, job: &Job) -> Vec<SiteTrouble> {
        let known = self.of(job);
        let late = |(worker, standing): (&WorkerName, &Standing)| {
            let waiting = matches!(standing, Standing::Waiting);
            let detail = "still at work".to_owned();
            waiting.then(|| SiteTrouble {
                worker: worker.clone(),
                trouble: Trouble::TooLate,
                detail,
            })
        };
        job.lost
            .iter()
            .cloned()
            .chain(known.iter().filter_map(late))
            .collect()
    }
}
