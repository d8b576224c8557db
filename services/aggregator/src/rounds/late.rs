//! Who is not in time: what the close of a round makes of it (pure), and how a site is told that its
//! task is not wanted any more.
//!
//! With `late: drop` a site that is late is told to stop, and is asked again with the next round. With
//! `late: credit` it goes on and is asked nothing else; its update counts in the round in which it
//! arrives, discounted once for each round of age, if that is at most [`LATE_ROUNDS`] after its own.

use std::collections::BTreeMap;

use bus::Bus;
use bus::drive::Owned;
use chassis::failpoint::{Failpoint, hit};
use contract::message::control::{Control, Order};
use domain::cause::{SiteTrouble, Trouble};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::{Job, Late, Strategy};
use domain::plan::{Plan, PlanVersion, WorkerPlan};
use domain::round::{Behind, Close, Closed, Contribution, Credit, LATE_ROUNDS, Unwanted, Update};
use domain::time::UnixMillis;

use super::replan;
use crate::handlers::training::Open;

/// What the close of a round comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Which updates count.
    pub closed: Closed,
    /// Who goes on with this round or an earlier one.
    pub behind: Vec<Behind>,
    /// Tasks that are not wanted any more.
    pub dropped: Vec<Unwanted>,
}

/// Whether a site may go on with a round after its close: only a later round can count its update.
#[must_use]
pub fn goes_on(job: &Job, round: u32) -> bool {
    job.spec.rounds.late == Late::Credit && round < job.spec.rounds.count
}

/// When nobody wants the result of a task of this round any more, whatever becomes of the job.
#[must_use]
pub fn expiry(job: &Job, open: &Open, round_ms: u64, idle_ms: u64) -> UnixMillis {
    if !goes_on(job, open.round) {
        return open.deadline;
    }
    // A later round, as much again twice for each score (see `follow::after_merge`), and a look at the plan.
    let look_ms = replan::IDLES * idle_ms;
    let later = u64::from(LATE_ROUNDS) * (3 * round_ms + 10 * idle_ms + look_ms);
    open.deadline.plus(later).min(job.deadline())
}

/// Decides which updates count, and what becomes of the sites that are late. `arrived` are updates of
/// earlier rounds that came while this one was open.
#[must_use]
pub fn decide(
    job: &Job,
    open: &Open,
    plan: PlanVersion,
    close: Close,
    arrived: &BTreeMap<WorkerName, Update>,
    now: UnixMillis,
) -> Decision {
    let in_time = |(worker, update)| Contribution {
        worker,
        update,
        credit: None,
    };
    let mut contributions: Vec<Contribution> = close.delivered.into_iter().map(in_time).collect();
    let mut missing = close.lost;
    let mut behind = Vec::new();
    let mut dropped = Vec::new();
    for one in &job.late {
        if let Some(update) = arrived.get(&one.worker) {
            contributions.push(credited(job, open.round, one, update.clone()));
        } else if goes_on(job, open.round) && open.round < one.round + LATE_ROUNDS {
            behind.push(one.clone());
        } else {
            let detail = format!("its update of round {} is too old to count", one.round);
            missing.push(too_late(&one.worker, detail));
            dropped.push(Unwanted::from(one));
        }
    }
    for worker in close.late {
        if goes_on(job, open.round) {
            let detail = "it goes on, and its update may count in a later round".to_owned();
            missing.push(too_late(&worker, detail));
            behind.push(Behind {
                worker,
                round: open.round,
                epoch: job.epoch,
                global: open.global.clone(),
                plan,
            });
        } else {
            missing.push(too_late(&worker, String::new()));
            let epoch = job.epoch;
            dropped.push(Unwanted { worker, epoch });
        }
    }
    contributions.sort_by(|one, other| one.worker.cmp(&other.worker));
    missing.sort_by(|one, other| one.worker.cmp(&other.worker));
    behind.sort_by(|one, other| one.worker.cmp(&other.worker));
    let closed = Closed {
        contributions,
        missing,
        asked: open.asked.clone(),
        at: now,
    };
    Decision {
        closed,
        behind,
        dropped,
    }
}

