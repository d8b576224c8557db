//! The health pages' descriptions; `chassis::health` serves them. Only the metrics, which name jobs and workers, need
//! the token here; on the health port they do not.

/// Says that the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "health",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain")),
)]
#[expect(dead_code, reason = "a description; chassis serves the page")]
pub const fn healthz() {}

/// Says whether the service can work, and if not, why.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "It can work: `ready` is true", body = Object),
        (status = 503, description = "It cannot: `reasons` says which condition is not met and why", body = Object),
    ),
)]
#[expect(dead_code, reason = "a description; chassis serves the page")]
pub const fn readyz() {}

/// Shows the process's metrics as Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "Prometheus text, version 0.0.4", body = String, content_type = "text/plain"),
        (status = 401, description = "The token is missing or wrong", body = crate::problem::Problem, content_type = "application/problem+json"),
    ),
)]
#[expect(dead_code, reason = "a description; chassis serves the page")]
pub const fn metrics() {}
