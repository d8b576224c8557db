//! An update is fetched once, verified and checked before it may count.

use std::path::PathBuf;

use artifacts::tensors::TensorFile;
use bus::drive::{Owned, error_chain};
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::message::job::Event;
use domain::adapter::WeightShape;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::Phase;
use domain::plan::WorkerPlan;
use domain::round::{Standing, Update};

use crate::Error;
use crate::app::Aggregator;
use crate::strategy::{self, norm::Moved};

/// Bytes of file header and names that an update may have beyond its tensors.
const HEADER_BYTES: u64 = 1 << 20;

/// Takes an update in, or refuses it with a reason that names the tensor.
///
/// # Errors
/// If storage or bus do not answer; the update is then looked at again later.
pub async fn ingest(
    aggregator: &Aggregator,
    job: &Owned,
    worker: &WorkerName,
    plan: &WorkerPlan,
    weights: &[WeightShape],
    update: Update,
) -> Result<Standing, Error> {
    match accept(aggregator, worker, job, plan, weights, &update).await? {
        Ok(()) => Ok(Standing::Stored(Box::new(update))),
        Err(detail) => {
            let site = SiteTrouble {
                worker: worker.clone(),
                trouble: Trouble::UpdateRefused,
                detail,
            };
            tracing::warn!(job = %job.job().id, %worker, reason = site.detail, "update refused");
            telemetry::count(Metric::UpdatesRefused, 1, &[("reason", "checked")]);
            job.say(Event::Refused { site: site.clone() }).await?;
            Ok(Standing::Lost(site))
        }
    }
}

async fn accept(
    aggregator: &Aggregator,
    worker: &WorkerName,
    job: &Owned,
    plan: &WorkerPlan,
    weights: &[WeightShape],
    update: &Update,
) -> Result<Result<(), String>, Error> {
    if let Some(figure) = update.metrics.illegal() {
        return Ok(Err(format!("its {figure} is not a number from 0")));
    }
    let own = format!("jobs/{}/updates/{worker}/", job.job().id);
    if !update.adapter.key.starts_with(&own) || update.adapter.key.contains("..") {
        return Ok(Err("it lies outside the worker's own keys".to_owned()));
    }
    let expected = 4 * plan.ranks.parameters(weights) + HEADER_BYTES;
    if update.adapter.bytes > expected {
        let bytes = update.adapter.bytes;
        return Ok(Err(format!(
            "it has {bytes} bytes where its plan allows {expected}"
        )));
    }
    let fetched =
        aggregator
            .spool
            .ensure(&aggregator.artifacts, &update.adapter, &aggregator.transfer);
    let path = match aggregator.reach.guard(fetched).await? {
        Ok(path) => path,
        Err(error) if error.retry() == artifacts::Retry::Later => return Err(error.into()),
        Err(error) => return Ok(Err(error_chain(&error))),
    };
    hit(Failpoint::AggregatorIngestAfterDownload);
    let bound = bound(aggregator, job).await?;
    let (ranks, weights) = (plan.ranks.clone(), weights.to_vec());
    let spec = &job.job().spec;
    let (trained, scale) = (spec.aggregation.strategy.trains(), spec.adapter.scale());
    let checked = tokio::task::spawn_blocking(move || {
        let update = TensorFile::open(&path).map_err(|error| error_chain(&error))?;
        let refused = |error: strategy::Refused| error_chain(&error);
        strategy::check(&update, &ranks, &weights, trained).map_err(refused)?;
        let Some((bound, global)) = bound else {
            return Ok(());
        };
        let global = TensorFile::open(&global).map_err(|error| error_chain(&error))?;
        let moved = Moved {
            update: &update,
            global: &global,
            ranks: &ranks,
            weights: &weights,
            scale,
            trained,
        };
        moved.within(bound).map_err(refused)
    });
    Ok(checked.await?)
}

/// The job's bound on how far an update may have moved, and the merged adapter that it started from.
async fn bound(aggregator: &Aggregator, job: &Owned) -> Result<Option<(f64, PathBuf)>, Error> {
    let Some(bound) = job.job().spec.aggregation.norm_bound else {
        return Ok(None);
    };
    let Phase::Training { global, .. } = &job.job().phase else {
        return Ok(None);
    };
    let (store, transfer) = (&aggregator.artifacts, &aggregator.transfer);
    let fetched = aggregator.spool.ensure(store, global, transfer);
    let global = aggregator.reach.guard(fetched).await??;
    Ok(Some((bound, global)))
}