fn credited(job: &Job, round: u32, behind: &Behind, update: Update) -> Contribution {
    let age = round.saturating_sub(behind.round);
    Contribution {
        worker: behind.worker.clone(),
        update,
        credit: Some(Credit {
            round: behind.round,
            global: behind.global.clone(),
            plan: behind.plan,
            discount: job.spec.rounds.discount(age),
        }),
    }
}

/// Whether an update trained by an earlier plan can be merged under the present one: the merged adapter
/// holds its ranks, and the rule takes ranks that differ, if they do.
#[must_use]
pub fn still_fits(trained: &WorkerPlan, plan: &Plan, worker: &WorkerName, rule: Strategy) -> bool {
    let held = |(weight, rank)| rank <= plan.global.rank(weight);
    let now = plan.workers.get(worker).map(|now| &now.ranks);
    let alike = rule.takes_uneven_ranks() || now == Some(&trained.ranks);
    alike && trained.ranks.trained().all(held)
}

/// A site whose update does not count because of the time.
#[must_use]
pub fn too_late(worker: &WorkerName, detail: String) -> SiteTrouble {
    SiteTrouble {
        worker: worker.clone(),
        trouble: Trouble::TooLate,
        detail,
    }
}

/// Takes the job's unwanted tasks back: out of their queues, and out of the hands of whoever is at one.
/// Who does not hear it finds out when its task expires, and its result is not looked at.
///
/// # Errors
/// `Conflict` if somebody wrote; then the step is repeated on what they wrote.
pub async fn withdraw(job: &mut Owned) -> Result<(), bus::Error> {
    if job.job().unwanted.is_empty() {
        return Ok(());
    }
    let id = &job.job().id;
    for Unwanted { worker, epoch } in &job.job().unwanted {
        if let Err(error) = job.bus().purge_task(worker, id, *epoch).await {
            tracing::debug!(%error, %worker, "a task that is not wanted stays in its queue");
        }
        // Not waited for: a site that stands still does not answer, and the round goes on.
        tokio::spawn(stop(job.bus().clone(), id.clone(), worker.clone(), *epoch));
    }
    job.change(|job| job.unwanted.clear()).await?;
    hit(Failpoint::AggregatorCloseAfterWithdraw);
    Ok(())
}

async fn stop(bus: Bus, job: JobId, worker: WorkerName, epoch: Epoch) {
    let below = epoch.next();
    let order = Order::Cancel { job, below };
    if let Err(error) = bus.order(&Control { worker, order }).await {
        tracing::debug!(%error, "a late site did not answer");
    }
}

#[cfg(test)]
mod tests {
    use domain::artifact::{ArtifactRef, Digest};
    use domain::job::Phase;
    use domain::round::UpdateMetrics;

    use super::*;

    fn worker(name: &str) -> WorkerName {
        name.parse().expect("legal")
    }

    fn artifact(byte: u8) -> ArtifactRef {
        ArtifactRef {
            key: "k".to_owned(),
            sha256: Digest::from_bytes(&[byte; 32]),
            bytes: 1,
        }
    }

