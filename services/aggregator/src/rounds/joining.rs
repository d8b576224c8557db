//! Who joins a job that is running already: a site with its data that was not there, or not free, when the job
//! began.
//!
//! It takes part from a round's end on: it measures itself, and the plan is made anew with it. Whoever waits for the
//! same site in the queue comes first. A job whose result must follow from its inputs alone (`quorum: all`,
//! `plan_from`) has the sites that it was admitted with.

use std::collections::BTreeSet;

use domain::fleet::{Liveness, Stage};
use domain::id::WorkerName;
use domain::job::{Job, Phase, Quorum};
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Aggregator;

/// The sites that may join now, ordered by name. Other jobs are read only if there is a site that could.
pub async fn newcomers(
    aggregator: &Aggregator,
    job: &Job,
    now: UnixMillis,
) -> Result<Vec<WorkerName>, Error> {
    if !is_open(job) {
        return Ok(Vec::new());
    }
    let members = aggregator.fleet.members().into_iter();
    let idle = members.filter(|(worker, member)| {
        may_join(job, worker)
            && member
                .registration
                .datasets
                .contains_key(&job.spec.data.dataset)
            && member.liveness(now) == Liveness::Alive
            && member.stage() == Some(Stage::Idle)
    });
    let idle: Vec<WorkerName> = idle.map(|(worker, _)| worker).collect();
    if idle.is_empty() {
        return Ok(idle);
    }
    let mut others = Vec::new();
    for key in aggregator.jobs.keys().await? {
        // Keys with a dot hold rounds and scores.
        if key.contains('.') || key == job.id.as_str() {
            continue;
        }
        others.extend(aggregator.jobs.get(&key).await?.map(|(other, _)| other));
    }
    Ok(unclaimed(idle, job, &others))
}

/// Whether sites may join at all.
fn is_open(job: &Job) -> bool {
    job.spec.rounds.quorum != Quorum::All && job.spec.plan_from.is_none()
}

/// Whether the job would have this site, which is not one of its own.
fn may_join(job: &Job, worker: &WorkerName) -> bool {
    let named = &job.spec.data.sites;
    !job.participants.contains(worker) && (named.is_empty() || named.contains(worker))
}

/// Those that no other job has or waits for.
fn unclaimed(idle: Vec<WorkerName>, job: &Job, others: &[Job]) -> Vec<WorkerName> {
    let mut claimed: BTreeSet<&WorkerName> = BTreeSet::new();
    for other in others {
        if other.phase.holds_sites() {
            claimed.extend(other.active());
        } else if matches!(other.phase, Phase::Queued)
            && other.spec.data.dataset == job.spec.data.dataset
        {
            claimed.extend(idle.iter().filter(|worker| may_join(other, worker)));
        }
    }
    let taken: BTreeSet<WorkerName> = claimed.into_iter().cloned().collect();
    let free = idle.into_iter().filter(|worker| !taken.contains(worker));
    free.collect()
}

#[cfg(test)]
mod tests {
    use domain::artifact::Digest;
    use domain::id::JobId;

    use super::*;

    fn job(id: u64, rest: &str) -> Job {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}}{rest}}}"#
        );
        let mut job = Job::submitted(
            JobId::from_bits(id),
            serde_json::from_str(&text).expect("legal"),
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        );
        job.participants = names("a b");
        job
    }

    fn names(text: &str) -> Vec<WorkerName> {
        let words = text.split_whitespace();
        words.map(|name| name.parse().expect("legal")).collect()
    }

    fn planning(mut job: Job, participants: &str) -> Job {
        job.participants = names(participants);
        job.phase = Phase::Planning { resume: None };
        job
    }

    #[test]
    fn a_job_that_must_repeat_has_the_sites_that_it_was_admitted_with() {
        assert!(is_open(&job(1, "")));
        assert!(is_open(&job(1, r#","rounds":{"quorum":2}"#)));
        assert!(!is_open(&job(1, r#","rounds":{"quorum":"all"}"#)));
        let from = format!(r#","plan_from":"{}""#, JobId::from_bits(9));
        assert!(!is_open(&job(1, &from)));
    }

    #[test]
    fn a_job_has_whoever_it_did_not_have_unless_it_names_its_sites() {
        let of = |job: &Job| -> Vec<WorkerName> {
            let mut all = names("a b c d");
            all.retain(|worker| may_join(job, worker));
            all
        };
        let mut naming = job(1, "");
        assert_eq!(of(&naming), names("c d"));
        naming.spec.data.sites = names("a b d");
        assert_eq!(of(&naming), names("d"));
    }

    #[test]
    fn whoever_has_a_site_or_waits_for_it_comes_first() {
        let free = |others: &[Job]| unclaimed(names("c d"), &job(1, ""), others);
        assert_eq!(free(&[]), names("c d"));
        assert_eq!(free(&[planning(job(2, ""), "c")]), names("d"));
        let mut ended = planning(job(2, ""), "c");
        ended.phase = Phase::Cancelled;
        assert_eq!(free(&[ended]), names("c d"));
        let mut queued = job(3, "");
        queued.participants.clear();
        assert_eq!(free(std::slice::from_ref(&queued)), names(""));
        queued.spec.data.sites = names("d");
        assert_eq!(free(std::slice::from_ref(&queued)), names("c"));
        queued.spec.data.dataset = "other".parse().expect("legal");
        assert_eq!(free(&[queued]), names("c d"));
    }
}
