//! Who may ask. With a token, whoever shows it; without one, whoever is on this machine, but no page
//! of another site that a browser on this machine shows.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::config::Secret;
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};
use crate::state::App;

/// Metrics name jobs and workers. The health port serves them without a token: a cluster keeps strangers
/// from it, and without one it listens on loopback.
const METRICS: &str = "/metrics";

/// Lets a request below `/v1`, or for the metrics, through, or answers it with a problem.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1") && path != METRICS {
        return next.run(request).await;
    }
    match judge(app.token(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn judge(token: Option<&Secret>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(token) = token else {
        return judge_local(headers);
    };
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, shown)| shown.trim());
    match shown {
        Some(shown) if same(shown, token.expose()) => Ok(()),
        Some(_) => Err(Problem::new(
            Kind::Unauthorized,
            "the token is not the one this service was configured with",
        )),
        None => Err(Problem::new(
            Kind::Unauthorized,
            "send `Authorization: Bearer <token>`; the operator of this service has the token",
        )),
    }
}

/// Compares digests, so that the time it takes says nothing about where the texts differ.
fn same(left: &str, right: &str) -> bool {
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    let differences = left.iter().zip(right.iter());
    differences.fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}

// A browser sends requests of any page to loopback; it cannot forge these two headers.
fn judge_local(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| {
        let value = headers.get(name)?;
        Some(value.to_str().unwrap_or("?"))
    };
    let host = text(header::HOST);
    let origin = text(header::ORIGIN).map(|origin| match origin.split_once("://") {
        Some((_, authority)) => authority,
        None => origin,
    });
    if host.into_iter().chain(origin).all(is_local) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Forbidden,
        "without a token this service answers to its own machine only: use http://127.0.0.1, or configure a token",
    ))
}

fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: Option<&str>, given: &[(&'static str, &str)], expected: Option<u16>) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().expect("a header"));
        }
        let found = judge(token.map(Secret::from).as_ref(), &headers);
        assert_eq!(
            found.err().map(|problem| problem.status()),
            expected,
            "{given:?}"
        );
    }

    #[test]
    fn a_configured_token_must_be_shown_exactly() {
        let token = Some("0123456789abcdef");
        check(token, &[("authorization", "Bearer 0123456789abcdef")], None);
        check(token, &[("authorization", "bearer 0123456789abcdef")], None);
        check(
            token,
            &[("authorization", "Bearer 0123456789abcdee")],
            Some(401),
        );
        check(
            token,
            &[("authorization", "Bearer 0123456789abcdef0")],
            Some(401),
        );
        check(
            token,
            &[("authorization", "Basic 0123456789abcdef")],
            Some(401),
        );
        check(token, &[("authorization", "Bearer ")], Some(401));
        check(token, &[], Some(401));
    }

    #[test]
    fn without_a_token_pages_of_other_sites_are_refused() {
        check(None, &[], None);
        check(None, &[("host", "127.0.0.1:8080")], None);
        check(
            None,
            &[("host", "localhost:8080"), ("origin", "http://[::1]:8080")],
            None,
        );
        check(
            None,
            &[
                ("host", "127.0.0.1:8080"),
                ("origin", "https://evil.example"),
            ],
            Some(403),
        );
        check(None, &[("host", "rebound.example:8080")], Some(403));
        check(
            None,
            &[("host", "127.0.0.1:8080"), ("origin", "null")],
            Some(403),
        );
    }
}
