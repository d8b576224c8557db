//! A job whose sites measure themselves.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use domain::cause::{Cause, CauseKind};
use domain::id::WorkerName;
use domain::job::Phase;
use domain::time::UnixMillis;

use super::measuring::{Measured, measure};
use crate::Error;
use crate::app::Profiler;

pub async fn handle(
    profiler: &Profiler,
    job: &mut Owned,
    deadline: UnixMillis,
) -> Result<Next, Error> {
    let active: Vec<WorkerName> = job.job().active().cloned().collect();
    let measured = match measure(profiler, job, active, deadline).await? {
        Measured::Wait(next) => return Ok(next),
        Measured::Done(measured) => measured,
    };
    hit(Failpoint::ProfilerProfiledAfterProfiles);
    if measured == 0 || measured < job.job().least_sites() {
        let message = format!(
            "{measured} of {} sites could measure themselves",
            job.job().participants.len()
        );
        let sites = job.job().lost.clone();
        job.fail(Cause {
            kind: CauseKind::QuorumLost,
            message,
            sites,
        })
        .await?;
        return Ok(Next::Again);
    }
    job.advance(Phase::Planning { resume: None }, |_| {})
        .await?;
    hit(Failpoint::ProfilerProfiledAfterState);
    job.announce().await?;
    hit(Failpoint::ProfilerProfiledAfterPublish);
    Ok(Next::Again)
}
