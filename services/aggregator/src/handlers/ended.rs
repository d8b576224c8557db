//! A job that has ended: its tasks leave the queues, its files leave the working folder.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};

use crate::Error;
use crate::app::Aggregator;
use crate::rounds::tasks;

pub async fn handle(aggregator: &Aggregator, job: &mut Owned) -> Result<Next, Error> {
    job.announce().await?;
    hit(Failpoint::AggregatorSettleAfterPublish);
    job.bus().purge_tasks(&job.job().id).await?;
    hit(Failpoint::AggregatorSettleAfterPurge);
    tasks::cancel(job).await;
    hit(Failpoint::AggregatorSettleAfterOrders);
    aggregator.standings.forget(&job.job().id);
    aggregator.logs.forget(&job.job().id);
    aggregator.recent.forget(&job.job().id);
    let folder = aggregator
        .config
        .work_dir
        .join("jobs")
        .join(job.job().id.as_str());
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
        tracing::debug!(%error, folder = %folder.display(), "working folder not removed");
    }
    hit(Failpoint::AggregatorSettleAfterFolder);
    job.change(|job| {
        job.settled = true;
        job.owner = None;
    })
    .await?;
    Ok(Next::Again)
}
