use super::*;
use crate::artifact::{ArtifactRef, Digest};
use crate::id::JobId;
use crate::time::UnixMillis;

fn worker(name: &str) -> WorkerName {
    name.parse().expect("legal")
}

fn model(byte: u8) -> Digest {
    Digest::from_bytes(&[byte; 32])
}

/// Job 1 of sites a and b, on model 1.
fn job(phase: Phase) -> Job {
    let text = format!(
        r#"{{"name":"j","model":{{"digest":"{}"}},"data":{{"dataset":"mail"}}}}"#,
        model(1)
    );
    let spec = serde_json::from_str(&text).expect("legal");
    let submitter = "local".parse().expect("legal");
    let mut job = Job::submitted(
        JobId::from_bits(1),
        spec,
        model(0),
        submitter,
        UnixMillis(0),
    );
    job.participants = vec![worker("a"), worker("b")];
    job.phase = phase;
    job
}

fn training() -> Phase {
    Phase::Training {
        round: 2,
        global: ArtifactRef {
            key: "k".to_owned(),
            sha256: model(9),
            bytes: 1,
        },
        opened_at: UnixMillis(0),
        deadline: UnixMillis(9),
        asked: Vec::new(),
    }
}

fn profiling() -> Phase {
    let deadline = UnixMillis(9);
    Phase::Profiling { deadline }
}

/// A key below this prefix.
fn part(prefix: &str) -> String {
    format!("{prefix}/parts/{}", "ab".repeat(32))
}

fn update(job: u64, by: &str, round: u32) -> String {
    part(&object::update_prefix(
        &JobId::from_bits(job),
        &worker(by),
        round,
    ))
}

fn probe(job: u64, by: &str) -> String {
    let prefix = object::probe_prefix(&JobId::from_bits(job), &worker(by));
    format!("{prefix}/probe-0000000000000001/0")
}

fn ask(who: &str, job: Option<&Job>, access: Access, key: String) -> Result<(), Reason> {
    let wanted = Wanted { access, key };
    judge(&worker(who), job, &[wanted]).map_err(|refusal| refusal.reason)
}

#[test]
fn a_worker_reads_what_its_job_learns_from_and_nothing_else() {
    let job = job(training());
    let global = |bits| part(&object::global_prefix(&JobId::from_bits(bits)));
    for access in [Access::Get, Access::Head] {
        let check = |who: &str, key: String| ask(who, Some(&job), access, key);
        assert_eq!(check("a", part(&object::model_prefix(&model(1)))), Ok(()));
        let other = part(&object::model_prefix(&model(2)));
        assert_eq!(check("a", other), Err(Reason::OtherModel));
        assert_eq!(check("a", global(1)), Ok(()));
        assert_eq!(check("a", global(2)), Err(Reason::OtherJob));
        assert_eq!(check("c", global(1)), Err(Reason::NotTakingPart));
    }
    for access in [Access::Put, Access::Delete] {
        let own_model = part(&object::model_prefix(&model(1)));
        for key in [own_model, global(1)] {
            assert_eq!(ask("a", Some(&job), access, key), Err(Reason::NotAllowed));
        }
    }
}

#[test]
fn a_worker_creates_its_own_update_of_the_open_round_and_nothing_else() {
    let open = job(training());
    let check = |access, key| ask("a", Some(&open), access, key);
    assert_eq!(check(Access::Put, update(1, "a", 2)), Ok(()));
    assert_eq!(check(Access::Head, update(1, "a", 2)), Ok(()));
    for access in [Access::Put, Access::Head] {
        assert_eq!(check(access, update(1, "b", 2)), Err(Reason::OtherWorker));
        assert_eq!(check(access, update(2, "a", 2)), Err(Reason::OtherJob));
        assert_eq!(check(access, update(1, "a", 1)), Err(Reason::NotOpen));
        assert_eq!(check(access, update(1, "a", 3)), Err(Reason::NotOpen));
    }
    for access in [Access::Get, Access::Delete] {
        assert_eq!(check(access, update(1, "a", 2)), Err(Reason::NotAllowed));
    }
    let since = UnixMillis(3);
    let paused = Phase::Paused {
        resume: Box::new(training()),
        since,
    };
    for closed in [profiling(), Phase::Planning { resume: None }, paused] {
        let closed = job(closed);
        let asked = ask("a", Some(&closed), Access::Put, update(1, "a", 2));
        assert_eq!(asked, Err(Reason::NotOpen), "{}", closed.phase.name());
    }
}

