//! Whether a site still is what it was planned for: what its rounds cost beside what was predicted. Pure.
//!
//! A prediction is promised to 15 %. A site has drifted when its steps took more than 25 % longer or shorter
//! than predicted for the tokens that it really trained on, and that is more than a second of a round; or when its
//! memory's peak was more than 10 % above the predicted one, and that is more than 64 MiB; in each of
//! the last two rounds that it trained in, always the same way. Below a second and 64 MiB a new plan costs more
//! than it gains, and two rounds are what it takes to tell a change from a disturbance. Only rounds that trained
//! with the present plan and were not judged before count. A round that did not ask a site says nothing of it, and
//! an update that came late says nothing of the round in which it counts. Where a bound on the variance may spare
//! directions, steps that took shorter say nothing of the site, for the prediction is one of all directions.

mod moved;

use serde::{Deserialize, Serialize};

pub use moved::{AGREEMENT, Moved, moved};

use crate::id::WorkerName;
use crate::job::spec::Training;
use crate::plan::{Plan, WorkerPlan};
use crate::round::{Summary, UpdateMetrics};

/// Share by which the time of a step may part from its prediction, either way.
pub const TIME_SHARE: f64 = 0.25;

/// Seconds of a round that must be at stake.
pub const TIME_SECONDS: f64 = 1.0;

/// Share by which the peak of memory may be above its prediction.
pub const MEMORY_SHARE: f64 = 0.10;

/// Bytes that must be at stake.
pub const MEMORY_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// Rounds in a row that must say the same.
pub const ROUNDS: usize = 2;

/// Rounds before the last one that are looked at, at most: what is older says little of today.
pub const RECENT: u32 = 64;

/// How many rounds before the last one to look at, where a round asks `asked` of `planned` sites: so many that
/// a site is likely to have been asked in [`ROUNDS`] of them.
#[must_use]
pub fn window(planned: usize, asked: usize) -> u32 {
    let rounds = 2 * ROUNDS * planned.div_ceil(asked.max(1)).max(1);
    u32::try_from(rounds).unwrap_or(RECENT).min(RECENT)
}

/// What parted from its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Seconds of computing in a round.
    Seconds,
    /// Peak of memory, in bytes.
    Bytes,
}

/// A figure beside its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Parted {
    /// What.
    pub quantity: Quantity,
    /// What was predicted of the last round.
    pub predicted: f64,
    /// What was observed in it.
    pub observed: f64,
}

/// A site that drifted.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// Which.
    pub worker: WorkerName,
    /// What parted, and by how much.
    pub by: Parted,
}

/// Seconds that a round was to take: the plan's step for as many tokens as were trained on. `mean_tokens` is a
/// record's, as measured when the plan was made; 0 where it is not known.
#[must_use]
pub fn expected_seconds(plan: &WorkerPlan, mean_tokens: f64, metrics: &UpdateMetrics) -> f64 {
    let mean = mean_tokens.min(f64::from(plan.sequence_length));
    let planned = f64::from(plan.batch) * f64::from(plan.accumulate) * mean;
    let steps = if planned > 0.0 {
        metrics.tokens as f64 / planned
    } else {
        f64::from(metrics.steps)
    };
    plan.predicted.step_seconds * steps
}

/// How much longer than predicted a round's computing took, as a factor; `None` if either is no positive
/// number.
#[must_use]
pub fn pace(plan: &WorkerPlan, mean_tokens: f64, metrics: &UpdateMetrics) -> Option<f64> {
    let expected = expected_seconds(plan, mean_tokens, metrics);
    let factor = metrics.compute_seconds / expected;
    (factor.is_finite() && factor > 0.0).then_some(factor)
}

