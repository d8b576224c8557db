//! Sites that measure themselves for a job: asked one per machine at a time, while nobody else computes there;
//! collected, fitted, stored. What phase it is for, and what follows, is the callers'.

use bus::Said;
use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use contract::message::report::{Failed, Probed};
use contract::message::task::{Head, ModelRef, Probe};
use contract::topology::profile_key;
use domain::adapter::Projection;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::Job;
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Profiler;
use crate::{cache, fit, hosts};

/// Idle periods that the measuring of a site may take in all.
const MEASURING_IDLES: u64 = 10;

/// How far the sites are.
pub enum Measured {
    /// Some are still at it.
    Wait(Next),
    /// Every one was measured or given up; so many have a profile.
    Done(usize),
}

/// Has these sites measured.
pub async fn measure(
    profiler: &Profiler,
    job: &mut Owned,
    sites: Vec<WorkerName>,
    deadline: UnixMillis,
) -> Result<Measured, Error> {
    let mut measured = 0;
    let mut waiting = Vec::new();
    for worker in sites {
        let (id, epoch) = (job.job().id.clone(), job.job().epoch);
        if let Some(probed) = job.bus().report::<Probed>(&worker, &id, epoch).await? {
            match fit::profile(worker.clone(), probed.measurement) {
                Ok(profile) => {
                    let key = profile_key(&id, &worker);
                    profiler.profiles.put(&key, &profile).await?;
                    cache::keep(profiler, job.job(), &profile, job.now()).await?;
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
        } else if cache::fetch(profiler, job, &worker).await? {
            measured += 1;
        } else {
            waiting.push(worker);
        }
    }
    if !waiting.is_empty() && job.now() < deadline.min(job.job().deadline()) {
        return ask(profiler, job, deadline, &waiting)
            .await
            .map(Measured::Wait);
    }
    for worker in waiting {
        job.lose(SiteTrouble {
            worker,
            trouble: Trouble::TooLate,
            detail: "did not measure itself in time".to_owned(),
        })
        .await?;
    }
    Ok(Measured::Done(measured))
}

/// Asks one worker per machine at a time: probes that share cores would measure each other. Where another
/// job's worker computes on the machine nobody is asked until it rests, and before the first round the deadline
/// waits too; between two rounds the job goes on without whoever was not measured by then.
async fn ask(
    profiler: &Profiler,
    job: &mut Owned,
    deadline: UnixMillis,
    waiting: &[WorkerName],
) -> Result<Next, Error> {
    let members = profiler.fleet.members();
    let turns = hosts::turns(&members, job.job(), waiting, job.now());
    for (worker, now) in turns.waiting {
        let asked_at = if now {
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
        if now {
            let probe = probe(job.job(), worker, deadline);
            if job.bus().publish(&probe, None).await? == Said::Now {
                hit(Failpoint::ProfilerProbeAfterFirstTask);
            }
        }
    }
    let left = deadline.since(job.now());
    if turns.held_up && left < MEASURING_IDLES * profiler.idle_ms / 2 {
        let more = MEASURING_IDLES * profiler.idle_ms - left;
        job.change(|job| job.phase = job.phase.clone().shifted(more))
            .await?;
    }
    Ok(Next::Wait(Some(deadline)))
}

/// When sites that measure themselves from now on are left out.
pub fn measuring_deadline(profiler: &Profiler, now: UnixMillis) -> UnixMillis {
    now.plus(MEASURING_IDLES * profiler.idle_ms)
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
            .unwrap_or_else(|| Projection::of_every_family().collect()),
        rank_max: spec.adapter.rank_max,
        // No measurement depends on the steps of a round.
        training: spec.training.told(1),
        base: spec.precision.base,
        compute: spec.precision.compute,
        importance: spec.adapter.importance,
        choices: spec.choices().to_vec(),
        prefix: format!("jobs/{}/probes/{worker}", job.id),
    }
}

#[cfg(test)]
mod tests {
    use domain::artifact::Digest;
    use domain::id::JobId;
    use domain::job::choice::Choice;
    use domain::job::spec::Spec;

    use super::*;

    #[test]
    fn a_worker_is_asked_for_one_number_of_steps_where_the_job_leaves_them_open() {
        let text = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"},
            "training":{"local_steps":"auto"}}"#;
        let spec: Spec = serde_json::from_str(text).expect("legal");
        assert_eq!(spec.training.local_steps, Choice::Auto);
        let job = Job::submitted(
            JobId::from_bits(1),
            spec,
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        );
        let asked = probe(&job, &"a".parse().expect("legal"), UnixMillis(9));
        assert_eq!(asked.training.local_steps, Choice::Fixed(1));
    }
}
