//! A paused job: nothing happens, but not for ever.

use bus::drive::{Next, Owned};
use domain::cause::{Cause, CauseKind};
use domain::job::record::PAUSE_LIMIT_MS;
use domain::time::UnixMillis;

use crate::Error;

pub async fn handle(job: &mut Owned, since: UnixMillis) -> Result<Next, Error> {
    let limit = since.plus(PAUSE_LIMIT_MS);
    if job.now() < limit {
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
