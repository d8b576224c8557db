//! A queued job's place and the reason why it does not start.

use domain::fleet::Liveness;
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

use super::unreachable;
use crate::watch::Known;

/// Sites named in a reason at most; more are counted.
const NAMED: usize = 8;

/// Where a queued job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Counted from 1, by submission.
    pub place: usize,
    /// Why it does not start, in a sentence.
    pub reason: String,
}

/// One site of a queued job, and what keeps it from starting there; `None` if it is free.
pub type Hindrance = (WorkerName, Option<String>);

/// Place and reason of a queued job; `None` for any other.
pub fn queue(job: &Job, known: &Known, now: UnixMillis) -> Option<Queue> {
    if !matches!(job.phase, Phase::Queued) {
        return None;
    }
    let order = |job: &Job| (job.submitted_at, job.id.clone());
    let mine = order(job);
    let queued = known
        .jobs
        .values()
        .filter(|other| matches!(other.phase, Phase::Queued));
    let before = queued
        .filter(|other| other.id != job.id && order(other) < mine)
        .count();
    Some(Queue {
        place: before + 1,
        reason: reason(job, &hindrances(job, known, now)),
    })
}

/// The sites a queued job may run on: those it names, or all that have its data set.
pub fn hindrances(job: &Job, known: &Known, now: UnixMillis) -> Vec<Hindrance> {
    let dataset = &job.spec.data.dataset;
    let named = &job.spec.data.sites;
    let sites: Vec<&WorkerName> = if named.is_empty() {
        let having = known
            .workers
            .values()
            .filter(|one| one.datasets.contains_key(dataset));
        having.map(|one| &one.worker).collect()
    } else {
        named.iter().collect()
    };
    let judged = sites
        .into_iter()
        .map(|site| (site.clone(), hindrance(job, site, known, now)));
    judged.collect()
}

fn hindrance(job: &Job, site: &WorkerName, known: &Known, now: UnixMillis) -> Option<String> {
    let Some(registration) = known.workers.get(site) else {
        return Some("no worker of this name has registered".to_owned());
    };
    let dataset = &job.spec.data.dataset;
    if !registration.datasets.contains_key(dataset) {
        return Some(format!("has no data set `{dataset}`"));
    }
    if known.liveness(site, now) == Liveness::Unreachable {
        return Some(unreachable(known, site, now));
    }
    let holder = known.holder(site)?;
    Some(format!("busy with {} ({})", holder.id, holder.phase.name()))
}

