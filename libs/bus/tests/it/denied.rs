//! What a worker's credentials cannot do. Each attempt is made on the wire, past the bus, and judged by
//! its effect; beside it stands the same request by somebody who may make it. Everybody is known by a
//! key, and speaks TLS.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use bus::fleet::Fleet;
use bus::{Said, Store};
use contract::Message;
use contract::message::control::{Control, Order, Reply};
use contract::message::report::Failed;
use contract::permission::Role;
use contract::subject;
use contract::topology::{self, Bucket, TASKS};
use domain::fleet::Registration;
use domain::id::{Epoch, WorkerName};
use domain::time::UnixMillis;
use futures::StreamExt;
use testkit::nats::NatsServer;
use testkit::wait;

use crate::fixture::{
    SOON, Site, beat, connect, failed, job_id, probe, provide_tls, registration, site_a, site_b,
    submitted,
};

/// Ample for an answer on one machine, where none must come.
const MOMENT: Duration = Duration::from_millis(400);

/// Somebody with the credentials of this role and a client of their own.
pub async fn raw(server: &NatsServer, role: &Role) -> Client {
    let options = match server.authority() {
        Some(authority) => {
            provide_tls();
            let seed = std::fs::read_to_string(server.seed_file(role)).unwrap();
            ConnectOptions::with_nkey(seed).add_root_certificates(authority.file())
        }
        None => {
            let login = server.login(role);
            ConnectOptions::with_user_and_password(login.user, login.password)
        }
    };
    options
        .custom_inbox_prefix(role.inbox())
        .connect(server.url())
        .await
        .unwrap()
}

/// Returns when the server has judged everything that was sent before.
async fn judged(client: &Client, worker: &WorkerName) {
    let (tasks, consumer) = (TASKS.name, topology::consumer(worker));
    let info = format!("$JS.API.CONSUMER.INFO.{tasks}.{consumer}");
    client.request(info, "".into()).await.unwrap();
}

/// Sends bytes as site-a; returns when the server has judged them.
async fn send<M: Message>(client: &Client, message: &M) {
    send_on(client, message.subject(), message).await;
}

/// The same, wherever the message belongs.
async fn send_on<M: Message>(client: &Client, subject: String, message: &M) {
    let payload = contract::encode(message).unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Fedpipe-Kind", M::KIND);
    headers.insert("Fedpipe-Version", M::VERSION.to_string());
    let sent = client.publish_with_headers(subject, headers, payload.into());
    sent.await.unwrap();
    judged(client, &site_a()).await;
}

/// Whether the request is answered with something else than an error within this time.
async fn answered(
    client: &Client,
    subject: String,
    payload: &'static str,
    within: Duration,
) -> bool {
    // A task comes under its own subject, so the client's own requests would not know it.
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let request = client.publish_with_reply(subject, inbox, payload.into());
    request.await.unwrap();
    match tokio::time::timeout(within, answers.next()).await {
        Ok(Some(answer)) => {
            let refused = String::from_utf8_lossy(&answer.payload).contains("\"error\"");
            !refused && answer.status.is_none()
        }
        _ => false,
    }
}

#[tokio::test]
async fn to_speak_for_another_worker() {
    let site = Site::open_secured().await;
    let intruder = raw(&site.server, &Role::Worker(site_a())).await;
    let mut beats = site.api.beats().await.unwrap();
    site.api.round_trip().await.unwrap();

    send(&intruder, &failed(&site_b(), 1, 1)).await;
    send(&intruder, &failed(&site_a(), 1, 1)).await;
    let read = async |worker| {
        let job = job_id(1);
        let read = site.aggregator.report::<Failed>(&worker, &job, Epoch(1));
        read.await.unwrap().read()
    };
    let heard = async || read(site_a()).await.is_some();
    wait::until("its own report is heard", SOON, heard).await;
    assert_eq!(read(site_b()).await, None);

    for worker in [site_b(), site_a()] {
        send(&intruder, &beat(worker, 0)).await;
    }
    let first = wait::in_time("a beat arrives", SOON, beats.next()).await;
    assert_eq!(first.unwrap().worker, site_a());

    for worker in [site_b(), site_a()] {
        let subject = topology::registration_subject(&worker);
        intruder.publish(subject, "1".into()).await.unwrap();
    }
    judged(&intruder, &site_a()).await;
    let registered: Store<u32> = site.api.store(Bucket::Workers).await.unwrap();
    let keys = wait::some("its own registration is stored", SOON, async || {
        let keys = registered.keys().await.unwrap();
        (!keys.is_empty()).then_some(keys)
    });
    assert_eq!(keys.await, ["site-a"]);
}

