//! Which sites a job keeps from other jobs. Who waits for a site is the queue's to say.

use super::record::Job;
use crate::cause::Trouble;
use crate::id::WorkerName;

impl Job {
    /// Sites that a job which replays another's plans does without for now: it takes them back where a later plan
    /// names them. Whether one does is not known here.
    pub fn parked(&self) -> impl Iterator<Item = &WorkerName> {
        let is_replay = self.spec.plan_from.is_some();
        let lost = self.lost.iter();
        let parked = lost.filter(move |site| is_replay && site.trouble == Trouble::PlanUnsupported);
        parked.map(|site| &site.worker)
    }

    /// Whether a worker serves this job now, or is kept for it: no other job begins with it.
    #[must_use]
    pub fn holds(&self, worker: &WorkerName) -> bool {
        let mut kept = self.active().chain(self.parked());
        self.phase.holds_sites() && kept.any(|site| site == worker)
    }
}
