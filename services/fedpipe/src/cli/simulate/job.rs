//! The job of a simulation, as the services would hold it, and its plan by the planner itself.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use domain::adapter::{HeadShape, WeightShape};
use domain::artifact::Digest;
use domain::cause::{Cause, SiteTrouble, Trouble};
use domain::id::{JobId, WorkerName};
use domain::job::{Job, Spec};
use domain::plan::{Plan, WorkerPlan};
use domain::profile::Profile;
use domain::time::UnixMillis;
use planner::allocate::{Request, allocate};
use profiler::fit;
use worker::Failure;

use super::profiles::Profiles;
use super::sites::{self, Sites};
use crate::output;

/// What nobody waits for does not expire.
pub const NEVER: UnixMillis = UnixMillis(u64::MAX);

/// The job and its plan.
pub struct Simulated {
    /// The job; its sites are those that measured themselves.
    pub job: Job,
    /// What each site was measured to be.
    pub profiles: BTreeMap<WorkerName, Profile>,
    /// What each trains at first.
    first: Plan,
    /// What took its place, in this order.
    later: Vec<Plan>,
}

impl Simulated {
    /// Measures the sites and plans, as profiler and planner do.
    pub fn planned(spec: Spec, sites: &Sites, profiles: &mut Profiles) -> anyhow::Result<Self> {
        let mut job = submitted(spec, sites)?;
        let mut measured = BTreeMap::new();
        for site in &sites.all {
            let link = sites::link(site, sites.round_trip);
            let link = worker::Link {
                upload_bytes_per_second: link.bytes_per_second,
                download_bytes_per_second: link.bytes_per_second,
                round_trip_ms: link.round_trip.as_secs_f64() * 1000.0,
            };
            let probe = profiler::probe(&job, site.name(), NEVER);
            let name = site.name().clone();
            match profiles.measure(site, &probe, link)? {
                Ok(measurement) => {
                    let profile = fit::profile(name.clone(), measurement);
                    let profile = profile.with_context(|| format!("worker {name}"))?;
                    measured.insert(name, profile);
                }
                Err(failure) => {
                    output::note(format!("{name}: left out: {failure}"));
                    job.lost.push(lost(name, failure));
                }
            }
        }
        if measured.is_empty() || measured.len() < job.least_sites() {
            let said: Vec<String> = job.lost.iter().map(ToString::to_string).collect();
            bail!(
                "{} of {} sites could measure themselves: {}",
                measured.len(),
                job.participants.len(),
                said.join("; ")
            );
        }
        let request = Request {
            job: &job.id,
            spec: &job.spec,
            profiles: &measured,
            parent: None,
            least_sites: job.least_sites(),
        };
        let plan = match allocate(&request) {
            Ok(plan) => plan,
            Err(cause) => bail!("there is no plan: {}", said(&cause)),
        };
        job.lost.extend(plan.excluded.iter().cloned());
        Ok(Self {
            job,
            profiles: measured,
            first: plan,
            later: Vec::new(),
        })
    }

    /// The plan as it is now.
    pub fn plan(&self) -> &Plan {
        self.later.last().unwrap_or(&self.first)
    }

    /// The plan of the first round.
    pub const fn first_plan(&self) -> &Plan {
        &self.first
    }

    /// The plan of the first round, to put something of one's own into.
    pub const fn first_plan_mut(&mut self) -> &mut Plan {
        &mut self.first
    }

    /// Goes on with another plan, if there is one, and what the profiles have learned.
    pub fn go_on(&mut self, profiles: BTreeMap<WorkerName, Profile>, plan: Option<Plan>) {
        self.profiles = profiles;
        self.later.extend(plan);
    }

    /// The model's adaptable weights.
    pub fn weights(&self) -> &[WeightShape] {
        let any = self.profiles.values().next();
        any.map_or(&[], |profile| &profile.measurement.weights)
    }

    /// The classification head of a job that has labels.
    pub fn head(&self) -> Option<HeadShape> {
        let measured = &self.profiles.values().next()?.measurement;
        let classes = self.job.spec.training.labels.len();
        HeadShape::over(measured.encoder, &measured.weights, classes)
    }

    /// What a site trains.
    pub fn worker(&self, worker: &WorkerName) -> anyhow::Result<&WorkerPlan> {
        let plan = self.plan().workers.get(worker);
        plan.with_context(|| format!("the plan does not name worker {worker}"))
    }
}

/// The job as it is before anybody measured. No result depends on its id, its submission or the hour.
pub fn submitted(spec: Spec, sites: &Sites) -> anyhow::Result<Job> {
    let mut job = Job::submitted(
        JobId::from_bits(0),
        spec,
        Digest::from_bytes(&[0; 32]),
        "local".parse()?,
        UnixMillis(0),
    );
    job.participants = sites.all.iter().map(|site| site.name().clone()).collect();
    Ok(job)
}

/// What a fleet is told of a site that cannot measure itself.
fn lost(worker: WorkerName, failure: Failure) -> SiteTrouble {
    let (trouble, detail) = match failure {
        Failure::Site { trouble, detail } => (trouble, detail),
        Failure::Stopped => (Trouble::Internal, failure.to_string()),
    };
    SiteTrouble {
        worker,
        trouble,
        detail,
    }
}

fn said(cause: &Cause) -> String {
    let sites = cause.sites.iter().map(|site| format!("; {site}"));
    format!("{}{}", cause.message, sites.collect::<String>())
}
