//! What this process sees of jobs, queues and the fleet, as metrics: for people and alerts, and nobody
//! decides by it.
//!
//! It promises: a look costs the bus a few questions and one for each site that a job waits for, whatever the
//! number of jobs; what is shown has the bounds of `chassis::telemetry::Picture`; what cannot be read now stays
//! as it was seen last. Workers are heard here because nobody outside of their site may read their own pages.

mod jobs;
mod ledger;
mod shown;
mod sites;
mod waits;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Backlog;
use chassis::clock;
use chassis::telemetry::{self, Metric, Picture};
use domain::id::{JobId, WorkerName};
use domain::job::Job;
use domain::time::UnixMillis;

use crate::explain::waiting::{Reports, asked};
use crate::reported::reported;
use crate::routes::jobs::PHASES;
use crate::state::App;
use crate::watch::Known;

use ledger::Ledger;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Of a job that waits for more sites than this, it is not asked who of them has answered.
const ASKED: usize = 64;

/// What a look needs besides what the process is told anyway.
#[derive(Debug, Default)]
struct Seen {
    ledger: Ledger,
    backlogs: BTreeMap<WorkerName, Backlog>,
    /// Of jobs that wait for sites: what was answered in the present epoch.
    reports: BTreeMap<JobId, Reports>,
}

/// Looks until the process stops.
pub async fn look(app: App) {
    let mut seen = Seen::default();
    loop {
        let now = clock::now();
        ask(&app, &mut seen, now).await;
        let shared = app.clone();
        // Of a large fleet it takes milliseconds.
        let shown = tokio::task::spawn_blocking(move || {
            let known = shared.watch().read();
            count_jobs(&known);
            telemetry::show(&picture(&known, &seen, now));
            drop(known);
            seen
        });
        let Ok(back) = shown.await else {
            tracing::error!("jobs and workers are not observed any more");
            return;
        };
        seen = back;
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks the bus. Whatever is not answered is as it was.
async fn ask(app: &App, seen: &mut Seen, now: UnixMillis) {
    let jobs: Vec<Job> = {
        let known = app.watch().read();
        shown::jobs(&known, now).0.into_iter().cloned().collect()
    };
    if !app.bus().is_connected() {
        return;
    }
    match app.bus().depths().await {
        Ok(depths) => {
            for (stream, depth) in depths {
                let labels = [("stream", stream)];
                telemetry::set(Metric::QueueMessages, depth.messages as f64, &labels);
                telemetry::set(Metric::QueueBytes, depth.bytes as f64, &labels);
            }
        }
        Err(error) => tracing::debug!(%error, "queues are not seen"),
    }
    match app.bus().backlogs().await {
        Ok(backlogs) => seen.backlogs = backlogs,
        Err(error) => tracing::debug!(%error, "backlogs are not seen"),
    }
    seen.ledger.follow(app, &jobs).await;
    seen.reports
        .retain(|id, _| jobs.iter().any(|job| job.id == *id));
    for job in &jobs {
        let sites = asked(job, &app.watch().read()).len();
        if sites == 0 || sites > ASKED {
            seen.reports.remove(&job.id);
            continue;
        }
        match reported(app, job).await {
            Ok(reports) => drop(seen.reports.insert(job.id.clone(), reports)),
            Err(error) => tracing::debug!(job = %job.id, %error, "reports are not seen"),
        }
    }
}

fn count_jobs(known: &Known) {
    for phase in PHASES {
        let of_phase = |job: &&Job| job.phase.name() == phase;
        let count = known.jobs.values().filter(of_phase).count();
        telemetry::set(Metric::Jobs, count as f64, &[("phase", phase)]);
    }
}

/// All that is shown of jobs and workers at this moment.
fn picture(known: &Known, seen: &Seen, now: UnixMillis) -> Picture {
    let mut picture = Picture::default();
    workers::add(&mut picture, known, &seen.backlogs, now);
    let (jobs, left_out) = shown::jobs(known, now);
    picture.leave_out(left_out);
    let nothing = Reports::new();
    for job in jobs {
        let reports = seen.reports.get(&job.id).unwrap_or(&nothing);
        jobs::add(&mut picture, job, known, reports, now);
        if let Some(entry) = seen.ledger.entry(&job.id) {
            jobs::add_results(&mut picture, job, entry);
            sites::add(&mut picture, job, entry);
        }
    }
    picture
}
