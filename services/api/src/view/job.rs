//! Jobs as the API shows them.

use domain::cause::{Cause, SiteTrouble};
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::course::{BestView, KeptView, LateView, asked, best, kept};
use super::fleet::{ProgressView, liveness_name};
use super::rfc3339;
use super::spec::JobFile;
use crate::explain::queue::{self, queue};
use crate::explain::stage_name;
use crate::explain::waiting::{Reports, Waiting, waiting_for};
use crate::watch::Known;

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobSummary {
    /// Its identity, `job_<16 hex digits>`.
    pub id: String,
    /// The name its submitter gave it.
    pub name: String,
    /// queued, profiling, planning, starting, training, folding, refining, evaluating, finalizing, paused, succeeded, failed or cancelled.
    pub phase: &'static str,
    /// When the phase began (RFC 3339).
    pub phase_since: String,
    /// The round it is in; 0 is the untrained adapter.
    pub round: Option<u32>,
    /// Rounds asked for.
    pub rounds_total: u32,
    /// When it was submitted (RFC 3339).
    pub submitted_at: String,
    /// Who submitted it.
    pub submitter: String,
    /// Why it failed.
    pub cause: Option<CauseView>,
    /// The adapter it ended with.
    pub adapter: Option<AdapterView>,
}

/// A job and everything about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its identity, `job_<16 hex digits>`.
    pub id: String,
    /// The name its submitter gave it.
    pub name: String,
    /// queued, profiling, planning, starting, training, folding, refining, evaluating, finalizing, paused, succeeded, failed or cancelled.
    pub phase: &'static str,
    /// When the phase began (RFC 3339).
    pub phase_since: String,
    /// When sites that have not answered are left out of this phase (RFC 3339).
    pub phase_deadline: Option<String>,
    /// The phase that goes on after a resume; present while paused.
    pub paused_phase: Option<&'static str>,
    /// Whether it pauses at the next round boundary.
    pub pause_requested: bool,
    /// Rises with every transition.
    pub epoch: u64,
    /// The round it is in; 0 is the untrained adapter.
    pub round: Option<u32>,
    /// Rounds asked for.
    pub rounds_total: u32,
    /// When it was submitted (RFC 3339).
    pub submitted_at: String,
    /// Who submitted it.
    pub submitter: String,
    /// When it ends at the latest (RFC 3339); a pause moves it.
    pub deadline: String,
    /// Its place in the queue, and why it waits; present while queued.
    pub queue: Option<QueueView>,
    /// Whom it waits for, and why.
    pub waiting_for: Vec<WaitingView>,
    /// Its sites.
    pub sites: Vec<SiteView>,
    /// Whom the open round asks; empty: every planned site.
    pub asked: Vec<String>,
    /// Sites that were not in time for an earlier round and go on with it.
    pub late: Vec<LateView>,
    /// The best score so far; `null` while there is none.
    pub best: Option<BestView>,
    /// Of which round the adapter is, and why; present once that is decided.
    pub kept: Option<KeptView>,
    /// Version of its plan.
    pub plan_version: Option<u32>,
    /// Why it failed.
    pub cause: Option<CauseView>,
    /// The adapter it ended with.
    pub adapter: Option<AdapterView>,
    /// The job as submitted, defaults filled in.
    #[schema(value_type = JobFile)]
    pub spec: serde_json::Value,
}

/// Where a queued job stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueView {
    /// Counted from 1.
    pub place: usize,
    /// Why it waits, in a sentence that names the sites.
    pub reason: String,
}

/// One thing a job waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingView {
    /// The site; `null` for a control service or a person.
    pub worker: Option<String>,
    /// Why, in a sentence.
    pub why: String,
}

/// One site of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteView {
    /// Its worker.
    pub worker: String,
    /// `alive`, or `unreachable` after three missed beats.
    pub liveness: &'static str,
    /// When its last beat arrived (RFC 3339).
    pub last_beat_at: Option<String>,
    /// What it is doing.
    pub stage: Option<&'static str>,
    /// Progress of its task, if that is of this job.
    pub progress: Option<ProgressView>,
    /// Why it was given up, if it was.
    pub lost: Option<TroubleView>,
}

