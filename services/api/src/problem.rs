//! Problem documents (RFC 9457): what every refused request is answered with.
//!
//! The type is stable and machines may rely on it; the detail is a sentence for people and says what
//! to do. Nothing of the inside (paths, addresses, causes) is in it: that is logged here, once.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bus::drive::error_chain;
use domain::job::spec::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What kind of problem; each has one status and one title for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be read.
    BadRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// A page of another site asked.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The state of the job does not allow it.
    Conflict,
    /// This release cannot read what is stored.
    Unreadable,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The job is refused; `errors` says which fields.
    JobRefused,
    /// The key was used for another job.
    KeyReused,
    /// A limit is reached.
    TooMany,
    /// Something that this service needs does not answer.
    Unavailable,
    /// It took too long.
    Timeout,
    /// A defect.
    Internal,
}

impl Kind {
    const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BadRequest => (
                "bad-request",
                StatusCode::BAD_REQUEST,
                "The request cannot be read",
            ),
            Self::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                "A token is needed",
            ),
            Self::Forbidden => (
                "forbidden",
                StatusCode::FORBIDDEN,
                "The request is not allowed",
            ),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The method is not known here",
            ),
            Self::Conflict => (
                "conflict",
                StatusCode::CONFLICT,
                "The job's state does not allow it",
            ),
            Self::Unreadable => (
                "unreadable",
                StatusCode::CONFLICT,
                "This release cannot read it",
            ),
            Self::TooLarge => (
                "too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
            ),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body is not JSON",
            ),
            Self::JobRefused => (
                "job-refused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The job is refused",
            ),
            Self::KeyReused => (
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The key belongs to another job",
            ),
            Self::TooMany => (
                "too-many",
                StatusCode::TOO_MANY_REQUESTS,
                "A limit is reached",
            ),
            Self::Unavailable => (
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "A part of fedpipe does not answer",
            ),
            Self::Timeout => (
                "timeout",
                StatusCode::SERVICE_UNAVAILABLE,
                "The answer took too long",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "A defect of fedpipe",
            ),
        }
    }
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:fedpipe:problem:job-refused",
    "title": "The job is refused",
    "status": 422,
    "detail": "1 field is refused: change it and submit again",
    "errors": [{ "field": "adapter.rank", "problem": "use 1 to rank_max (16), or auto" }],
}))]
pub struct Problem {
    /// Stable name of the kind of problem, `urn:fedpipe:problem:<slug>`.
    #[serde(rename = "type")]
    type_: String,
    /// The kind in words; the same for every problem of this type.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time, and what to do.
    detail: String,
    /// Which fields are refused; present for refused jobs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// One refused field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, such as `adapter.rank`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl From<Refusal> for FieldError {
    fn from(refusal: Refusal) -> Self {
        Self {
            field: refusal.field,
            problem: refusal.problem,
        }
    }
}

impl Problem {
    /// A problem of this kind; `detail` says what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (slug, status, title) = kind.facts();
        Self {
            type_: format!("urn:fedpipe:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// A job with these refused fields.
    pub fn refused(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is refused: change it and submit again".to_owned(),
            count => format!("{count} fields are refused: change them and submit again"),
        };
        Self {
            errors,
            ..Self::new(Kind::JobRefused, detail)
        }
    }

    /// There is no such job.
    pub fn no_job(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        let detail = format!("there is no job {shown:?}; `GET /v1/jobs` lists the jobs there are");
        Self::new(Kind::NotFound, detail)
    }

    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

impl From<bus::Error> for Problem {
    fn from(error: bus::Error) -> Self {
        tracing::warn!(error = error_chain(&error), "the bus refused a request");
        match error {
            bus::Error::TooLarge { bytes, limit, .. } => Self::new(
                Kind::TooLarge,
                format!(
                    "the job would have {bytes} bytes, at most {limit} are stored: name fewer sites or choices"
                ),
            ),
            bus::Error::Conflict { .. } => Self::new(
                Kind::Conflict,
                "somebody else changed the job at the same time: look at it and try again",
            ),
            bus::Error::Unavailable { .. } | bus::Error::Connect { .. } => Self::new(
                Kind::Unavailable,
                "the message bus does not answer: try again; an operator looks at nats-server and at `/readyz`",
            ),
            bus::Error::Decode { subject, .. } => Self::new(
                Kind::Unreadable,
                format!(
                    "this release cannot read {subject}; a newer one probably wrote it: use that one; an operator finds the cause in the log, and what else can be done in docs/operate.md (Go back a release)"
                ),
            ),
            bus::Error::Encode { .. } | bus::Error::Config { .. } => Self::new(
                Kind::Internal,
                "a value cannot be written: an operator finds the cause in the log",
            ),
        }
    }
}

impl From<artifacts::Error> for Problem {
    fn from(error: artifacts::Error) -> Self {
        tracing::warn!(error = error_chain(&error), "the storage refused a request");
        if let artifacts::Error::NotFound { .. } = error {
            return Self::new(
                Kind::NotFound,
                "the object is not in storage: it was deleted, or never stored",
            );
        }
        match error.retry() {
            artifacts::Retry::Later => Self::new(
                Kind::Unavailable,
                "object storage does not answer: try again; an operator looks at it and at `/readyz`",
            ),
            artifacts::Retry::Never => Self::new(
                Kind::Internal,
                "object storage refuses or holds something else than was stored: an operator finds the cause in the log",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_job_lists_its_fields() {
        let problem = Problem::refused(vec![FieldError {
            field: "adapter.rank".to_owned(),
            problem: "use 1 to 4".to_owned(),
        }]);
        let json = serde_json::to_value(&problem).expect("serializes");
        assert_eq!(json["type"], "urn:fedpipe:problem:job-refused");
        assert_eq!(json["status"], 422);
        assert_eq!(json["errors"][0]["field"], "adapter.rank");
    }

    #[test]
    fn other_problems_have_no_list_of_fields_and_the_right_media_type() {
        let response = Problem::new(Kind::NotFound, "x").into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let json = serde_json::to_value(Problem::new(Kind::NotFound, "x")).expect("serializes");
        assert!(json.get("errors").is_none());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name_and_without_the_cause() {
        let error = bus::Error::Decode {
            subject: "job_0000000000000001".to_owned(),
            source: "unknown field `secret`".into(),
        };
        let problem = Problem::from(error);
        assert_eq!(
            (problem.status(), problem.title),
            (409, "This release cannot read it")
        );
        let start =
            "this release cannot read job_0000000000000001; a newer one probably wrote it: ";
        assert!(problem.detail.starts_with(start), "{}", problem.detail);
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }

    #[test]
    fn a_bus_that_is_away_is_a_503_that_names_no_address() {
        let error = bus::Error::Connect {
            url: "nats://secret@host".to_owned(),
            source: "refused".into(),
        };
        let problem = Problem::from(error);
        assert_eq!(problem.status(), 503);
        assert!(!problem.detail.contains("host"), "{}", problem.detail);
    }
}
