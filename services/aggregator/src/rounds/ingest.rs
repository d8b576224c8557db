//! An update is fetched once, verified and checked before it may count. One that is refused is counted,
//! and said with the reason; the round goes on without it.

use std::path::PathBuf;

use artifacts::tensors::{self, TensorFile};
use bus::Unreadable;
use bus::drive::{Owned, error_chain};
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::message::job::Event;
use contract::message::report::Walked;
use domain::adapter::{HeadShape, WeightShape};
use domain::artifact::ArtifactRef;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::spec::Training;
use domain::object;
use domain::plan::WorkerPlan;
use domain::round::{Standing, Update, UpdateMetrics};
use domain::zeroth::GENERATOR;

use crate::Error;
use crate::app::Aggregator;
use crate::handlers::starting;
use crate::rounds::blame::fetched_or_blamed;
use crate::rounds::unread;
use crate::rounds::walk::{self, Walker};
use crate::strategy::{self, norm::Moved};

/// Bytes of file header and names that an update may have beyond its tensors.
const HEADER_BYTES: u64 = 1 << 20;

/// How far the scalars of a round may move a number at most: far enough from the largest 32-bit float that no
/// site's can take the merged adapter there, nor where `training.mezo.scaling` stretches them: no tensor has the
/// 10^16 numbers that this would take.
const REACH: f64 = 1e30;

/// What of an update was refused: the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// A site's adapter.
    Checked,
    /// A zeroth-order site's scalars.
    Scalars,
    /// The report itself.
    Unreadable,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Scalars => "scalars",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What an update has to be.
pub struct Expected<'a> {
    /// Whose.
    pub worker: &'a WorkerName,
    /// Of which round.
    pub round: u32,
    /// What its worker trains.
    pub plan: &'a WorkerPlan,
    /// The model's weights.
    pub weights: &'a [WeightShape],
    /// The merged adapter that its worker started from.
    pub start: &'a ArtifactRef,
}

/// Takes an update in, or refuses it with a reason that names the tensor.
///
/// # Errors
/// If storage or bus do not answer; the update is then looked at again later.
pub async fn ingest(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    update: Update,
) -> Result<Standing, Error> {
    match accept(aggregator, job, expected, &update).await? {
        Ok(()) => Ok(Standing::Stored(Box::new(update))),
        Err(detail) => {
            let freed = aggregator.spool.remove(&job.job().id, &update.adapter);
            if let Err(error) = freed.await {
                tracing::debug!(%error, "a refused update stays in the spool");
            }
            refuse(job, expected.worker, Reason::Checked, detail).await
        }
    }
}

/// Takes in scalars, or refuses them. They are stored as the site's update, so that all that comes after
/// finds them by their digest; where each site walks its own way, its adapter is made again first, and must
/// be what the site says it came to.
///
/// # Errors
/// As [`ingest`].
pub async fn scalars(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    walked: Walked,
) -> Result<Standing, Error> {
    if let Err(detail) = retrace(aggregator, job, expected, &walked).await? {
        return refuse(job, expected.worker, Reason::Scalars, detail).await;
    }
    let prefix = object::update_prefix(&job.job().id, expected.worker, expected.round);
    let (bytes, transfer) = (walked.scalars.to_bytes(), &aggregator.transfer);
    let sent = aggregator.artifacts.put_bytes(&prefix, bytes, transfer);
    let adapter = aggregator.reach.guard(sent).await??;
    hit(Failpoint::AggregatorIngestAfterScalars);
    let metrics = walked.metrics;
    Ok(Standing::Stored(Box::new(Update { adapter, metrics })))
}

