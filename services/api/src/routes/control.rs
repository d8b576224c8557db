//! `POST /v1/jobs/{id}/{cancel,pause,resume}`: what a person decides while a job runs.
//!
//! Each is a compare-and-set on the stored job, then its events, then an order to the job's workers.
//! Asked twice, it is done once; the order only saves time, because tasks of an old epoch no longer
//! count in any case.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::failpoint::{self, Failpoint};
use chassis::{clock, telemetry};
use contract::message::control::{Control, Order};
use contract::message::job::implied;
use domain::id::JobId;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;
use futures::{StreamExt, stream};
use serde::Deserialize;

use super::jobs::show;
use super::openapi::Refusals;
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::state::App;
use crate::view::job::JobView;

/// How often a change is tried while others change the job too.
const ATTEMPTS: usize = 32;

/// Workers that are given an order at the same time.
const ORDERS: usize = 32;

/// What a decision does to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It is as asked already.
    Nothing,
    /// It changed.
    Changed,
    /// It changes at the next round boundary.
    Requested,
}

/// Cancels a job: it ends without an adapter.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "control",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "Cancelled, now or before", body = JobView),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has succeeded or failed already; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn cancel(
    State(app): State<App>,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, Problem> {
    let (job, _) = change(&app, &id, Failpoint::ApiCancelAfterState, decide_cancel).await?;
    Ok(Json(show(&app, &job).await?))
}

/// Query of a pause.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseQuery {
    #[serde(default)]
    now: bool,
}

/// Pauses a job at its next round boundary, or at once.
///
/// Before its first round, or with `now=true`, it pauses at once; work of the round under way is then done again.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/pause", tag = "control",
    params(
        ("id" = String, Path, description = "The job"),
        ("now" = Option<bool>, Query, description = "Pause at once instead of at the next round boundary"),
    ),
    responses(
        (status = 200, description = "Paused, now or before", body = JobView),
        (status = 202, description = "It pauses at the next round boundary", body = JobView),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn pause(
    State(app): State<App>,
    JobPath(id): JobPath,
    Params(query): Params<PauseQuery>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let decide = move |job: &mut Job, now| decide_pause(job, query.now, now);
    let (job, effect) = change(&app, &id, Failpoint::ApiPauseAfterState, decide).await?;
    let status = match effect {
        Effect::Requested => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(show(&app, &job).await?)))
}

/// Goes on with a paused job; a pause that was asked for and has not begun is taken back.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/resume", tag = "control",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "It goes on, now or already", body = JobView),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn resume(
    State(app): State<App>,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, Problem> {
    let (job, _) = change(&app, &id, Failpoint::ApiResumeAfterState, decide_resume).await?;
    Ok(Json(show(&app, &job).await?))
}

fn decide_cancel(job: &mut Job, now: UnixMillis) -> Result<Effect, Problem> {
    if job.phase == Phase::Cancelled {
        return Ok(Effect::Nothing);
    }
    job.advance(Phase::Cancelled, now)
        .map_err(|_| ended(job, "cancelled"))?;
    job.pause_requested = false;
    Ok(Effect::Changed)
}

fn decide_pause(job: &mut Job, at_once: bool, now: UnixMillis) -> Result<Effect, Problem> {
    match job.phase {
        Phase::Paused { .. } => return Ok(Effect::Nothing),
        _ if job.phase.is_terminal() => return Err(ended(job, "paused")),
        _ => {}
    }
    let before_training = matches!(
        job.phase,
        Phase::Queued
            | Phase::Profiling { .. }
            | Phase::Planning { resume: None }
            | Phase::Starting { resume: None }
    );
    if at_once || before_training {
        job.pause(now).map_err(|_| ended(job, "paused"))?;
        return Ok(Effect::Changed);
    }
    job.pause_requested = true;
    Ok(Effect::Requested)
}

fn decide_resume(job: &mut Job, now: UnixMillis) -> Result<Effect, Problem> {
    if job.phase.is_terminal() {
        return Err(ended(job, "resumed"));
    }
    if matches!(job.phase, Phase::Paused { .. }) {
        job.resume(now).map_err(|_| ended(job, "resumed"))?;
        return Ok(Effect::Changed);
    }
    if job.pause_requested {
        job.pause_requested = false;
        return Ok(Effect::Changed);
    }
    Ok(Effect::Nothing)
}

fn ended(job: &Job, wanted: &str) -> Problem {
    let detail = format!(
        "{} is {}: it can no longer be {wanted}",
        job.id,
        job.phase.name()
    );
    Problem::new(Kind::Conflict, detail)
}

