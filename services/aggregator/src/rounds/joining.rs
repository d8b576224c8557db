//! Who joins a job that is running already: a site with its data that was not there, or not free, when the job
//! began.
//!
//! It takes part from a round's end on: it measures itself, and the plan is made anew with it. Whoever has the site,
//! be it in a pause, or waits for it in the queue comes first. A site on whose machine another job trains does not
//! join: it could not measure itself before that one ends. A job whose result must follow from its inputs alone
//! (`quorum: all`, `plan_from`) has the sites that it was admitted with.

use std::collections::{BTreeMap, BTreeSet};

use bus::fleet::Member;
use domain::fleet::{Liveness, Stage};
use domain::id::WorkerName;
use domain::job::{Job, Phase, Quorum};
use domain::time::UnixMillis;
use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;
use crate::app::Aggregator;

/// Jobs that are read at the same time.
const AT_ONCE: usize = 16;

/// The fleet as it is known.
type Members = BTreeMap<WorkerName, Member>;

/// The sites that may join now, ordered by name. Other jobs are read only if there is a site that could.
pub async fn newcomers(
    aggregator: &Aggregator,
    job: &Job,
    now: UnixMillis,
) -> Result<Vec<WorkerName>, Error> {
    if !is_open(job) {
        return Ok(Vec::new());
    }
    let members = aggregator.fleet.members();
    let idle = members.iter().filter(|(worker, member)| {
        !job.participants.contains(worker)
            && may_use(job, worker, member)
            && member.liveness(now) == Liveness::Alive
            && member.stage() == Some(Stage::Idle)
    });
    let idle: Vec<WorkerName> = idle.map(|(worker, _)| worker.clone()).collect();
    if idle.is_empty() {
        return Ok(idle);
    }
    let others = others(aggregator, job).await?;
    Ok(unclaimed(idle, job, &others, &members))
}

