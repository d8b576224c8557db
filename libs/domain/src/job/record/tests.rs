use super::*;
use crate::artifact::ArtifactRef;
use crate::cause::Trouble;

fn job() -> Job {
    let spec = serde_json::from_str(
        r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#,
    );
    let submitter = "local".parse().expect("legal");
    Job::submitted(
        JobId::from_bits(1),
        spec.expect("legal"),
        Digest::from_bytes(&[0; 32]),
        submitter,
        UnixMillis(0),
    )
}

#[test]
fn every_transition_raises_the_epoch() {
    let mut job = job();
    job.advance(
        Phase::Profiling {
            deadline: UnixMillis(100),
        },
        UnixMillis(1),
    )
    .expect("legal");
    job.pause(UnixMillis(10)).expect("legal");
    job.resume(UnixMillis(30)).expect("legal");
    assert_eq!(job.epoch, Epoch(4));
    assert_eq!(
        job.phase,
        Phase::Profiling {
            deadline: UnixMillis(120)
        }
    );
    assert_eq!(job.paused_ms, 20);
}

#[test]
fn an_ended_job_stays_ended() {
    let mut job = job();
    job.advance(Phase::Cancelled, UnixMillis(1)).expect("legal");
    assert!(job.advance(Phase::Queued, UnixMillis(2)).is_err());
    assert!(job.pause(UnixMillis(2)).is_err());
    assert!(job.resume(UnixMillis(2)).is_err());
}

/// What an upgrade must not change under a job, and what it may while no step was made.
#[test]
fn a_record_says_how_directions_are_made_and_an_older_one_keeps_to_how_they_were() {
    let mut record = serde_json::to_value(job()).expect("it has a form");
    assert_eq!(record["round_seeds"], true);
    let fields = record.as_object_mut().expect("an object");
    fields.remove("round_seeds");
    fields.remove("generator");
    let mut older: Job = serde_json::from_value(record.clone()).expect("it is read");
    assert_eq!((older.generator, older.round_seeds), (1, false));
    assert_eq!(serde_json::to_value(&older).expect("it has a form"), record);
    older.generator = GENERATOR + 1;
    older.begin_walking();
    assert_eq!((older.generator, older.round_seeds), (GENERATOR, false));
}

#[test]
fn no_phase_is_skipped() {
    let mut job = job();
    assert!(
        job.advance(Phase::Planning { resume: None }, UnixMillis(1))
            .is_err()
    );
    assert!(
        job.advance(Phase::Starting { resume: None }, UnixMillis(1))
            .is_err()
    );
}

#[test]
fn a_lease_changes_hands_only_after_it_expired_and_raises_the_fence() {
    let (first, second) = ("a".parse().expect("legal"), "b".parse().expect("legal"));
    let mut job = job();
    assert_eq!(
        job.claim(&first, UnixMillis(0), UnixMillis(10)),
        Some(Fence(1))
    );
    assert_eq!(job.claim(&second, UnixMillis(5), UnixMillis(15)), None);
    assert_eq!(
        job.claim(&first, UnixMillis(5), UnixMillis(15)),
        Some(Fence(1))
    );
    assert_eq!(
        job.claim(&second, UnixMillis(16), UnixMillis(30)),
        Some(Fence(2))
    );
}

#[test]
fn time_in_which_the_owner_could_not_go_on_does_not_count_against_the_phase() {
    let profiling = |deadline| Phase::Profiling {
        deadline: UnixMillis(deadline),
    };
    let mut job = job();
    job.advance(profiling(100), UnixMillis(0)).expect("legal");
    job.hold("the disk is full".to_owned(), UnixMillis(40));
    job.hold("and the storage is away".to_owned(), UnixMillis(50));
    let held = job.held.clone().expect("held");
    assert_eq!((held.since.0, held.why.as_str()), (40, "the disk is full"));
    job.release(UnixMillis(70));
    job.release(UnixMillis(99));
    assert_eq!((&job.phase, &job.held), (&profiling(130), &None));
    job.hold("again".to_owned(), UnixMillis(80));
    let planning = Phase::Planning { resume: None };
    job.advance(planning, UnixMillis(90)).expect("legal");
    assert_eq!(job.held, None);
}

