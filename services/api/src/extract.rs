//! What handlers take from a request; what cannot be taken is a problem document.

use axum::RequestPartsExt;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use domain::id::JobId;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::problem::{FieldError, Kind, Problem};
use crate::state::App;

/// Bytes of a body that is too large which are still read and thrown away: an answer that is sent
/// while the client writes is lost when the connection is reset.
const DRAIN_BYTES: usize = 16 << 20;

/// A JSON body.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        if !kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(is_json)
        {
            return Err(Problem::new(
                Kind::UnsupportedMediaType,
                "send the job as JSON with `Content-Type: application/json`",
            ));
        }
        let bytes = read(request.into_body(), app.limits().body_bytes).await?;
        parse(&bytes).map(Self)
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut kept = Vec::new();
    let mut length: usize = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "body broken off");
            Problem::new(Kind::BadRequest, "the body broke off: send it again")
        })?;
        length = length.saturating_add(chunk.len());
        if length > DRAIN_BYTES {
            break;
        }
        if length <= limit {
            kept.extend_from_slice(&chunk);
        }
    }
    if length > limit {
        let detail = format!("the body has more than {limit} bytes: make the job smaller");
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    Ok(kept)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    use serde_json::error::Category;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|error| match error.inner().classify() {
        Category::Data => Problem::refused(vec![FieldError {
            field: error.path().to_string(),
            problem: error.inner().to_string(),
        }]),
        _ => Problem::new(
            Kind::BadRequest,
            format!("the body is not JSON: {}", error.inner()),
        ),
    })?;
    json.end().map_err(|error| {
        let detail = format!("the body goes on after the JSON value: {error}");
        Problem::new(Kind::BadRequest, detail)
    })?;
    Ok(value)
}

/// The job in the path.
pub struct JobPath(pub JobId);

impl FromRequestParts<App> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let Path(id) = parts
            .extract::<Path<String>>()
            .await
            .map_err(|_| Problem::new(Kind::BadRequest, "the path is not UTF-8"))?;
        // A text that is no id can be no job's id.
        id.parse().map(Self).map_err(|_| Problem::no_job(&id))
    }
}

/// The query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let Query(value) = Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            let detail = format!("the query cannot be read: {}", rejection.body_text());
            Problem::new(Kind::BadRequest, detail)
        })?;
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::job::Spec;

    fn refused_field(json: &str) -> (String, String) {
        let problem = parse::<Spec>(json.as_bytes()).expect_err("refused");
        let value = serde_json::to_value(&problem).expect("serializes");
        assert_eq!(value["status"], 422, "{value}");
        let text = |name: &str| {
            value["errors"][0][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (text("field"), text("problem"))
    }

    #[test]
    fn an_unknown_field_and_a_wrong_type_are_named_with_their_path() {
        let (field, problem) = refused_field(
            r#"{"name":"j","model":{},"data":{"dataset":"m"},"adapter":{"ranks":4}}"#,
        );
        assert_eq!(field, "adapter.ranks");
        assert!(problem.contains("unknown field"), "{problem}");
        let (field, _) = refused_field(
            r#"{"name":"j","model":{},"data":{"dataset":"m"},"adapter":{"rank":70000}}"#,
        );
        assert_eq!(field, "adapter.rank");
        let (field, _) = refused_field(r#"{"name":"j","model":{},"data":{"dataset":"../x"}}"#);
        assert_eq!(field, "data.dataset");
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        for text in ["", "{", "name: yaml", "{}{}"] {
            let status = parse::<serde_json::Value>(text.as_bytes())
                .expect_err("refused")
                .status();
            assert_eq!(status, 400, "{text}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        assert_eq!(read(Body::from("12345"), 5).await.expect("fits").len(), 5);
        assert_eq!(
            read(Body::from("123456"), 5)
                .await
                .expect_err("too large")
                .status(),
            413
        );
    }
}