/// Every other job, but for those that this release cannot read: nobody of this release drives such a job. Where a newer
/// release drives it meanwhile, a site of it that is idle between two rounds may join this one, and does the tasks of both
/// one after the other.
async fn others(aggregator: &Aggregator, job: &Job) -> Result<Vec<Job>, Error> {
    let mut keys = aggregator.jobs.keys().await?;
    // Keys with a dot hold rounds and scores.
    keys.retain(|key| !key.contains('.') && key != job.id.as_str());
    let found: Vec<Option<Job>> = stream::iter(keys)
        .map(|key| async move { aggregator.jobs.look(&key).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Whether sites may join now. They join no job that is about to pause, for they would be kept from others.
fn is_open(job: &Job) -> bool {
    job.spec.rounds.quorum != Quorum::All && job.spec.plan_from.is_none() && !job.pause_requested
}

/// Whether the job would have this site.
fn may_use(job: &Job, worker: &WorkerName, member: &Member) -> bool {
    let (data, named) = (&job.spec.data.dataset, &job.spec.data.sites);
    member.registration.datasets.contains_key(data) && (named.is_empty() || named.contains(worker))
}

/// Those that no other job has or waits for, and on whose machines nobody trains.
fn unclaimed(
    idle: Vec<WorkerName>,
    job: &Job,
    others: &[Job],
    members: &Members,
) -> Vec<WorkerName> {
    let host = |worker: &WorkerName| {
        let member = members.get(worker)?;
        Some(member.registration.host.as_str())
    };
    let running = others.iter().filter(|other| other.phase.holds_sites());
    let late = job.late.iter().map(|behind| &behind.worker);
    let training = running.flat_map(kept).chain(late);
    let busy: BTreeSet<&str> = training.filter_map(host).collect();
    let is_free = |worker: &WorkerName| {
        let claimed = others.iter().any(|other| claims(other, worker, members));
        !claimed && host(worker).is_none_or(|host| !busy.contains(host))
    };
    idle.into_iter().filter(is_free).collect()
}

/// Whether another job has this site, will take it back, or waits for it.
fn claims(other: &Job, worker: &WorkerName, members: &Members) -> bool {
    if matches!(other.phase, Phase::Queued) {
        let member = members.get(worker);
        return member.is_some_and(|member| may_use(other, worker, member));
    }
    // A replay takes back whom one version does without where the next names it.
    let mut claimed = kept(other).chain(other.parked());
    !other.phase.is_terminal() && claimed.any(|site| site == worker)
}

/// The participants of a job, without those that it will not ask again.
fn kept(job: &Job) -> impl Iterator<Item = &WorkerName> {
    let gone = job.lost.iter().filter(|lost| lost.trouble.is_lasting());
    let gone: BTreeSet<&WorkerName> = gone.map(|lost| &lost.worker).collect();
    let all = job.participants.iter();
    all.filter(move |worker| !gone.contains(worker))
}

#[cfg(test)]
mod tests {
    use domain::artifact::{ArtifactRef, Digest};
    use domain::cause::{SiteTrouble, Trouble};
    use domain::id::{Epoch, JobId};
    use domain::plan::PlanVersion;
    use domain::round::Behind;
    use serde_json::json;

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

    fn planning(participants: &str) -> Job {
        let mut job = job(2, "");
        job.participants = names(participants);
        job.phase = Phase::Planning { resume: None };
        job
    }

    fn paused(participants: &str) -> Job {
        let mut job = planning(participants);
        job.pause(UnixMillis(1)).expect("legal");
        job
    }

    fn queued(dataset: &str, sites: &str) -> Job {
        let mut job = job(3, "");
        job.participants.clear();
        job.spec.data.dataset = dataset.parse().expect("legal");
        job.spec.data.sites = names(sites);
        job
    }

    /// A site that has mail, and these data sets beside.
    fn site(worker: &str, host: &str, more: &[&str]) -> (WorkerName, Member) {
        let summary = json!({"records": 1, "held_out": 1, "skipped": 0});
        let datasets = ["mail"].iter().chain(more);
        let datasets: BTreeMap<&str, _> = datasets.map(|name| (*name, &summary)).collect();
        let registration = serde_json::from_value(json!({
            "worker": worker, "version": "", "host": host, "started_at": 0, "memory_limit_bytes": 0,
            "threads": 1, "datasets": datasets, "policy": "", "beat_ms": 3000,
        }));
        let member = Member {
            registration: registration.expect("a registration"),
            beat: None,
            moved_at: UnixMillis(0),
            computed_at: None,
        };
        (worker.parse().expect("legal"), member)
    }

    /// Each on a machine of its own but `d` and `x`; `c` has notes as well.
    fn fleet() -> Members {
        let sites = [
            site("a", "1", &[]),
            site("b", "2", &[]),
            site("c", "3", &["notes"]),
            site("d", "4", &[]),
            site("x", "4", &[]),
        ];
        sites.into()
    }

    /// Which of `c` and `d` are free for a job of `a` and `b`.
    #[track_caller]
    fn check(others: &[Job], free: &str) {
        let found = unclaimed(names("c d"), &job(1, ""), others, &fleet());
        assert_eq!(found, names(free));
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
    fn nobody_joins_a_job_that_is_about_to_pause() {
        let mut pausing = job(1, "");
        pausing.pause_requested = true;
        assert!(!is_open(&pausing));
    }

    #[test]
    fn a_job_would_have_whoever_has_its_data_unless_it_names_its_sites() {
        let of = |job: &Job| -> Vec<WorkerName> {
            let mut all = fleet();
            all.retain(|worker, member| may_use(job, worker, member));
            all.into_keys().collect()
        };
        let mut naming = job(1, "");
        assert_eq!(of(&naming), names("a b c d x"));
        naming.spec.data.sites = names("a b d");
        assert_eq!(of(&naming), names("a b d"));
        assert_eq!(of(&queued("notes", "")), names("c"));
    }

    #[test]
    fn whoever_has_a_site_comes_first() {
        check(&[], "c d");
        check(&[planning("c")], "d");
        let mut ended = planning("c");
        ended.phase = Phase::Cancelled;
        check(&[ended], "c d");
    }

    #[test]
    fn a_paused_job_keeps_its_sites_from_joining_another() {
        check(&[paused("c")], "d");
        check(&[paused("x")], "c d");
    }

    #[test]
    fn a_site_that_another_job_lost_joins_only_if_that_one_will_not_take_it_back() {
        let lost = |mut job: Job, trouble: Trouble| {
            let worker = "c".parse().expect("legal");
            job.lose(SiteTrouble {
                worker,
                trouble,
                detail: String::new(),
            });
            job
        };
        for holder in [planning("c"), paused("c")] {
            check(&[lost(holder.clone(), Trouble::Unreachable)], "d");
            check(&[lost(holder, Trouble::PolicyRefused)], "c d");
        }
        let mut replay = planning("c");
        check(&[lost(replay.clone(), Trouble::PlanUnsupported)], "c d");
        replay.spec.plan_from = Some(JobId::from_bits(9));
        check(&[lost(replay, Trouble::PlanUnsupported)], "d");
    }

    #[test]
    fn a_site_whose_machine_another_job_s_site_shares_does_not_join() {
        check(&[planning("x")], "c");
        let mut late = job(1, "");
        late.participants = names("a b x");
        let global = ArtifactRef {
            key: String::new(),
            sha256: Digest::from_bytes(&[0; 32]),
            bytes: 0,
        };
        let free = |job: &Job| unclaimed(names("c d"), job, &[], &fleet());
        assert_eq!(free(&late), names("c d"));
        late.late.push(Behind {
            worker: "x".parse().expect("legal"),
            round: 1,
            epoch: Epoch(3),
            plan: PlanVersion(1),
            global,
        });
        assert_eq!(free(&late), names("c"));
    }

    #[test]
    fn whoever_waits_for_a_site_comes_first_whatever_data_of_it() {
        check(&[queued("mail", "")], "");
        check(&[queued("mail", "d")], "c");
        check(&[queued("notes", "")], "d");
        check(&[queued("notes", "d")], "c d");
        check(&[queued("other", "")], "c d");
    }
}
