//! Who may say what: everything they must, nothing of others.

use contract::Message;
use contract::permission::Role;
use contract::subject;
use contract::topology::{self, Bucket};
use domain::id::WorkerName;

use crate::samples;

/// Whether a NATS subject is covered by a filter with `*` (one token) and `>` (the rest).
pub fn matches(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[test]
fn the_matcher_of_these_tests_knows_the_rules() {
    for (filter, subject, expected) in [
        ("a.b", "a.b", true),
        ("a.*", "a.b", true),
        ("a.*", "a.b.c", false),
        ("a.*", "a", false),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        (">", "a.b", true),
        ("a.*.c", "a.b.c", true),
        ("a.b", "a.b.c", false),
    ] {
        assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
    }
}

fn other() -> WorkerName {
    "site-b".parse().unwrap()
}

fn may_publish(role: &Role, subject: &str) -> bool {
    let allowed = role.permissions().publish;
    allowed.iter().any(|filter| matches(filter, subject))
}

fn may_hear(role: &Role, subject: &str) -> bool {
    let allowed = role.permissions().subscribe;
    allowed.iter().any(|filter| matches(filter, subject))
}

fn own() -> Role {
    Role::Worker(samples::worker())
}

/// Every kind of message: its subject, and who says it.
fn who_says_what() -> Vec<(&'static str, String, Vec<Role>)> {
    fn said<M: Message>(message: &M, by: &[Role]) -> (&'static str, String, Vec<Role>) {
        (M::KIND, message.subject(), by.to_vec())
    }
    let control = [Role::Api, Role::Profiler, Role::Planner, Role::Aggregator];
    let [probe, _] = samples::probes();
    let [order, _] = samples::controls();
    let [beat, _] = samples::beats();
    let mut all: Vec<_> = samples::events()
        .iter()
        .map(|event| said(event, &control))
        .collect();
    all.extend([
        said(&probe, &[Role::Profiler, Role::Aggregator]),
        said(&samples::train(), &[Role::Aggregator]),
        said(&samples::evaluate(), &[Role::Aggregator]),
        said(&samples::probed(), &[own()]),
        said(&samples::updated(), &[own()]),
        said(&samples::walked(), &[own()]),
        said(&samples::evaluated(), &[own()]),
        said(&samples::failed(), &[own()]),
        said(&order, &[Role::Api, Role::Aggregator]),
        said(&beat, &[own()]),
        said(&samples::ask(), &[own()]),
        said(&samples::dead_letter(), &control),
    ]);
    all
}

#[test]
fn each_message_may_be_said_by_who_says_it_and_by_nobody_else() {
    let roles = [
        Role::Api,
        Role::Profiler,
        Role::Planner,
        Role::Aggregator,
        own(),
        Role::Worker(other()),
    ];
    for (kind, subject, by) in who_says_what() {
        for role in &roles {
            assert_eq!(
                may_publish(role, &subject),
                by.contains(role),
                "{kind} on {subject} by {}",
                role.user()
            );
        }
    }
}

#[test]
fn every_kind_of_the_table_is_judged_here() {
    let judged: Vec<&str> = who_says_what().into_iter().map(|(kind, ..)| kind).collect();
    for (kind, _) in contract::table::kinds() {
        // A reply goes to an inbox: see the tests of answers.
        let is_reply = kind.ends_with("-reply");
        assert!(judged.contains(&kind) || is_reply, "{kind}");
    }
}

#[test]
fn a_worker_takes_its_own_tasks_and_registers_itself_alone() {
    for (worker, expected) in [(samples::worker(), true), (other(), false)] {
        let consumer = topology::consumer(&worker);
        for subject in [
            format!("$JS.API.CONSUMER.MSG.NEXT.FEDPIPE_TASKS.{consumer}"),
            format!("$JS.API.CONSUMER.INFO.FEDPIPE_TASKS.{consumer}"),
            format!("$JS.ACK.FEDPIPE_TASKS.{consumer}.1.2.3.4.0"),
            topology::registration_subject(&worker),
        ] {
            assert_eq!(may_publish(&own(), &subject), expected, "{subject}");
        }
        for subject in [
            subject::control(&worker),
            format!("{}.reply", subject::inbox(&worker)),
        ] {
            assert_eq!(may_hear(&own(), &subject), expected, "{subject}");
        }
    }
}

#[test]
fn a_worker_reaches_no_state_no_stream_and_no_other_inbox() {
    for subject in [
        "$KV.fedpipe_jobs.job_0123456789abcdef",
        "$JS.API.STREAM.DELETE.FEDPIPE_TASKS",
        "$JS.API.STREAM.PURGE.FEDPIPE_TASKS",
        "$JS.API.STREAM.MSG.GET.KV_fedpipe_jobs",
        "$JS.API.DIRECT.GET.KV_fedpipe_jobs.$KV.fedpipe_jobs.x",
        "$JS.API.CONSUMER.CREATE.FEDPIPE_REPORTS",
        "$JS.API.CONSUMER.DELETE.FEDPIPE_TASKS.worker-site-a",
        "fedpipe.v1.dead.worker.x",
    ] {
        assert!(!may_publish(&own(), subject), "{subject}");
    }
    let named_like_a_service = Role::Worker("api".parse().unwrap());
    for role in [own(), named_like_a_service] {
        for heard in [Role::Api, Role::Profiler, Role::Planner, Role::Aggregator] {
            let reply = format!("{}.reply", heard.inbox());
            assert!(!may_hear(&role, &reply), "{} hears {reply}", role.user());
        }
    }
}

#[test]
fn whoever_gives_orders_hears_the_answers() {
    for role in [Role::Api, Role::Aggregator] {
        let reply = format!("{}.abc.1", role.inbox());
        assert!(may_publish(&own(), &reply));
        assert!(may_hear(&role, &reply));
    }
}

#[test]
fn questions_for_urls_are_heard_and_answered_by_the_api_alone() {
    let question = samples::ask().subject();
    for role in [Role::Profiler, Role::Planner, Role::Aggregator, own()] {
        assert!(!may_hear(&role, &question), "{}", role.user());
        assert!(!role.permissions().answers, "{}", role.user());
    }
    assert!(may_hear(&Role::Api, &question));
    assert!(Role::Api.permissions().answers);
    // It answers questions; it says nothing to a worker that did not ask.
    let inbox = format!("{}.x", subject::inbox(&samples::worker()));
    assert!(!may_publish(&Role::Api, &inbox));
}

#[test]
fn each_bucket_is_written_by_its_owners() {
    let writers = [
        (
            Bucket::Jobs,
            vec![Role::Api, Role::Profiler, Role::Planner, Role::Aggregator],
        ),
        (Bucket::Plans, vec![Role::Api, Role::Planner]),
        (Bucket::Profiles, vec![Role::Api, Role::Profiler]),
    ];
    for (bucket, by) in writers {
        let subject = format!("$KV.{}.key", bucket.name());
        for role in [
            Role::Api,
            Role::Profiler,
            Role::Planner,
            Role::Aggregator,
            own(),
        ] {
            let allowed = may_publish(&role, &subject);
            assert_eq!(allowed, by.contains(&role), "{subject} by {}", role.user());
        }
    }
}
