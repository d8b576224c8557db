//! Lets workers without credentials at single objects in storage: hears what they ask, has it judged
//! by the stored job, and signs.
//!
//! Several processes share the questions. None of them keeps anything, so one that dies costs its
//! worker one repeated question.

use artifacts::Signed;
use bus::IncomingAsk;
use bus::drive::error_chain;
use chassis::failpoint::{self, Failpoint};
use chassis::telemetry::{self, Metric};
use contract::message::grant::{Answer, Ask};
use domain::grant::{Reason, Refusal, judge};
use futures::StreamExt;

use crate::state::App;

/// Questions that are answered at the same time; more wait.
const AT_ONCE: usize = 64;

/// Pause before a broken subscription is opened again.
const MEND: std::time::Duration = std::time::Duration::from_millis(200);

/// Answers until the process stops.
pub async fn listen(app: App) {
    loop {
        match app.bus().asks().await {
            Ok(asks) => {
                asks.for_each_concurrent(AT_ONCE, |ask| handle(app.clone(), ask))
                    .await;
            }
            Err(error) => tracing::debug!(%error, "workers are not heard, listening again"),
        }
        tokio::time::sleep(MEND).await;
    }
}

async fn handle(app: App, incoming: IncomingAsk) {
    let ask = &incoming.ask;
    let answer = answer(&app, ask).await;
    let outcome = match &answer {
        Answer::Granted { .. } => "granted",
        Answer::Refused(refusal) => {
            tracing::warn!(worker = %ask.worker, job = ask.job.as_ref().map(tracing::field::display), %refusal, "not granted");
            "refused"
        }
        Answer::Away { detail } => {
            tracing::warn!(worker = %ask.worker, detail, "a worker is to ask again");
            "later"
        }
    };
    let labels = [("kind", "grant"), ("outcome", outcome)];
    telemetry::count(Metric::MessagesHandled, 1, &labels);
    failpoint::hit(Failpoint::ApiGrantBeforeAnswer);
    if let Err(error) = incoming.answer(&answer).await {
        tracing::warn!(%error, "a worker was not answered");
    }
}

/// What a worker is answered: judged by the job as it is stored now.
async fn answer(app: &App, ask: &Ask) -> Answer {
    let job = match &ask.job {
        None => None,
        Some(id) => {
            let read = async { app.jobs().await?.get(id.as_str()).await };
            match read.await {
                Ok(found) => found.map(|(job, _)| job),
                // Asking again would give the same; the feed of jobs has told the log why it cannot be read.
                Err(bus::Error::Decode { .. }) => {
                    return Answer::Refused(Refusal::of("", Reason::Unreadable));
                }
                Err(error) => return away(&error),
            }
        }
    };
    if let Err(refusal) = judge(&ask.worker, job.as_ref(), &ask.wanted) {
        return Answer::Refused(refusal);
    }
    match app.objects().sign(&ask.wanted).await {
        Ok(Signed { urls, valid }) => Answer::Granted {
            urls,
            valid_ms: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
        },
        Err(artifacts::Error::NoUrls) => Answer::Refused(Refusal::of("", Reason::NoUrls)),
        Err(error) => away(&error),
    }
}

fn away(error: &dyn std::error::Error) -> Answer {
    let detail = error_chain(error);
    Answer::Away { detail }
}
