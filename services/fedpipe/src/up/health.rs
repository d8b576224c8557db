//! Asks every child for its readiness, once, after the start.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;

use super::children::{API_ADDRESS, Child};
use super::state::State;

/// Who is not ready by then is reported as it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Where the API listens.
    pub api: Option<String>,
    /// By child.
    pub health: BTreeMap<String, Health>,
}

/// One child's health.
#[derive(Debug, Default)]
pub struct Health {
    /// Where it is served.
    pub address: Option<String>,
    /// Why it is not ready.
    pub trouble: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    ready: bool,
    reasons: BTreeMap<String, String>,
}

/// Waits until every child is ready, but no longer than anybody likes to wait.
pub async fn wait(children: &[Child], state: &State) -> Report {
    let client = reqwest::Client::builder()
        .timeout(ANSWER)
        .no_proxy()
        .build()
        .unwrap_or_default();
    let asked: FuturesUnordered<_> = children
        .iter()
        .map(|child| wait_for(&client, child))
        .collect();
    let health = asked.collect().await;
    Report {
        api: read(&state.path(API_ADDRESS)),
        health,
    }
}

async fn wait_for(client: &reqwest::Client, child: &Child) -> (String, Health) {
    let mut last = Health {
        address: None,
        trouble: Some("it does not say where its health is served".to_owned()),
    };
    let ready = async {
        loop {
            if let Some(address) = child.health.as_deref().and_then(read) {
                last = ask(client, address).await;
                if last.trouble.is_none() {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    // Out of patience: `last` says what was wrong.
    let _ = tokio::time::timeout(PATIENCE, ready).await;
    (child.name.clone(), last)
}

async fn ask(client: &reqwest::Client, address: String) -> Health {
    let answer = async {
        client
            .get(format!("http://{address}/readyz"))
            .send()
            .await?
            .json::<Answer>()
            .await
    };
    let trouble = match answer.await {
        Ok(Answer { ready: true, .. }) => None,
        Ok(Answer { reasons, .. }) => {
            let words: Vec<String> = reasons
                .iter()
                .map(|(what, why)| format!("{what}: {why}"))
                .collect();
            Some(words.join("; "))
        }
        Err(_) => Some("its health does not answer".to_owned()),
    };
    Health {
        address: Some(address),
        trouble,
    }
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let address = text.trim();
    (!address.is_empty()).then(|| address.to_owned())
}
