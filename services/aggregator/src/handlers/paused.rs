//! A paused job: nothing happens, but not for ever. It leaves the disk of this process to the jobs that go on.

use bus::drive::{Next, Owned};
use domain::cause::{Cause, CauseKind};
use domain::job::Phase;
use domain::job::record::PAUSE_LIMIT_MS;
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Aggregator;
use crate::rounds::clean;

pub async fn handle(
    aggregator: &Aggregator,
    job: &mut Owned,
    (resume, since): (&Phase, UnixMillis),
) -> Result<Next, Error> {
    let limit = since.plus(PAUSE_LIMIT_MS);
    if job.now() < limit {
        // The updates of a round that is decided are needed as they were checked, whatever becomes of them in storage.
        if !matches!(resume, Phase::Folding { .. }) {
            clean::forget(aggregator, &job.job().id).await;
        }
        return Ok(Next::Wait(Some(limit)));
    }
    let message = "the job was paused for 30 days; submit it again".to_owned();
    job.fail(Cause {
        kind: CauseKind::PausedTooLong,
        message,
        sites: Vec::new(),
    })
    .await?;
    Ok(Next::Again)
}
