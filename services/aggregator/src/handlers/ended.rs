//! A job that has ended: its tasks leave the queues, its files leave this process's disk.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};

use crate::Error;
use crate::app::Aggregator;
use crate::rounds::{clean, tasks};

pub async fn handle(aggregator: &Aggregator, job: &mut Owned) -> Result<Next, Error> {
    job.announce().await?;
    hit(Failpoint::AggregatorSettleAfterPublish);
    job.bus().purge_tasks(&job.job().id).await?;
    hit(Failpoint::AggregatorSettleAfterPurge);
    tasks::cancel(job).await;
    hit(Failpoint::AggregatorSettleAfterOrders);
    clean::forget(aggregator, &job.job().id).await;
    hit(Failpoint::AggregatorSettleAfterFolder);
    job.change(|job| {
        job.settled = true;
        job.owner = None;
    })
    .await?;
    Ok(Next::Again)
}
