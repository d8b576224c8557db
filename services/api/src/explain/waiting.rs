//! Whom a job waits for, and why.

use std::collections::BTreeMap;

use domain::cause::Trouble;
use domain::fleet::{Liveness, Stage};
use domain::id::WorkerName;
use domain::job::{Job, Phase, Role};
use domain::time::UnixMillis;

use super::{doing, queue, unreachable};
use crate::watch::Known;

/// Without progress for so long it is said.
const STILL_MS: u64 = 10_000;

/// Without an owner for so long it is said.
pub const OWNERLESS_MS: u64 = 5000;

/// What a site answered in the job's present epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// Its part is done.
    Done,
    /// It cannot do its part.
    Failed {
        /// What kind of trouble.
        trouble: Trouble,
        /// One sentence.
        detail: String,
    },
}

/// What sites answered in the present epoch.
pub type Reports = BTreeMap<WorkerName, Reported>;

/// One thing the job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The site; absent for a control service.
    pub worker: Option<WorkerName>,
    /// Why, in a sentence.
    pub why: String,
}

/// Sites of which an answer is expected in this phase.
pub fn asked<'a>(job: &'a Job, known: &Known) -> Vec<&'a WorkerName> {
    let dataset = &job.spec.data.dataset;
    let scores = |worker: &&WorkerName| {
        let registered = known.workers.get(*worker);
        let summary = registered.and_then(|one| one.datasets.get(dataset));
        summary.is_none_or(|summary| summary.held_out > 0)
    };
    let is_late = |worker: &WorkerName| job.behind(worker).is_some();
    match &job.phase {
        Phase::Profiling { .. } => job.active().collect(),
        Phase::Training { asked, .. } => {
            let asked = |worker: &WorkerName| asked.is_empty() || asked.contains(worker);
            let whom = job.active();
            whom.filter(|worker| asked(worker) && !is_late(worker))
                .collect()
        }
        Phase::Evaluating { .. } => {
            let scorers = job.active().filter(scores);
            scorers.filter(|worker| !is_late(worker)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whom a job waits for. Empty for a job that has ended.
pub fn waiting_for(job: &Job, known: &Known, reports: &Reports, now: UnixMillis) -> Vec<Waiting> {
    let site = |(worker, why): (WorkerName, String)| Waiting {
        worker: Some(worker),
        why,
    };
    let mut waiting: Vec<Waiting> = match &job.phase {
        Phase::Queued => {
            let hindered = queue::hindrances(job, known, now).into_iter();
            hindered
                .filter_map(|(worker, why)| Some((worker, why?)))
                .map(site)
                .collect()
        }
        _ => {
            let asked = asked(job, known).into_iter();
            let open = asked.filter_map(|worker| {
                why(job, worker, known, reports.get(worker), now).map(|why| (worker.clone(), why))
            });
            open.map(site).collect()
        }
    };
    if let Some(why) = service(job, waiting.is_empty(), now) {
        waiting.push(Waiting { worker: None, why });
    }
    waiting
}

fn why(
    job: &Job,
    worker: &WorkerName,
    known: &Known,
    reported: Option<&Reported>,
    now: UnixMillis,
) -> Option<String> {
    match reported {
        Some(Reported::Done) => return None,
        Some(Reported::Failed { trouble, detail }) if detail.is_empty() => {
            return Some(format!("reported that it {trouble}"));
        }
        Some(Reported::Failed { trouble, detail }) => {
            return Some(format!("reported that it {trouble}: {detail}"));
        }
        None => {}
    }
    if known.liveness(worker, now) == Liveness::Unreachable {
        return Some(unreachable(known, worker, now));
    }
    let Some(heard) = known.beats.get(worker) else {
        let seconds = now.since(known.last_heard(worker)) / 1000;
        return Some(format!(
            "not heard in the {seconds} s since this service began to listen for it"
        ));
    };
    let beat = &heard.beat;
    let words = match &beat.progress {
        _ if beat.stage == Stage::Stopping => {
            "shutting down: its task goes back to the queue".to_owned()
        }
        Some(task) if task.job != job.id => format!("busy with {} ({})", task.job, doing(beat)),
        Some(task) if task.epoch != job.epoch => {
            format!("busy with an earlier task of this job ({})", doing(beat))
        }
        _ if beat.stage == Stage::Idle => "idle: it has not taken its task yet".to_owned(),
        _ => doing(beat),
    };
    let still = now.since(heard.moved_at);
    if still > STILL_MS && beat.stage != Stage::Idle {
        return Some(format!("{words}; no progress for {} s", still / 1000));
    }
    Some(words)
}

/// What the job waits for beside its sites.
fn service(job: &Job, sites_are_done: bool, now: UnixMillis) -> Option<String> {
    if let Phase::Paused { .. } = job.phase {
        return Some("paused by a person: resume it".to_owned());
    }
    if job.phase.is_terminal() || matches!(job.phase, Phase::Queued) {
        return None;
    }
    let name = match job.phase.role() {
        Role::Profiler => "profiler",
        Role::Planner => "planner",
        Role::Aggregator => "aggregator",
    };
    let ownerless_since = job
        .owner
        .as_ref()
        .map_or(job.phase_since, |owner| owner.expires_at);
    let ownerless = now.since(ownerless_since);
    if ownerless > OWNERLESS_MS {
        let seconds = ownerless / 1000;
        return Some(format!(
            "no {name} has held the job for {seconds} s: is one running?"
        ));
    }
    if let Some(held) = &job.held {
        let seconds = now.since(held.since) / 1000;
        let why = &held.why;
        return Some(format!(
            "the {name} has not been able to go on for {seconds} s and tries again: {why}"
        ));
    }
    let work = match job.phase {
        Phase::Refining { .. } => "the profiler learns from the rounds so far",
        Phase::Planning { .. } => "the planner makes the plan",
        Phase::Starting { resume: None } => "the aggregator writes the untrained adapter",
        Phase::Starting { .. } => "the aggregator opens the next round",
        Phase::Folding { .. } => "the aggregator merges the round's updates",
        Phase::Finalizing { .. } => "the aggregator writes the report and the adapter",
        _ if sites_are_done => return Some(format!("every site has answered: the {name} goes on")),
        _ => return None,
    };
    Some(work.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{beat, beat_on, job, registration, training};
    use crate::watch::Watch;
    use domain::id::InstanceId;

    const NOW: UnixMillis = UnixMillis(100_000);

    fn held(mut job: Job) -> Job {
        let holder: InstanceId = "aggregator-1".parse().expect("legal");
        job.claim(&holder, NOW, NOW.plus(10_000));
        job
    }

    fn fleet(names: &[&str]) -> Watch {
        let watch = Watch::new(UnixMillis(0));
        names
            .iter()
            .for_each(|name| watch.worker(registration(name, "mail"), UnixMillis(0)));
        watch
    }

    fn lines(job: &Job, watch: &Watch, reports: &Reports) -> Vec<String> {
        let waiting = waiting_for(job, &watch.read(), reports, NOW).into_iter();
        let line = |one: Waiting| match one.worker {
            Some(worker) => format!("{worker}: {}", one.why),
            None => one.why,
        };
        waiting.map(line).collect()
    }

    #[test]
    fn each_site_that_has_not_answered_is_named_with_what_it_does() {
        let job = held(training(1, &["done", "works", "silent", "idle"]));
        let watch = fleet(&["done", "works", "silent", "idle"]);
        watch.beat(beat_on("works", &job, Stage::Training), NOW);
        watch.beat(beat_on("silent", &job, Stage::Loading), UnixMillis(88_000));
        watch.beat(beat("idle"), NOW);
        let reports = [("done".parse().expect("legal"), Reported::Done)].into();
        assert_eq!(
            lines(&job, &watch, &reports),
            [
                "works: training, 3 of 8",
                "silent: unreachable: no sign of life for 12 s, it was loading the model, 3 of 8 then",
                "idle: idle: it has not taken its task yet",
            ]
        );
    }

    #[test]
    fn a_site_that_beats_without_progress_is_said_to_stand_still() {
        let job = held(training(1, &["a"]));
        let watch = fleet(&["a"]);
        watch.beat(beat_on("a", &job, Stage::Training), UnixMillis(60_000));
        watch.beat(beat_on("a", &job, Stage::Training), NOW);
        assert_eq!(
            lines(&job, &watch, &Reports::new()),
            ["a: training, 3 of 8; no progress for 40 s"]
        );
    }

    #[test]
    fn a_failed_site_shows_its_cause_before_anybody_has_acted_on_it() {
        let job = held(training(1, &["a"]));
        let failed = Reported::Failed {
            trouble: Trouble::OutOfMemory,
            detail: "asked for 2 GB".to_owned(),
        };
        let reports = [("a".parse().expect("legal"), failed)].into();
        assert_eq!(
            lines(&job, &fleet(&["a"]), &reports),
            ["a: reported that it ran out of memory: asked for 2 GB"]
        );
    }

    #[test]
    fn a_lost_site_is_not_waited_for() {
        let mut job = held(training(1, &["a", "b"]));
        job.lost.push(domain::cause::SiteTrouble {
            worker: "a".parse().expect("legal"),
            trouble: Trouble::Unreachable,
            detail: String::new(),
        });
        let watch = fleet(&["a", "b"]);
        watch.beat(beat_on("b", &job, Stage::Training), NOW);
        assert_eq!(
            lines(&job, &watch, &Reports::new()),
            ["b: training, 3 of 8"]
        );
    }

    #[test]
    fn a_job_without_an_owner_asks_whether_the_service_runs() {
        let mut planning = job(1, &["a"]);
        planning.phase = Phase::Planning { resume: None };
        planning.phase_since = UnixMillis(70_000);
        assert_eq!(
            lines(&planning, &fleet(&[]), &Reports::new()),
            ["no planner has held the job for 30 s: is one running?"]
        );
    }

    #[test]
    fn a_paused_and_an_ended_job_wait_for_nobody_at_a_site() {
        let mut paused = held(training(1, &["a"]));
        paused.pause(NOW).expect("legal");
        assert_eq!(
            lines(&paused, &fleet(&["a"]), &Reports::new()),
            ["paused by a person: resume it"]
        );
        let mut ended = job(2, &["a"]);
        ended.phase = Phase::Cancelled;
        assert!(lines(&ended, &fleet(&["a"]), &Reports::new()).is_empty());
    }

    #[test]
    fn sites_without_held_out_records_are_not_waited_for_in_an_evaluation() {
        let mut job = held(training(1, &["a", "b"]));
        job.phase = Phase::Evaluating {
            round: 1,
            global: crate::explain::fixture::artifact(),
            deadline: UnixMillis(600_000),
        };
        let watch = fleet(&["a"]);
        let mut without = registration("b", "mail");
        without
            .datasets
            .values_mut()
            .for_each(|summary| summary.held_out = 0);
        watch.worker(without, UnixMillis(0));
        watch.beat(beat("a"), NOW);
        assert_eq!(
            lines(&job, &watch, &Reports::new()),
            ["a: idle: it has not taken its task yet"]
        );
    }
}
