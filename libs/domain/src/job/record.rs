//! A job as the key-value store keeps it: the truth that events only echo.

use serde::{Deserialize, Serialize};

use super::course::Course;
use super::phase::Phase;
use super::spec::Spec;
use crate::artifact::Digest;
use crate::cause::SiteTrouble;
use crate::id::{Epoch, Fence, InstanceId, JobId, Submitter, WorkerName};
use crate::plan::PlanVersion;
use crate::round::{Behind, Unwanted};
use crate::time::UnixMillis;
use crate::zeroth::GENERATOR;

/// Days after which a paused job is cancelled.
pub const PAUSE_LIMIT_MS: u64 = 30 * 86_400_000;

/// The process that drives a job for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which process.
    pub holder: InstanceId,
    /// Rises when the lease changes hands.
    pub fence: Fence,
    /// When others may take over.
    pub expires_at: UnixMillis,
}

/// Why the process that drives a job cannot go on for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when.
    pub since: UnixMillis,
    /// What keeps it, in a sentence.
    pub why: String,
}

/// How often it was asked whether the plan of a running job still stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks {
    /// How often so far; there is a limit.
    pub times: u32,
    /// After which round last: what was observed up to it is known to the plan.
    pub after: u32,
}

/// Why a transition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot become {to}")]
pub struct IllegalTransition {
    from: &'static str,
    to: &'static str,
}

/// What records say that were written before they said it.
const FIRST_GENERATOR: u16 = 1;

const fn first() -> u16 {
    FIRST_GENERATOR
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_first(generator: &u16) -> bool {
    *generator == FIRST_GENERATOR
}

/// A job and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// What was asked for.
    pub spec: Spec,
    /// Digest of the submission, so that an idempotency key is not reused for another job.
    pub submission: Digest,
    /// Who submitted it.
    pub submitter: Submitter,
    /// When.
    pub submitted_at: UnixMillis,
    /// The version of the generator of its zeroth-order steps' directions. None of its rounds can be replayed along
    /// those of another, so it is the job's from its first round on ([`Job::begin_walking`]) as long as it lasts.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub generator: u16,
    /// Whether a site with directions of its own has a seed of its own for each round, where rounds may differ in
    /// their steps. Jobs of before sites had so have one seed for all rounds, and keep it: while a release takes another's
    /// place, the older may write such a record again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub round_seeds: bool,
    /// Raised by every transition.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
    /// When the phase began.
    pub phase_since: UnixMillis,
    /// Milliseconds spent paused; they do not count against the job's deadline.
    pub paused_ms: u64,
    /// Pause at the next round boundary.
    pub pause_requested: bool,
    /// The epoch in which the job was last resumed, so that `resumed` is said even after a crash.
    pub resumed: Option<Epoch>,
    /// Who drives it.
    pub owner: Option<Owner>,
    /// What keeps its owner from going on, such as a full disk or storage that is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Its sites, once admitted, ordered by name.
    pub participants: Vec<WorkerName>,
    /// Participants that were given up, and why; they are asked again when they beat.
    pub lost: Vec<SiteTrouble>,
    /// Participants that go on with an earlier round, ordered by name; nothing else is asked of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Behind>,
    /// Tasks that its owner still has to take back. Stored in the write that makes them unwanted, and
    /// taken off the list when their sites were told, so that a crash between the two loses nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwanted: Vec<Unwanted>,
    /// How its scores went so far.
    #[serde(default)]
    pub course: Course,
    /// Its plan, once made.
    pub plan: Option<PlanVersion>,
    /// How often it was asked whether that plan still stands.
    #[serde(default)]
    pub looks: Looks,
    /// Whether a terminal job's tasks were purged and its event was published.
    pub settled: bool,
}

impl Job {
    /// A new job, queued.
    #[must_use]
    pub fn submitted(
        id: JobId,
        spec: Spec,
        submission: Digest,
        submitter: Submitter,
        now: UnixMillis,
    ) -> Self {
        Self {
            id,
            spec,
            submission,
            submitter,
            submitted_at: now,
            generator: GENERATOR,
            round_seeds: true,
            epoch: Epoch(1),
            phase: Phase::Queued,
            phase_since: now,
            paused_ms: 0,
            pause_requested: false,
            resumed: None,
            owner: None,
            held: None,
            participants: Vec::new(),
            lost: Vec::new(),
            late: Vec::new(),
            unwanted: Vec::new(),
            course: Course::default(),
            plan: None,
            looks: Looks { times: 0, after: 0 },
            settled: false,
        }
    }

    /// Its first round is about to open: however old its record is, its directions are this release's.
    pub const fn begin_walking(&mut self) {
        self.generator = GENERATOR;
    }

