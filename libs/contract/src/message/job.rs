//! What happens to a job, said once per epoch. Events are the echo of the stored state: nobody
//! decides anything by them, they wake up and inform.

use domain::artifact::ArtifactRef;
use domain::cause::{Cause, SiteTrouble};
use domain::drift::Parted;
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::course::Figure;
use domain::job::{Job, Kept, Phase};
use domain::plan::PlanVersion;
use domain::round::{Closed, Contribution};
use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::{Message, subject};

/// An event of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// Whose.
    pub job: JobId,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// When the state it echoes was reached.
    pub at: UnixMillis,
    /// What happened.
    pub event: Event,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Accepted and queued.
    Submitted,
    /// Its sites are free; they measure themselves.
    Admitted {
        /// The sites.
        sites: Vec<WorkerName>,
    },
    /// Every site is measured.
    Profiled {
        /// The sites that take part.
        sites: Vec<WorkerName>,
    },
    /// A plan exists.
    Planned {
        /// Which version.
        version: PlanVersion,
    },
    /// A round began.
    Opened {
        /// Counted from 1.
        round: u32,
        /// When it closes with its quorum.
        deadline: UnixMillis,
        /// Whom it asks; empty: every planned site.
        #[serde(default)]
        asked: Vec<WorkerName>,
    },
    /// A round is decided.
    Closed {
        /// Which.
        round: u32,
        /// Whose updates count.
        sites: Vec<WorkerName>,
        /// Whose do not, and why.
        missing: Vec<SiteTrouble>,
        /// Whose updates count of an earlier round; they are among `sites`.
        #[serde(default)]
        credited: Vec<Credited>,
    },
    /// A round's merged adapter is stored; it is being scored.
    Merged {
        /// Which; 0 is the untrained adapter.
        round: u32,
    },
    /// A round's adapter was scored.
    Evaluated {
        /// Which.
        round: u32,
        /// Held-out records.
        records: u64,
        /// Mean loss.
        loss: Option<f64>,
        /// Balanced accuracy among the job's choices.
        balanced_accuracy: Option<f64>,
        /// What the job's scores are compared by; absent where that is none of the others, or was not told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        figure: Option<Figure>,
    },
    /// Training stopped before the last round asked for.
    Stopped {
        /// The last round.
        round: u32,
        /// Why, in a sentence.
        why: String,
    },
    /// A site's input was refused.
    Refused {
        /// Which, and why.
        site: SiteTrouble,
    },
    /// A site was given up.
    Lost {
        /// Which, and why.
        site: SiteTrouble,
    },
    /// A site was not measured again: what it measured for another job holds.
    Reused {
        /// Which.
        site: WorkerName,
        /// The job that it was last refined in.
        from: JobId,
        /// When it was measured.
        measured_at: UnixMillis,
    },
    /// A site's cost left its profile; the plan is looked at again.
    Drifted {
        /// Which.
        site: WorkerName,
        /// By how much; absent in what was said before it was told.
        #[serde(default)]
        by: Option<Parted>,
    },
    /// What the weights are worth is another order than when the plan was made; it is looked at again.
    ImportanceMoved {
        /// The round that the last two were held against.
        since: u32,
        /// Rank correlation of the last round with it.
        agreement: f64,
    },
    /// The plan was looked at again, and stays.
    PlanKept {
        /// Which version.
        version: PlanVersion,
        /// Why no other takes its place, in a sentence.
        why: String,
    },
    /// Stopped by a person.
    Paused,
    /// Going on after a pause.
    Resumed,
    /// Done.
    Finished {
        /// The adapter.
        adapter: ArtifactRef,
        /// Of which round it is, and why.
        #[serde(default)]
        kept: Option<Kept>,
    },
    /// Ended without an adapter.
    Failed {
        /// Why.
        cause: Cause,
    },
    /// Ended by a person.
    Cancelled,
}

/// An update that counts in a later round than its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credited {
    /// Whose.
    pub worker: WorkerName,
    /// The round that it was trained in.
    pub round: u32,
}

