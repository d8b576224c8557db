//! `GET /v1/jobs/{id}/plan`: what each worker trains, and why.

use axum::Json;
use axum::extract::State;
use contract::topology::{Bucket, plan_key};
use domain::plan::PlanVersion;
use serde::Deserialize;
use serde_json::Value;

use super::openapi::Refusals;
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::state::App;

/// Query of a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanQuery {
    version: Option<u32>,
}

/// Shows a job's plan: ranks, batch, steps and precision of every worker, what was predicted, and why.
///
/// `workers.<name>.why` has a paragraph (`text`), the limit that ended the choice (`binding`) and the next better
/// choices with why each was rejected (`rejected`), what it would have needed and what it would have gained.
/// `excluded` names workers that cannot take part, `basis` what the worths rest on; a plan that replaces another says
/// why (`replaces`) and which weights lose rank (`shrunk`).
#[utoipa::path(
    get, path = "/v1/jobs/{id}/plan", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("version" = Option<u32>, Query, description = "Counted from 1; the latest if absent"),
    ),
    responses(
        (status = 200, description = "The plan (`domain::plan::Plan`)", body = Object),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job, or no such version", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No plan has been made yet; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn plan(
    State(app): State<App>,
    JobPath(id): JobPath,
    Params(query): Params<PlanQuery>,
) -> Result<Json<Value>, Problem> {
    let job = app.stored(&id).await?;
    let version = query.version.map(PlanVersion).or(job.plan).ok_or_else(|| {
        let detail = format!(
            "{id} has no plan yet, it is {}: ask again later",
            job.phase.name()
        );
        Problem::new(Kind::Conflict, detail)
    })?;
    // Read as plain JSON: a figure that is not finite is null there and must not hide the plan.
    let plans = app.store::<Value>(Bucket::Plans).await?;
    let found = plans.get(&plan_key(&id, version)).await?;
    found.map(|(plan, _)| Json(plan)).ok_or_else(|| {
        let detail = format!(
            "{id} has no plan of version {}; without `version` you get the latest",
            version.0
        );
        Problem::new(Kind::NotFound, detail)
    })
}