/// Decides on the stored job until the decision is stored, then says it.
async fn change(
    app: &App,
    id: &JobId,
    failpoint: Failpoint,
    decide: impl Fn(&mut Job, UnixMillis) -> Result<Effect, Problem>,
) -> Result<(Job, Effect), Problem> {
    let jobs = app.jobs().await?;
    for _ in 0..ATTEMPTS {
        let Some((mut job, revision)) = jobs.get(id.as_str()).await? else {
            return Err(Problem::no_job(id.as_str()));
        };
        let stored = job.clone();
        let effect = decide(&mut job, clock::now())?;
        if job != stored {
            match jobs.update(id.as_str(), &job, revision).await {
                Ok(_) => {}
                Err(bus::Error::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            failpoint::hit(failpoint);
            if job.epoch != stored.epoch {
                telemetry::phase_ended(&stored, &job, clock::now());
            }
            tracing::info!(job = %id, phase = job.phase.name(), epoch = %job.epoch, "job changed by a person");
        }
        // Also if nothing changed: whoever changed it may have died before saying so.
        for event in implied(&job) {
            app.bus().publish(&event, None).await?;
        }
        failpoint::hit(Failpoint::ApiControlAfterPublish);
        app.watch().job(job.clone());
        // Also the second time: whoever decided first may have died before telling them.
        let stops = matches!(job.phase, Phase::Paused { .. } | Phase::Cancelled);
        if stops || job.epoch != stored.epoch {
            order_workers(app, &job);
        }
        return Ok((job, effect));
    }
    Err(Problem::new(
        Kind::Conflict,
        "the job changes too quickly at the moment: try again",
    ))
}

/// Tells the job's workers in the background to drop what they do for it.
fn order_workers(app: &App, job: &Job) {
    let bus = app.bus().clone();
    let orders: Vec<Control> = job
        .participants
        .iter()
        .map(|worker| Control {
            worker: worker.clone(),
            order: Order::Cancel {
                job: job.id.clone(),
                below: job.epoch,
            },
        })
        .collect();
    tokio::spawn(async move {
        let given = stream::iter(orders).for_each_concurrent(ORDERS, |order| {
            let bus = bus.clone();
            async move {
                if let Err(error) = bus.order(&order).await {
                    tracing::debug!(worker = %order.worker, %error, "order not answered");
                }
            }
        });
        given.await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{job, training};

    const NOW: UnixMillis = UnixMillis(50);

    #[test]
    fn a_pause_waits_for_the_round_unless_it_is_to_be_at_once() {
        let mut job = training(1, &["a"]);
        assert_eq!(
            decide_pause(&mut job, false, NOW).expect("legal"),
            Effect::Requested
        );
        assert_eq!((job.phase.name(), job.pause_requested), ("training", true));
        assert_eq!(
            decide_pause(&mut job, false, NOW).expect("legal"),
            Effect::Requested
        );
        assert_eq!(
            decide_pause(&mut job, true, NOW).expect("legal"),
            Effect::Changed
        );
        assert_eq!((job.phase.name(), job.pause_requested), ("paused", false));
        assert_eq!(
            decide_pause(&mut job, true, NOW).expect("legal"),
            Effect::Nothing
        );
    }

    #[test]
    fn before_its_first_round_a_job_pauses_at_once() {
        let mut job = job(1, &[]);
        assert_eq!(
            decide_pause(&mut job, false, NOW).expect("legal"),
            Effect::Changed
        );
        assert_eq!(job.phase.name(), "paused");
    }

    #[test]
    fn resuming_twice_resumes_once_and_takes_back_a_pause_that_has_not_begun() {
        let mut job = training(1, &["a"]);
        let epoch = job.epoch;
        decide_pause(&mut job, false, NOW).expect("legal");
        assert_eq!(
            decide_resume(&mut job, NOW).expect("legal"),
            Effect::Changed
        );
        assert!(!job.pause_requested);
        assert_eq!(job.epoch, epoch);
        decide_pause(&mut job, true, NOW).expect("legal");
        assert_eq!(
            decide_resume(&mut job, NOW).expect("legal"),
            Effect::Changed
        );
        let epoch = job.epoch;
        assert_eq!(
            decide_resume(&mut job, NOW).expect("legal"),
            Effect::Nothing
        );
        assert_eq!(job.epoch, epoch);
    }

    #[test]
    fn a_cancelled_job_stays_cancelled_and_a_finished_one_cannot_be() {
        let mut cancelled = training(1, &["a"]);
        assert_eq!(
            decide_cancel(&mut cancelled, NOW).expect("legal"),
            Effect::Changed
        );
        assert_eq!(
            decide_cancel(&mut cancelled, NOW).expect("legal"),
            Effect::Nothing
        );
        assert_eq!(
            decide_pause(&mut cancelled, true, NOW)
                .expect_err("ended")
                .status(),
            409
        );
        assert_eq!(
            decide_resume(&mut cancelled, NOW)
                .expect_err("ended")
                .status(),
            409
        );
        let mut failed = job(2, &[]);
        failed.phase = Phase::Succeeded {
            adapter: crate::explain::fixture::artifact(),
            config: crate::explain::fixture::artifact(),
            report: crate::explain::fixture::artifact(),
        };
        assert_eq!(
            decide_cancel(&mut failed, NOW).expect_err("ended").status(),
            409
        );
    }
}
