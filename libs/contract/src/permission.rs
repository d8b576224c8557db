//! Who may say and hear what. Generated from here into the NATS configuration, never by hand.

use domain::id::WorkerName;

use crate::subject::{self, PREFIX};
use crate::topology::{self, Bucket, DEAD, JOBS, REPORTS, TASKS};

/// Who a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Takes jobs, shows them, stops them.
    Api,
    /// Admits jobs, measures workers.
    Profiler,
    /// Plans.
    Planner,
    /// Drives rounds.
    Aggregator,
    /// One worker.
    Worker(WorkerName),
}

/// Subjects a role may publish to and subscribe to; everything else is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Allowed for publishing.
    pub publish: Vec<String>,
    /// Allowed for subscribing.
    pub subscribe: Vec<String>,
    /// Whether it may answer questions that it hears, each once, wherever they ask to be answered.
    pub answers: bool,
}

impl Role {
    /// The role's name, which is also its NATS user; a worker's user is `worker-<name>`.
    #[must_use]
    pub fn user(&self) -> String {
        match self {
            Self::Api => "api".to_owned(),
            Self::Profiler => "profiler".to_owned(),
            Self::Planner => "planner".to_owned(),
            Self::Aggregator => "aggregator".to_owned(),
            Self::Worker(worker) => format!("worker-{worker}"),
        }
    }

    /// The role of this user, as [`Role::user`] names it; `None` if nobody can have that name.
    #[must_use]
    pub fn of_user(user: &str) -> Option<Self> {
        let control = [Self::Api, Self::Profiler, Self::Planner, Self::Aggregator];
        let named = control.into_iter().find(|role| role.user() == user);
        let worker = || user.strip_prefix("worker-")?.parse().ok().map(Self::Worker);
        named.or_else(worker)
    }

    /// The inbox prefix: nobody can read another's replies.
    #[must_use]
    pub fn inbox(&self) -> String {
        match self {
            Self::Worker(worker) => subject::inbox(worker),
            control => format!("_INBOX_{}", control.user()),
        }
    }

    /// What the role may say and hear.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        match self {
            Self::Worker(worker) => worker_permissions(worker),
            control => control_permissions(control),
        }
    }
}

fn worker_permissions(worker: &WorkerName) -> Permissions {
    let (tasks, consumer) = (TASKS.name, topology::consumer(worker));
    Permissions {
        publish: vec![
            format!("{PREFIX}.report.{worker}.>"),
            subject::beat(worker),
            subject::grant(worker),
            topology::registration_subject(worker),
            format!("$JS.API.CONSUMER.INFO.{tasks}.{consumer}"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{tasks}.{consumer}"),
            format!("$JS.ACK.{tasks}.{consumer}.>"),
            // Answers to instructions go to the control services' inboxes and nowhere else.
            "_INBOX_api.>".to_owned(),
            "_INBOX_aggregator.>".to_owned(),
        ],
        subscribe: vec![
            format!("{}.>", subject::inbox(worker)),
            subject::control(worker),
        ],
        answers: false,
    }
}

fn control_permissions(role: &Role) -> Permissions {
    let inbox = format!("{}.>", role.inbox());
    let kv = |bucket: Bucket| format!("$KV.{}.>", bucket.name());
    // Reading state, creating streams and consumers is every control service's right.
    let mut publish = vec![
        "$JS.API.>".to_owned(),
        "$JS.ACK.>".to_owned(),
        "$JS.FC.>".to_owned(),
    ];
    publish.extend([kv(Bucket::Jobs), JOBS.filter(), DEAD.filter()]);
    match role {
        // Plans and profiles only to delete them with their job.
        Role::Api => publish.extend([
            kv(Bucket::Plans),
            kv(Bucket::Profiles),
            format!("{PREFIX}.ctl.*"),
        ]),
        Role::Profiler => publish.extend([
            kv(Bucket::Profiles),
            kv(Bucket::Workers),
            format!("{PREFIX}.task.*.*.*.probe"),
        ]),
        Role::Planner => publish.push(kv(Bucket::Plans)),
        _ => publish.extend([TASKS.filter(), format!("{PREFIX}.ctl.*")]),
    }
    let mut subscribe = vec![inbox, subject::beats(), JOBS.filter(), REPORTS.filter()];
    // The api answers what workers ask; the bus answers into the asking worker's own inbox only.
    let answers = *role == Role::Api;
    if answers {
        subscribe.push(subject::grants());
    }
    Permissions {
        publish,
        subscribe,
        answers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_back_as_the_role_it_names() {
        let worker = Role::Worker("api".parse().expect("legal"));
        for role in [
            Role::Api,
            Role::Profiler,
            Role::Planner,
            Role::Aggregator,
            worker,
        ] {
            assert_eq!(Role::of_user(&role.user()), Some(role));
        }
        for user in ["", "worker-", "worker-A b", "wörker", "root", "worker-a.b"] {
            assert_eq!(Role::of_user(user), None, "{user}");
        }
    }

    #[test]
    fn a_worker_may_speak_and_listen_only_under_its_own_name() {
        let worker: WorkerName = "site-a".parse().expect("legal");
        let permissions = Role::Worker(worker).permissions();
        let own = |subject: &String| subject.contains("site-a") || subject.starts_with("_INBOX_a");
        assert!(permissions.publish.iter().all(own), "{permissions:?}");
        assert!(
            permissions.subscribe.iter().all(|s| s.contains("site-a")),
            "{permissions:?}"
        );
    }
}