/// Writes this registration under site-a's key; returns when the server has judged it.
async fn register(client: &Client, registration: &Registration) {
    let subject = topology::registration_subject(&site_a());
    let value = serde_json::to_vec(registration).unwrap();
    client.publish(subject, value.into()).await.unwrap();
    judged(client, &site_a()).await;
}

/// Returns when the worker is registered.
async fn known(fleet: &Fleet, worker: WorkerName) {
    let is_known = async || fleet.member(&worker).is_some();
    wait::until("it is registered", SOON, is_known).await;
}

#[tokio::test]
async fn to_speak_for_another_worker_where_it_speaks_for_itself() {
    let site = Site::open_secured().await;
    let intruder = raw(&site.server, &Role::Worker(site_a())).await;
    let other = connect(&site.server, &Role::Worker(site_b())).await;
    other.register(&registration(site_b(), "b")).await.unwrap();
    let fleet = Fleet::watch(&site.aggregator, || UnixMillis(1));
    let host = |worker| fleet.member(&worker).map(|one| one.registration.host);
    let heard = |worker| Some(fleet.member(&worker)?.beat?.0.counter);
    known(&fleet, site_b()).await;

    register(&intruder, &registration(site_b(), "stolen")).await;
    let nobody = "site-c".parse().unwrap();
    register(&intruder, &registration(nobody, "made up")).await;
    register(&intruder, &registration(site_a(), "a")).await;
    known(&fleet, site_a()).await;
    assert_eq!(host(site_b()).as_deref(), Some("b"));
    assert_eq!(fleet.members().len(), 2);
    // In another's name again, it is as good as gone, and nobody else is.
    register(&intruder, &registration(site_b(), "stolen")).await;
    let gone = async || host(site_a()).is_none();
    wait::until("it has no registration any more", SOON, gone).await;
    assert_eq!(host(site_b()).as_deref(), Some("b"));
    register(&intruder, &registration(site_a(), "a")).await;
    known(&fleet, site_a()).await;

    // The second time the fleet was listening before either was said.
    for counter in [1, 2] {
        wait::until("its own beat is heard", SOON, async || {
            for worker in [site_b(), site_a()] {
                let subject = subject::beat(&site_a());
                send_on(&intruder, subject, &beat(worker, counter)).await;
            }
            heard(site_a()) == Some(counter)
        })
        .await;
    }
    assert_eq!(heard(site_b()), None);
}

