//! `POST /v1/jobs`: a job is stored, then said; under one key it is one job.

mod kind;

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chassis::clock;
use chassis::failpoint::{self, Failpoint};
use chassis::telemetry::{self, SpanName};
use contract::message::job::implied;
use domain::artifact::Digest;
use domain::hub::Model;
use domain::id::{JobId, Submitter};
use domain::job::{Job, Spec};
use domain::trace::Trace;
use sha2::{Digest as _, Sha256};
use tracing::Instrument;

use super::openapi::Refusals;
use crate::access::Caller;
use crate::explain::waiting::Reports;
use crate::extract::JsonBody;
use crate::pin;
use crate::problem::{FieldError, Kind, Problem};
use crate::state::App;
use crate::view::job::{JobView, view};
use crate::view::spec::JobFile;

/// Header with a client's own name for a submission.
const KEY: &str = "idempotency-key";
/// Longest key, in bytes.
const KEY_BYTES: usize = 255;
/// Header with who submits.
const SUBMITTER: &str = "fedpipe-submitter";
/// Who submits if nobody says.
const LOCAL: &str = "local";
/// How long object storage may take to find a model: a person waits.
const STORAGE_WAIT: Duration = Duration::from_secs(5);
/// Random ids that are tried before giving up.
const ID_ATTEMPTS: usize = 4;

