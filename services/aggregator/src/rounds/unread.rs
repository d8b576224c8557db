//! A report that cannot be read: its site is lost by it, and never the job. Whoever looks for the defect finds it set aside.

use bus::Unreadable;
use bus::drive::Owned;
use chassis::telemetry::{self, Metric};
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::round::Standing;

use crate::Error;
use crate::app::Aggregator;

/// Sets a report aside; returns what its site is lost with.
///
/// # Errors
/// If the bus does not answer.
pub async fn set_aside(
    job: &Owned,
    worker: &WorkerName,
    report: &Unreadable,
) -> Result<SiteTrouble, Error> {
    let site = job.bury(worker, Trouble::Internal, report).await?;
    telemetry::count(Metric::MessagesDead, 1, &[]);
    Ok(site)
}

/// The same where the report is looked at again and again while other sites are waited for: it is set aside once in an
/// epoch, and again by whichever process drives the job next.
///
/// # Errors
/// As [`set_aside`].
pub async fn once(
    aggregator: &Aggregator,
    job: &Owned,
    worker: &WorkerName,
    report: &Unreadable,
) -> Result<SiteTrouble, Error> {
    let mut standings = aggregator.standings.of(job.job());
    if let Some(Standing::Lost(site)) = standings.get(worker) {
        return Ok(site.clone());
    }
    let site = set_aside(job, worker, report).await?;
    standings.insert(worker.clone(), Standing::Lost(site.clone()));
    aggregator.standings.keep(job.job(), &standings);
    Ok(site)
}