    /// Goes to `next`: the epoch rises, and the lease is given back when another role takes over.
    ///
    /// # Errors
    /// If the transition is not legal from the present phase.
    pub fn advance(&mut self, next: Phase, now: UnixMillis) -> Result<(), IllegalTransition> {
        if !self.phase.may_become(&next) {
            return Err(IllegalTransition {
                from: self.phase.name(),
                to: next.name(),
            });
        }
        if next.role() != self.phase.role() {
            self.owner = None;
        }
        if next.is_terminal() || matches!(next, Phase::Paused { .. }) {
            // Nobody goes on with an earlier round.
            let behind = self.late.drain(..);
            self.unwanted.extend(behind.map(|one| Unwanted::from(&one)));
        }
        self.phase = next;
        self.phase_since = now;
        self.held = None;
        self.epoch = self.epoch.next();
        Ok(())
    }

    /// Stops the job where it is; the tasks of the old epoch no longer count.
    ///
    /// # Errors
    /// If the job is paused already or has ended.
    pub fn pause(&mut self, now: UnixMillis) -> Result<(), IllegalTransition> {
        if matches!(self.phase, Phase::Paused { .. }) {
            return Err(IllegalTransition {
                from: "paused",
                to: "paused",
            });
        }
        self.pause_requested = false;
        let resume = Box::new(self.phase.clone());
        self.advance(Phase::Paused { resume, since: now }, now)
    }

    /// Goes on after a pause, in a new epoch, with deadlines moved by the time spent paused.
    ///
    /// # Errors
    /// If the job is not paused.
    pub fn resume(&mut self, now: UnixMillis) -> Result<(), IllegalTransition> {
        let Phase::Paused { resume, since } = self.phase.clone() else {
            return Err(IllegalTransition {
                from: self.phase.name(),
                to: "resumed",
            });
        };
        let paused = now.since(since);
        self.paused_ms = self.paused_ms.saturating_add(paused);
        self.advance(resume.shifted(paused), now)?;
        self.resumed = Some(self.epoch);
        Ok(())
    }

    /// Takes or renews the lease until `expires_at`. Returns the fence, or `None` while another
    /// process holds it. A new holder re-arms the phase's deadline for the time the job had no owner.
    pub fn claim(
        &mut self,
        holder: &InstanceId,
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Option<Fence> {
        let fence = match &self.owner {
            Some(owner) if owner.holder == *holder => owner.fence,
            Some(owner) if owner.expires_at > now => return None,
            Some(owner) => {
                let idle = now.since(owner.expires_at);
                self.phase = self.phase.clone().shifted(idle);
                if let Some(held) = &mut self.held {
                    // Counted above.
                    held.since = held.since.plus(idle);
                }
                Fence(owner.fence.0 + 1)
            }
            None => Fence(1),
        };
        self.owner = Some(Owner {
            holder: holder.clone(),
            fence,
            expires_at,
        });
        Some(fence)
    }

    /// Its owner cannot go on. The first reason stands until it can.
    pub fn hold(&mut self, why: String, now: UnixMillis) {
        self.held.get_or_insert(Held { since: now, why });
    }

    /// Its owner goes on: the phase's deadline moves by the time that it could not, which was nobody
    /// else's fault. The job's own deadline does not.
    pub fn release(&mut self, now: UnixMillis) {
        if let Some(held) = self.held.take() {
            self.phase = self.phase.clone().shifted(now.since(held.since));
        }
    }

    /// When the job as a whole must have ended.
    #[must_use]
    pub const fn deadline(&self) -> UnixMillis {
        self.submitted_at
            .plus(self.spec.deadline_seconds * 1000)
            .plus(self.paused_ms)
    }

    /// Gives a participant up; what it was at of an earlier round is not wanted any more.
    pub fn lose(&mut self, site: SiteTrouble) {
        let gone = self.late.iter().filter(|one| one.worker == site.worker);
        let gone: Vec<Unwanted> = gone.map(Unwanted::from).collect();
        self.unwanted.extend(gone);
        self.late.retain(|behind| behind.worker != site.worker);
        if self.lost.iter().all(|lost| lost.worker != site.worker) {
            self.lost.push(site);
        }
    }

    /// Takes sites in that were not there when the job began.
    pub fn join(&mut self, sites: impl IntoIterator<Item = WorkerName>) {
        self.participants.extend(sites);
        self.participants.sort_unstable();
        self.participants.dedup();
    }

    /// What a participant is at that goes on with an earlier round.
    #[must_use]
    pub fn behind(&self, worker: &WorkerName) -> Option<&Behind> {
        self.late.iter().find(|behind| behind.worker == *worker)
    }

    /// Participants that have not been given up.
    pub fn active(&self) -> impl Iterator<Item = &WorkerName> {
        self.participants
            .iter()
            .filter(|worker| self.lost.iter().all(|lost| lost.worker != **worker))
    }

    /// Sites without which the job does not go on to be planned.
    #[must_use]
    pub fn least_sites(&self) -> usize {
        self.spec.rounds.quorum.least(self.participants.len())
    }

    /// How many updates close a round that asks so many sites.
    #[must_use]
    pub fn quorum(&self, asked: usize) -> usize {
        self.spec.rounds.needed(asked, self.participants.len())
    }
}

#[cfg(test)]
mod tests;