impl Event {
    /// The event's name, as the API shows it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Admitted { .. } => "admitted",
            Self::Profiled { .. } => "profiled",
            Self::Planned { .. } => "planned",
            Self::Opened { .. } => "opened",
            Self::Closed { .. } => "closed",
            Self::Merged { .. } => "merged",
            Self::Evaluated { .. } => "evaluated",
            Self::Stopped { .. } => "stopped",
            Self::Refused { .. } => "refused",
            Self::Lost { .. } => "lost",
            Self::Reused { .. } => "reused",
            Self::Drifted { .. } => "drifted",
            Self::ImportanceMoved { .. } => "importance-moved",
            Self::PlanKept { .. } => "plan-kept",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The last token of the subject: the name, and the site where several may say the same.
    fn token(&self) -> String {
        match self {
            Self::Refused { site } | Self::Lost { site } => {
                format!("{}-{}", self.name(), site.worker)
            }
            Self::Reused { site, .. } | Self::Drifted { site, .. } => {
                format!("{}-{site}", self.name())
            }
            _ => self.name().to_owned(),
        }
    }
}

impl Message for JobEvent {
    const KIND: &'static str = "job-event";
    // 2: asked, credited, stopped, kept; reused, and by how much a site drifted.
    // 3: importance-moved.
    // 4: what scores are compared by, and measures beside loss and balanced accuracy.
    // 5: plan-kept.
    const VERSION: u16 = 5;
    const OLDEST: u16 = 1;

    fn subject(&self) -> String {
        subject::job(&self.job, self.epoch, &self.event.token())
    }
}

/// The events that a stored job implies: whoever finds its change already made says them again.
#[must_use]
pub fn implied(job: &Job) -> Vec<JobEvent> {
    let phase_event = match &job.phase {
        Phase::Queued => (job.epoch == Epoch(1)).then_some(Event::Submitted),
        Phase::Profiling { .. } => Some(Event::Admitted {
            sites: job.participants.clone(),
        }),
        Phase::Planning { resume: None } => Some(Event::Profiled {
            sites: job.active().cloned().collect(),
        }),
        // What a look at the plan found is said site by site.
        Phase::Refining { .. } | Phase::Planning { .. } => None,
        Phase::Starting { .. } => job.plan.map(|version| Event::Planned { version }),
        Phase::Training {
            round,
            deadline,
            asked,
            ..
        } => Some(Event::Opened {
            round: *round,
            deadline: *deadline,
            asked: asked.clone(),
        }),
        Phase::Folding { round, closed, .. } => Some(Event::Closed {
            round: *round,
            sites: closed
                .contributions
                .iter()
                .map(|one| one.worker.clone())
                .collect(),
            missing: closed.missing.clone(),
            credited: credited(closed),
        }),
        Phase::Evaluating { round, .. } => Some(Event::Merged { round: *round }),
        Phase::Finalizing { kept, .. } => kept.as_ref().and_then(stopped),
        Phase::Paused { .. } => Some(Event::Paused),
        Phase::Succeeded { adapter, .. } => Some(Event::Finished {
            adapter: adapter.clone(),
            kept: job.course.kept.clone(),
        }),
        Phase::Failed { cause } => Some(Event::Failed {
            cause: cause.clone(),
        }),
        Phase::Cancelled => Some(Event::Cancelled),
    };
    let resumed = (job.resumed == Some(job.epoch)).then_some(Event::Resumed);
    let event = |event| JobEvent {
        job: job.id.clone(),
        epoch: job.epoch,
        at: job.phase_since,
        event,
    };
    resumed.into_iter().chain(phase_event).map(event).collect()
}

fn credited(closed: &Closed) -> Vec<Credited> {
    let of = |one: &Contribution| {
        let round = one.credit.as_ref()?.round;
        let worker = one.worker.clone();
        Some(Credited { worker, round })
    };
    closed.contributions.iter().filter_map(of).collect()
}

fn stopped(kept: &Kept) -> Option<Event> {
    let why = kept.stopped_early.clone()?;
    let round = kept.last;
    Some(Event::Stopped { round, why })
}
