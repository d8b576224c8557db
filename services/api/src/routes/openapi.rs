//! `GET /openapi.json`: the API in OpenAPI 3.1, made from the routes themselves.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::health;
use crate::access;
use crate::problem::Problem;
use crate::view::fleet::ProgressEvent;
use crate::view::spec::JobFile;

/// The token's name among the security schemes.
const SCHEME: &str = "token";

/// What no route says itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "fedpipe",
        description = "Fine-tunes one language model on data that may not leave the places where it lies. Every error is a problem document (RFC 9457); times are RFC 3339; a number that is not finite is null.",
    ),
    paths(health::healthz, health::readyz, health::metrics),
    components(schemas(JobFile, ProgressEvent)),
    security(("token" = [])),
    tags(
        (name = "jobs", description = "Submit jobs, look at them, take their results"),
        (name = "control", description = "Cancel, pause, resume"),
        (name = "models", description = "Models in storage"),
        (name = "workers", description = "The fleet"),
        (name = "health", description = "About this process"),
        (name = "documentation", description = "About this API"),
    ),
    modifiers(&Token),
)]
pub struct Document;

/// The token that `/v1` and `/metrics` ask for where one is configured.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Asked for below `/v1`, and for `/metrics`, where the service has tokens configured; without any it serves loopback only. Each token has a role, `viewer`, `submitter` or `admin`, and each operation names the least that it needs; each role may do what those before it may"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(SCHEME, SecurityScheme::Http(token));
    }
}

/// Refusals that every route below `/v1` may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "a description of answers")]
pub enum Refusals {
    /// A token is configured and was not shown.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The token's role is not enough (`detail` names the least), or no token is configured and the request comes from another site's page.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// A defect; the log has the cause.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// NATS or object storage does not answer, or not in time: try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}

/// The document of all routes, each with its least role as a scope of the token (OpenAPI 3.1 allows
/// role names there); what asks for no token says so.
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, mut document) = super::described().split_for_parts();
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let role = access::ROUTES
                .iter()
                .find(|one| (one.0, one.1) == (method, path.as_str()));
            let asked = role.map(|one| SecurityRequirement::new(SCHEME, [one.2.name()]));
            operation.security = Some(asked.into_iter().collect());
        }
    }
    document
}

/// The OpenAPI document as it is committed: pretty, and the same for the same program.
#[must_use]
pub fn openapi_json() -> String {
    // Invariant: the document is plain data; a test writes it.
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}
