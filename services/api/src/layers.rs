//! What happens around every request: an id, a span, a time limit, a metric.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::clock::{Stopwatch, random_bits};
use chassis::telemetry::{self, Metric};
use tracing::Instrument;

use crate::problem::{Kind, Problem};
use crate::state::App;

/// Names a request in the log; a client may choose it, and finds it in the answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Says what a client spoke to the proxy before this service, which speaks HTTP alone.
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest id of a client's own choice, in bytes.
const ID_BYTES: usize = 64;

/// Wraps every request. A stream of events begins in time and then lasts as long as it likes.
pub async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let watch = Stopwatch::start();
    let id = request_id(&request);
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let scheme = scheme(request.headers());
    let span = tracing::info_span!("request", id = %id.to_str().unwrap_or_default(), method, route);
    let limit = Duration::from_millis(app.limits().request_timeout_ms);
    let answer = tokio::time::timeout(limit, next.run(request).instrument(span.clone())).await;
    let mut response = answer.unwrap_or_else(|_| {
        let detail = "no answer within the time limit: try again, and look at `/readyz`";
        Problem::new(Kind::Timeout, detail).into_response()
    });
    let status = response.status();
    let seconds = watch.seconds();
    span.in_scope(|| tracing::debug!(status = status.as_u16(), seconds, "answered"));
    let labels = [
        ("http.route", route),
        ("http.request.method", method),
        ("url.scheme", scheme),
        ("http.response.status_code", status.as_str()),
        ("error.type", own_error(&status)),
    ];
    telemetry::observe(Metric::HttpRequestSeconds, seconds, &labels);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn request_id(request: &Request) -> HeaderValue {
    let legal = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        !bytes.is_empty() && bytes.len() <= ID_BYTES && bytes.iter().all(plain)
    };
    let given = request.headers().get(&REQUEST_ID).filter(legal).cloned();
    given.unwrap_or_else(|| {
        // Invariant: hexadecimal digits are a legal header value.
        HeaderValue::from_str(&format!("{:016x}", random_bits()))
            .unwrap_or(HeaderValue::from_static("0"))
    })
}

/// A closed set: a label must not grow with what clients invent.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

/// What the client itself spoke. Whoever reaches this service without a proxy may say what it likes: nobody decides by it.
fn scheme(headers: &HeaderMap) -> &'static str {
    let said = headers.get(&FORWARDED_SCHEME);
    let said = said.and_then(|value| value.to_str().ok()).unwrap_or("");
    // Of several proxies the first spoke with the client.
    let first = said.split(',').next().unwrap_or("").trim();
    if first.eq_ignore_ascii_case("https") {
        "https"
    } else {
        "http"
    }
}

/// What failed here, as the semantic conventions have it: the status, of an error that is not the client's.
fn own_error(status: &StatusCode) -> &str {
    if status.is_server_error() {
        status.as_str()
    } else {
        ""
    }
}

/// Answers a path that does not exist.
pub async fn no_such_path() -> Problem {
    let detail = "there is no such path; `/docs` lists what there is";
    Problem::new(Kind::NotFound, detail)
}

/// Answers a method that a path does not have; the `Allow` header names those it has.
pub async fn no_such_method() -> Problem {
    let detail = "this path does not take this method; the `Allow` header names those it takes";
    Problem::new(Kind::MethodNotAllowed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_what_the_client_spoke_to_the_first_proxy() {
        for (said, want) in [
            (None, "http"),
            (Some("https"), "https"),
            (Some(" HTTPS , http"), "https"),
            (Some("http, https"), "http"),
            (Some("gopher"), "http"),
            (Some(""), "http"),
        ] {
            let value = said.map(HeaderValue::from_static);
            let headers = value.map(|value| (FORWARDED_SCHEME, value));
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(scheme(&headers), want, "{said:?}");
        }
    }

    #[test]
    fn only_the_services_own_errors_have_a_type() {
        let types = [200, 304, 404, 429, 500, 503].map(|code| {
            let status = StatusCode::from_u16(code).expect("a status");
            own_error(&status).to_owned()
        });
        assert_eq!(types, ["", "", "", "", "500", "503"]);
    }
}
