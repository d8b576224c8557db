//! The routes as a client sees them, as far as neither bus nor storage is needed.

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use bus::{Bus, Connect};
use chassis::config::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::access::{ROUTES, Role};
use crate::config::{Config, Limits};
use crate::explain::fixture::{beat_on, job, registration, training};
use crate::problem::MEDIA_TYPE;
use crate::tokens::Token;

/// A service whose bus and storage are away.
async fn app(change: impl FnOnce(&mut Config)) -> App {
    let mut config = Config::default();
    change(&mut config);
    let connect = Connect {
        url: "nats://127.0.0.1:1".to_owned(),
        ..Connect::default()
    };
    let bus = Bus::connect(&connect, &contract::permission::Role::Api)
        .await
        .expect("goes on trying");
    let storage = artifacts::Config {
        url: "file:///nonexistent/fedpipe".to_owned(),
        ..artifacts::Config::default()
    };
    let objects = artifacts::Store::open(&storage).expect("nothing is touched");
    let tokens = config.check().expect("legal tokens");
    let hub = crate::pin::open(&config.hub).expect("legal");
    App::new(
        bus,
        (objects, hub),
        &config,
        tokens,
        CancellationToken::new(),
    )
}

async fn ask(app: &App, request: Request<Body>) -> Response<Body> {
    let router = router(app.clone(), Readiness::new(&[]));
    router.oneshot(request).await.expect("answers")
}

async fn json_of(response: Response<Body>) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 24)
        .await
        .expect("a body");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).expect("a request")
}

async fn check_problem(app: &App, request: Request<Body>, status: u16, slug: &str) -> Value {
    let what = format!("{} {}", request.method(), request.uri());
    let response = ask(app, request).await;
    assert_eq!(response.status().as_u16(), status, "{what}");
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        MEDIA_TYPE,
        "{what}"
    );
    assert!(response.headers().contains_key("x-request-id"), "{what}");
    let problem = json_of(response).await;
    assert_eq!(
        problem["type"],
        format!("urn:fedpipe:problem:{slug}"),
        "{what}"
    );
    assert_eq!(problem["status"], status, "{what}");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.len() > 10),
        "{what}"
    );
    problem
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let app = app(|config| config.limits.body_bytes = 1000).await;
    let large = vec![b' '; 2 << 20];
    check_problem(&app, get("/v2"), 404, "not-found").await;
    check_problem(&app, get("/v1/jobs/nonsense"), 404, "not-found").await;
    check_problem(&app, get("/v1/jobs/..%2f..%2fetc"), 404, "not-found").await;
    check_problem(&app, get("/v1/models/sha256:short"), 404, "not-found").await;
    check_problem(&app, get("/v1/jobs?limit=0"), 400, "bad-request").await;
    check_problem(&app, get("/v1/jobs?limit=many"), 400, "bad-request").await;
    check_problem(&app, get("/v1/jobs?unknown=1"), 400, "bad-request").await;
    check_problem(&app, get("/v1/jobs?cursor=zz"), 400, "bad-request").await;
    check_problem(&app, get("/v1/jobs?phase=sleeping"), 400, "bad-request").await;
    check_problem(&app, post("/v1/jobs", "{"), 400, "bad-request").await;
    check_problem(&app, post("/v1/jobs", large), 413, "too-large").await;
    let form = Request::post("/v1/jobs")
        .body(Body::from("{}"))
        .expect("a request");
    check_problem(&app, form, 415, "unsupported-media-type").await;
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_a_problem_that_names_those_it_has() {
    let app = app(|_| {}).await;
    let put = || {
        Request::put("/v1/jobs")
            .body(Body::empty())
            .expect("a request")
    };
    check_problem(&app, put(), 405, "method-not-allowed").await;
    let allow = ask(&app, put()).await.headers()[header::ALLOW].clone();
    let mut allow: Vec<&str> = allow.to_str().expect("text").split(',').collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn a_bad_job_is_refused_with_every_wrong_field_before_anything_is_asked() {
    let app = app(|_| {}).await;
    let bad = json!({
        "name": "", "model": {}, "data": {"dataset": "m"}, "adapter": {"rank": 64}, "rounds": {"count": 0},
    });
    let problem = check_problem(&app, post("/v1/jobs", bad.to_string()), 422, "job-refused").await;
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["field"].as_str())
        .collect();
    assert_eq!(fields, ["name", "model", "adapter.rank", "rounds.count"]);
    let path = json!({
        "name": "j", "model": {"source": "file:///a/../etc"}, "data": {"dataset": "m"},
    });
    let problem = check_problem(&app, post("/v1/jobs", path.to_string()), 422, "job-refused").await;
    assert_eq!(problem["errors"][0]["field"], "model.source");
    let unknown = json!({ "name": "j", "model": {}, "data": {"dataset": "m"}, "ranks": 4 });
    let problem = check_problem(
        &app,
        post("/v1/jobs", unknown.to_string()),
        422,
        "job-refused",
    )
    .await;
    assert_eq!(problem["errors"][0]["field"], "ranks");
}

