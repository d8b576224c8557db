//! A job whose sites measure themselves.

use std::collections::BTreeSet;

use bus::Said;
use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use contract::message::report::{Failed, Probed};
use contract::message::task::{Head, ModelRef, Probe};
use contract::topology::profile_key;
use domain::adapter::Projection;
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Profiler;
use crate::fit;

pub async fn handle(
    profiler: &Profiler,
    job: &mut Owned,
    deadline: UnixMillis,
) -> Result<Next, Error> {
    let mut measured = 0;
    let mut waiting = Vec::new();
    let active: Vec<WorkerName> = job.job().active().cloned().collect();
    for worker in active {
        let (id, epoch) = (job.job().id.clone(), job.job().epoch);
        if let Some(probed) = job.bus().report::<Probed>(&worker, &id, epoch).await? {
            match fit::profile(worker.clone(), probed.measurement) {
                Ok(profile) => {
                    profiler
                        .profiles
                        .put(&profile_key(&id, &worker), &profile)
                        .await?;
                    measured += 1;
                }
                Err(error) => {
                    let detail = bus::drive::error_chain(&error);
                    job.lose(SiteTrouble {
                        worker,
                        trouble: Trouble::Internal,
                        detail,
                    })
                    .await?;
                }
            }
        } else if let Some(failed) = job.bus().report::<Failed>(&worker, &id, epoch).await? {
            job.lose(SiteTrouble {
                worker,
                trouble: failed.trouble,
                detail: failed.detail,
            })
            .await?;
        } else {
            waiting.push(worker);
        }
    }
    if !waiting.is_empty() && job.now() < deadline.min(job.job().deadline()) {
        let asked = ask(profiler, job, deadline, &waiting).await?;
        return Ok(asked);
    }
    for worker in waiting {
        job.lose(SiteTrouble {
            worker,
            trouble: Trouble::TooLate,
            detail: "did not measure itself in time".to_owned(),
        })
        .await?;
    }
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
    job.advance(Phase::Planning, |_| {}).await?;
    hit(Failpoint::ProfilerProfiledAfterState);
    job.announce().await?;
    hit(Failpoint::ProfilerProfiledAfterPublish);
    Ok(Next::Again)
}

/// Asks one worker per machine at a time: probes that share cores would measure each other.
async fn ask(
    profiler: &Profiler,
    job: &mut Owned,
    deadline: UnixMillis,
    waiting: &[WorkerName],
) -> Result<Next, Error> {
    let mut hosts = BTreeSet::new();
    for worker in waiting {
        let host = profiler
            .fleet
            .member(worker)
            .map(|member| member.registration.host);
        let first = hosts.insert(host.unwrap_or_else(|| worker.to_string()));
        let asked_at = if first {
            job.job().phase_since
        } else {
            job.now()
        };
        if let Some(site) = profiler
            .fleet
            .gave_out(worker, asked_at, profiler.give_up_ms)
        {
            job.lose(site).await?;
            return Ok(Next::Again);
        }
        if first {
            let probe = probe(job.job(), worker, deadline);
            if job.bus().publish(&probe, None).await? == Said::Now {
                hit(Failpoint::ProfilerProbeAfterFirstTask);
            }
        }
    }
    Ok(Next::Wait(Some(deadline)))
}

/// What a job asks of a worker before it is planned.
#[must_use]
pub fn probe(job: &Job, worker: &WorkerName, deadline: UnixMillis) -> Probe {
    let spec = &job.spec;
    let model = match (&spec.model.digest, &spec.model.source) {
        (Some(digest), _) => ModelRef::Digest(digest.clone()),
        (None, source) => {
            let path = source.as_deref().unwrap_or_default();
            ModelRef::Path(path.trim_start_matches("file://").to_owned())
        }
    };
    Probe {
        head: Head {
            worker: worker.clone(),
            job: job.id.clone(),
            epoch: job.epoch,
            submitter: job.submitter.clone(),
            model,
            dataset: spec.data.dataset.clone(),
            expires_at: deadline,
        },
        targets: spec
            .adapter
            .targets
            .fixed()
            .cloned()
            .unwrap_or_else(|| Projection::ALL.to_vec()),
        rank_max: spec.adapter.rank_max,
        training: spec.training.clone(),
        base: spec.precision.base,
        compute: spec.precision.compute,
        choices: spec
            .evaluation
            .as_ref()
            .map(|evaluation| evaluation.choices.clone())
            .unwrap_or_default(),
        prefix: format!("jobs/{}/probes/{worker}", job.id),
    }
}