/// The sites of the plan, one of a job with these settings, that drifted by the last rounds, in the order of their
/// names. `rounds` are committed ones in their order; those up to `judged` do not count.
#[must_use]
pub fn judge(
    (plan, training): (&Plan, &Training),
    rounds: &[Summary],
    judged: u32,
    mean_tokens: impl Fn(&WorkerName) -> f64,
) -> Vec<Drift> {
    let first = plan.from_round.max(judged + 1);
    let drifted = plan.workers.iter().filter_map(|(worker, planned)| {
        let of = |round: &Summary| {
            let own = round.of_its_own(worker);
            own.map(|own| own.metrics.clone())
        };
        let counted = rounds.iter().filter(|round| round.round >= first);
        let seen: Vec<UpdateMetrics> = counted.filter_map(of).collect();
        let last = seen.get(seen.len().checked_sub(ROUNDS)?..)?;
        let by = parted((planned, training), mean_tokens(worker), last)?;
        let worker = worker.clone();
        Some(Drift { worker, by })
    });
    drifted.collect()
}

/// What parted the same way in every one of these rounds.
fn parted(
    (plan, training): (&WorkerPlan, &Training),
    mean_tokens: f64,
    rounds: &[UpdateMetrics],
) -> Option<Parted> {
    let seconds = |metrics: &UpdateMetrics| Parted {
        quantity: Quantity::Seconds,
        predicted: expected_seconds(plan, mean_tokens, metrics),
        observed: metrics.compute_seconds,
    };
    let bytes = |metrics: &UpdateMetrics| Parted {
        quantity: Quantity::Bytes,
        predicted: plan.predicted.peak_memory_bytes as f64,
        observed: metrics.peak_memory_bytes as f64,
    };
    let all = |of: &dyn Fn(&UpdateMetrics) -> Parted, parts: &dyn Fn(Parted) -> bool| {
        rounds.iter().all(|metrics| parts(of(metrics)))
    };
    let last = rounds.last()?;
    let may_be_faster = !training.may_spare_directions(plan.optimizer);
    if all(&seconds, &slower) || (may_be_faster && all(&seconds, &faster)) {
        return Some(seconds(last));
    }
    all(&bytes, &larger).then(|| bytes(last))
}

fn slower(time: Parted) -> bool {
    let more = time.observed - time.predicted;
    more > TIME_SECONDS && more > TIME_SHARE * time.predicted
}

// A factor of 1.25 either way.
fn faster(time: Parted) -> bool {
    let less = time.predicted - time.observed;
    less > TIME_SECONDS && less > TIME_SHARE * time.observed
}

