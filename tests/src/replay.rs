//! One job whose end is known, and the same job again under adverse conditions.

use std::time::Duration;

use chassis::clock::Stopwatch;
use chassis::failpoint::Failpoint;
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::wait;

use crate::job::with;
use crate::points::Fate;
use crate::{Fleet, Setup, procs};

/// How long a disturbed job may take: far beyond what is usual.
const END: Duration = Duration::from_secs(40);

/// How long a process may take to come to a point.
const REACHED: Duration = Duration::from_secs(20);

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

    /// Submits the job again and waits until somebody is halted at this point.
    pub async fn hold(&self, point: Failpoint) -> Disturbed {
        let points = self.fleet.points();
        points.arm(point, Fate::Halted);
        let disturbed = self.begin().await;
        points.reached(point, Fate::Halted, REACHED).await;
        disturbed
    }

    /// Submits the job again and waits until this worker, and no other, is halted at the point.
    pub async fn hold_worker(&self, victim: &str, point: Failpoint) -> Disturbed {
        let Self { fleet, .. } = self;
        if point == Failpoint::WorkerProbeBeforeReport {
            return self.hold_probe(victim, point).await;
        }
        // The others stand still before any of them trains.
        let disturbed = self.hold(Failpoint::PlannerPlanAfterPlanStored).await;
        let others = fleet.processes().into_keys();
        others
            .filter(|name| name.starts_with("worker") && name != victim)
            .for_each(|name| fleet.halt(&name));
        fleet.points().arm(point, Fate::Halted);
        fleet.go_on("planner");
        let points = fleet.points();
        points.reached(point, Fate::Halted, REACHED).await;
        disturbed
    }

    /// Workers of one machine measure themselves one after the other.
    async fn hold_probe(&self, victim: &str, point: Failpoint) -> Disturbed {
        let Self { fleet, .. } = self;
        let disturbed = self.hold(point).await;
        loop {
            let halted = wait::some("somebody is halted", REACHED, async || {
                let all = fleet.processes();
                all.into_iter().find(|(_, pid)| procs::is_stopped(*pid))
            });
            let (name, pid) = halted.await;
            if name == victim {
                return disturbed;
            }
            fleet.points().arm(point, Fate::Halted);
            procs::signal(pid, Signal::CONT);
            let points = fleet.points();
            points.reached(point, Fate::Halted, REACHED).await;
        }
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
