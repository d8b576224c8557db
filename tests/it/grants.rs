//! Sites without credentials: whole jobs on S3 through URLs that the api signs, and sites that ask for
//! more than is theirs.

use std::time::Duration;

use bus::{Bus, Connect};
use chassis::failpoint::Failpoint;
use contract::message::grant::{Answer, Ask};
use contract::permission::Role;
use contract::{Message, encode};
use domain::artifact::Digest;
use domain::grant::{Access, Reason, Wanted};
use domain::id::WorkerName;
use domain::object;
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, scored, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Cloud, Fleet, Setup, Site, Wire};
use tokio::process::Command;

const END: Duration = Duration::from_secs(60);

/// Long enough for a message to arrive that is on its way.
const MOMENT: Duration = Duration::from_secs(1);

/// On the tiny model, by digest.
async fn by_digest(fleet: &Fleet, cloud: &Cloud, job: Value) -> Value {
    let digest = cloud.push_model(fleet).await;
    with(job, "model", json!({"digest": digest}))
}

#[tokio::test]
async fn sites_without_credentials_do_a_whole_job_on_s3_although_their_urls_expire_on_the_way() {
    let cloud = Cloud::start("[urls]\nvalid_seconds = 1");
    let mut setup = Setup::sites(2);
    setup.idle = Duration::from_secs(5);
    // The update alone takes longer than a URL lives.
    setup.sites[0] = Site::new("a").line("bandwidth_limit = 40000");
    let fleet = Fleet::start(&cloud.under(setup)).await;
    for name in ["worker-a", "worker-b"] {
        let file = fleet.state().join(format!("config/{name}.toml"));
        let text = std::fs::read_to_string(file).unwrap();
        for secret in [
            "s3://",
            "access_key",
            "secret_key",
            &cloud.server.secret_key,
        ] {
            assert!(!text.contains(secret), "{name} is told {secret}:\n{text}");
        }
    }
    let wire = Wire::tap(&fleet).await;
    let mut asks = wire.hear("fedpipe.v1.grant.a").await;
    let job = by_digest(&fleet, &cloud, scored(&fleet.model())).await;
    let all = ["q", "k", "v", "o", "gate", "up", "down"];
    let large = json!({"targets": all, "rank": 16, "rank_max": 16, "alpha": 16.0});
    let job = with(job, "adapter", large);
    let id = fleet.api().submit(&job).await;
    fleet.api().succeeded(&id, END).await;

    let rounds = fleet.api().rounds(&id).await;
    for round in &rounds[1..] {
        let workers = round["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 2, "{round:#}");
        for worker in workers {
            assert!(
                worker["metrics"]["bytes_up"].as_u64().unwrap() > 0,
                "{worker:#}"
            );
        }
        eprintln!(
            "overhead through URLs of a second: {} s",
            round["overhead_seconds"]
        );
    }
    let mut puts: Vec<String> = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, asks.next()).await {
        let ask: Ask = read(&message);
        let put = ask
            .wanted
            .into_iter()
            .filter(|one| one.access == Access::Put);
        puts.extend(
            put.map(|one| one.key)
                .filter(|key| key.contains("/updates/")),
        );
    }
    let asked = puts.len();
    puts.sort();
    puts.dedup();
    assert!(
        asked > puts.len(),
        "no URL was renewed: {asked} for {puts:?}"
    );
}

fn read(message: &async_nats::Message) -> Ask {
    contract::decode(Some(Ask::KIND), Some("1"), &message.payload).unwrap()
}

#[tokio::test]
async fn whoever_signs_may_be_killed_at_any_moment_and_the_adapter_is_the_same() {
    let cloud = Cloud::start("");
    let setup = cloud.under(Setup::sites(2));
    let replay = Replay::prepare(&setup, async |fleet| {
        by_digest(fleet, &cloud, job(&fleet.model())).await
    })
    .await;
    let fleet = &replay.fleet;

    // Decided and signed, and never answered.
    let point = Failpoint::ApiGrantBeforeAnswer;
    let old = fleet.pid("api");
    let disturbed = replay.begin().await;
    fleet.points().arm(point, Fate::Killed);
    fleet.points().reached(point, Fate::Killed, END).await;
    fleet.back("api", old).await;
    replay.end(&disturbed).await.unwrap();

    // While an update is on its way, and still gone when the worker goes on.
    let point = Failpoint::WorkerTrainWhileUploading;
    fleet.points().arm(point, Fate::Halted);
    let disturbed = replay.begin().await;
    fleet.points().reached(point, Fate::Halted, END).await;
    fleet.kill("api");
    fleet.all_go_on();
    replay.end(&disturbed).await.unwrap();
}

/// A fleet of two sites; job B was done by b alone, job A is held while a and b train.
struct Held {
    fleet: Fleet,
    cloud: Cloud,
    job_a: String,
    job_b: String,
    model: String,
}

impl Held {
    async fn hold() -> Self {
        let cloud = Cloud::start("");
        let mut setup = Setup::sites(2);
        setup.idle = Duration::from_secs(20);
        let data = tempfile::tempdir().unwrap();
        let mails = testkit::data::mails(data.path(), "b", 24, 2).unwrap();
        let train = mails.train.display();
        // Site b alone has the second data set.
        setup.sites[1] =
            Site::new("b").line(&format!("[workers.datasets.other]\ntrain = \"{train}\"\n"));
        let fleet = Fleet::start(&cloud.under(setup)).await;
        let model = cloud.push_model(&fleet).await;
        let job = with(job(&fleet.model()), "model", json!({"digest": model}));
        let job = with(job, "rounds", json!({"count": 1, "quorum": 1}));
        let job_b = with(job.clone(), "data", json!({"dataset": "other"}));
        let job_b = fleet.api().submit(&job_b).await;
        fleet.api().succeeded(&job_b, END).await;
        let point = Failpoint::WorkerTrainAfterFirstStep;
        fleet.points().arm(point, Fate::Halted);
        let job_a = fleet.api().submit(&job).await;
        fleet.points().reached(point, Fate::Halted, END).await;
        fleet.api().phase(&job_a, "training", END).await;
        Self {
            fleet,
            cloud,
            job_a,
            job_b,
            model,
        }
    }

    async fn worker(&self, name: &str) -> Bus {
        let user = format!("worker-{name}");
        let connect = Connect {
            url: self.fleet.nats_url(),
            password: Some(self.fleet.password(&user).into()),
            user: Some(user),
            ..Connect::default()
        };
        let role = Role::Worker(name.parse().unwrap());
        Bus::connect(&connect, &role).await.unwrap()
    }

    fn ask(&self, who: &str, job: &str, access: Access, key: &str) -> Ask {
        let key = key.to_owned();
        Ask {
            worker: who.parse().unwrap(),
            job: Some(job.parse().unwrap()),
            wanted: vec![Wanted { access, key }],
        }
    }

    /// The untrained adapter of a job, which is there.
    async fn global(&self, job: &str) -> String {
        let rounds = self.fleet.api().rounds(job).await;
        let digest: Digest = rounds[0]["adapter"]["sha256"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let prefix = object::global_prefix(&job.parse().unwrap());
        let key = format!("{prefix}/{}.manifest", digest.hex());
        assert!(self.cloud.owner().exists(&key).await.unwrap(), "{key}");
        key
    }
}

#[tokio::test]
async fn a_site_reaches_what_its_job_needs_and_nothing_of_others() {
    let held = Held::hold().await;
    let (a, job_a, job_b) = (held.worker("a").await, &held.job_a, &held.job_b);
    let hex = "ab".repeat(32);
    let (global_a, global_b) = (held.global(job_a).await, held.global(job_b).await);
    let model = object::model_prefix(&held.model.parse().unwrap());
    let model = format!("{model}/manifest");
    let update = |job: &str, who: &str, round: u32| {
        let worker: WorkerName = who.parse().unwrap();
        let prefix = object::update_prefix(&job.parse().unwrap(), &worker, round);
        format!("{prefix}/{hex}.manifest")
    };

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (access, key) in [
        (Access::Get, &model),
        (Access::Get, &global_a),
        (Access::Put, &update(job_a, "a", 1)),
    ] {
        let answer = a.ask(&held.ask("a", job_a, access, key)).await.unwrap();
        let Answer::Granted { urls, .. } = answer else {
            panic!("{key}: {answer:?}");
        };
        let [url] = urls.as_slice() else {
            panic!("{key}: {urls:?}");
        };
        if access == Access::Get {
            let got = http.get(url.reveal()).send().await.unwrap();
            assert_eq!(got.status(), StatusCode::OK, "{key}");
        }
        let bare = format!(
            "{}/{}/{key}",
            held.cloud.server.endpoint, held.cloud.server.bucket
        );
        let got = http.get(bare).send().await.unwrap();
        assert_eq!(got.status(), StatusCode::FORBIDDEN, "{key} without a URL");
    }

    let other_model = format!("models/{hex}/manifest");
    let no_job = domain::id::JobId::from_bits(1).to_string();
    let escape = format!("jobs/{job_a}/updates/a/1/../../b/1/{hex}.manifest");
    let report = format!("jobs/{job_a}/report/{hex}.manifest");
    let probe = format!("jobs/{job_a}/probes/a/probe-0000000000000001/0");
    for (job, access, key, reason) in [
        (job_b, Access::Get, &global_b, Reason::NotTakingPart),
        (job_b, Access::Get, &model, Reason::NotTakingPart),
        (job_a, Access::Get, &global_b, Reason::OtherJob),
        (job_a, Access::Put, &update(job_b, "a", 1), Reason::OtherJob),
        (
            job_a,
            Access::Put,
            &update(job_a, "b", 1),
            Reason::OtherWorker,
        ),
        (
            job_a,
            Access::Head,
            &update(job_a, "b", 1),
            Reason::OtherWorker,
        ),
        (job_a, Access::Put, &update(job_a, "a", 2), Reason::NotOpen),
        (
            job_a,
            Access::Get,
            &update(job_a, "a", 1),
            Reason::NotAllowed,
        ),
        (
            job_a,
            Access::Delete,
            &update(job_a, "a", 1),
            Reason::NotAllowed,
        ),
        (job_a, Access::Put, &global_a, Reason::NotAllowed),
        (job_a, Access::Put, &model, Reason::NotAllowed),
        (job_a, Access::Get, &other_model, Reason::OtherModel),
        (job_a, Access::Put, &probe, Reason::NotOpen),
        (job_a, Access::Put, &escape, Reason::NotAKey),
        (job_a, Access::Get, &report, Reason::NotAKey),
        (job_a, Access::Get, &"..".to_owned(), Reason::NotAKey),
        (&no_job, Access::Get, &model, Reason::NoJob),
    ] {
        let answer = a.ask(&held.ask("a", job, access, key)).await.unwrap();
        let Answer::Refused(refusal) = &answer else {
            panic!("{access:?} {key}: {answer:?}");
        };
        assert_eq!((refusal.reason, &refusal.key), (reason, key), "{access:?}");
    }
    // Once its job has ended, a site has no part in it any more.
    let b = held.worker("b").await;
    let answer = b
        .ask(&held.ask("b", job_b, Access::Get, &global_b))
        .await
        .unwrap();
    assert!(is_refused(&answer, Reason::JobEnded), "{answer:?}");
}

fn is_refused(answer: &Answer, reason: Reason) -> bool {
    matches!(answer, Answer::Refused(refusal) if refusal.reason == reason)
}

#[tokio::test]
async fn a_site_that_asks_under_another_sites_name_is_not_heard_and_one_that_points_elsewhere_not_answered()
 {
    let held = Held::hold().await;
    let wire = Wire::tap(&held.fleet).await;
    let mut heard = wire.hear("fedpipe.v1.grant.b").await;
    let elsewhere = "fedpipe.v1.task.b.x.1.train";
    let mut tasks = wire.hear(elsewhere).await;
    let options = async_nats::ConnectOptions::new()
        .user_and_password("worker-a".to_owned(), held.fleet.password("worker-a"))
        .custom_inbox_prefix("_INBOX_worker-a");
    let intruder = options.connect(held.fleet.nats_url()).await.unwrap();
    let mut answers = intruder
        .subscribe("_INBOX_worker-a.intruder.*")
        .await
        .unwrap();
    let global = held.global(&held.job_a).await;
    let say = async |who: &str, named: &str, reply: &str| {
        let ask = held.ask(named, &held.job_a, Access::Get, &global);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(contract::envelope::KIND_HEADER, Ask::KIND);
        headers.insert(contract::envelope::VERSION_HEADER, "1");
        let (subject, payload) = (format!("fedpipe.v1.grant.{who}"), encode(&ask).unwrap());
        let reply = reply.to_owned();
        let sent = intruder.publish_with_reply_and_headers(subject, reply, headers, payload.into());
        sent.await.unwrap();
        intruder.flush().await.unwrap();
    };
    // Every question has a reply subject of its own, as a client's have: the server lets one be used once.
    // The real site's own answers arrive under the same prefix.
    say("b", "b", "_INBOX_worker-a.intruder.1").await;
    wait::never("the server lets it speak for b", MOMENT, heard.next()).await;
    // On its own subject, as somebody else; and as itself, to be answered where the api may speak and it may not.
    say("a", "b", "_INBOX_worker-a.intruder.2").await;
    say("a", "a", elsewhere).await;
    wait::never("it speaks through the api", MOMENT, tasks.next()).await;
    wait::never("it is answered for b", MOMENT, answers.next()).await;
    say("a", "a", "_INBOX_worker-a.intruder.3").await;
    let answer = wait::in_time("its own question is answered", END, answers.next()).await;
    let answer = answer.unwrap();
    let answer: Answer = contract::decode(Some(Answer::KIND), Some("1"), &answer.payload).unwrap();
    assert!(matches!(answer, Answer::Granted { .. }), "{answer:?}");
}

/// What `fedpipe doctor` says of a site's storage.
async fn doctor(config: &std::path::Path) -> Value {
    let output = Command::new(tests::fleet::binary())
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .output()
        .await
        .unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = findings.as_array().unwrap();
    all.iter()
        .find(|one| one["what"] == "storage")
        .unwrap()
        .clone()
}

#[tokio::test]
async fn the_doctor_says_whether_storage_is_reached_through_signed_urls() {
    let mut cloud = Cloud::start("");
    let fleet = Fleet::start(&cloud.under(Setup::sites(1))).await;
    let site = fleet.state().join("config/worker-a.toml");
    let well = doctor(&site).await;
    assert_eq!(well["ok"], true, "{well}");
    assert!(well["detail"].as_str().unwrap().contains("signs"), "{well}");
    cloud.server.kill();
    let away = doctor(&site).await;
    assert_eq!(away["ok"], false, "{away}");
    cloud.server.restart();

    // A site without [storage] in a fleet whose objects lie in a folder: there is nothing to sign.
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let text = std::fs::read_to_string(fleet.state().join("config/worker-a.toml")).unwrap();
    let mut table: toml::Table = toml::from_str(&text).unwrap();
    table.remove("storage");
    let site = fleet.folder().join("site.toml");
    std::fs::write(&site, table.to_string()).unwrap();
    let none = doctor(&site).await;
    assert_eq!(none["ok"], false, "{none}");
    assert!(
        none["detail"].as_str().unwrap().contains("[storage]"),
        "{none}"
    );
}
