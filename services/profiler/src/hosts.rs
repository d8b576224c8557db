//! Which sites measure themselves now, where several play on one machine: one at a time, and none while another
//! computes there. A job that begins waits for that; one that runs does not stand still for it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bus::fleet::Member;
use domain::fleet::{Liveness, Stage};
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

/// Beats for which a worker must have rested before another on its machine measures itself.
const QUIET_BEATS: u64 = 3;

/// The fleet as it is known.
type Members = BTreeMap<WorkerName, Member>;

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Turns<'a> {
    /// Everybody who waits, and whether it is asked now.
    pub waiting: Vec<(&'a WorkerName, bool)>,
    /// Whether the job has not begun, and somebody is not asked because another's worker computes on its machine.
    pub held_up: bool,
}

/// Gives each machine's first waiting worker its turn, unless the machine is busy.
pub fn turns<'a>(
    members: &Members,
    job: &Job,
    waiting: &'a [WorkerName],
    now: UnixMillis,
) -> Turns<'a> {
    let (busy, mut taken) = (busy(members, job, now), BTreeSet::new());
    let begins = matches!(job.phase, Phase::Profiling { .. });
    let mut held_up = false;
    let turn = |worker: &'a WorkerName| {
        let host = members.get(worker);
        let host = host.map_or_else(
            || worker.to_string(),
            |member| member.registration.host.clone(),
        );
        let is_busy = busy.contains(&host);
        held_up |= is_busy && begins;
        (worker, taken.insert(host) && !is_busy)
    };
    Turns {
        waiting: waiting.iter().map(turn).collect(),
        held_up,
    }
}