#[tokio::test]
async fn to_speak_for_the_control_services() {
    let site = Site::open_secured().await;
    let intruder = raw(&site.server, &Role::Worker(site_a())).await;
    let other = connect(&site.server, &Role::Worker(site_b())).await;
    let mut orders = other.orders(&site_b()).await.unwrap();
    other.round_trip().await.unwrap();

    // Said only once: whoever comes second finds it said.
    send(&intruder, &submitted(1, 1)).await;
    let said = site.api.publish(&submitted(1, 1), None).await;
    assert_eq!(said.unwrap(), Said::Now);
    for worker in [site_a(), site_b()] {
        send(&intruder, &probe(&worker, 1, 1)).await;
        let said = site.aggregator.publish(&probe(&worker, 1, 1), None).await;
        assert_eq!(said.unwrap(), Said::Now);
    }

    let order = |below| Control {
        worker: site_b(),
        order: Order::Cancel {
            job: job_id(1),
            below,
        },
    };
    send(&intruder, &order(Epoch(666))).await;
    let real = order(Epoch(2));
    let (_, first) = tokio::join!(site.api.order(&real), async {
        let first = orders.next().await.unwrap();
        let control = first.control.clone();
        let reply = Reply {
            worker: site_b(),
            stopped: false,
        };
        first.answer(&reply).await.unwrap();
        control
    });
    assert_eq!(first, real);

    let jobs: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    intruder
        .publish("$KV.fedpipe_jobs.k", "1".into())
        .await
        .unwrap();
    judged(&intruder, &site_a()).await;
    assert_eq!(jobs.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn to_read_state_reports_or_another_workers_tasks() {
    let site = Site::open_secured().await;
    let jobs: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    jobs.put("k", &1).await.unwrap();
    let report = failed(&site_b(), 1, 1);
    let other = connect(&site.server, &Role::Worker(site_b())).await;
    other.publish(&report, None).await.unwrap();
    for worker in [site_a(), site_b()] {
        site.aggregator
            .publish(&probe(&worker, 1, 1), None)
            .await
            .unwrap();
    }
    let intruder = raw(&site.server, &Role::Worker(site_a())).await;
    let control = raw(&site.server, &Role::Aggregator).await;
    let next = |worker| {
        let consumer = topology::consumer(&worker);
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", TASKS.name)
    };
    assert!(
        answered(&intruder, next(site_a()), "1", SOON).await,
        "its own task"
    );
    let requests = [
        (
            "$JS.API.DIRECT.GET.KV_fedpipe_jobs.$KV.fedpipe_jobs.k".to_owned(),
            "",
        ),
        (
            "$JS.API.STREAM.MSG.GET.KV_fedpipe_jobs".to_owned(),
            r#"{"last_by_subj":"$KV.fedpipe_jobs.k"}"#,
        ),
        (
            format!("$JS.API.DIRECT.GET.FEDPIPE_REPORTS.{}", report.subject()),
            "",
        ),
        (
            format!(
                "$JS.API.DIRECT.GET.FEDPIPE_TASKS.{}",
                probe(&site_b(), 1, 1).subject()
            ),
            "",
        ),
        ("$JS.API.STREAM.INFO.FEDPIPE_TASKS".to_owned(), ""),
        ("$JS.API.STREAM.PURGE.FEDPIPE_REPORTS".to_owned(), ""),
        (next(site_b()), "1"),
    ];
    for (subject, payload) in requests {
        let allowed = answered(&intruder, subject.clone(), payload, MOMENT).await;
        assert!(!allowed, "a worker is answered on {subject}");
        let possible = answered(&control, subject.clone(), payload, SOON).await;
        assert!(
            possible,
            "nobody is answered on {subject}: the test proves nothing"
        );
    }
}

#[tokio::test]
async fn to_listen_to_others() {
    let site = Site::open_secured().await;
    let other = connect(&site.server, &Role::Worker(site_b())).await;
    let mut orders = other.orders(&site_b()).await.unwrap();
    other.round_trip().await.unwrap();
    let intruder = raw(&site.server, &Role::Worker(site_a())).await;
    let mut overheard = futures::stream::SelectAll::new();
    for subject in [
        ">".to_owned(),
        "fedpipe.v1.>".to_owned(),
        "$KV.>".to_owned(),
        subject::control(&site_b()),
        subject::tasks_of(&site_b()),
        format!("{}.>", Role::Api.inbox()),
        format!("{}.>", Role::Worker(site_b()).inbox()),
        "_INBOX.>".to_owned(),
    ] {
        overheard.push(intruder.subscribe(subject).await.unwrap());
    }
    judged(&intruder, &site_a()).await;

    let jobs: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    jobs.put("k", &1).await.unwrap();
    site.aggregator
        .publish(&probe(&site_b(), 1, 1), None)
        .await
        .unwrap();
    other.publish(&failed(&site_b(), 1, 1), None).await.unwrap();
    let order = Control {
        worker: site_b(),
        order: Order::Ping,
    };
    let reply = Reply {
        worker: site_b(),
        stopped: false,
    };
    let (answer, ()) = tokio::join!(site.api.order(&order), async {
        orders.next().await.unwrap().answer(&reply).await.unwrap();
    });
    assert_eq!(answer.unwrap(), reply);
    judged(&intruder, &site_a()).await;
    wait::never("a worker overhears others", MOMENT, overheard.next()).await;
}

#[tokio::test]
async fn to_listen_to_a_control_service_by_taking_its_name() {
    let workers = testkit::nats::roles(&["api"]);
    let server = NatsServer::start_secured(&workers);
    let named: WorkerName = "api".parse().unwrap();
    let role = Role::Worker(named.clone());
    let seed = |role| std::fs::read(server.seed_file(role)).unwrap();
    assert_ne!(seed(&role), seed(&Role::Api));
    let intruder = raw(&server, &role).await;
    let inbox = format!("{}.>", Role::Api.inbox());
    let mut overheard = intruder.subscribe(inbox).await.unwrap();
    let api = connect(&server, &Role::Api).await;
    api.ensure_topology().await.unwrap();
    judged(&intruder, &named).await;
    api.ensure_topology().await.unwrap();
    wait::never("a worker overhears the api", MOMENT, overheard.next()).await;
}
