use domain::artifact::Digest;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::JobId;
use domain::job::Looks;

use super::*;

fn artifact() -> ArtifactRef {
    ArtifactRef {
        key: "k".to_owned(),
        sha256: Digest::from_bytes(&[1; 32]),
        bytes: 1,
    }
}

/// A job of sites `a` and `b`; with `plan_from` if it replays another.
fn job(replays: bool) -> Job {
    let from = if replays {
        format!(r#","plan_from":"{}""#, JobId::from_bits(9))
    } else {
        String::new()
    };
    let text = format!(
        r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}}{from}}}"#
    );
    let mut job = Job::submitted(
        JobId::from_bits(1),
        serde_json::from_str(&text).expect("legal"),
        Digest::from_bytes(&[0; 32]),
        "local".parse().expect("legal"),
        UnixMillis(0),
    );
    job.participants = ["a", "b"].map(|name| name.parse().expect("legal")).into();
    job
}

/// A plan for site `a` alone.
fn plan() -> Plan {
    let worker = r#"{"ranks":{},"base":"source","kernel":"k","threads":1,"batch":1,"local_steps":1,
        "sequence_length":8,"checkpoint":false,"optimizer":"adamw",
        "predicted":{"step_seconds":1.0,"round_seconds":1.0,"peak_memory_bytes":1,"upload_bytes":1},
        "why":{"text":"","binding":"nothing","rejected":[]}}"#;
    let text = format!(
        r#"{{"job":"{}","version":1,"parent":null,"replayed_from":null,"round_seconds":1.0,
            "deadline_seconds":60,"global":{{}},"workers":{{"a":{worker}}},"excluded":[]}}"#,
        JobId::from_bits(1)
    );
    serde_json::from_str(&text).expect("a plan")
}

fn without_b(mut job: Job) -> Job {
    job.lost.push(SiteTrouble {
        worker: "b".parse().expect("legal"),
        trouble: Trouble::OutOfMemory,
        detail: String::new(),
    });
    job
}

fn reasons(drifted: bool, replayed: bool) -> Reasons {
    Reasons {
        drifted,
        replayed,
        ..Reasons::default()
    }
}

#[test]
fn a_plan_is_looked_at_again_for_a_site_that_drifted_or_that_it_does_not_name() {
    let (quiet, drifted) = (reasons(false, false), reasons(true, false));
    assert!(!looks_again(&without_b(job(false)), &plan(), quiet));
    assert!(looks_again(&without_b(job(false)), &plan(), drifted));
    let moved = Reasons {
        moved: true,
        ..quiet
    };
    assert!(looks_again(&without_b(job(false)), &plan(), moved));
    assert!(looks_again(&job(false), &plan(), quiet));
    // One that it has excluded was looked at already.
    let mut excluding = plan();
    excluding.excluded = without_b(job(false)).lost;
    assert!(!looks_again(&job(false), &excluding, quiet));
}

#[test]
fn a_site_that_left_is_a_reason_while_a_look_is_left_for_its_return() {
    let left = Reasons {
        left: true,
        ..Reasons::default()
    };
    let looked = |times: u32| {
        let mut job = without_b(job(false));
        job.looks = Looks { times, after: 1 };
        looks_again(&job, &plan(), left)
    };
    assert!(looked(0) && looked(LOOKS / 2 - 1));
    assert!(!looked(LOOKS / 2));
    assert!(!looks_again(&without_b(job(true)), &plan(), left));
}

#[test]
fn a_replayed_job_has_the_plans_of_the_other_and_no_more() {
    assert!(!looks_again(&job(true), &plan(), reasons(true, false)));
    assert!(looks_again(&job(true), &plan(), reasons(false, true)));
}

#[test]
fn looks_have_a_limit() {
    let mut job = job(false);
    job.looks = Looks {
        times: LOOKS,
        after: 3,
    };
    assert!(!looks_again(&job, &plan(), reasons(true, false)));
}

#[test]
fn what_would_have_opened_a_round_refines_first_and_resumes_before_it() {
    let open = Phase::Training {
        round: 3,
        global: artifact(),
        opened_at: UnixMillis(1),
        deadline: UnixMillis(2),
        asked: vec!["a".parse().expect("legal")],
    };
    let deadline = UnixMillis(9);
    let refining = Phase::Refining {
        resume: Resume {
            round: 2,
            global: artifact(),
        },
        deadline,
    };
    assert_eq!(by_way_of_the_plan(open.clone(), deadline), refining);
    let paused = |phase| Phase::Paused {
        resume: Box::new(phase),
        since: UnixMillis(5),
    };
    assert_eq!(by_way_of_the_plan(paused(open), deadline), paused(refining));
    let end = Phase::Finalizing {
        global: artifact(),
        kept: None,
    };
    assert_eq!(by_way_of_the_plan(end.clone(), deadline), end);
}