/// Whether the scalars are those of the expected round, and lead to where their site says.
async fn retrace(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    walked: &Walked,
) -> Result<Result<(), String>, Error> {
    let Expected {
        worker,
        round,
        plan,
        weights,
        start,
    } = *expected;
    if let Err(detail) = figures(&walked.metrics, plan, &job.job().spec.training) {
        return Ok(Err(detail));
    }
    let generator = walked.generator;
    if generator != GENERATOR {
        return Ok(Err(format!(
            "its directions are of generator {generator}, the job's of generator {GENERATOR}"
        )));
    }
    if walked.round != round || walked.start != start.sha256 {
        let (found, of) = (&walked.start, walked.round);
        return Ok(Err(format!(
            "it walked round {of} from {found}, not round {round} from {}",
            start.sha256
        )));
    }
    let steps = walk::own_steps(aggregator, job.job(), worker, round).await?;
    match walked.scalars.skipped(plan.local_steps, &steps) {
        Err(illegal) => return Ok(Err(illegal.to_string())),
        Ok(skipped) if skipped != walked.metrics.skipped_steps => {
            let told = walked.metrics.skipped_steps;
            return Ok(Err(format!("it skipped {skipped} steps and tells {told}")));
        }
        Ok(_) => {}
    }
    if walked.scalars.reach(&steps) > REACH {
        return Ok(Err("its scalars lead beyond 32-bit floats".to_owned()));
    }
    let spec = &job.job().spec;
    let own_way = !spec.training.shares_directions();
    if !own_way && spec.aggregation.norm_bound.is_none() {
        return Ok(Ok(()));
    }
    let walker = Walker {
        worker,
        round,
        start,
        ranks: &plan.ranks,
        steps: plan.local_steps,
        weights,
    };
    let made = walk::retraced(aggregator, job.job(), &walker, &walked.scalars).await;
    let (path, reached) = match made {
        Err(Error::Merge { source, .. }) if !source.is_disk() => {
            return Ok(Err(error_chain(&source)));
        }
        other => other?,
    };
    if own_way && walked.reached.as_ref() != Some(&reached) {
        return Ok(Err(format!(
            "its scalars lead to {reached}, where it did not come to"
        )));
    }
    examine(aggregator, job, expected, path).await
}

/// Refuses a report that cannot be read, and sets it aside for whoever looks for the defect.
///
/// # Errors
/// If the bus does not answer.
pub async fn unreadable(
    job: &Owned,
    worker: &WorkerName,
    report: &Unreadable,
) -> Result<Standing, Error> {
    let site = unread::set_aside(job, worker, report).await?;
    refuse(job, worker, Reason::Unreadable, site.detail).await
}

async fn refuse(
    job: &Owned,
    worker: &WorkerName,
    reason: Reason,
    detail: String,
) -> Result<Standing, Error> {
    let site = SiteTrouble::new(worker.clone(), Trouble::UpdateRefused, &detail);
    tracing::warn!(job = %job.job().id, %worker, reason = site.detail, "update refused");
    telemetry::count(Metric::UpdatesRefused, 1, &[("reason", reason.name())]);
    job.say(Event::Refused { site: site.clone() }).await?;
    Ok(Standing::Lost(site))
}

async fn accept(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    update: &Update,
) -> Result<Result<(), String>, Error> {
    let Expected {
        worker,
        round,
        plan,
        weights,
        start,
    } = expected;
    if let Err(detail) = figures(&update.metrics, plan, &job.job().spec.training) {
        return Ok(Err(detail));
    }
    let own = object::update_prefix(&job.job().id, worker, *round);
    // Exactly the key that an upload makes: what storage says of another is the site's to choose.
    if update.adapter.key != format!("{own}/{}.manifest", update.adapter.sha256.hex()) {
        return Ok(Err(
            "it lies outside the worker's own keys of this round".to_owned()
        ));
    }
    let head = demanded_head(aggregator, job).await?;
    let head = head.map_or(0, HeadShape::parameters);
    let allowed = 4 * (plan.ranks.parameters(weights) + head) + HEADER_BYTES;
    if update.adapter.bytes > allowed {
        let bytes = update.adapter.bytes;
        return Ok(Err(format!(
            "it has {bytes} bytes where its plan allows {allowed}"
        )));
    }
    let path = match aggregator.fetch(job.job(), &update.adapter).await {
        Ok(path) => path,
        Err(Error::Storage(error)) => {
            let ours = aggregator.look_up(start);
            let again = aggregator.fetch(job.job(), &update.adapter);
            match fetched_or_blamed(error, (*start, ours), again).await? {
                Ok(path) => path,
                Err(detail) => return Ok(Err(detail)),
            }
        }
        Err(error) => return Err(error),
    };
    hit(Failpoint::AggregatorIngestAfterDownload);
    examine(aggregator, job, expected, path).await
}

