//! One round: what comes in, when it closes, and what it amounted to.

pub mod answers;
mod judge;
mod score;

use serde::{Deserialize, Serialize};

pub use answers::Answers;
pub use judge::{Close, Standing, Verdict, judge};
pub use score::Score;

use crate::adapter::RankTable;
use crate::artifact::ArtifactRef;
use crate::cause::SiteTrouble;
use crate::energy::EnergyTable;
use crate::figure;
use crate::id::{Epoch, WorkerName};
use crate::job::spec::Training;
use crate::plan::{PlanVersion, WorkerPlan};
use crate::time::UnixMillis;
use crate::zeroth::Scalars;

/// An update counts at most so many rounds after its own; older ones are dropped. Updates are deleted
/// as many rounds after their own.
pub const LATE_ROUNDS: u32 = 2;

/// What a worker reports of its local training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The trained adapter.
    pub adapter: ArtifactRef,
    /// What the training amounted to.
    pub metrics: UpdateMetrics,
}

/// Figures of one worker's round. All averaged over the records named here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateMetrics {
    /// Records trained on.
    pub records: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean loss over the round's steps that were not skipped; 0 where every step was: see
    /// [`UpdateMetrics::loss()`].
    pub loss: f64,
    /// Optimizer steps.
    pub steps: u32,
    /// Those of them whose loss was not finite, and which moved nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_steps: u32,
    /// Times that a record was drawn and could not be learned, so that another took its place: above all an answer that
    /// is longer than the job's sequence, which is never cut.
    #[serde(default, skip_serializing_if = "is_none")]
    pub refused_records: u64,
    /// Seconds of training, the speed limit of an emulated site included.
    pub compute_seconds: f64,
    /// Tokens a second while training.
    pub tokens_per_second: f64,
    /// The most that counted against the worker's limit, in bytes: all private writable memory.
    pub peak_memory_bytes: u64,
    /// Bytes of the update as it was sent: to object storage, or of scalars the whole message.
    pub bytes_up: u64,
    /// Bytes fetched from object storage.
    pub bytes_down: u64,
    /// Bytes sent on the message bus since the task began: beats, progress, acknowledgements.
    pub control_bytes_up: u64,
    /// How strongly the loss pulled at each weight that was trained, by the smoothed gradient of the last steps.
    #[serde(default, skip_serializing_if = "EnergyTable::is_empty")]
    pub energies: EnergyTable,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

impl UpdateMetrics {
    /// Mean loss over the round's steps; none if every one of them was skipped, for it is then the mean of nothing.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.skipped_steps < self.steps).then_some(self.loss)
    }

    /// The name of the first figure that is no number from 0 ([`figure`]), if any.
    #[must_use]
    pub fn illegal(&self) -> Option<&'static str> {
        let figures = [
            ("loss", self.loss),
            ("compute_seconds", self.compute_seconds),
            ("tokens_per_second", self.tokens_per_second),
        ];
        let wrong = |(_, figure): &(_, f64)| !figure::is_from_zero(*figure);
        let found = figures.into_iter().find(wrong);
        let energies = (!self.energies.is_legal()).then_some("energies");
        found.map(|(name, _)| name).or(energies)
    }

    /// The name of the first count that the plan does not allow, if any: what a site claims to have
    /// trained on decides what its update weighs. Steps are exactly the plan's: fewer would be stretched
    /// where uneven steps are normalized. Energies are of the plan's weights: all that are told are stored with the job.
    #[must_use]
    pub fn beyond(&self, plan: &WorkerPlan, training: &Training) -> Option<&'static str> {
        let batches = plan.batches();
        let records = batches * training.batch_records_at_most(plan.batch);
        let tokens = batches * training.batch_tokens_at_most(plan.batch);
        if self.steps != plan.local_steps {
            return Some("steps");
        }
        let counts = [
            (
                "skipped steps",
                u64::from(self.skipped_steps),
                u64::from(self.steps),
            ),
            ("records", self.records, records),
            ("tokens", self.tokens, tokens),
        ];
        let beyond = counts.into_iter().find(|(_, told, most)| told > most);
        let energies = (!self.energies.is_within(&plan.ranks)).then_some("energies");
        beyond.map(|(name, ..)| name).or(energies)
    }
}

/// An update that the round counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose.
    pub worker: WorkerName,
    /// The update as reported, checked.
    pub update: Update,
    /// If it was trained in an earlier round: which, and what that does to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<Credit>,
}

impl Contribution {
    /// What its weight is multiplied by because of its age; 1 if it is in time.
    #[must_use]
    pub fn discount(&self) -> f64 {
        self.credit.as_ref().map_or(1.0, |credit| credit.discount)
    }
}

/// What there is to know of an update that counts in a later round than its own. What it changed is
/// its difference from what its worker had loaded, which is not what the others of this round loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credit {
    /// The round that it was trained in.
    pub round: u32,
    /// The merged adapter that its worker started from.
    pub global: ArtifactRef,
    /// The plan that its worker trained by.
    pub plan: PlanVersion,
    /// What its weight is multiplied by.
    pub discount: f64,
}

