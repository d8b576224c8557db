//! Sites that measure themselves for a job: asked one per machine at a time, while nobody else computes there;
//! collected, fitted, stored. What phase it is for, and what follows, is the callers'.

use bus::drive::{Next, Owned, error_chain};
use bus::{Reported, Said, Unreadable};
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::message::report::{Failed, Probed};
use contract::message::task::{Head, ModelRef, Probe};
use domain::adapter::Projection;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::Job;
use domain::profile::{Measurement, Profile};
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Profiler;
use crate::{cache, fit, hosts, profiles};

/// Idle periods that the measuring of a site may take in all.
const MEASURING_IDLES: u64 = 10;

/// What a site is lost with whose measurement cannot be read, or can be none: asked again it would answer the same, so it
/// is not, or one such site would use up all looks at the job's plan.
const UNPLANNABLE: Trouble = Trouble::PlanUnsupported;

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
        match answer(profiler, job, &worker).await? {
            Answer::Profile => measured += 1,
            Answer::Lost(site) => job.lose(site).await?,
            Answer::None => waiting.push(worker),
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

/// How far a site is.
enum Answer {
    /// It has a profile.
    Profile,
    /// It will have none.
    Lost(SiteTrouble),
    /// It has to be asked, or is at it.
    None,
}

async fn answer(profiler: &Profiler, job: &Owned, worker: &WorkerName) -> Result<Answer, Error> {
    let (bus, id, epoch) = (job.bus(), &job.job().id, job.job().epoch);
    match bus.report::<Probed>(worker, id, epoch).await? {
        Reported::Read(probed) => {
            let taken = take(profiler, job, worker, probed.measurement).await?;
            return Ok(match taken {
                Ok(()) => Answer::Profile,
                Err(site) => Answer::Lost(site),
            });
        }
        Reported::Unreadable(report) => {
            return set_aside(job, worker, UNPLANNABLE, &report).await;
        }
        Reported::Absent => {}
    }
    match bus.report::<Failed>(worker, id, epoch).await? {
        Reported::Read(failed) => {
            return Ok(Answer::Lost(lost(worker, failed.trouble, &failed.detail)));
        }
        Reported::Unreadable(report) => {
            return set_aside(job, worker, Trouble::Internal, &report).await;
        }
        Reported::Absent => {}
    }
    let reused = cache::fetch(profiler, job, worker).await?;
    Ok(if reused {
        Answer::Profile
    } else {
        Answer::None
    })
}

/// Fits and stores what a site measured; or gives what the site is lost with.
async fn take(
    profiler: &Profiler,
    job: &Owned,
    worker: &WorkerName,
    measurement: Measurement,
) -> Result<Result<(), SiteTrouble>, Error> {
    let profile = match fitted(worker, measurement) {
        Ok(profile) => profile,
        Err(site) => return Ok(Err(site)),
    };
    if let Err(error) = profiles::put(profiler, &job.job().id, &profile).await? {
        return Ok(Err(lost(worker, Trouble::Internal, &error_chain(&error))));
    }
    cache::keep(profiler, job.job(), &profile, job.now()).await?;
    Ok(Ok(()))
}

/// The profile that follows from what a site measured.
fn fitted(worker: &WorkerName, measurement: Measurement) -> Result<Profile, SiteTrouble> {
    if let Some(figure) = measurement.illegal() {
        let detail = format!("no site can have measured its {figure}");
        return Err(lost(worker, UNPLANNABLE, &detail));
    }
    fit::profile(worker.clone(), measurement)
        .map_err(|error| lost(worker, Trouble::Internal, &error_chain(&error)))
}

/// Sets a report that cannot be read aside; its site is lost by it.
async fn set_aside(
    job: &Owned,
    worker: &WorkerName,
    trouble: Trouble,
    report: &Unreadable,
) -> Result<Answer, Error> {
    let site = job.bury(worker, trouble, report).await?;
    telemetry::count(Metric::MessagesDead, 1, &[]);
    Ok(Answer::Lost(site))
}

fn lost(worker: &WorkerName, trouble: Trouble, detail: &str) -> SiteTrouble {
    SiteTrouble::new(worker.clone(), trouble, detail)
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_site_whose_measurement_can_be_none_is_not_asked_to_measure_again() {
        let lost = |mean_tokens: f64| {
            let told = json!({
                "model": null, "weights": [], "layers": 1, "memory_limit_bytes": 1, "threads": 1,
                "forward_tokens_per_second": 1.0, "upload_bytes_per_second": 1.0,
                "download_bytes_per_second": 1.0, "round_trip_ms": 1.0, "records": 1, "held_out": 1,
                "skipped": 0, "mean_tokens": mean_tokens,
            });
            let measurement = serde_json::from_value(told).expect("a measurement");
            let worker = "a".parse().expect("legal");
            fitted(&worker, measurement).expect_err("nothing follows from it")
        };
        let site = lost(-1.0);
        assert!(site.trouble.is_lasting(), "{site}");
        assert_eq!(site.detail, "no site can have measured its mean_tokens");
        // What is legal and cannot be fitted may be another time.
        assert!(!lost(1.0).trouble.is_lasting());
    }

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
