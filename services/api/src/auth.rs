//! Who asks, and whether it may. With tokens, whoever shows one, as far as its role goes; without any,
//! whoever is on this machine, but no page of another site that a browser on this machine shows.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::{self, Caller, Role};
use crate::problem::{Kind, Problem};
use crate::state::App;
use crate::tokens::Tokens;

/// Metrics name jobs and workers. The health port serves them without a token: a cluster keeps strangers
/// from it, and without one it listens on loopback.
const METRICS: &str = "/metrics";

/// Lets a request below `/v1`, or for the metrics, through, with who asks, or answers it with a problem.
pub async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1") && path != METRICS {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>();
    let least = access::least(request.method(), route.map(MatchedPath::as_str));
    match admit(app.tokens(), request.headers(), least) {
        Ok(caller) => {
            note(&caller, request.method(), request.uri().path());
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Whoever changes something stands in the log.
fn note(caller: &Caller, method: &Method, path: &str) {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let name = caller.name.as_ref().map(tracing::field::display);
        let (role, method) = (caller.role.name(), method.as_str());
        tracing::info!(caller = name, role, method, path, "a change is asked for");
    }
}

/// Who asks, if it may do what needs this role.
fn admit(tokens: &Tokens, headers: &HeaderMap, least: Role) -> Result<Caller, Problem> {
    let caller = identify(tokens, headers)?;
    if caller.role >= least {
        return Ok(caller);
    }
    let name = caller.name.as_ref().map(ToString::to_string);
    let (name, has, needs) = (name.unwrap_or_default(), caller.role.name(), least.name());
    tracing::warn!(
        caller = name,
        role = has,
        needs,
        "a request is more than its role may"
    );
    Err(Problem::new(
        Kind::Forbidden,
        format!(
            "this needs the role `{needs}`; the token of `{name}` has `{has}`: use a token with that role, the operator of this service makes one with `fedpipe admin add-token`"
        ),
    ))
}

fn identify(tokens: &Tokens, headers: &HeaderMap) -> Result<Caller, Problem> {
    if tokens.is_empty() {
        return judge_local(headers).map(|()| Caller::ADMIN);
    }
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, shown)| shown.trim());
    match shown {
        Some(shown) => tokens.find(shown).cloned().ok_or_else(|| {
            Problem::new(
                Kind::Unauthorized,
                "the token is none of those this service was configured with",
            )
        }),
        None => Err(Problem::new(
            Kind::Unauthorized,
            "send `Authorization: Bearer <token>`; the operator of this service makes one with `fedpipe admin add-token`",
        )),
    }
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
    use chassis::config::Secret;

    use super::*;

    fn check(token: Option<&str>, given: &[(&'static str, &str)], expected: Option<u16>) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().expect("a header"));
        }
        let token = token.map(Secret::from);
        let tokens = Tokens::read(token.as_ref(), &[]).expect("legal");
        let found = admit(&tokens, &headers, Role::Admin);
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