/// The machines on which a worker that is not this job's computes, or one that is at an earlier round of it; and those
/// where one has not rested for long, for between two rounds of a job it rests as well.
fn busy(members: &Members, job: &Job, now: UnixMillis) -> BTreeSet<String> {
    let computes = |member: &Member| {
        let quiet = QUIET_BEATS.saturating_mul(member.registration.beat_ms);
        let lately = member.computed_at.map(|at| now.since(at) <= quiet);
        lately.unwrap_or(false) || member.stage().is_some_and(Stage::computes)
    };
    let others = members.iter().filter(|(worker, member)| {
        (!job.participants.contains(worker) || job.behind(worker).is_some())
            && member.liveness(now) == Liveness::Alive
            && computes(member)
    });
    others
        .map(|(_, member)| member.registration.host.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use domain::artifact::{ArtifactRef, Digest};
    use domain::fleet::{Beat, Registration};
    use domain::id::{Epoch, JobId};
    use domain::job::Resume;
    use domain::plan::PlanVersion;
    use domain::round::Behind;
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(100_000);

    fn name(text: &str) -> WorkerName {
        text.parse().expect("legal")
    }

    fn job() -> Job {
        let text = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#;
        let mut job = Job::submitted(
            JobId::from_bits(1),
            serde_json::from_str(text).expect("legal"),
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        );
        job.participants = ["a", "b", "c"].map(name).into();
        job.phase = Phase::Profiling {
            deadline: UnixMillis(200_000),
        };
        job
    }

    fn global() -> ArtifactRef {
        ArtifactRef {
            key: String::new(),
            sha256: Digest::from_bytes(&[0; 32]),
            bytes: 0,
        }
    }

    /// The same job, between two rounds.
    fn running() -> Job {
        let mut job = job();
        job.phase = Phase::Refining {
            resume: Resume {
                round: 1,
                global: global(),
            },
            deadline: UnixMillis(200_000),
        };
        job
    }

    /// A worker on a machine, last heard so long ago in a stage.
    fn member(worker: &str, host: &str, stage: &str, ago: u64) -> (WorkerName, Member) {
        let at = UnixMillis(NOW.0 - ago);
        let beat: Beat = serde_json::from_value(json!({
            "worker": worker, "at": 0, "stage": stage, "counter": 1, "progress": null,
            "memory_bytes": 0,
        }))
        .expect("a beat");
        let registration = Registration {
            worker: name(worker),
            version: String::new(),
            host: host.to_owned(),
            started_at: UnixMillis(0),
            memory_limit_bytes: 0,
            threads: 1,
            datasets: BTreeMap::new(),
            policy: String::new(),
            beat_ms: 3000,
        };
        let member = Member {
            registration,
            beat: Some((beat, at)),
            moved_at: at,
            computed_at: None,
        };
        (name(worker), member)
    }

    fn check(job: &Job, members: &[(WorkerName, Member)], asked: &[&str], held_up: bool) {
        let members = members.iter().cloned().collect();
        let waiting = ["a", "b", "c"].map(name);
        let turns = turns(&members, job, &waiting, NOW);
        let now = turns.waiting.iter().filter(|(_, now)| *now);
        let now: Vec<&str> = now.map(|(worker, _)| worker.as_str()).collect();
        assert_eq!((now.as_slice(), turns.held_up), (asked, held_up));
    }

    fn idle(worker: &str, host: &str) -> (WorkerName, Member) {
        member(worker, host, "idle", 0)
    }

    #[test]
    fn sites_that_share_a_machine_measure_themselves_one_after_the_other() {
        let apart = [idle("a", "1"), idle("b", "2"), idle("c", "3")];
        check(&job(), &apart, &["a", "b", "c"], false);
        let together = [idle("a", "1"), idle("b", "1"), idle("c", "3")];
        check(&job(), &together, &["a", "c"], false);
        check(&job(), &[], &["a", "b", "c"], false);
    }

    #[test]
    fn nobody_measures_itself_while_another_jobs_worker_computes_on_its_machine() {
        let own = [idle("a", "1"), idle("b", "1"), idle("c", "2")];
        let with = |other| [own.as_slice(), &[other]].concat();
        for stage in ["training", "evaluating", "probing", "loading"] {
            check(&job(), &with(member("x", "1", stage, 0)), &["c"], true);
        }
        for stage in ["idle", "uploading", "downloading"] {
            let quiet = with(member("x", "1", stage, 0));
            check(&job(), &quiet, &["a", "c"], false);
        }
        let gone = with(member("x", "1", "training", 60_000));
        check(&job(), &gone, &["a", "c"], false);
        let elsewhere = with(member("x", "9", "training", 0));
        check(&job(), &elsewhere, &["a", "c"], false);
    }

    #[test]
    fn a_job_that_runs_asks_nobody_there_either_and_does_not_wait_for_the_end() {
        let own = [idle("a", "1"), idle("b", "1"), idle("c", "2")];
        let other = member("x", "1", "training", 0);
        let all = [own.as_slice(), &[other]].concat();
        check(&running(), &all, &["c"], false);
    }

    #[test]
    fn between_two_rounds_of_another_job_nobody_measures_itself_either() {
        let rested = |ago: u64| {
            let (name, mut other) = idle("x", "1");
            other.computed_at = Some(UnixMillis(NOW.0 - ago));
            [
                idle("a", "1"),
                idle("b", "2"),
                idle("c", "3"),
                (name, other),
            ]
        };
        check(&job(), &rested(1000), &["b", "c"], true);
        check(&job(), &rested(9000), &["b", "c"], true);
        check(&job(), &rested(9001), &["a", "b", "c"], false);
    }

    #[test]
    fn nobody_measures_itself_beside_a_site_at_an_earlier_round() {
        let members = [
            member("a", "1", "probing", 0),
            idle("b", "1"),
            member("z", "2", "training", 0),
        ];
        let mut late = running();
        late.participants.push(name("z"));
        check(&late, &members, &["a", "c"], false);
        late.late.push(Behind {
            worker: name("z"),
            round: 1,
            epoch: Epoch(3),
            plan: PlanVersion(1),
            global: global(),
        });
        let on_its_machine = [
            member("a", "1", "idle", 0),
            idle("b", "2"),
            member("z", "2", "training", 0),
        ];
        check(&late, &on_its_machine, &["a", "c"], false);
    }
}
