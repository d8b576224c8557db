//! `/v1/jobs` and `/v1/jobs/{id}`: list, get, delete.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock;
use chassis::failpoint::{Failpoint, hit};
use contract::topology::{Bucket, plan_key, profile_key, round_key, score_key};
use domain::job::Job;
use domain::plan::PlanVersion;
use serde::Deserialize;
use serde_json::Value;

use super::openapi::Refusals;
use crate::cursor::{Ask, Page};
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::reported::reported;
use crate::state::App;
use crate::view::job::{JobSummary, JobView, summary, view};

/// Names that `?phase=` takes.
pub const PHASES: [&str; 13] = [
    "queued",
    "profiling",
    "refining",
    "planning",
    "starting",
    "training",
    "folding",
    "evaluating",
    "finalizing",
    "paused",
    "succeeded",
    "failed",
    "cancelled",
];

/// Query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    phase: Option<String>,
}

/// Lists jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs",
    params(
        ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("phase" = Option<String>, Query, description = "Only jobs in this phase"),
    ),
    responses(
        (status = 200, description = "A page of jobs", body = Page<JobSummary>),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<JobSummary>>, Problem> {
    let ask = Ask::new(query.limit, query.cursor.as_deref())?;
    if let Some(phase) = query.phase.as_deref()
        && !PHASES.contains(&phase)
    {
        let detail = format!("phase: use one of {}", PHASES.join(", "));
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let known = app.watch().read();
    let wanted = |job: &&Job| {
        query
            .phase
            .as_deref()
            .is_none_or(|phase| job.phase.name() == phase)
    };
    let mut jobs: Vec<&Job> = known.jobs.values().filter(wanted).collect();
    jobs.sort_by_key(|job| newest_first(job));
    let page = ask.cut(jobs.into_iter(), |job| newest_first(job));
    Ok(Json(page.map(summary)))
}

/// Ascending order of these texts is newest first.
fn newest_first(job: &Job) -> String {
    format!("{:016x}.{}", u64::MAX - job.submitted_at.0, job.id)
}

/// Shows a job: how far it is, whom it waits for and why, each site's progress.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "This release cannot read it; a newer one probably wrote it: use that one", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn get(State(app): State<App>, JobPath(id): JobPath) -> Result<Json<JobView>, Problem> {
    let job = app.stored(&id).await?;
    Ok(Json(show(&app, &job).await?))
}

/// A job with everything known about it.
pub async fn show(app: &App, job: &Job) -> Result<JobView, Problem> {
    let reports = reported(app, job).await?;
    Ok(view(job, &app.watch().read(), &reports, clock::now()))
}

/// Deletes a job that has ended: its record, rounds, plans, events, reports, updates and adapter.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 204, description = "Deleted; nothing of it is left"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended: cancel it first; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn delete(State(app): State<App>, JobPath(id): JobPath) -> Result<StatusCode, Problem> {
    let job = app.stored(&id).await?;
    if !job.phase.is_terminal() {
        let detail = format!(
            "{id} is {}: cancel it first, then delete it",
            job.phase.name()
        );
        return Err(Problem::new(Kind::Conflict, detail));
    }
    // The record goes last: until then a deletion that was interrupted can be asked for again.
    app.objects()
        .delete_prefix(&domain::object::job_prefix(&id))
        .await?;
    hit(Failpoint::ApiDeleteAfterObjects);
    delete_values(&app, &job).await?;
    hit(Failpoint::ApiDeleteAfterValues);
    app.bus().forget(&id).await?;
    hit(Failpoint::ApiDeleteAfterMessages);
    app.jobs().await?.remove(id.as_str()).await?;
    hit(Failpoint::ApiDeleteAfterState);
    app.watch().job_gone(&id);
    tracing::info!(job = %id, "job deleted");
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_values(app: &App, job: &Job) -> Result<(), bus::Error> {
    let plans = app.store::<Value>(Bucket::Plans).await?;
    for version in 1..=job.plan.map_or(0, |version| version.0) {
        plans
            .remove(&plan_key(&job.id, PlanVersion(version)))
            .await?;
    }
    let profiles = app.store::<Value>(Bucket::Profiles).await?;
    for worker in &job.participants {
        profiles.remove(&profile_key(&job.id, worker)).await?;
    }
    let rounds = app.store::<Value>(Bucket::Jobs).await?;
    // Rounds are committed one after the other. The last goes first, so that an interrupted
    // deletion still finds the others.
    let mut count = 0;
    while rounds.get(&round_key(&job.id, count)).await?.is_some() {
        count += 1;
    }
    for round in (0..count).rev() {
        rounds.remove(&score_key(&job.id, round)).await?;
        rounds.remove(&round_key(&job.id, round)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{job, training};
    use domain::job::Phase;

    #[test]
    fn the_newest_job_comes_first() {
        let (old, new) = (job(1, &[]), job(2, &[]));
        assert!(newest_first(&new) < newest_first(&old));
    }

    #[test]
    fn the_phases_of_the_filter_are_those_of_the_domain() {
        for phase in [
            Phase::Queued,
            Phase::Planning { resume: None },
            Phase::Starting { resume: None },
            Phase::Cancelled,
            training(1, &[]).phase,
        ] {
            assert!(PHASES.contains(&phase.name()), "{}", phase.name());
        }
    }
}
