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
mod tests {
    use super::*;
    use crate::artifact::ArtifactRef;
    use crate::cause::Trouble;

    fn job() -> Job {
        let spec = serde_json::from_str(
            r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#,
        );
        let submitter = "local".parse().expect("legal");
        Job::submitted(
            JobId::from_bits(1),
            spec.expect("legal"),
            Digest::from_bytes(&[0; 32]),
            submitter,
            UnixMillis(0),
        )
    }

    #[test]
    fn every_transition_raises_the_epoch() {
        let mut job = job();
        job.advance(
            Phase::Profiling {
                deadline: UnixMillis(100),
            },
            UnixMillis(1),
        )
        .expect("legal");
        job.pause(UnixMillis(10)).expect("legal");
        job.resume(UnixMillis(30)).expect("legal");
        assert_eq!(job.epoch, Epoch(4));
        assert_eq!(
            job.phase,
            Phase::Profiling {
                deadline: UnixMillis(120)
            }
        );
        assert_eq!(job.paused_ms, 20);
    }

    #[test]
    fn an_ended_job_stays_ended() {
        let mut job = job();
        job.advance(Phase::Cancelled, UnixMillis(1)).expect("legal");
        assert!(job.advance(Phase::Queued, UnixMillis(2)).is_err());
        assert!(job.pause(UnixMillis(2)).is_err());
        assert!(job.resume(UnixMillis(2)).is_err());
    }

    #[test]
    fn no_phase_is_skipped() {
        let mut job = job();
        assert!(
            job.advance(Phase::Planning { resume: None }, UnixMillis(1))
                .is_err()
        );
        assert!(
            job.advance(Phase::Starting { resume: None }, UnixMillis(1))
                .is_err()
        );
    }

    #[test]
    fn a_lease_changes_hands_only_after_it_expired_and_raises_the_fence() {
        let (first, second) = ("a".parse().expect("legal"), "b".parse().expect("legal"));
        let mut job = job();
        assert_eq!(
            job.claim(&first, UnixMillis(0), UnixMillis(10)),
            Some(Fence(1))
        );
        assert_eq!(job.claim(&second, UnixMillis(5), UnixMillis(15)), None);
        assert_eq!(
            job.claim(&first, UnixMillis(5), UnixMillis(15)),
            Some(Fence(1))
        );
        assert_eq!(
            job.claim(&second, UnixMillis(16), UnixMillis(30)),
            Some(Fence(2))
        );
    }

    #[test]
    fn time_in_which_the_owner_could_not_go_on_does_not_count_against_the_phase() {
        let profiling = |deadline| Phase::Profiling {
            deadline: UnixMillis(deadline),
        };
        let mut job = job();
        job.advance(profiling(100), UnixMillis(0)).expect("legal");
        job.hold("the disk is full".to_owned(), UnixMillis(40));
        job.hold("and the storage is away".to_owned(), UnixMillis(50));
        let held = job.held.clone().expect("held");
        assert_eq!((held.since.0, held.why.as_str()), (40, "the disk is full"));
        job.release(UnixMillis(70));
        job.release(UnixMillis(99));
        assert_eq!((&job.phase, &job.held), (&profiling(130), &None));
        job.hold("again".to_owned(), UnixMillis(80));
        let planning = Phase::Planning { resume: None };
        job.advance(planning, UnixMillis(90)).expect("legal");
        assert_eq!(job.held, None);
    }

    #[test]
    fn time_without_an_owner_is_not_counted_twice() {
        let (first, second) = ("a".parse().expect("legal"), "b".parse().expect("legal"));
        let mut job = job();
        let deadline = UnixMillis(100);
        job.advance(Phase::Profiling { deadline }, UnixMillis(0))
            .expect("legal");
        job.claim(&first, UnixMillis(0), UnixMillis(20));
        job.hold("the disk is full".to_owned(), UnixMillis(10));
        job.claim(&second, UnixMillis(50), UnixMillis(70));
        job.release(UnixMillis(60));
        let deadline = UnixMillis(150);
        assert_eq!(job.phase, Phase::Profiling { deadline });
    }

    #[test]
    fn who_joins_stands_among_the_participants_once_in_the_order_of_names() {
        let mut job = job();
        let names = |all: [&str; 3]| all.map(|name| name.parse::<WorkerName>().expect("legal"));
        job.participants = names(["a", "c", "d"]).into();
        job.join(names(["b", "c", "e"]));
        let found: Vec<&str> = job.active().map(WorkerName::as_str).collect();
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_pause_and_the_end_leave_nobody_at_an_earlier_round() {
        let behind = |worker: &str| Behind {
            worker: worker.parse().expect("legal"),
            round: 1,
            epoch: Epoch(1),
            global: ArtifactRef {
                key: "k".to_owned(),
                sha256: Digest::from_bytes(&[1; 32]),
                bytes: 1,
            },
            plan: PlanVersion(1),
        };
        let mut job = job();
        job.late = vec![behind("a"), behind("b")];
        let site = SiteTrouble {
            worker: "a".parse().expect("legal"),
            trouble: Trouble::Unreachable,
            detail: String::new(),
        };
        job.lose(site.clone());
        job.lose(site.clone());
        assert_eq!(job.lost, [site]);
        assert_eq!(job.late, [behind("b")]);
        let mut paused = job.clone();
        paused.pause(UnixMillis(1)).expect("legal");
        assert_eq!(paused.late, []);
        let taken_back = ["a", "b"].map(|worker| Unwanted::from(&behind(worker)));
        assert_eq!(paused.unwanted, taken_back);
        job.advance(Phase::Cancelled, UnixMillis(1)).expect("legal");
        assert_eq!(job.late, []);
    }

    #[test]
    fn a_bad_job_names_every_wrong_field_at_once() {
        let text = r#"{"name":"","model":{},"data":{"dataset":"m"},"adapter":{"rank":64},"rounds":{"count":0}}"#;
        let spec: Spec = serde_json::from_str(text).expect("well-formed");
        let fields: Vec<_> = spec
            .check()
            .expect_err("refused")
            .into_iter()
            .map(|r| r.field)
            .collect();
        assert_eq!(fields, ["name", "model", "adapter.rank", "rounds.count"]);
    }

    #[test]
    fn an_unknown_field_and_a_path_with_dots_are_refused() {
        assert!(
            serde_json::from_str::<Spec>(
                r#"{"name":"j","model":{},"data":{"dataset":"m"},"ranks":4}"#
            )
            .is_err()
        );
        let with = |source: &str| {
            let text = r#"{"name":"j","model":{"source":"SOURCE"},"data":{"dataset":"m"}}"#;
            let spec: Spec =
                serde_json::from_str(&text.replace("SOURCE", source)).expect("well-formed");
            spec.check()
        };
        assert!(with("file:///a/../b").is_err());
        assert!(with("file:///a/b").is_ok());
        assert!(with("hf://org/name@v1").is_ok());
        let refused = with("hf://name").expect_err("refused");
        assert!(
            refused
                .iter()
                .all(|r| r.problem.contains("hf://org/name@revision")),
            "{refused:?}"
        );
    }
}