/// What is wrong at a site.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TroubleView {
    /// The site's worker.
    pub worker: String,
    /// Kind of trouble: unreachable, no_progress, policy_refused, data_unusable, model_unusable, out_of_memory, crashed, not_finite, update_refused, storage_unavailable, disk_full, plan_unsupported, too_late or internal.
    #[schema(value_type = String)]
    pub trouble: domain::cause::Trouble,
    /// One sentence.
    pub detail: String,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct CauseView {
    /// Kind of end: quorum_lost, deadline_passed, plan_impossible, input_unusable, paused_too_long or internal.
    #[schema(value_type = String)]
    pub kind: domain::cause::CauseKind,
    /// What happened and what to do.
    pub message: String,
    /// The sites it came from.
    pub sites: Vec<TroubleView>,
}

/// An adapter in storage.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterView {
    /// Digest of `adapter_model.safetensors`, `sha256:…`.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl From<&SiteTrouble> for TroubleView {
    fn from(site: &SiteTrouble) -> Self {
        Self {
            worker: site.worker.to_string(),
            trouble: site.trouble,
            detail: site.detail.clone(),
        }
    }
}

impl From<&Cause> for CauseView {
    fn from(cause: &Cause) -> Self {
        Self {
            kind: cause.kind,
            message: cause.message.clone(),
            sites: cause.sites.iter().map(TroubleView::from).collect(),
        }
    }
}

impl From<Waiting> for WaitingView {
    fn from(waiting: Waiting) -> Self {
        Self {
            worker: waiting.worker.map(String::from),
            why: waiting.why,
        }
    }
}

fn cause(job: &Job) -> Option<CauseView> {
    match &job.phase {
        Phase::Failed { cause } => Some(cause.into()),
        _ => None,
    }
}

fn adapter(job: &Job) -> Option<AdapterView> {
    match &job.phase {
        Phase::Succeeded { adapter, .. } => Some(AdapterView {
            sha256: adapter.sha256.to_string(),
            bytes: adapter.bytes,
        }),
        _ => None,
    }
}

/// A job for a list.
pub fn summary(job: &Job) -> JobSummary {
    JobSummary {
        id: job.id.to_string(),
        name: job.spec.name.clone(),
        phase: job.phase.name(),
        phase_since: rfc3339(job.phase_since),
        round: job.phase.round(),
        rounds_total: job.spec.rounds.count,
        submitted_at: rfc3339(job.submitted_at),
        submitter: job.submitter.to_string(),
        cause: cause(job),
        adapter: adapter(job),
    }
}

/// A job with everything about it. `reports` are what its sites answered in its present epoch.
pub fn view(job: &Job, known: &Known, reports: &Reports, now: UnixMillis) -> JobView {
    let waiting = waiting_for(job, known, reports, now).into_iter();
    JobView {
        id: job.id.to_string(),
        name: job.spec.name.clone(),
        phase: job.phase.name(),
        phase_since: rfc3339(job.phase_since),
        phase_deadline: phase_deadline(&job.phase).map(rfc3339),
        paused_phase: match &job.phase {
            Phase::Paused { resume, .. } => Some(resume.name()),
            _ => None,
        },
        pause_requested: job.pause_requested,
        epoch: job.epoch.0,
        round: job.phase.round(),
        rounds_total: job.spec.rounds.count,
        submitted_at: rfc3339(job.submitted_at),
        submitter: job.submitter.to_string(),
        deadline: rfc3339(job.deadline()),
        queue: queue(job, known, now).map(|queue| QueueView {
            place: queue.place,
            reason: queue.reason,
        }),
        waiting_for: waiting.map(WaitingView::from).collect(),
        sites: sites(job, known, now),
        asked: asked(job),
        late: job.late.iter().map(LateView::from).collect(),
        best: best(job),
        kept: kept(job),
        plan_version: job.plan.map(|version| version.0),
        cause: cause(job),
        adapter: adapter(job),
        spec: serde_json::to_value(&job.spec).unwrap_or_default(),
    }
}

const fn phase_deadline(phase: &Phase) -> Option<UnixMillis> {
    match phase {
        Phase::Profiling { deadline }
        | Phase::Training { deadline, .. }
        | Phase::Evaluating { deadline, .. } => Some(*deadline),
        _ => None,
    }
}