/// A participant that was not in time for its round and goes on: its update may count in a later one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Behind {
    /// Who.
    pub worker: WorkerName,
    /// The round that it is at.
    pub round: u32,
    /// The epoch of its task, where its report will be found.
    pub epoch: Epoch,
    /// The merged adapter that it started from.
    pub global: ArtifactRef,
    /// The plan that it trains by.
    pub plan: PlanVersion,
}

/// A task that was given and whose result is not wanted any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwanted {
    /// To whom.
    pub worker: WorkerName,
    /// In which epoch.
    pub epoch: Epoch,
}

impl From<&Behind> for Unwanted {
    fn from(behind: &Behind) -> Self {
        Self {
            worker: behind.worker.clone(),
            epoch: behind.epoch,
        }
    }
}

/// The decision that closes a round: which updates count, in which order. It is stored before any
/// fold, so that two incarnations of an aggregator can only fold the same thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Ordered by worker name; one of each worker at most.
    pub contributions: Vec<Contribution>,
    /// Sites whose update does not count, and why.
    pub missing: Vec<SiteTrouble>,
    /// Whom the round asked, ordered by name; empty: every planned site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<WorkerName>,
    /// When the round was closed.
    pub at: UnixMillis,
}

/// What one worker did in a committed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRound {
    /// Whose.
    pub worker: WorkerName,
    /// Highest rank it trained.
    pub rank: u16,
    /// Records per step.
    pub batch: u16,
    /// Its share of the merge.
    pub weight: f64,
    /// Share of the merged adapter's energy in slices that its rank leaves out, so that it will not load
    /// them; absent for rules whose slices are not orthogonal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld_energy: Option<f64>,
    /// If it was trained in an earlier round: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_in: Option<u32>,
    /// The rate that it trained with, where sites have rates of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How far its change lies from the mean of all, where the rates of the next round go by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Its update.
    pub update: ArtifactRef,
    /// Its figures.
    pub metrics: UpdateMetrics,
}

/// What the lower ranks of a new plan cost a site: shares of the energy of the merged adapter that the plan's first round
/// starts from. Where a rule's slices are not orthogonal they may pass 1, since slices then also cancel each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShrunkSite {
    /// Which.
    pub worker: WorkerName,
    /// Of the slices that the ranks before had it load, and these do not.
    pub dropped_energy: f64,
    /// Of all slices that its ranks leave out.
    pub withheld_energy: f64,
}

/// A committed round. Round 0 is the untrained adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Counted from 1; 0 is the start.
    pub round: u32,
    /// The merged adapter.
    pub global: ArtifactRef,
    /// Slices of each weight that every site applies and none trains; they stand behind the live ones.
    #[serde(default, skip_serializing_if = "RankTable::is_empty")]
    pub side: RankTable,
    /// The mean of the sites' scalars, where all walk along the same directions: what made this round's
    /// adapter of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalars: Option<Scalars>,
    /// The moments of the server's optimizer after this round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<ArtifactRef>,
    /// When the round opened.
    pub opened_at: UnixMillis,
    /// When the merged adapter was committed.
    pub committed_at: UnixMillis,
    /// Seconds from opening to commit, evaluation not counted.
    pub seconds: f64,
    /// `seconds` minus the slowest worker's compute.
    pub overhead_seconds: f64,
    /// Share of the merged change's energy that the kept rank does not hold.
    pub dropped_energy: f64,
    /// How strongly the loss pulled at each weight: the sites' mean by their shares.
    #[serde(default, skip_serializing_if = "EnergyTable::is_empty")]
    pub energies: EnergyTable,
    /// Whom the round asked, ordered by name; empty: every planned site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<WorkerName>,
    /// Sites whose ranks fell with the plan that began with this round, whether or not they contributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shrunk: Vec<ShrunkSite>,
    /// Who contributed what.
    pub workers: Vec<WorkerRound>,
    /// Whose update did not count, and why.
    pub missing: Vec<SiteTrouble>,
}

impl Summary {
    /// Puts the fleet's mean in the place of each site's energies, of the weights that are `trained`. A late update
    /// says nothing of this round.
    #[must_use]
    pub fn with_mean_energies(mut self, trained: &RankTable) -> Self {
        let in_time = self.workers.iter().filter(|one| one.trained_in.is_none());
        let mean = EnergyTable::mean(in_time.map(|one| (one.weight, &one.metrics.energies)));
        let known = mean.known().filter(|(name, _)| trained.rank(*name) > 0);
        self.energies = known.collect();
        for one in &mut self.workers {
            one.metrics.energies = EnergyTable::default();
        }
        self
    }

    /// What a worker trained in this very round: not a late update, which belongs to the round, and to the
    /// plan, that it was trained in.
    #[must_use]
    pub fn of_its_own(&self, worker: &WorkerName) -> Option<&WorkerRound> {
        let own = |one: &&WorkerRound| one.worker == *worker && one.trained_in.is_none();
        self.workers.iter().find(own)
    }
}