#[test]
fn a_worker_that_is_not_asked_stores_nothing_and_one_that_is_late_stores_its_earlier_round() {
    let mut open = job(training());
    if let Phase::Training { asked, .. } = &mut open.phase {
        *asked = vec![worker("b")];
    }
    let put = |job: &Job, by: &str, round| ask(by, Some(job), Access::Put, update(1, by, round));
    assert_eq!(put(&open, "a", 2), Err(Reason::NotOpen));
    assert_eq!(put(&open, "b", 2), Ok(()));
    open.late = vec![crate::round::Behind {
        worker: worker("a"),
        round: 1,
        epoch: crate::id::Epoch(3),
        global: ArtifactRef {
            key: "k".to_owned(),
            sha256: model(8),
            bytes: 1,
        },
        plan: crate::plan::PlanVersion(1),
    }];
    assert_eq!(put(&open, "a", 1), Ok(()));
    assert_eq!(put(&open, "a", 2), Err(Reason::NotOpen));
    assert_eq!(put(&open, "b", 1), Err(Reason::NotOpen));
    // Also while the round after its own is merged or scored.
    open.phase = Phase::Evaluating {
        round: 1,
        global: ArtifactRef {
            key: "k".to_owned(),
            sha256: model(8),
            bytes: 1,
        },
        deadline: UnixMillis(9),
    };
    assert_eq!(put(&open, "a", 1), Ok(()));
}

#[test]
fn a_worker_measures_its_own_link_while_its_job_is_measured() {
    let measured = job(profiling());
    for access in [Access::Get, Access::Put, Access::Delete] {
        assert_eq!(ask("a", Some(&measured), access, probe(1, "a")), Ok(()));
        let check = |job: &Job, key| ask("a", Some(job), access, key);
        assert_eq!(check(&measured, probe(1, "b")), Err(Reason::OtherWorker));
        assert_eq!(check(&measured, probe(2, "a")), Err(Reason::OtherJob));
        assert_eq!(check(&job(training()), probe(1, "a")), Err(Reason::NotOpen));
    }
}

#[test]
fn a_job_that_has_ended_or_never_was_grants_nothing() {
    let ended = job(Phase::Cancelled);
    let key = || part(&object::model_prefix(&model(1)));
    assert_eq!(
        ask("a", Some(&ended), Access::Get, key()),
        Err(Reason::JobEnded)
    );
    assert_eq!(ask("a", None, Access::Get, key()), Err(Reason::NoJob));
}

#[test]
fn anybody_may_learn_whether_storage_is_reached() {
    let check = |access| ask("stranger", None, access, object::REACH.to_owned());
    assert_eq!(check(Access::Head), Ok(()));
    for access in [Access::Get, Access::Put, Access::Delete] {
        assert_eq!(check(access), Err(Reason::NotAllowed));
    }
}

#[test]
fn one_object_that_is_refused_refuses_the_batch_and_is_named() {
    let open = job(training());
    let wanted = |key: String| Wanted {
        access: Access::Put,
        key,
    };
    let batch = [wanted(update(1, "a", 2)), wanted("../secret".to_owned())];
    let refusal = judge(&worker("a"), Some(&open), &batch).expect_err("refused");
    assert_eq!(refusal, Refusal::of("../secret", Reason::NotAKey));
    let many = vec![wanted(update(1, "a", 2)); BATCH + 1];
    let refusal = judge(&worker("a"), Some(&open), &many).expect_err("refused");
    assert_eq!(refusal.reason, Reason::TooMany);
}

#[test]
fn a_signed_url_is_not_printed() {
    let url = SignedUrl::from("https://s3/b/k?X-Amz-Signature=abc".to_owned());
    assert!(!format!("{url:?}").contains("Signature"));
}

#[test]
fn reasons_are_spelled_as_released() {
    let released = [
        (Reason::NoJob, "no_job"),
        (Reason::NotTakingPart, "not_taking_part"),
        (Reason::JobEnded, "job_ended"),
        (Reason::NotAKey, "not_a_key"),
        (Reason::OtherJob, "other_job"),
        (Reason::OtherWorker, "other_worker"),
        (Reason::OtherModel, "other_model"),
        (Reason::NotOpen, "not_open"),
        (Reason::NotAllowed, "not_allowed"),
        (Reason::TooMany, "too_many"),
        (Reason::NoUrls, "no_urls"),
        (Reason::Unreadable, "unreadable"),
    ];
    for (reason, text) in released {
        let written = serde_json::to_value(reason).expect("JSON");
        assert_eq!(written, text);
    }
}