/// Submits a job.
///
/// The answer leaves when the job is stored. With `Idempotency-Key` the same submission is the same job however
/// often it is sent; the key with another body is refused.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable ASCII characters; the same key and body are the same job"),
        ("Fedpipe-Submitter" = Option<String>, Header, description = "Who submits, as sites' policies name them; if absent the token's name, or `local`. Another name than the token's needs the role `admin`"),
    ),
    request_body(content = JobFile, description = "The job file as JSON"),
    responses(
        (status = 201, description = "Stored and queued; `Location` is its address", body = JobView),
        (status = 200, description = "The same key and body were submitted before: this is that job", body = JobView),
        (status = 400, description = "The body is not JSON, or a header cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "This release cannot read the job of the key, or of `plan_from`; a newer one probably wrote it: use that one", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 1 MiB, or as configured", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields are refused (`errors` names each), or the key belongs to another job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many jobs: cancel or delete some", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn submit(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(spec): JsonBody<Spec>,
) -> Result<Response, Problem> {
    let submitter = submitter(&headers, &caller)?;
    let key = key(&headers)?;
    spec.check().map_err(|refusals| {
        Problem::refused(refusals.into_iter().map(FieldError::from).collect())
    })?;
    let spec = whole(spec);
    let submission = Submission {
        digest: digest(&spec, &submitter),
        spec,
        submitter,
    };
    let Some(key) = key else {
        check_room(&app)?;
        check_references(&app, &submission.spec).await?;
        let submission = submission.pinned(&app).await?;
        return create_random(&app, &submission).await;
    };
    let id = id_of(&key, &submission.submitter);
    // Asked first: what was accepted once stays accepted, even if its model is gone by now.
    if let Some(before) = before(&app, &id, &submission).await? {
        return answer(&app, before, StatusCode::OK).await;
    }
    check_room(&app)?;
    check_references(&app, &submission.spec).await?;
    let submission = submission.pinned(&app).await?;
    match create(&app, id.clone(), &submission).await {
        Ok(job) => answer(&app, job, StatusCode::CREATED).await,
        Err(bus::Error::Conflict { .. }) => {
            let before = before(&app, &id, &submission).await?;
            answer(
                &app,
                before.ok_or_else(|| Problem::no_job(id.as_str()))?,
                StatusCode::OK,
            )
            .await
        }
        Err(error) => Err(error.into()),
    }
}

struct Submission {
    spec: Spec,
    submitter: Submitter,
    /// Of the job as it was sent: a branch that moves meanwhile makes no other submission of it.
    digest: Digest,
}

impl Submission {
    async fn pinned(self, app: &App) -> Result<Self, Problem> {
        let asked = self.spec.model.source.clone();
        let spec = pin::pinned(app.hub(), self.spec).await?;
        // The Hub was asked, so it may be asked what the model is.
        let found = spec
            .model
            .source
            .as_ref()
            .filter(|_| asked != spec.model.source);
        if let Some(model) = found.and_then(|source| source.parse::<Model>().ok())
            && let Some(misfit) = kind::misfit_in_hub(app.hub(), &model, &spec.training).await
        {
            return Err(Problem::refused(vec![misfit]));
        }
        Ok(Self { spec, ..self })
    }
}

/// The job that was submitted under this identity before, if any.
async fn before(app: &App, id: &JobId, now: &Submission) -> Result<Option<Job>, Problem> {
    let stored = app.jobs().await?.get(id.as_str()).await?;
    let Some((job, _)) = stored else {
        return Ok(None);
    };
    if job.submission != now.digest {
        return Err(Problem::new(
            Kind::KeyReused,
            format!(
                "this Idempotency-Key belongs to {id}, which was submitted with another body: use a new key"
            ),
        ));
    }
    Ok(Some(job))
}

async fn create_random(app: &App, submission: &Submission) -> Result<Response, Problem> {
    for _ in 0..ID_ATTEMPTS {
        match create(app, JobId::from_bits(clock::random_bits()), submission).await {
            Ok(job) => return answer(app, job, StatusCode::CREATED).await,
            Err(bus::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(
        Kind::Unavailable,
        "no free job id was found: submit again",
    ))
}

async fn create(app: &App, id: JobId, submission: &Submission) -> Result<Job, bus::Error> {
    let Submission {
        spec,
        submitter,
        digest,
    } = submission;
    let (spec, digest, submitter) = (spec.clone(), digest.clone(), submitter.clone());
    let job = Job::submitted(id, spec, digest, submitter, clock::now());
    app.jobs().await?.create(job.id.as_str(), &job).await?;
    failpoint::hit(Failpoint::ApiSubmitAfterState);
    Ok(job)
}

/// Says what the stored job implies, and shows it.
async fn answer(app: &App, job: Job, status: StatusCode) -> Result<Response, Problem> {
    let whole = Trace::of_job(&job.id);
    let submit = telemetry::within(Some(whole), SpanName::Submit, &[]);
    let trace = submit.trace().unwrap_or(whole);
    let span =
        tracing::info_span!("submit", trace_id = %trace.trace_hex(), span_id = %trace.span_hex());
    let said = async {
        for event in implied(&job) {
            // The job is accepted: its owner says it again if this was lost.
            if let Err(error) = app.bus().publish(&event, None).await {
                tracing::warn!(job = %job.id, %error, "submission stored and not yet said");
            }
        }
        app.watch().job(job.clone());
        tracing::info!(job = %job.id, submitter = %job.submitter, new = status == StatusCode::CREATED, "job submitted");
    };
    said.instrument(span).await;
    drop(submit);
    let shown = view(&job, &app.watch().read(), &Reports::new(), clock::now());
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((status, location, Json(shown)).into_response())
}

fn check_room(app: &App) -> Result<(), Problem> {
    let known = app.watch().read();
    let limits = app.limits();
    let active = known
        .jobs
        .values()
        .filter(|job| !job.phase.is_terminal())
        .count();
    if active >= limits.active_jobs {
        let detail =
            format!("{active} jobs have not ended, which is the limit: wait, or cancel some");
        return Err(Problem::new(Kind::TooMany, detail));
    }
    if known.jobs.len() >= limits.jobs {
        let detail = format!(
            "{} jobs are kept, which is the limit: delete some that have ended",
            known.jobs.len()
        );
        return Err(Problem::new(Kind::TooMany, detail));
    }
    Ok(())
}

/// What the job refers to must be there.
async fn check_references(app: &App, spec: &Spec) -> Result<(), Problem> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, problem: String| {
        errors.push(FieldError {
            field: field.to_owned(),
            problem,
        });
    };
    if let Some(digest) = &spec.model.digest {
        let asked = tokio::time::timeout(STORAGE_WAIT, app.objects().model_manifest(digest)).await;
        let found = asked.map_err(|_| {
            Problem::new(
                Kind::Unavailable,
                "object storage does not answer, so the model cannot be looked up: submit again",
            )
        })?;
        match found {
            Ok(manifest) => {
                let model = (digest, &manifest);
                let misfit = kind::misfit_in_storage(app, model, &spec.training).await;
                if let Some(misfit) = misfit {
                    refuse(&misfit.field, misfit.problem);
                }
            }
            Err(artifacts::Error::NotFound { .. }) => refuse(
                "model.digest",
                "no such model is in storage: push it with `fedpipe model push`; `GET /v1/models` lists what is there".to_owned(),
            ),
            Err(artifacts::Error::Corrupt { .. } | artifacts::Error::Manifest { .. }) => refuse(
                "model.digest",
                "the model in storage is damaged: push it again".to_owned(),
            ),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(other) = &spec.plan_from {
        let stored = app.jobs().await?.get(other.as_str()).await?;
        match stored {
            None => refuse("plan_from", format!("there is no job {other}")),
            Some((job, _)) if job.plan.is_none() => {
                refuse(
                    "plan_from",
                    format!("{other} has no plan (it is {})", job.phase.name()),
                );
            }
            Some((job, _)) if !same_sites(&job, spec) => {
                let sites = job
                    .participants
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>();
                refuse(
                    "data.sites",
                    format!(
                        "the plan of {other} is for {}: name these, or none",
                        sites.join(", ")
                    ),
                );
            }
            Some(_) => {}
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::refused(errors))
    }
}

/// Whether a job that names sites names those of the plan it replays.
fn same_sites(planned: &Job, spec: &Spec) -> bool {
    let named: BTreeSet<_> = spec.data.sites.iter().collect();
    named.is_empty() || named == planned.participants.iter().collect()
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > KEY_BYTES {
        let detail = format!("Idempotency-Key: use 1 to {KEY_BYTES} printable ASCII characters");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(Some(text.to_owned()))
}

/// In whose name a job is submitted: sites' policies know names, so a submitter's token gives its own alone.
fn submitter(headers: &HeaderMap, caller: &Caller) -> Result<Submitter, Problem> {
    let illegal = |error| Problem::new(Kind::BadRequest, format!("Fedpipe-Submitter: {error}"));
    let Some(value) = headers.get(SUBMITTER) else {
        let own = caller.name.clone();
        return own.map_or_else(|| LOCAL.parse().map_err(illegal), Ok);
    };
    let named: Submitter = value
        .to_str()
        .unwrap_or_default()
        .parse()
        .map_err(illegal)?;
    match caller.bound_to() {
        Some(own) if *own != named => Err(Problem::new(
            Kind::Forbidden,
            format!(
                "the token submits in the name of `{own}`: leave Fedpipe-Submitter out, or ask the operator of this service for the other's token"
            ),
        )),
        _ => Ok(named),
    }
}

/// The job with what its absent fields mean, where that depends on others: a stored job says it, so that no program that reads
/// it later, of this release or another, means something else.
fn whole(mut spec: Spec) -> Spec {
    spec.training.learning_rate = Some(spec.training.learning_rate());
    spec
}

/// What was submitted, whatever its spelling: the job file as read, defaults filled in, and by whom.
fn digest(spec: &Spec, submitter: &Submitter) -> Digest {
    // Invariant: a job file that was read from JSON can be written as JSON.
    let json = serde_json::to_vec(spec).unwrap_or_default();
    let hash = Sha256::new()
        .chain_update(submitter.as_str())
        .chain_update([0])
        .chain_update(json);
    Digest::from_bytes(&hash.finalize().into())
}

/// The job of a key: the same one after a crash, and in every process of this service.
fn id_of(key: &str, submitter: &Submitter) -> JobId {
    let hash = Sha256::new()
        .chain_update(submitter.as_str())
        .chain_update([0])
        .chain_update(key);
    let bits = hash
        .finalize()
        .iter()
        .take(8)
        .fold(0, |bits, byte| (bits << 8) | u64::from(*byte));
    JobId::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).expect("a job")
    }

    #[test]
    fn a_submission_is_the_same_however_it_is_spelt_and_another_for_another_submitter() {
        let (one, two) = ("one".parse().expect("legal"), "two".parse().expect("legal"));
        let short =
            spec(r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#);
        let long = spec(
            r#"{"data":{"sites":[],"dataset":"mail"},"name":"j","model":{"source":"file:///m"},"rounds":{"count":3}}"#,
        );
        assert_eq!(digest(&short, &one), digest(&long, &one));
        let rated = |training: &str| {
            let job = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"},"training":"#;
            digest(&whole(spec(&format!("{job}{training}}}"))), &one)
        };
        assert_eq!(rated("{}"), rated(r#"{"learning_rate":1e-3}"#));
        let walked = |rate: &str| rated(&format!(r#"{{"optimizer":"mezo"{rate}}}"#));
        assert_eq!(walked(""), walked(r#","learning_rate":1e-4"#));
        assert_ne!(walked(""), walked(r#","learning_rate":1e-3"#));
        assert_ne!(digest(&short, &one), digest(&short, &two));
    }

    #[test]
    fn a_key_is_one_job_per_submitter() {
        let (one, two) = ("one".parse().expect("legal"), "two".parse().expect("legal"));
        assert_eq!(id_of("k", &one), id_of("k", &one));
        assert_ne!(id_of("k", &one), id_of("l", &one));
        assert_ne!(id_of("k", &one), id_of("k", &two));
    }

    #[test]
    fn a_submitters_token_gives_its_own_name_alone() {
        let check =
            |name: Option<&str>, role, header: Option<&str>, expected: Result<&str, u16>| {
                let caller = Caller {
                    name: name.map(|name| name.parse().expect("legal")),
                    role,
                };
                let mut headers = HeaderMap::new();
                if let Some(header) = header {
                    headers.insert(SUBMITTER, header.parse().expect("a header"));
                }
                let found = submitter(&headers, &caller).map(|found| found.to_string());
                let found = found.map_err(|problem| problem.status());
                assert_eq!(
                    found.as_deref().map_err(|status| *status),
                    expected,
                    "{header:?}"
                );
            };
        check(Some("alice"), Role::Submitter, None, Ok("alice"));
        check(Some("alice"), Role::Submitter, Some("alice"), Ok("alice"));
        check(Some("alice"), Role::Submitter, Some("bob"), Err(403));
        check(Some("root"), Role::Admin, Some("bob"), Ok("bob"));
        check(Some("root"), Role::Admin, None, Ok("root"));
        check(None, Role::Admin, None, Ok("local"));
        check(None, Role::Admin, Some("bob"), Ok("bob"));
        check(None, Role::Admin, Some(""), Err(400));
    }

    #[test]
    fn a_key_must_be_short_printable_text() {
        let check = |value: &[u8], legal: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(
                KEY,
                axum::http::HeaderValue::from_bytes(value).expect("a header"),
            );
            assert_eq!(key(&headers).is_ok(), legal, "{value:?}");
        };
        check(b"a-1", true);
        check(b"", false);
        check(b"\xff", false);
        check(&[b'a'; 256], false);
    }
}
