//! `GET /v1/workers`: the fleet.

use axum::Json;
use axum::extract::State;
use chassis::clock;
use serde::Deserialize;

use super::openapi::Refusals;
use crate::cursor::{Ask, Page};
use crate::extract::Params;
use crate::problem::Problem;
use crate::state::App;
use crate::view::fleet::{WorkerView, worker_view};

/// Query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Lists the workers, ordered by name: what they have, whether they live, what they do.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers",
    params(
        ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of workers", body = Page<WorkerView>),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Params(query): Params<WorkersQuery>,
) -> Result<Json<Page<WorkerView>>, Problem> {
    let ask = Ask::new(query.limit, query.cursor.as_deref())?;
    let (known, now) = (app.watch().read(), clock::now());
    let page = ask.cut(known.workers.values(), |worker| worker.worker.to_string());
    Ok(Json(page.map(|worker| worker_view(worker, &known, now))))
}
