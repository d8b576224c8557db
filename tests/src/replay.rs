//! One job whose end is known, and the same job again under adverse conditions.

use std::time::Duration;

use chassis::clock::Stopwatch;
use serde_json::{Value, json};

use crate::job::with;
use crate::{Fleet, Setup};

/// How long a disturbed job may take: far beyond what is usual.
const END: Duration = Duration::from_secs(40);

/// A fleet, an undisturbed job, and its adapter.
#[derive(Debug)]
pub struct Replay {
    /// The fleet.
    pub fleet: Fleet,
    /// The job as the cases submit it: with the plan of the undisturbed one.
    pub job: Value,
    /// The undisturbed job's adapter.
    pub digest: String,
}

/// A disturbed job under way.
#[derive(Debug)]
pub struct Disturbed {
    /// Its id.
    pub id: String,
    watch: Stopwatch,
}

impl Replay {
    /// Starts a fleet and runs the job once.
    pub async fn prepare(setup: &Setup, job: impl AsyncFnOnce(&Fleet) -> Value) -> Self {
        let fleet = Fleet::start(setup).await;
        let job = job(&fleet).await;
        let id = fleet.api().submit(&job).await;
        let digest = fleet.api().succeeded(&id, END).await;
        let job = with(job, "plan_from", json!(id));
        Self { fleet, job, digest }
    }

    /// Submits the job again.
    pub async fn begin(&self) -> Disturbed {
        let watch = Stopwatch::start();
        let id = self.fleet.api().submit(&self.job).await;
        Disturbed { id, watch }
    }

    /// Waits for the end, which must be the undisturbed one; returns how long the job took.
    ///
    /// # Errors
    /// What is different, for a list of cases.
    pub async fn end(&self, disturbed: &Disturbed) -> Result<Duration, String> {
        let Disturbed { id, watch } = disturbed;
        let job = self.fleet.api().ended(id, END).await;
        let took = Duration::from_millis(watch.elapsed_ms());
        if job["phase"] != "succeeded" {
            return Err(format!("{}: {}", job["phase"], job["cause"]));
        }
        if job["adapter"]["sha256"] != self.digest.as_str() {
            return Err(format!("another adapter: {}", job["adapter"]));
        }
        Ok(took)
    }
}