/// The job's participants; before it is admitted, the sites it may run on.
fn sites(job: &Job, known: &Known, now: UnixMillis) -> Vec<SiteView> {
    if job.participants.is_empty() && matches!(job.phase, Phase::Queued) {
        let candidates = queue::hindrances(job, known, now).into_iter();
        return candidates
            .map(|(worker, _)| site(job, &worker, known, now))
            .collect();
    }
    let participants = job.participants.iter();
    participants
        .map(|worker| site(job, worker, known, now))
        .collect()
}

fn site(job: &Job, worker: &WorkerName, known: &Known, now: UnixMillis) -> SiteView {
    let heard = known.beats.get(worker);
    let progress = heard.and_then(|heard| heard.beat.progress.as_ref());
    let lost = job.lost.iter().find(|lost| lost.worker == *worker);
    SiteView {
        worker: worker.to_string(),
        liveness: liveness_name(known.liveness(worker, now)),
        last_beat_at: heard.map(|heard| rfc3339(heard.at)),
        stage: heard.map(|heard| stage_name(heard.beat.stage)),
        progress: progress
            .filter(|task| task.job == job.id)
            .map(ProgressView::from),
        lost: lost.map(TroubleView::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{artifact, beat_on, job, registration, training};
    use crate::watch::Watch;
    use domain::cause::{CauseKind, Trouble};
    use domain::fleet::Stage;
    use serde_json::Value;

    const NOW: UnixMillis = UnixMillis(100_000);

    fn json(job: &Job, watch: &Watch) -> Value {
        let view = view(job, &watch.read(), &Reports::new(), NOW);
        serde_json::to_value(&view).expect("serializes")
    }

    fn fleet() -> Watch {
        let watch = Watch::new(UnixMillis(0));
        watch.worker(registration("a", "mail"), UnixMillis(0));
        watch.worker(registration("b", "mail"), UnixMillis(0));
        watch
    }

    #[test]
    fn a_queued_job_shows_place_reason_and_its_candidates() {
        let json = json(&job(1, &[]), &fleet());
        assert_eq!(json["phase"], "queued");
        assert_eq!(json["queue"]["place"], 1);
        assert_eq!(json["sites"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["spec"]["data"]["dataset"], "mail");
        assert_eq!(json["deadline"], "1970-01-02T00:00:00.001Z");
    }

    #[test]
    fn a_running_job_shows_each_sites_progress_and_loss_of_sites() {
        let mut job = training(1, &["a", "b"]);
        job.lost.push(SiteTrouble {
            worker: "b".parse().expect("legal"),
            trouble: Trouble::OutOfMemory,
            detail: "needs 2 GB".to_owned(),
        });
        let watch = fleet();
        watch.beat(beat_on("a", &job, Stage::Training), NOW);
        let json = json(&job, &watch);
        assert_eq!(
            (&json["round"], &json["rounds_total"]),
            (&2.into(), &3.into())
        );
        assert_eq!(json["sites"][0]["progress"]["done"], 3);
        assert_eq!(json["sites"][1]["lost"]["trouble"], "out_of_memory");
        assert_eq!(json["sites"][1]["liveness"], "unreachable");
        assert!(json["queue"].is_null());
    }

    #[test]
    fn a_failed_job_shows_a_typed_cause_that_names_the_site() {
        let mut failed = job(1, &["a"]);
        let cause = Cause {
            kind: CauseKind::QuorumLost,
            message: "one site is left, two are needed".to_owned(),
            sites: vec![SiteTrouble {
                worker: "a".parse().expect("legal"),
                trouble: Trouble::Crashed,
                detail: String::new(),
            }],
        };
        failed.advance(Phase::Failed { cause }, NOW).expect("legal");
        let json = json(&failed, &fleet());
        assert_eq!(json["cause"]["kind"], "quorum_lost");
        assert_eq!(json["cause"]["sites"][0]["worker"], "a");
        assert_eq!(json["waiting_for"], Value::Array(Vec::new()));
    }

    #[test]
    fn a_finished_job_shows_its_adapters_digest() {
        let mut done = job(1, &["a"]);
        done.phase = Phase::Succeeded {
            adapter: artifact(),
            config: artifact(),
            report: artifact(),
        };
        let json = json(&done, &fleet());
        assert_eq!(json["adapter"]["sha256"], artifact().sha256.as_str());
    }
}