fn reason(job: &Job, sites: &[Hindrance]) -> String {
    let dataset = &job.spec.data.dataset;
    if sites.is_empty() {
        return format!(
            "no registered worker has the data set `{dataset}`; next: add [datasets.{dataset}] to a site.toml \
             ([workers.datasets.{dataset}] in the fleet file of `fedpipe up`), or name another in the job; \
             `fedpipe fleet` shows who has what"
        );
    }
    let named = !job.spec.data.sites.is_empty();
    let quorum = job.spec.rounds.quorum.fixed();
    let quorum = quorum.map_or(1, |quorum| usize::try_from(quorum).unwrap_or(usize::MAX));
    if !named && sites.len() < quorum {
        return format!(
            "the job's quorum is {quorum} sites, {} with the data set `{dataset}` registered: {}",
            counted(sites.len(), "worker has", "workers have"),
            list(sites)
        );
    }
    let free = sites
        .iter()
        .filter(|(_, hindrance)| hindrance.is_none())
        .count();
    if free == sites.len() {
        return format!(
            "all its sites are free ({}): the profiler admits it next, if one runs",
            list(sites)
        );
    }
    format!("{free} of {} sites free; {}", sites.len(), list(sites))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The hindered sites first: they are what somebody looks for.
fn list(sites: &[Hindrance]) -> String {
    let (hindered, free): (Vec<_>, Vec<_>) = sites.iter().partition(|(_, why)| why.is_some());
    let all = hindered.into_iter().chain(free);
    let words = all.take(NAMED).map(|(site, why)| match why {
        Some(why) => format!("{site}: {why}"),
        None => format!("{site}: free"),
    });
    let mut text = words.collect::<Vec<_>>().join("; ");
    if sites.len() > NAMED {
        text.push_str(&format!("; and {} more", sites.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use domain::cause::{SiteTrouble, Trouble};
    use domain::id::JobId;

    use super::*;
    use crate::explain::fixture::{beat, job, registration, training};
    use crate::watch::Watch;

    const NOW: UnixMillis = UnixMillis(100_000);

    fn fleet(names: &[&str]) -> Watch {
        let watch = Watch::new(UnixMillis(0));
        for name in names {
            watch.worker(registration(name, "mail"), UnixMillis(0));
            watch.beat(beat(name), NOW);
        }
        watch
    }

    fn with(job: Job, change: impl FnOnce(&mut domain::job::Spec)) -> Job {
        let mut changed = job;
        change(&mut changed.spec);
        changed
    }

    fn check(watch: &Watch, job: &Job, place: usize, words: &[&str]) {
        watch.job(job.clone());
        let queue = queue(job, &watch.read(), NOW).expect("queued");
        assert_eq!(queue.place, place, "{}", queue.reason);
        for word in words {
            assert!(
                queue.reason.contains(word),
                "{word:?} in {:?}",
                queue.reason
            );
        }
    }

    #[test]
    fn a_job_waits_for_the_job_that_holds_its_site_and_the_reason_names_both() {
        let watch = fleet(&["a", "b"]);
        let holder = training(1, &["a"]);
        watch.job(holder.clone());
        check(
            &watch,
            &job(2, &[]),
            1,
            &[
                "a: busy with",
                holder.id.as_str(),
                "b: free",
                "1 of 2 sites free",
            ],
        );
    }

    #[test]
    fn a_site_that_a_replay_may_take_back_is_busy_with_it() {
        let watch = fleet(&["a", "b"]);
        let mut holder = with(training(1, &["a", "b"]), |spec| {
            spec.plan_from = Some(JobId::from_bits(9));
        });
        holder.lose(SiteTrouble {
            worker: "b".parse().expect("legal"),
            trouble: Trouble::PlanUnsupported,
            detail: String::new(),
        });
        watch.job(holder);
        let words = ["b: busy with", "0 of 2 sites free"];
        check(&watch, &job(2, &[]), 1, &words);
    }

    #[test]
    fn places_are_by_submission_among_queued_jobs() {
        let watch = fleet(&["a"]);
        watch.job(training(1, &["a"]));
        check(&watch, &job(2, &[]), 1, &[]);
        check(&watch, &job(3, &[]), 2, &[]);
        check(&watch, &job(2, &[]), 1, &[]);
    }

    #[test]
    fn missing_unreachable_and_unfit_sites_are_told_apart() {
        let watch = fleet(&["a"]);
        watch.worker(registration("other", "images"), UnixMillis(0));
        watch.worker(registration("quiet", "mail"), UnixMillis(0));
        let job = with(job(2, &[]), |spec| {
            spec.data.sites = ["a", "gone", "other", "quiet"]
                .map(|s| s.parse().expect("legal"))
                .into();
        });
        check(
            &watch,
            &job,
            1,
            &[
                "gone: no worker of this name has registered",
                "other: has no data set `mail`",
                "quiet: unreachable: no sign of life",
                "a: free",
            ],
        );
    }

    #[test]
    fn fewer_sites_than_the_quorum_and_none_at_all_are_said() {
        let watch = fleet(&["a", "b"]);
        let three = with(job(2, &[]), |spec| {
            spec.rounds.quorum = domain::job::Quorum::Fixed(3);
        });
        check(&watch, &three, 1, &["quorum is 3", "2 workers have"]);
        let nobody = with(job(3, &[]), |spec| {
            spec.data.dataset = "maps".parse().expect("legal")
        });
        check(
            &watch,
            &nobody,
            2,
            &[
                "no registered worker has the data set `maps`",
                "next: add [datasets.maps] to a site.toml",
            ],
        );
    }

    #[test]
    fn a_job_that_runs_has_no_place() {
        assert_eq!(
            queue(&training(1, &["a"]), &fleet(&["a"]).read(), NOW),
            None
        );
    }
}
