//! `GET /v1/jobs/{id}/rounds`: committed rounds with their scores.

use axum::Json;
use axum::extract::State;
use contract::topology::{Bucket, round_key, score_key};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::openapi::Refusals;
use crate::cursor::{Ask, Page};
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::state::App;
use crate::view::round::{RoundView, StoredRound, StoredScore};

/// Values read at the same time.
const AT_ONCE: usize = 8;

/// Query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundsQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Lists a job's committed rounds in order, each with its score. Round 0 is the untrained adapter.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/rounds", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of rounds", body = Page<RoundView>),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "This release cannot read it; a newer one probably wrote it: use that one", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn rounds(
    State(app): State<App>,
    JobPath(id): JobPath,
    Params(query): Params<RoundsQuery>,
) -> Result<Json<Page<RoundView>>, Problem> {
    let ask = Ask::new(query.limit, query.cursor.as_deref())?;
    let first = first(&ask)?;
    let job = app.stored(&id).await?;
    let rounds = app.store::<StoredRound>(Bucket::Jobs).await?;
    let scores = app.store::<StoredScore>(Bucket::Jobs).await?;
    let wanted = u32::try_from(ask.limit()).unwrap_or(u32::MAX);
    let last = first.saturating_add(wanted).min(job.spec.rounds.count);
    let found: Vec<RoundView> = stream::iter(first..=last)
        .map(|round| {
            let (round_key, score_key) = (round_key(&id, round), score_key(&id, round));
            let (rounds, scores) = (&rounds, &scores);
            async move {
                let (round, score) = futures::join!(rounds.get(&round_key), scores.get(&score_key));
                let score = score?.map(|(score, _)| score);
                Ok::<_, bus::Error>(round?.map(|(round, _)| RoundView::new(round, score)))
            }
        })
        .buffered(AT_ONCE)
        // Rounds are committed one after the other: behind the first that is missing there is none.
        .try_take_while(|round| std::future::ready(Ok(round.is_some())))
        .try_filter_map(|round| std::future::ready(Ok(round)))
        .try_collect()
        .await?;
    Ok(Json(ask.cut(found.into_iter(), |round| key(round.round))))
}

/// Ascending order of these texts is that of rounds.
fn key(round: u32) -> String {
    format!("{round:010}")
}

fn first(ask: &Ask) -> Result<u32, Problem> {
    let Some(after) = ask.after() else {
        return Ok(0);
    };
    let last: u32 = after
        .parse()
        .map_err(|_| Problem::new(Kind::BadRequest, "cursor: it belongs to another list"))?;
    Ok(last.saturating_add(1))
}
