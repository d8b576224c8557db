//! What happens around every request: an id, a span, a time limit, a metric.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::clock::{Stopwatch, random_bits};
use chassis::telemetry::{self, Metric};
use tracing::Instrument;

use crate::problem::{Kind, Problem};
use crate::state::App;

/// Names a request in the log; a client may choose it, and finds it in the answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a client's own choice, in bytes.
const ID_BYTES: usize = 64;

/// Wraps every request. A stream of events begins in time and then lasts as long as it likes.
pub async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let watch = Stopwatch::start();
    let id = request_id(&request);
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
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
        ("http.response.status_code", status.as_str()),
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
        _ => "_OTHER",
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