    fn update(byte: u8) -> Update {
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
            energies: domain::energy::EnergyTable::default(),
        };
        let adapter = artifact(byte);
        Update { adapter, metrics }
    }

    /// A job in round `round` of 5, its epoch ten times that.
    fn job(rounds: &str, round: u32) -> (Job, Open) {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},"rounds":{rounds}}}"#
        );
        let mut job = Job::submitted(
            JobId::from_bits(1),
            serde_json::from_str(&text).expect("a job"),
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        );
        job.epoch = Epoch(10 * u64::from(round));
        let open = Open {
            round,
            global: artifact(u8::try_from(round).expect("few")),
            opened_at: UnixMillis(0),
            deadline: UnixMillis(100),
            asked: vec![worker("a"), worker("b")],
        };
        job.phase = Phase::Training {
            round,
            global: open.global.clone(),
            opened_at: open.opened_at,
            deadline: open.deadline,
            asked: open.asked.clone(),
        };
        (job, open)
    }

    fn behind(name: &str, round: u32) -> Behind {
        Behind {
            worker: worker(name),
            round,
            epoch: Epoch(10 * u64::from(round)),
            global: artifact(u8::try_from(round).expect("few")),
            plan: PlanVersion(1),
        }
    }

    /// a delivers, b is late.
    fn close() -> Close {
        Close {
            delivered: vec![(worker("a"), update(100))],
            lost: Vec::new(),
            late: vec![worker("b")],
        }
    }

    fn decided(rounds: &str, round: u32, late: Vec<Behind>, arrived: &[&str]) -> Decision {
        let (mut job, open) = job(rounds, round);
        job.late = late;
        let arrived = arrived.iter().map(|name| (worker(name), update(9)));
        let arrived = arrived.collect();
        decide(
            &job,
            &open,
            PlanVersion(1),
            close(),
            &arrived,
            UnixMillis(7),
        )
    }

    const CREDIT: &str = r#"{"count":5,"late":"credit","staleness_discount":0.5}"#;

    #[test]
    fn who_is_late_is_dropped_or_goes_on_as_the_job_chose() {
        let dropped = decided(r#"{"count":5}"#, 2, Vec::new(), &[]);
        assert_eq!(dropped.behind, []);
        let task = Unwanted {
            worker: worker("b"),
            epoch: Epoch(20),
        };
        assert_eq!(dropped.dropped, [task]);
        let goes_on = decided(CREDIT, 2, Vec::new(), &[]);
        assert_eq!(goes_on.behind, [behind("b", 2)]);
        assert_eq!(goes_on.dropped, []);
        for decision in [dropped, goes_on] {
            assert_eq!(decision.closed.contributions.len(), 1);
            let missing = &decision.closed.missing;
            assert_eq!(missing.len(), 1);
            assert_eq!(missing[0].trouble, Trouble::TooLate);
        }
    }

    #[test]
    fn the_last_round_has_no_later_one_to_be_credited_in() {
        let last = decided(CREDIT, 5, vec![behind("c", 4)], &[]);
        assert_eq!(last.behind, []);
        let names: Vec<_> = last
            .dropped
            .iter()
            .map(|task| task.worker.as_str())
            .collect();
        assert_eq!(names, ["c", "b"]);
        let (job, open) = job(CREDIT, 5);
        assert_eq!(expiry(&job, &open, 1000, 10), open.deadline);
    }

    #[test]
    fn an_update_that_arrives_later_counts_once_with_what_it_started_from_and_its_discount() {
        let decision = decided(
            CREDIT,
            3,
            vec![behind("aa", 1), behind("c", 2)],
            &["aa", "c"],
        );
        assert_eq!(decision.behind, [behind("b", 3)]);
        let all = &decision.closed.contributions;
        let names: Vec<_> = all.iter().map(|one| one.worker.as_str()).collect();
        assert_eq!(names, ["a", "aa", "c"]);
        let credits: Vec<_> = all.iter().map(|one| one.credit.clone()).collect();
        let credit = |round, byte, discount| Credit {
            round,
            global: artifact(byte),
            plan: PlanVersion(1),
            discount,
        };
        assert_eq!(
            credits,
            [None, Some(credit(1, 1, 0.25)), Some(credit(2, 2, 0.5))]
        );
        let discounts: Vec<f64> = all.iter().map(Contribution::discount).collect();
        assert_eq!(discounts, [1.0, 0.25, 0.5]);
    }

    #[test]
    fn an_update_is_waited_for_two_rounds_and_then_dropped() {
        let stays = decided(CREDIT, 2, vec![behind("c", 1)], &[]);
        assert_eq!(stays.behind, [behind("b", 2), behind("c", 1)]);
        assert_eq!(stays.dropped, []);
        let goes = decided(CREDIT, 3, vec![behind("c", 1)], &[]);
        assert_eq!(goes.behind, [behind("b", 3)]);
        assert_eq!(goes.dropped.len(), 1);
        let told = goes
            .closed
            .missing
            .iter()
            .find(|site| site.worker == worker("c"));
        assert!(told.expect("named").detail.contains("round 1 is too old"));
    }

    #[test]
    fn a_task_outlives_its_round_only_if_its_update_may_still_count() {
        let (drops, open) = job(r#"{"count":5}"#, 1);
        assert_eq!(expiry(&drops, &open, 1000, 10), open.deadline);
        let (credits, open) = job(CREDIT, 1);
        assert_eq!(expiry(&credits, &open, 1000, 10), open.deadline.plus(6400));
        let long = u64::MAX / 100;
        assert_eq!(expiry(&credits, &open, long, 10), credits.deadline());
    }
}