fn larger(memory: Parted) -> bool {
    let more = memory.observed - memory.predicted;
    more > MEMORY_BYTES && more > MEMORY_SHARE * memory.predicted
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::adapter::RankTable;
    use crate::artifact::{ArtifactRef, Digest};
    use crate::energy::EnergyTable;
    use crate::id::JobId;
    use crate::job::spec::{Base, Optimizer};
    use crate::plan::Prediction;

    const MIB: u64 = 1 << 20;

    /// 10 steps of 4 records of 50 tokens, a second each, in at most 1000 MiB.
    fn planned() -> WorkerPlan {
        WorkerPlan {
            ranks: RankTable::default(),
            base: Base::Source,
            kernel: "k".to_owned(),
            threads: 1,
            batch: 4,
            accumulate: 1,
            local_steps: 10,
            sequence_length: 100,
            checkpoint: false,
            abreast: 1,
            optimizer: Optimizer::Adamw,
            predicted: Prediction {
                step_seconds: 1.0,
                round_seconds: 11.0,
                peak_memory_bytes: 1000 * MIB,
                upload_bytes: 1,
            },
            why: serde_json::from_str(r#"{"text":"","binding":"nothing","rejected":[]}"#)
                .expect("an explanation"),
        }
    }

    pub fn plan(from_round: u32) -> Plan {
        let text = format!(
            r#"{{"job":"{}","version":1,"parent":null,"replayed_from":null,"from_round":{from_round},
                "round_seconds":11.0,"deadline_seconds":60,"global":{{}},"workers":{{}},"excluded":[]}}"#,
            JobId::from_bits(1)
        );
        let mut plan: Plan = serde_json::from_str(&text).expect("a plan");
        plan.workers = BTreeMap::from([("w".parse().expect("legal"), planned())]);
        plan
    }

    pub fn metrics(seconds: f64, tokens: u64, peak: u64) -> UpdateMetrics {
        UpdateMetrics {
            records: 40,
            tokens,
            loss: 1.0,
            steps: 10,
            skipped_steps: 0,
            refused_records: 0,
            compute_seconds: seconds,
            tokens_per_second: 1.0,
            peak_memory_bytes: peak * MIB,
            bytes_up: 0,
            bytes_down: 0,
            control_bytes_up: 0,
            energies: EnergyTable::default(),
        }
    }

    pub fn rounds(metrics: &[UpdateMetrics]) -> Vec<Summary> {
        let artifact = ArtifactRef {
            key: String::new(),
            sha256: Digest::from_bytes(&[0; 32]),
            bytes: 0,
        };
        let summary = |(round, metrics): (u32, &UpdateMetrics)| {
            let text = format!(
                r#"{{"round":{round},"global":{},"opened_at":0,"committed_at":0,"seconds":0.0,
                    "overhead_seconds":0.0,"dropped_energy":0.0,"missing":[],"workers":[{{"worker":"w",
                    "rank":1,"batch":4,"weight":1.0,"update":{},"metrics":{}}}]}}"#,
                serde_json::to_string(&artifact).expect("JSON"),
                serde_json::to_string(&artifact).expect("JSON"),
                serde_json::to_string(metrics).expect("JSON"),
            );
            serde_json::from_str(&text).expect("a summary")
        };
        (1..).zip(metrics).map(summary).collect()
    }

    /// Of a job with no settings of its own.
    fn drifts(plan: &Plan, rounds: &[Summary], judged: u32, mean_tokens: f64) -> Vec<Drift> {
        let training = Training::default();
        judge((plan, &training), rounds, judged, |_| mean_tokens)
    }

    fn check(observed: &[(f64, u64, u64)], expected: Option<Quantity>) {
        let observed: Vec<UpdateMetrics> = observed
            .iter()
            .map(|(seconds, tokens, peak)| metrics(*seconds, *tokens, *peak))
            .collect();
        let found = drifts(&plan(1), &rounds(&observed), 0, 50.0);
        let found = found.first().map(|drift| drift.by.quantity);
        assert_eq!(found, expected, "{observed:?}");
    }

    #[test]
    fn a_site_drifts_when_two_rounds_say_the_same() {
        let seconds = Some(Quantity::Seconds);
        check(&[(13.0, 2000, 900), (13.0, 2000, 900)], seconds);
        check(&[(7.0, 2000, 900), (7.0, 2000, 900)], seconds);
        check(&[(13.0, 2000, 900)], None);
        check(&[(13.0, 2000, 900), (10.0, 2000, 900)], None);
        check(&[(13.0, 2000, 900), (7.0, 2000, 900)], None);
        check(&[(12.0, 2000, 900), (12.0, 2000, 900)], None);
        let memory = Some(Quantity::Bytes);
        check(&[(10.0, 2000, 1200), (10.0, 2000, 1200)], memory);
        check(&[(10.0, 2000, 500), (10.0, 2000, 500)], None);
        check(&[(10.0, 2000, 1099), (10.0, 2000, 1200)], None);
    }

    #[test]
    fn a_site_that_may_spare_directions_is_found_slower_and_never_faster() {
        let drifted = |optimizer, variance, seconds| {
            let (mut planned, mut training) = (plan(1), Training::default());
            for worker in planned.workers.values_mut() {
                worker.optimizer = optimizer;
            }
            training.mezo.variance = variance;
            let observed = rounds(&[metrics(seconds, 2000, 900), metrics(seconds, 2000, 900)]);
            !judge((&planned, &training), &observed, 0, |_| 50.0).is_empty()
        };
        for (optimizer, variance, faster) in [
            (Optimizer::Mezo, 0.5, false),
            (Optimizer::Mezo, 0.0, true),
            (Optimizer::Adamw, 0.5, true),
        ] {
            let found = [7.0, 13.0].map(|seconds| drifted(optimizer, variance, seconds));
            assert_eq!(found, [faster, true], "{optimizer:?} {variance}");
        }
    }

    #[test]
    fn longer_records_take_longer_and_are_no_drift() {
        check(&[(14.0, 2800, 900), (14.0, 2800, 900)], None);
        check(
            &[(10.0, 1000, 900), (10.0, 1000, 900)],
            Some(Quantity::Seconds),
        );
    }

    #[test]
    fn what_a_plan_did_not_cause_or_was_judged_before_does_not_count() {
        let slow = rounds(&[metrics(20.0, 2000, 900), metrics(20.0, 2000, 900)]);
        let drifted = |plan: &Plan, judged| drifts(plan, &slow, judged, 50.0).len();
        assert_eq!(drifted(&plan(1), 0), 1);
        assert_eq!(drifted(&plan(2), 0), 0);
        assert_eq!(drifted(&plan(1), 1), 0);
    }

    #[test]
    fn a_round_that_did_not_ask_a_site_says_nothing_of_it() {
        let (slow, usual) = (metrics(13.0, 2000, 900), metrics(10.0, 2000, 900));
        let mut seen = rounds(&[slow.clone(), usual, slow]);
        let drifted = |rounds: &[Summary]| drifts(&plan(1), rounds, 0, 50.0).len();
        assert_eq!(drifted(&seen), 0);
        for round in seen.iter_mut().filter(|round| round.round == 2) {
            round.workers.clear();
        }
        assert_eq!(drifted(&seen), 1);
    }

    #[test]
    fn a_late_update_says_nothing_of_the_round_in_which_it_counts() {
        let slow = metrics(13.0, 2000, 900);
        let mut seen = rounds(&[slow.clone(), slow.clone(), slow]);
        let drifted = |rounds: &[Summary]| drifts(&plan(2), rounds, 0, 50.0).len();
        assert_eq!(drifted(&seen), 1);
        // Trained under the plan before this one, and counted in its first round.
        for round in seen.iter_mut().filter(|round| round.round == 2) {
            round
                .workers
                .iter_mut()
                .for_each(|own| own.trained_in = Some(1));
        }
        assert_eq!(drifted(&seen), 0);
    }

    #[test]
    fn the_fewer_sites_a_round_asks_the_more_rounds_are_looked_at() {
        assert_eq!(window(3, 3), 4);
        assert_eq!(window(20, 3), 28);
        assert_eq!(window(1000, 1), RECENT);
        assert_eq!(window(0, 0), 4);
    }

    #[test]
    fn a_second_and_some_megabytes_must_be_at_stake() {
        let mut small = plan(1);
        for worker in small.workers.values_mut() {
            worker.predicted.step_seconds = 0.05;
            worker.predicted.peak_memory_bytes = 100 * MIB;
        }
        let twice = rounds(&[metrics(1.0, 2000, 150), metrics(1.0, 2000, 150)]);
        assert_eq!(drifts(&small, &twice, 0, 50.0), []);
        let more = rounds(&[metrics(1.6, 2000, 150), metrics(1.6, 2000, 150)]);
        assert_eq!(drifts(&small, &more, 0, 50.0).len(), 1);
    }

    #[test]
    fn without_the_length_of_records_steps_are_compared() {
        let slow = [metrics(13.0, 1, 900), metrics(13.0, 1, 900)];
        assert_eq!(drifts(&plan(1), &rounds(&slow), 0, 0.0).len(), 1);
        assert_eq!(pace(&planned(), 0.0, &metrics(13.0, 1, 900)), Some(1.3));
        assert_eq!(pace(&planned(), 0.0, &metrics(0.0, 1, 900)), None);
    }
}
