//! A job that replays the plans of another which a site joined, or left and came back to.

use domain::artifact::Digest;
use domain::job::Job;
use domain::time::UnixMillis;

use super::*;

/// Version 1 of the other's plan, for `a` alone, and the next, for `a` and `b`.
fn plans() -> (Plan, Plan) {
    let sites = [site("a", 1.0, 8 * GIB), site("b", 2.0, 8 * GIB)];
    let made = |sites: &[_]| plan(&spec(), sites, 1).expect("possible");
    (made(&sites[..1]), made(&sites))
}

fn names(text: &str) -> BTreeSet<WorkerName> {
    let words = text.split_whitespace();
    words.map(|name| name.parse().expect("legal")).collect()
}

/// A job of both sites that gave `b` up.
fn without_b(trouble: Trouble) -> Job {
    let mut asked = spec();
    asked.plan_from = Some(JobId::from_bits(1));
    let mut job = Job::submitted(
        JobId::from_bits(9),
        asked,
        Digest::from_bytes(&[0; 32]),
        "local".parse().expect("legal"),
        UnixMillis(0),
    );
    job.participants = names("a b").into_iter().collect();
    job.lose(SiteTrouble {
        worker: "b".parse().expect("legal"),
        trouble,
        detail: String::new(),
    });
    job
}

#[test]
fn a_site_that_a_replayed_plan_did_without_is_taken_back_where_the_next_names_it() {
    let (first, next) = plans();
    let first = replay(&first, &JobId::from_bits(9), &names("a b")).expect("a is here");
    assert_eq!(first.excluded[0].trouble, Trouble::PlanUnsupported);
    let job = without_b(first.excluded[0].trouble);
    let mut here: BTreeSet<WorkerName> = job.active().cloned().collect();
    replay(&next, &job.id, &here).expect_err("b is given up");
    here.extend(taken_back(&job, &first, &next));
    let second = replay(&next, &job.id, &here).expect("both are here");
    assert_eq!((second.workers, second.excluded), (next.workers, vec![]));
}

#[test]
fn a_site_that_was_given_up_for_another_reason_is_not_taken_back_by_a_plan() {
    let (first, next) = plans();
    let mut job = without_b(Trouble::PlanUnsupported);
    assert_eq!(taken_back(&job, &first, &next), names("b"));
    assert_eq!(taken_back(&job, &first, &first), names(""));
    // It could not honour what it was planned.
    assert_eq!(taken_back(&job, &next, &next), names(""));
    job.spec.plan_from = None;
    assert_eq!(taken_back(&job, &first, &next), names(""));
    for trouble in [Trouble::Unreachable, Trouble::OutOfMemory] {
        assert_eq!(taken_back(&without_b(trouble), &first, &next), names(""));
    }
}
