//! What is stored of the shown jobs beside themselves: the plan, the last committed round, the last score.
//! Read again only when a job's epoch has risen.

use std::collections::BTreeMap;

use bus::Store;
use contract::topology::{Bucket, plan_key, round_key, score_key};
use domain::id::{Epoch, JobId};
use domain::job::{Job, Phase};
use domain::plan::Plan;
use domain::round::{Evaluated, Summary};

use crate::state::App;

/// What was read of one job.
#[derive(Debug, Default)]
pub struct Entry {
    /// For which epoch; absent: something could not be read.
    pub epoch: Option<Epoch>,
    /// Its present plan.
    pub plan: Option<Plan>,
    /// Its last committed round; round 0 is none.
    pub round: Option<Summary>,
    /// Its last score.
    pub score: Option<Evaluated>,
}

/// What was read of all shown jobs.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<JobId, Entry>,
}

impl Ledger {
    /// What was read of a job.
    pub fn entry(&self, job: &JobId) -> Option<&Entry> {
        self.entries.get(job)
    }

    /// Reads what these jobs have come to since, and forgets all others.
    pub async fn follow(&mut self, app: &App, jobs: &[Job]) {
        self.entries
            .retain(|id, _| jobs.iter().any(|job| job.id == *id));
        for job in jobs {
            let entry = self.entries.entry(job.id.clone()).or_default();
            if entry.epoch == Some(job.epoch) {
                continue;
            }
            match read(app, job, entry).await {
                Ok(()) => entry.epoch = Some(job.epoch),
                Err(error) => {
                    tracing::debug!(job = %job.id, %error, "a job's results are not seen")
                }
            }
        }
    }

    #[cfg(test)]
    pub fn insert(&mut self, job: &JobId, entry: Entry) {
        self.entries.insert(job.clone(), entry);
    }
}

async fn read(app: &App, job: &Job, entry: &mut Entry) -> Result<(), bus::Error> {
    let known = entry.plan.as_ref().map(|plan| plan.version);
    if let Some(version) = job.plan.filter(|version| known != Some(*version)) {
        let plans: Store<Plan> = app.store(Bucket::Plans).await?;
        let plan = plans.get(&plan_key(&job.id, version)).await?;
        entry.plan = plan.map(|(plan, _)| plan);
    }
    let Some(committed) = committed(job) else {
        return Ok(());
    };
    if committed > 0 {
        let rounds: Store<Summary> = app.store(Bucket::Jobs).await?;
        let round = rounds.get(&round_key(&job.id, committed)).await?;
        entry.round = round.map(|(round, _)| round).or(entry.round.take());
    }
    let scores: Store<Evaluated> = app.store(Bucket::Jobs).await?;
    let score = scores.get(&score_key(&job.id, committed)).await?;
    entry.score = score.map(|(score, _)| score).or(entry.score.take());
    Ok(())
}

/// The last round whose merge is stored, as the job's phase says; 0 is the untrained adapter. `None` before
/// there is one, and where the phase does not say.
pub fn committed(job: &Job) -> Option<u32> {
    let of = |phase: &Phase| match phase {
        Phase::Training { round, .. } | Phase::Folding { round, .. } => round.checked_sub(1),
        Phase::Succeeded { .. } | Phase::Finalizing { .. } => {
            let kept = job.course.kept.as_ref();
            Some(kept.map_or(job.spec.rounds.count, |kept| kept.last))
        }
        other => other.round(),
    };
    match &job.phase {
        Phase::Paused { resume, .. } => of(resume),
        phase => of(phase),
    }
}