/// The fleet's score of a committed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Of which round.
    pub round: u32,
    /// Summed over the sites.
    pub score: Score,
    /// Whether all held-out records were scored, or the job's sample.
    pub complete: bool,
    /// Seconds from asking to having it.
    pub seconds: f64,
    /// Sites that did not answer.
    pub missing: Vec<SiteTrouble>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::adapter::{Projection, RankTable, WeightName};
    use crate::artifact::Digest;
    use crate::job::spec::{Base, Optimizer};
    use crate::plan::{Binding, Explanation, Prediction};

    /// An update of one record.
    pub fn update() -> Update {
        let sha256 = Digest::from_bytes(&[1; 32]);
        let adapter = ArtifactRef {
            key: "k".to_owned(),
            sha256,
            bytes: 1,
        };
        let metrics = UpdateMetrics {
            records: 1,
            tokens: 1,
            loss: 1.0,
            steps: 1,
            skipped_steps: 0,
            refused_records: 0,
            compute_seconds: 1.0,
            tokens_per_second: 1.0,
            peak_memory_bytes: 1,
            bytes_up: 1,
            bytes_down: 1,
            control_bytes_up: 1,
            energies: EnergyTable::default(),
        };
        Update { adapter, metrics }
    }

    #[test]
    fn a_round_whose_steps_were_all_skipped_has_no_loss_and_is_legal() {
        let of = |steps, skipped_steps| UpdateMetrics {
            steps,
            skipped_steps,
            loss: 0.0,
            ..update().metrics
        };
        assert_eq!(of(1, 1).loss(), None);
        assert_eq!(of(1, 1).illegal(), None);
        assert_eq!(of(2, 1).loss(), Some(0.0));
        assert_eq!(of(1, 0).loss(), Some(0.0));
    }

    #[test]
    fn a_site_cannot_claim_more_than_its_plan_has_it_train() {
        let mut plan = WorkerPlan {
            ranks: RankTable::default(),
            base: Base::F32,
            kernel: "k".to_owned(),
            threads: 1,
            batch: 4,
            accumulate: 1,
            local_steps: 2,
            sequence_length: 10,
            checkpoint: false,
            abreast: 1,
            optimizer: Optimizer::Adamw,
            predicted: Prediction {
                step_seconds: 1.0,
                round_seconds: 1.0,
                peak_memory_bytes: 1,
                upload_bytes: 1,
            },
            why: Explanation {
                text: String::new(),
                binding: Binding::Nothing,
                rejected: Vec::new(),
                ranks: Vec::new(),
            },
        };
        let training: Training =
            serde_json::from_str(r#"{"sequence_length":10}"#).expect("settings");
        let of = |plan: &WorkerPlan, training: &Training, (steps, records, tokens), expected| {
            let metrics = UpdateMetrics {
                steps,
                records,
                tokens,
                ..update().metrics
            };
            assert_eq!(metrics.beyond(plan, training), expected, "{metrics:?}");
        };
        let check = |steps, records, tokens, expected| {
            of(&plan, &training, (steps, records, tokens), expected);
        };
        check(2, 8, 80, None);
        check(2, 0, 0, None);
        check(1, 8, 80, Some("steps"));
        check(3, 8, 80, Some("steps"));
        check(2, 9, 80, Some("records"));
        check(2, 8, 81, Some("tokens"));
        check(2, u64::MAX, 1, Some("records"));
        let filled = Training {
            batch_tokens: Some(20),
            ..training.clone()
        };
        of(&plan, &filled, (2, 20, 40), None);
        of(&plan, &filled, (2, 21, 40), Some("records"));
        of(&plan, &filled, (2, 8, 41), Some("tokens"));
        plan.accumulate = 3;
        of(&plan, &training, (2, 24, 240), None);
        of(&plan, &training, (2, 25, 240), Some("records"));
        let told = |layer| UpdateMetrics {
            steps: 2,
            energies: EnergyTable::from_iter([(WeightName::new(layer, Projection::Q), 1.0)]),
            ..update().metrics
        };
        plan.ranks = RankTable::uniform(&[Projection::Q], 2, 4);
        assert_eq!(told(1).beyond(&plan, &training), None);
        assert_eq!(told(2).beyond(&plan, &training), Some("energies"));
    }

    #[test]
    fn no_figure_is_taken_in_that_json_cannot_hold_or_that_leads_there() {
        for figure in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let of = |change: fn(&mut UpdateMetrics) -> &mut f64| {
                let mut metrics = update().metrics;
                *change(&mut metrics) = figure;
                metrics.illegal()
            };
            assert_eq!(of(|metrics| &mut metrics.loss), Some("loss"));
            let seconds = of(|metrics| &mut metrics.compute_seconds);
            assert_eq!(seconds, Some("compute_seconds"));
            let speed = of(|metrics| &mut metrics.tokens_per_second);
            assert_eq!(speed, Some("tokens_per_second"));
        }
        assert_eq!(update().metrics.illegal(), None);
    }
}
