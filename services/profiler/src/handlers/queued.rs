//! A queued job: waits until its sites are there and free.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::fleet::Liveness;
use domain::job::{Job, Phase};

use super::measuring::measuring_deadline;
use crate::Error;
use crate::admit::{Admission, Site, admit};
use crate::app::Profiler;

pub async fn handle(profiler: &Profiler, job: &mut Owned) -> Result<Next, Error> {
    let now = job.now();
    if now >= job.job().deadline() {
        job.fail(deadline_cause(profiler, job.job())).await?;
        return Ok(Next::Again);
    }
    let _one_at_a_time = profiler.admission.lock().await;
    let others = active_jobs(profiler).await?;
    let patient = now.since(job.job().submitted_at) < profiler.idle_ms;
    let Admission::Start(sites) = admit(
        job.job(),
        &sites(profiler, job.job(), now),
        &others,
        patient,
    ) else {
        return Ok(Next::Wait(Some(job.job().deadline())));
    };
    let deadline = measuring_deadline(profiler, now);
    job.advance(Phase::Profiling { deadline }, |job| {
        job.participants = sites
    })
    .await?;
    hit(Failpoint::ProfilerAdmitAfterState);
    job.announce().await?;
    hit(Failpoint::ProfilerAdmitAfterPublish);
    Ok(Next::Again)
}

/// Every job, but for those that this release cannot read: such a job counts as holding no site and waiting for none.
/// Which sites it has stands in what cannot be read, nobody of this release ends it, and whoever waited for its end might
/// wait for ever; where a newer release drives it meanwhile, a site of both does their tasks one after the other.
async fn active_jobs(profiler: &Profiler) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::new();
    for key in profiler.jobs.keys().await? {
        // Keys with a dot hold rounds and scores.
        if key.contains('.') {
            continue;
        }
        jobs.extend(profiler.jobs.look(&key).await?);
    }
    Ok(jobs)
}

fn sites(profiler: &Profiler, job: &Job, now: domain::time::UnixMillis) -> Vec<Site> {
    let site = |(worker, member): (domain::id::WorkerName, bus::fleet::Member)| Site {
        worker,
        has_data: member
            .registration
            .datasets
            .contains_key(&job.spec.data.dataset),
        alive: member.liveness(now) == Liveness::Alive,
    };
    profiler.fleet.members().into_iter().map(site).collect()
}

fn deadline_cause(profiler: &Profiler, job: &Job) -> Cause {
    let members = profiler.fleet.members();
    let silent = |worker: &domain::id::WorkerName| SiteTrouble {
        worker: worker.clone(),
        trouble: Trouble::Unreachable,
        detail: if members.contains_key(worker) {
            "no beats".to_owned()
        } else {
            "never registered".to_owned()
        },
    };
    let missing =
        |worker: &&domain::id::WorkerName| !profiler.fleet.is_alive(worker, chassis::clock::now());
    let sites: Vec<SiteTrouble> = job
        .spec
        .data
        .sites
        .iter()
        .filter(missing)
        .map(silent)
        .collect();
    let dataset = &job.spec.data.dataset;
    let message = format!(
        "the job's deadline passed before enough free sites with data set `{dataset}` were there; start workers that map it, or lower rounds.quorum"
    );
    Cause {
        kind: CauseKind::DeadlinePassed,
        message,
        sites,
    }
}
