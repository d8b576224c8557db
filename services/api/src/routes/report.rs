//! `GET /v1/jobs/{id}/report`: the figures of a finished job.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use domain::id::JobId;
use domain::job::Phase;

use super::openapi::Refusals;
use crate::extract::JobPath;
use crate::problem::{Kind, Problem};
use crate::state::App;

/// Largest report, in bytes.
const REPORT_BYTES: u64 = 64 << 20;

/// Shows a finished job's report: every round, every score, every worker's figures.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/report", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The report", body = Object),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has not succeeded; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn report(State(app): State<App>, JobPath(id): JobPath) -> Result<Response, Problem> {
    let job = app.stored(&id).await?;
    let Phase::Succeeded { report, .. } = &job.phase else {
        return Err(unfinished(&id, &job.phase, "report"));
    };
    let transfer = artifacts::Transfer::default();
    let bytes = app
        .objects()
        .get_bytes(report, REPORT_BYTES, &transfer)
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// A job that has no such result, and whether it will.
pub fn unfinished(id: &JobId, phase: &Phase, what: &str) -> Problem {
    let detail = match phase {
        Phase::Failed { cause } => format!("{id} failed and has no {what}: {}", cause.message),
        Phase::Cancelled => format!("{id} was cancelled and has no {what}"),
        _ => format!(
            "{id} is {}: its {what} is there when it has succeeded",
            phase.name()
        ),
    };
    Problem::new(Kind::Conflict, detail)
}
