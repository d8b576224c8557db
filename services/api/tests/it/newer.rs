//! A job whose record this release cannot read: it is refused by name, and nothing of it is touched.

use bus::Store;
use contract::message::grant::{Answer, Ask};
use contract::permission::Role;
use contract::topology::{Bucket, plan_key};
use domain::grant::{Access, Reason, Refusal, Wanted};
use domain::id::JobId;
use domain::plan::PlanVersion;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::wait;

use crate::service::{SOON, Service, json_of, spec, worker};

fn check(what: &str, id: &str, (status, problem): &(u16, Value)) {
    let kind = json!("urn:fedpipe:problem:unreadable");
    assert_eq!(
        (*status, &problem["type"]),
        (409, &kind),
        "{what}: {problem}"
    );
    let detail = problem["detail"].as_str().expect("a sentence");
    let start = format!("this release cannot read {id}; a newer one probably wrote it: ");
    assert!(detail.starts_with(&start), "{what}: {detail}");
}

/// The same submission, whenever it is sent.
fn keyed(service: &Service) -> RequestBuilder {
    let post = service.request(Method::POST, "/v1/jobs");
    post.header("idempotency-key", "k").json(&spec())
}

/// Records of jobs, whatever is in them.
async fn records(service: &Service) -> Store<Value> {
    let planner = service.bus(&Role::Planner).await;
    let records = planner.store(Bucket::Jobs).await;
    records.expect("a bucket")
}

/// Makes a job's record one that this release cannot read, and returns it. The job has ended, so that it would be
/// deleted if it could be read.
async fn overwritten(records: &Store<Value>, id: &str) -> Value {
    let stored = records.get(id).await.expect("answers");
    let (mut record, _) = stored.expect("a record");
    record["phase"] = json!({"phase": "cancelled"});
    record["spec"]["of_a_newer_release"] = json!(true);
    records.put(id, &record).await.expect("stored");
    record
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_refused_by_name_and_nothing_of_it_is_touched() {
    let service = Service::start().await;
    let (status, job) = json_of(keyed(&service)).await;
    assert_eq!(status, 201, "{job}");
    let id = job["id"].as_str().expect("an id").to_owned();
    let job_id: JobId = id.parse().expect("an id");
    service.put(&id, b"update".as_slice()).await;
    let planner = service.bus(&Role::Planner).await;
    let plans = planner.store::<Value>(Bucket::Plans).await;
    let plans = plans.expect("a bucket");
    let plan = plan_key(&job_id, PlanVersion(1));
    plans.put(&plan, &json!({})).await.expect("stored");
    let records = records(&service).await;
    let record = overwritten(&records, &id).await;

    for (method, below) in [
        (Method::GET, ""),
        (Method::GET, "/plan"),
        (Method::GET, "/rounds"),
        (Method::GET, "/events"),
        (Method::GET, "/report"),
        (Method::GET, "/adapter"),
        (Method::POST, "/cancel"),
        (Method::POST, "/pause"),
        (Method::POST, "/resume"),
        (Method::DELETE, ""),
    ] {
        let path = format!("/v1/jobs/{id}{below}");
        let what = format!("{method} {path}");
        check(&what, &id, &json_of(service.request(method, &path)).await);
    }
    check("its key", &id, &json_of(keyed(&service)).await);
    let mut replay = spec();
    replay["plan_from"] = json!(id);
    let submission = service.request(Method::POST, "/v1/jobs").json(&replay);
    check("a replay", &id, &json_of(submission).await);

    let now = records.get(&id).await.expect("answers");
    assert_eq!(now.map(|(now, _)| now), Some(record));
    assert!(plans.get(&plan).await.expect("answers").is_some());
    let left = service.objects.usage(&format!("jobs/{id}")).await;
    assert!(left.expect("counted").objects > 0);
    // Others are taken as ever.
    service.submit().await;
}

/// Ids of the list.
async fn listed(service: &Service) -> Vec<Value> {
    let (status, page) = service.get("/v1/jobs").await;
    assert_eq!(status, 200, "{page}");
    let items = page["items"].as_array().expect("jobs").iter();
    items.map(|job| job["id"].clone()).collect()
}

#[tokio::test]
async fn a_job_that_can_no_longer_be_read_is_not_listed_and_does_not_count_among_the_jobs_there_may_be()
 {
    let service = Service::start_with(|config| config.limits.active_jobs = 1).await;
    let id = service.submit().await;
    assert_eq!(listed(&service).await, [json!(id)]);
    let another = async || json_of(service.request(Method::POST, "/v1/jobs").json(&spec())).await;
    assert_eq!(another().await.0, 429);
    overwritten(&records(&service).await, &id).await;
    wait::until("it is not listed any more", SOON, async || {
        listed(&service).await.is_empty()
    })
    .await;
    assert_eq!(another().await.0, 201);
}

#[tokio::test]
async fn a_site_at_a_job_that_cannot_be_read_is_refused_with_the_reason_and_not_told_to_ask_again()
{
    let service = Service::start().await;
    let id = service.submit().await;
    overwritten(&records(&service).await, &id).await;
    let site = service.bus(&Role::Worker(worker("a"))).await;
    let ask = Ask {
        worker: worker("a"),
        job: Some(id.parse().expect("an id")),
        wanted: vec![Wanted {
            access: Access::Get,
            key: format!("jobs/{id}/global/x"),
        }],
    };
    let answer = wait::some("it is answered", SOON, async || site.ask(&ask).await.ok()).await;
    let refused = Answer::Refused(Refusal::of("", Reason::Unreadable));
    assert_eq!(answer, refused);
}
