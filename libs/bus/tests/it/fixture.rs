//! A server, connections in every role, and messages to send.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Bus, Connect};
use contract::Message;
use contract::message::job::{Event, JobEvent};
use contract::message::report::{self, Failed};
use contract::message::task::{Evaluate, Head, ModelRef, Probe};
use contract::permission::Role;
use domain::adapter::Projection;
use domain::artifact::Digest;
use domain::cause::Trouble;
use domain::fleet::{Beat, Registration, Stage};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::spec::{Base, Compute, Importance, Spec, Training};
use domain::job::{Job, Phase};
use domain::time::UnixMillis;
use testkit::nats::{NatsServer, roles};
use testkit::wait;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
pub const SOON: Duration = Duration::from_secs(20);

/// The idle knob of these tests.
pub const ACK_WAIT: Duration = Duration::from_secs(1);

/// A server that knows the control services and two workers, with everything created.
pub struct Site {
    pub server: NatsServer,
    pub api: Bus,
    pub aggregator: Bus,
    pub worker: Bus,
}

impl Site {
    pub async fn open() -> Self {
        Self::on(NatsServer::start(&roles(&["site-a", "site-b"]))).await
    }

    /// The same, where everybody is known by a key and speaks TLS.
    pub async fn open_secured() -> Self {
        Self::on(NatsServer::start_secured(&roles(&["site-a", "site-b"]))).await
    }

    async fn on(server: NatsServer) -> Self {
        let api = connect(&server, &Role::Api).await;
        let token = CancellationToken::new();
        let ready = wait::in_time("the streams exist", SOON, api.ready(&token));
        assert!(ready.await);
        let aggregator = connect(&server, &Role::Aggregator).await;
        for worker in [site_a(), site_b()] {
            aggregator.ensure_worker(&worker, ACK_WAIT).await.unwrap();
        }
        let worker = connect(&server, &Role::Worker(site_a())).await;
        Self {
            server,
            api,
            aggregator,
            worker,
        }
    }
}

/// How a role reaches a server, as its configuration would say it.
pub fn way(server: &NatsServer, role: &Role) -> Connect {
    let url = server.url();
    match server.authority() {
        Some(authority) => {
            provide_tls();
            Connect {
                url,
                seed_file: Some(server.seed_file(role)),
                ca_file: Some(authority.file()),
                ..Connect::default()
            }
        }
        None => {
            let login = server.login(role);
            Connect {
                url,
                user: Some(login.user),
                password: Some(login.password.into()),
                ..Connect::default()
            }
        }
    }
}

/// What a process does once, before its first connection.
pub fn provide_tls() {
    // Invariant: refused only if another test did it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub async fn connect(server: &NatsServer, role: &Role) -> Bus {
    let bus = Bus::connect(&way(server, role), role).await.unwrap();
    wait::until("the bus is connected", SOON, async || bus.is_connected()).await;
    bus
}

pub fn site_a() -> WorkerName {
    "site-a".parse().unwrap()
}

pub fn site_b() -> WorkerName {
    "site-b".parse().unwrap()
}

pub fn job_id(number: u64) -> JobId {
    JobId::from_bits(number)
}

pub fn submitted(job: u64, epoch: u64) -> JobEvent {
    JobEvent {
        job: job_id(job),
        epoch: Epoch(epoch),
        at: UnixMillis(1),
        event: Event::Submitted,
    }
}

pub fn failed(worker: &WorkerName, job: u64, epoch: u64) -> Failed {
    Failed {
        head: report::Head {
            worker: worker.clone(),
            job: job_id(job),
            epoch: Epoch(epoch),
        },
        task: "probe".to_owned(),
        trouble: Trouble::DiskFull,
        detail: "full".to_owned(),
    }
}

pub fn beat(worker: WorkerName, counter: u64) -> Beat {
    Beat {
        worker,
        at: UnixMillis(1),
        stage: Stage::Idle,
        counter,
        progress: None,
        memory_bytes: 0,
        retries: 0,
    }
}

pub fn registration(worker: WorkerName, host: &str) -> Registration {
    Registration {
        worker,
        version: "0.1.0".to_owned(),
        host: host.to_owned(),
        started_at: UnixMillis(1),
        memory_limit_bytes: 1 << 30,
        threads: 1,
        datasets: BTreeMap::new(),
        policy: "every job".to_owned(),
        beat_ms: 3000,
    }
}

pub fn probe(worker: &WorkerName, job: u64, epoch: u64) -> Probe {
    Probe {
        head: Head {
            worker: worker.clone(),
            job: job_id(job),
            epoch: Epoch(epoch),
            submitter: "local".parse().unwrap(),
            model: ModelRef::Path("/models/tiny".to_owned()),
            dataset: "mail".parse().unwrap(),
            expires_at: UnixMillis(u64::MAX),
        },
        targets: vec![Projection::Q],
        rank_max: 8,
        training: Training::default(),
        base: Base::Auto,
        compute: Compute::Auto,
        importance: Importance::Uniform,
        choices: Vec::new(),
        prefix: "probes".to_owned(),
    }
}

/// A task whose bytes are no task at all, on the subject of one.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Garbage {
    pub subject: String,
}

impl Message for Garbage {
    const KIND: &'static str = Evaluate::KIND;
    const VERSION: u16 = 1;

    fn subject(&self) -> String {
        self.subject.clone()
    }
}

pub fn queued(number: u64) -> Job {
    let spec: Spec = serde_json::from_str(
        r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#,
    )
    .unwrap();
    let submission = Digest::from_bytes(&[0; 32]);
    let submitter = "local".parse().unwrap();
    Job::submitted(job_id(number), spec, submission, submitter, UnixMillis(1))
}

/// A job that waits for its plan: the planner's.
pub fn planning(number: u64) -> Job {
    let mut job = queued(number);
    let profiling = Phase::Profiling {
        deadline: UnixMillis(u64::MAX),
    };
    job.advance(profiling, UnixMillis(2)).unwrap();
    let planning = Phase::Planning { resume: None };
    job.advance(planning, UnixMillis(3)).unwrap();
    job
}