/// The classification head that an update has to bring.
async fn demanded_head(aggregator: &Aggregator, job: &Owned) -> Result<Option<HeadShape>, Error> {
    if !job.job().spec.training.classifies() {
        return Ok(None);
    }
    let plan = aggregator.plan(job.job()).await?;
    starting::head(aggregator, job.job(), &plan).await
}

/// Whether the figures can be those of a round of this plan.
fn figures(metrics: &UpdateMetrics, plan: &WorkerPlan, training: &Training) -> Result<(), String> {
    if let Some(figure) = metrics.illegal() {
        return Err(format!("no site can have measured its {figure}"));
    }
    if let Some(count) = metrics.beyond(plan, training) {
        return Err(format!("it claims other {count} than its plan allows"));
    }
    Ok(())
}

/// Whether a file holds what the plan demands, and moved no further than the job allows.
async fn examine(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    path: PathBuf,
) -> Result<Result<(), String>, Error> {
    let bound = bound(aggregator, job, expected.start).await?;
    let (ranks, weights) = (expected.plan.ranks.clone(), expected.weights.to_vec());
    let spec = &job.job().spec;
    let head = demanded_head(aggregator, job).await?;
    let (trained, scale) = (spec.aggregation.strategy.trains(), spec.adapter.scale());
    let checked = tokio::task::spawn_blocking(move || {
        let update = match TensorFile::open(&path) {
            Ok(update) => update,
            Err(error @ tensors::Error::Io { .. }) => return Err(Error::Tensors(error)),
            Err(error) => return Ok(Err(error_chain(&error))),
        };
        if let Err(refused) = strategy::check_with_head(&update, (&ranks, head), &weights, trained)
        {
            return judged(refused);
        }
        let Some((bound, global)) = bound else {
            return Ok(Ok(()));
        };
        let moved = Moved {
            update: &update,
            global: &TensorFile::open(&global)?,
            ranks: &ranks,
            weights: &weights,
            scale,
            trained,
        };
        moved.within(bound).map_or_else(judged, |()| Ok(Ok(())))
    });
    checked.await?
}

/// The site is to blame, unless it is our own disk that cannot be read.
fn judged(refused: strategy::Refused) -> Result<Result<(), String>, Error> {
    if refused.is_disk() {
        return Err(Error::Unread(refused));
    }
    Ok(Err(error_chain(&refused)))
}

/// The job's bound on how far an update may have moved, and the merged adapter that it started from.
async fn bound(
    aggregator: &Aggregator,
    job: &Owned,
    start: &ArtifactRef,
) -> Result<Option<(f64, PathBuf)>, Error> {
    let Some(bound) = job.job().spec.aggregation.norm_bound else {
        return Ok(None);
    };
    let global = aggregator.fetch(job.job(), start).await?;
    Ok(Some((bound, global)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that begins with its first event hides it from `increase()`, by which the alert goes.
    #[test]
    fn every_reason_to_refuse_an_update_is_a_label_that_is_there_from_the_start() {
        let reasons = [Reason::Checked, Reason::Scalars, Reason::Unreadable].map(Reason::name);
        let [label] = Metric::UpdatesRefused.labels() else {
            panic!("{:?}", Metric::UpdatesRefused.labels())
        };
        assert_eq!((label.name, label.values), ("reason", &reasons[..]));
    }
}
