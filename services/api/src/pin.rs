//! The commit of a model of the Hub, found once and for all sites: a branch may move while they fetch it.

use std::time::Duration;

use artifacts::Retry;
use artifacts::hub::{Config, Hub, Limits};
use bus::drive::error_chain;
use domain::hub::Model;
use domain::job::Spec;

use crate::problem::{FieldError, Kind, Problem};

/// How long the Hub may take: a person waits.
const WAIT: Duration = Duration::from_secs(30);

/// The Hub as this service asks it: small questions, and never for long.
///
/// # Errors
/// If the settings cannot be used.
pub fn open(config: &Config) -> Result<Hub, artifacts::Error> {
    let limits = Limits {
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(10),
        attempts: 2,
        ..Limits::default()
    };
    let config = config.or_environment(|name| std::env::var(name).ok());
    Ok(Hub::open(&config, limits)?)
}

/// The job with its model named by a commit, if it is one of the Hub. Of one that is, nothing is asked.
///
/// # Errors
/// What the Hub answers, as a refusal of `model.source`; that it does not answer, as something that passes.
pub async fn pinned(hub: &Hub, mut spec: Spec) -> Result<Spec, Problem> {
    let named: Option<Model> = spec
        .model
        .source
        .as_ref()
        .and_then(|source| source.parse().ok());
    let Some(model) = named else {
        return Ok(spec);
    };
    let away = |why: &str| {
        let detail = format!(
            "{why}: submit again, or name the model by its commit, hf://{}@<40 hexadecimal digits>",
            model.repository()
        );
        Problem::new(Kind::Unavailable, detail)
    };
    let asked = tokio::time::timeout(WAIT, hub.pin(&model)).await;
    match asked.map_err(|_| away("the Hub does not answer"))? {
        Ok(pinned) => spec.model.source = Some(pinned.to_string()),
        Err(error) if error.retry() == Retry::Later => {
            tracing::warn!(error = error_chain(&error), "a revision is not resolved");
            return Err(away(&error.to_string()));
        }
        Err(error) => {
            return Err(Problem::refused(vec![FieldError {
                field: "model.source".to_owned(),
                problem: error.to_string(),
            }]));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn spec(source: &str) -> Spec {
        let text = r#"{"name":"j","model":{"source":"SOURCE"},"data":{"dataset":"m"}}"#;
        serde_json::from_str(&text.replace("SOURCE", source)).expect("well-formed")
    }

    async fn source(endpoint: &str, named: &str) -> Result<String, Problem> {
        let config = Config {
            endpoint: Some(endpoint.to_owned()),
            ..Config::default()
        };
        let limits = Limits {
            pause: Duration::ZERO,
            ..Limits::default()
        };
        let hub = Hub::open(&config, limits).expect("legal");
        let spec = pinned(&hub, spec(named)).await?;
        Ok(spec.model.source.unwrap_or_default())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_branch_becomes_the_commit_it_is_at_and_everything_else_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let hub = testkit::hub::Hub::serve("org/name", COMMIT, folder.path())
            .await
            .expect("serves");
        let pinned = format!("hf://org/name@{COMMIT}");
        assert_eq!(
            source(&hub.url(), "hf://org/name").await.ok(),
            Some(pinned.clone())
        );
        let asked = hub.asked().len();
        assert_eq!(source(&hub.url(), &pinned).await.ok(), Some(pinned));
        assert_eq!(
            source(&hub.url(), "file:///m").await.ok(),
            Some("file:///m".to_owned())
        );
        assert_eq!(hub.asked().len(), asked);
        let refused = source(&hub.url(), "hf://org/other")
            .await
            .expect_err("unknown");
        let refused = serde_json::to_value(refused).expect("serializes");
        assert_eq!(
            (&refused["status"], &refused["errors"][0]["field"]),
            (&422.into(), &"model.source".into())
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hub_that_is_away_is_a_503_that_says_how_to_do_without() {
        let problem = source("http://127.0.0.1:1", "hf://org/name")
            .await
            .expect_err("nobody is there");
        let problem = serde_json::to_value(problem).expect("serializes");
        assert_eq!(problem["status"], 503);
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("by its commit")),
            "{problem}"
        );
    }
}
