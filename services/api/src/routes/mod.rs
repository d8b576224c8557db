//! The routes, one file per resource, and how they are put together.

pub mod adapter;
pub mod control;
pub mod events;
pub mod health;
pub mod jobs;
pub mod models;
pub mod openapi;
pub mod page;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod submit;
pub mod table;
pub mod workers;

mod docs;

use axum::Router;
use axum::middleware::from_fn_with_state;
use chassis::health::Readiness;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::App;
use crate::{auth, layers};

/// Every route with its description.
pub fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(submit::submit, jobs::list))
        .routes(routes!(jobs::get, jobs::delete))
        .routes(routes!(control::cancel))
        .routes(routes!(control::pause))
        .routes(routes!(control::resume))
        .routes(routes!(events::events))
        .routes(routes!(plan::plan))
        .routes(routes!(rounds::rounds))
        .routes(routes!(report::report))
        .routes(routes!(adapter::adapter))
        .routes(routes!(models::list))
        .routes(routes!(models::get))
        .routes(routes!(workers::list))
        .routes(routes!(openapi::openapi))
        .routes(routes!(docs::docs))
        .routes(routes!(page::page))
}

/// The whole service as one router.
pub fn router(app: App, readiness: Readiness) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .with_state(app.clone())
        .merge(chassis::health::router(readiness))
        .fallback(layers::no_such_path)
        .method_not_allowed_fallback(layers::no_such_method)
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn_with_state(app, layers::around))
}

#[cfg(test)]
mod tests;