#[tokio::test]
async fn more_jobs_than_the_limit_are_refused() {
    let app = app(|config| {
        config.limits = Limits {
            active_jobs: 1,
            ..Limits::default()
        };
    })
    .await;
    app.watch().job(job(1, &[]));
    let good = json!({"name": "j", "model": {"source": "file:///m"}, "data": {"dataset": "m"}});
    check_problem(&app, post("/v1/jobs", good.to_string()), 429, "too-many").await;
}

#[tokio::test]
async fn with_a_token_every_v1_route_asks_for_it_and_health_does_not() {
    let app = app(|config| config.token = Some(Secret::from("0123456789abcdef"))).await;
    check_problem(&app, get("/v1/jobs"), 401, "unauthorized").await;
    check_problem(&app, get("/v1/workers"), 401, "unauthorized").await;
    check_problem(&app, post("/v1/jobs", "{}"), 401, "unauthorized").await;
    check_problem(&app, get("/v1/nothing"), 401, "unauthorized").await;
    check_problem(&app, get("/metrics"), 401, "unauthorized").await;
    let shown = Request::get("/v1/jobs").header(header::AUTHORIZATION, "Bearer 0123456789abcdef");
    let response = ask(&app, shown.body(Body::empty()).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::OK);
    for path in ["/", "/healthz", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(
            ask(&app, get(path)).await.status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

/// A service with a token of each role, each named after it.
async fn with_roles() -> App {
    app(|config| {
        config.limits.request_timeout_ms = 50;
        config.tokens = Role::ALL.map(named).into();
    })
    .await
}

fn named(role: Role) -> Token {
    Token {
        name: role.name().parse().expect("a name"),
        role,
        sha256: Some(hex::encode(Sha256::digest(secret(role)))),
        file: None,
    }
}

fn secret(role: Role) -> String {
    format!("{}-0123456789abcdef", role.name())
}

fn request(method: &str, path: &str, token: Option<&str>) -> Request<Body> {
    let path = path
        .replace("{id}", "job_0000000000000001")
        .replace("{digest}", &format!("sha256:{}", "ab".repeat(32)));
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn every_route_answers_401_without_a_token_403_below_its_role_and_more_from_it_on() {
    let app = with_roles().await;
    for (method, path, least) in ROUTES {
        for token in [None, Some("viewer-0123456789abcdee")] {
            let problem = check_problem(&app, request(method, path, token), 401, "unauthorized");
            let detail = problem.await["detail"].to_string();
            assert!(detail.contains("token"), "{method} {path}: {detail}");
        }
        for role in Role::ALL {
            let shown = request(method, path, Some(&secret(role)));
            if role < least {
                let problem = check_problem(&app, shown, 403, "forbidden").await;
                let detail = problem["detail"].as_str().expect("a detail");
                let words = [least.name(), role.name(), "add-token"];
                assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
            } else {
                // Whatever the handler says: bus and storage are away, and there is no body.
                let status = ask(&app, shown).await.status().as_u16();
                assert!(
                    ![401, 403].contains(&status),
                    "{method} {path} {status} as {}",
                    role.name()
                );
            }
        }
    }
}

#[tokio::test]
async fn a_path_or_a_method_that_is_not_there_says_so_to_whoever_may_know() {
    let app = with_roles().await;
    let viewer = secret(Role::Viewer);
    check_problem(
        &app,
        request("GET", "/v1/nothing", Some(&viewer)),
        404,
        "not-found",
    )
    .await;
    check_problem(
        &app,
        request("GET", "/v1/nothing", None),
        401,
        "unauthorized",
    )
    .await;
    let admin = secret(Role::Admin);
    let put = request("PUT", "/v1/jobs", Some(&admin));
    check_problem(&app, put, 405, "method-not-allowed").await;
    let head = request("HEAD", "/v1/jobs", Some(&viewer));
    assert_eq!(ask(&app, head).await.status(), StatusCode::OK);
}

#[test]
fn the_table_of_roles_has_every_route_that_asks_for_a_token_and_the_document_says_so() {
    let document: Value = serde_json::from_str(&openapi::openapi_json()).expect("JSON");
    let mut asking = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let what = format!("{method} {path}");
            let security = operation["security"].as_array().expect("a list");
            if !path.starts_with("/v1") && path != "/metrics" {
                assert!(security.is_empty(), "{what} asks for a token");
                continue;
            }
            asking += 1;
            let least = &security
                .first()
                .unwrap_or_else(|| panic!("{what} is not in the table"))["token"][0];
            let row = ROUTES
                .iter()
                .find(|row| row.0.eq_ignore_ascii_case(method) && row.1 == path);
            assert_eq!(least, row.expect("a row").2.name(), "{what}");
        }
    }
    assert_eq!(asking, ROUTES.len());
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages_and_by_phase() {
    let app = app(|_| {}).await;
    for number in 1..=5 {
        app.watch().job(job(number, &[]));
    }
    app.watch().job(training(6, &["a"]));
    let mut path = "/v1/jobs?limit=4".to_owned();
    let mut names = Vec::new();
    loop {
        let page = json_of(ask(&app, get(&path)).await).await;
        let items = page["items"].as_array().expect("a list");
        names.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().expect("an id").to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        // A job that is submitted meanwhile does not move the next page.
        app.watch().job(job(7, &[]));
        path = format!("/v1/jobs?limit=4&cursor={cursor}");
    }
    let expected: Vec<String> = (1..=6).rev().map(|n| format!("job_{n:016x}")).collect();
    assert_eq!(names, expected);
    let page = json_of(ask(&app, get("/v1/jobs?phase=training")).await).await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_worker_that_sends_not_a_number_does_not_break_the_list() {
    let app = app(|_| {}).await;
    let job = training(1, &["a"]);
    let mut beat = beat_on("a", &job, domain::fleet::Stage::Training);
    if let Some(progress) = &mut beat.progress {
        progress.loss = Some(f64::NAN);
    }
    app.watch().job(job);
    let now = chassis::clock::now();
    app.watch().worker(registration("a", "mail"), now);
    app.watch().beat(beat, now);
    let page = json_of(ask(&app, get("/v1/workers")).await).await;
    assert_eq!(page["items"][0]["liveness"], "alive");
    assert_eq!(page["items"][0]["progress"]["loss"], Value::Null);
}

#[tokio::test]
async fn a_bus_that_is_away_is_a_503_within_the_time_limit() {
    let app = app(|config| config.limits.request_timeout_ms = 50).await;
    check_problem(&app, get("/v1/jobs/job_0000000000000001"), 503, "timeout").await;
}

#[tokio::test]
async fn a_request_keeps_the_id_its_client_gave_it() {
    let app = app(|_| {}).await;
    let request = Request::get("/v1/jobs").header("x-request-id", "mine-1");
    let response = ask(&app, request.body(Body::empty()).expect("a request")).await;
    assert_eq!(response.headers()["x-request-id"], "mine-1");
}

#[test]
fn the_openapi_document_describes_every_route_and_every_answer() {
    let document: Value = serde_json::from_str(&openapi::openapi_json()).expect("JSON");
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/cancel",
        "/v1/jobs/{id}/pause",
        "/v1/jobs/{id}/resume",
        "/v1/jobs/{id}/events",
        "/v1/jobs/{id}/plan",
        "/v1/jobs/{id}/rounds",
        "/v1/jobs/{id}/report",
        "/v1/jobs/{id}/adapter",
        "/v1/models",
        "/v1/models/{digest}",
        "/v1/workers",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut operations = 0;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let what = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{what} has no summary");
            let responses = operation["responses"].as_object().expect("responses");
            let described = |response: &Value| {
                response["description"]
                    .as_str()
                    .is_some_and(|d| !d.is_empty())
            };
            assert!(
                responses.values().all(described),
                "{what} has an answer without a description"
            );
            if path.starts_with("/v1") {
                assert!(
                    responses.contains_key("401") && responses.contains_key("503"),
                    "{what}"
                );
            }
        }
    }
    assert_eq!(operations, 21);
}

#[test]
fn every_reference_of_the_openapi_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.push(reference.clone());
                }
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&openapi::openapi_json()).expect("JSON");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_openapi_document_is_the_same_every_time() {
    assert_eq!(openapi::openapi_json(), openapi::openapi_json());
}
