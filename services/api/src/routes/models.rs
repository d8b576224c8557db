//! `/v1/models`: the models in storage. They get there by `fedpipe model push`, which writes to
//! storage directly.

use axum::Json;
use axum::extract::{Path, State};
use domain::artifact::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::openapi::Refusals;
use crate::cursor::{Ask, Page};
use crate::extract::Params;
use crate::problem::{Kind, Problem};
use crate::state::App;

/// A model in storage.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelView {
    /// Its name, `sha256:…`; jobs give it as `model.digest`.
    pub digest: String,
    /// Length of its files together.
    pub bytes: u64,
    /// Its files.
    pub files: Vec<String>,
}

/// A model in storage with every file.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetail {
    /// Its name, `sha256:…`.
    pub digest: String,
    /// Length of its files together.
    pub bytes: u64,
    /// Its files.
    pub files: Vec<FileView>,
}

/// A file of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileView {
    /// Its path below the model's folder.
    pub path: String,
    /// Digest of its content.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// Query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Lists the models in storage, ordered by digest.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    params(
        ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of models", body = Page<ModelView>),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn list(
    State(app): State<App>,
    Params(query): Params<ModelsQuery>,
) -> Result<Json<Page<ModelView>>, Problem> {
    let ask = Ask::new(query.limit, query.cursor.as_deref())?;
    let models = app.objects().list_models().await?;
    let page = ask.cut(models.into_iter(), |model| model.digest.to_string());
    Ok(Json(page.map(|model| ModelView {
        digest: model.digest.to_string(),
        bytes: model.bytes,
        files: model.files,
    })))
}

/// Shows a model with every file and its digest.
#[utoipa::path(
    get, path = "/v1/models/{digest}", tag = "models",
    params(("digest" = String, Path, description = "The model, `sha256:…`")),
    responses(
        (status = 200, description = "The model", body = ModelDetail),
        (status = 404, description = "There is no such model in storage", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn get(
    State(app): State<App>,
    digest: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<ModelDetail>, Problem> {
    let Path(text) = digest.map_err(|_| Problem::new(Kind::BadRequest, "the path is not UTF-8"))?;
    let digest: Digest = text.parse().map_err(|error| {
        Problem::new(
            Kind::NotFound,
            format!("{error}; `GET /v1/models` lists the models there are"),
        )
    })?;
    let manifest = app
        .objects()
        .model_manifest(&digest)
        .await
        .map_err(|error| match error {
            artifacts::Error::NotFound { .. } => Problem::new(
                Kind::NotFound,
                "no such model is in storage: push it with `fedpipe model push`",
            ),
            other => other.into(),
        })?;
    let files = manifest.files().iter().map(|file| FileView {
        path: file.path.clone(),
        sha256: file.sha256.to_string(),
        bytes: file.bytes,
    });
    Ok(Json(ModelDetail {
        digest: digest.to_string(),
        bytes: manifest.files().iter().map(|file| file.bytes).sum(),
        files: files.collect(),
    }))
}
