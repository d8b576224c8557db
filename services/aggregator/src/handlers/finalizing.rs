//! The last round is committed: writes the adapter's configuration and the report.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use contract::topology::{round_key, score_key};
use domain::adapter::Encoder;
use domain::artifact::ArtifactRef;
use domain::job::{Job, Kept, Phase};
use domain::round::{Evaluated, Summary};

use crate::Error;
use crate::app::Aggregator;
use crate::handlers::starting;
use crate::rounds::published;
use crate::rounds::report::{Report, Scored, peft_config};

pub async fn handle(
    aggregator: &Aggregator,
    job: &mut Owned,
    adapter: ArtifactRef,
    kept: Option<Kept>,
) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let id = job.job().id.clone();
    let mut rounds: Vec<Summary> = Vec::new();
    let mut scores: Vec<Evaluated> = Vec::new();
    let last = kept
        .as_ref()
        .map_or(job.job().spec.rounds.count, |kept| kept.last);
    for round in 0..=last {
        rounds.extend(
            aggregator
                .rounds
                .get(&round_key(&id, round))
                .await?
                .map(|(summary, _)| summary),
        );
        scores.extend(
            aggregator
                .scores
                .get(&score_key(&id, round))
                .await?
                .map(|(score, _)| score),
        );
    }
    let side = rounds.iter().rfind(|summary| summary.global == adapter);
    let side = side.map(|summary| summary.side.clone()).unwrap_or_default();
    let (adapter, encoder) = match job.job().spec.training.classifies() {
        true => named_as_encoder(aggregator, job.job(), adapter).await?,
        false => (adapter, None),
    };
    let config = peft_config(job.job(), &plan, &side, encoder);
    let config = encode("adapter configuration", &config)?;
    let prefix = format!("jobs/{id}/adapter");
    let sent = aggregator
        .artifacts
        .put_bytes(&prefix, config, &aggregator.transfer);
    let config = aggregator.reach.guard(sent).await??;
    hit(Failpoint::AggregatorFinalizeAfterAdapter);
    let report = Report {
        job: &id,
        spec: &job.job().spec,
        submitted_at: job.job().submitted_at,
        finished_at: job.now(),
        plan: &plan,
        rounds: &rounds,
        evaluations: scores.iter().map(Scored::from).collect(),
        kept: kept.as_ref(),
        adapter: &adapter,
    };
    let report = encode("report", &report)?;
    let report_prefix = format!("jobs/{id}/report");
    let sent = aggregator
        .artifacts
        .put_bytes(&report_prefix, report, &aggregator.transfer);
    let report = aggregator.reach.guard(sent).await??;
    hit(Failpoint::AggregatorFinalizeAfterReport);
    job.advance(
        Phase::Succeeded {
            adapter,
            config,
            report,
        },
        |job| job.course.kept = kept,
    )
    .await?;
    hit(Failpoint::AggregatorFinalizeAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorFinalizeAfterPublish);
    Ok(Next::Again)
}

/// The adapter under the names of the model's own checkpoint, and whose they are; the same bytes every time.
async fn named_as_encoder(
    aggregator: &Aggregator,
    job: &Job,
    adapter: ArtifactRef,
) -> Result<(ArtifactRef, Option<Encoder>), Error> {
    let from = aggregator.fetch(job, &adapter).await?;
    let folder = starting::folder(aggregator, job).await?;
    let to = folder.join("adapter.safetensors");
    let made = to.clone();
    let named = tokio::task::spawn_blocking(move || published::of_encoder(&from, &made));
    let encoder = named.await??;
    let prefix = format!("jobs/{}/adapter", job.id);
    let sent = aggregator
        .artifacts
        .put_file(&prefix, &to, &aggregator.transfer);
    Ok((aggregator.reach.guard(sent).await??, Some(encoder)))
}

fn encode(what: &'static str, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value).map_err(|source| Error::Encode { what, source })
}