#[test]
fn time_without_an_owner_is_not_counted_twice() {
    let (first, second) = ("a".parse().expect("legal"), "b".parse().expect("legal"));
    let mut job = job();
    let deadline = UnixMillis(100);
    job.advance(Phase::Profiling { deadline }, UnixMillis(0))
        .expect("legal");
    job.claim(&first, UnixMillis(0), UnixMillis(20));
    job.hold("the disk is full".to_owned(), UnixMillis(10));
    job.claim(&second, UnixMillis(50), UnixMillis(70));
    job.release(UnixMillis(60));
    let deadline = UnixMillis(150);
    assert_eq!(job.phase, Phase::Profiling { deadline });
}

#[test]
fn who_joins_stands_among_the_participants_once_in_the_order_of_names() {
    let mut job = job();
    let names = |all: [&str; 3]| all.map(|name| name.parse::<WorkerName>().expect("legal"));
    job.participants = names(["a", "c", "d"]).into();
    job.join(names(["b", "c", "e"]));
    let found: Vec<&str> = job.active().map(WorkerName::as_str).collect();
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_pause_and_the_end_leave_nobody_at_an_earlier_round() {
    let behind = |worker: &str| Behind {
        worker: worker.parse().expect("legal"),
        round: 1,
        epoch: Epoch(1),
        global: ArtifactRef {
            key: "k".to_owned(),
            sha256: Digest::from_bytes(&[1; 32]),
            bytes: 1,
        },
        plan: PlanVersion(1),
    };
    let mut job = job();
    job.late = vec![behind("a"), behind("b")];
    let site = SiteTrouble {
        worker: "a".parse().expect("legal"),
        trouble: Trouble::Unreachable,
        detail: String::new(),
    };
    job.lose(site.clone());
    job.lose(site.clone());
    assert_eq!(job.lost, [site]);
    assert_eq!(job.late, [behind("b")]);
    let mut paused = job.clone();
    paused.pause(UnixMillis(1)).expect("legal");
    assert_eq!(paused.late, []);
    let taken_back = ["a", "b"].map(|worker| Unwanted::from(&behind(worker)));
    assert_eq!(paused.unwanted, taken_back);
    job.advance(Phase::Cancelled, UnixMillis(1)).expect("legal");
    assert_eq!(job.late, []);
}

#[test]
fn a_bad_job_names_every_wrong_field_at_once() {
    let text = r#"{"name":"","model":{},"data":{"dataset":"m"},"adapter":{"rank":64},"rounds":{"count":0}}"#;
    let spec: Spec = serde_json::from_str(text).expect("well-formed");
    let fields: Vec<_> = spec
        .check()
        .expect_err("refused")
        .into_iter()
        .map(|r| r.field)
        .collect();
    assert_eq!(fields, ["name", "model", "adapter.rank", "rounds.count"]);
}

#[test]
fn an_unknown_field_and_a_path_with_dots_are_refused() {
    assert!(
        serde_json::from_str::<Spec>(r#"{"name":"j","model":{},"data":{"dataset":"m"},"ranks":4}"#)
            .is_err()
    );
    let with = |source: &str| {
        let text = r#"{"name":"j","model":{"source":"SOURCE"},"data":{"dataset":"m"}}"#;
        let spec: Spec =
            serde_json::from_str(&text.replace("SOURCE", source)).expect("well-formed");
        spec.check()
    };
    assert!(with("file:///a/../b").is_err());
    assert!(with("file:///a/b").is_ok());
    assert!(with("hf://org/name@v1").is_ok());
    let refused = with("hf://name").expect_err("refused");
    assert!(
        refused
            .iter()
            .all(|r| r.problem.contains("hf://org/name@revision")),
        "{refused:?}"
    );
}
