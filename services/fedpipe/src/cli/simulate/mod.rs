//! `fedpipe simulate`: a job on a fleet that is played, site after site, in this process.
//!
//! It promises: the measuring, the fit, the planner, the training, the scoring, the merge, and the look at the
//! plan between rounds are the services' own code on the services' own inputs, so that without emulation the
//! adapter is the one that the running services make, byte for byte; and time is counted on a clock of its
//! own, so that two cores can be a fleet. It does not: deliver messages, keep objects, enforce memory
//! limits, or lose a site or an update; those are what `fedpipe up` and its tests are for.

mod again;
mod clock;
mod course;
mod job;
mod measuring;
mod merge;
mod profiles;
mod ranks;
mod report;
mod sites;
mod walked;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args as Arguments;
use domain::id::WorkerName;
use domain::job::Spec;

use crate::cli::offline::quantized;
use crate::cli::source::Source;
use crate::client::job_file;
use crate::up::Fleet;
use crate::{output, units};

use course::{Course, Limits};
use job::Simulated;
use measuring::Measuring;
use profiles::Profiles;
use ranks::Ranks;
use report::{Report, Targets};
use sites::Sites;

/// Flags of `fedpipe simulate`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe simulate --fleet demo/fleet.toml --job demo/job.yaml --model model.gguf
  fedpipe simulate --fleet fleet.toml --job job.yaml --profiles profiles.json --until 10m --json
  fedpipe simulate --fleet fleet.toml --job job.yaml --plan-only

The fleet file is that of `fedpipe up`. A site's `speed` and `throttle_tokens_per_second` stretch what its
steps take here, `bandwidth_limit` is its link, `memory_limit` is what it is planned for. A round takes as
long as its slowest site and the merge; scoring has a clock of its own, because a deployment scores as
often as it likes. Between rounds a site that is no longer as fast as it was measured has the plan looked
at again, as in a running fleet.")]
pub struct Args {
    /// The workers, as for `fedpipe up`
    #[arg(long, value_name = "FILE")]
    fleet: PathBuf,
    /// The job file
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// GGUF file, Hugging Face folder, or hf://…; it takes the place of the job's model
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    model: Option<Source>,
    /// Where measurements are kept: a site that was measured like this before is not measured again
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Folder for the adapter and report.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Train until then by the virtual clock, whatever the job's number of rounds: no round begins that
    /// is expected to end later
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    until: Option<Duration>,
    /// Say when the loss was first this or less
    #[arg(long, value_name = "X")]
    target_loss: Option<f64>,
    /// Say when the balanced accuracy was first this or more
    #[arg(long, value_name = "X")]
    target_accuracy: Option<f64>,
    /// Round trip of every site to the control plane
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = units::duration)]
    round_trip: Duration,
    /// Train every weight of these sites at these ranks instead of the planned ones, to compare rules of
    /// merging; what the plan predicts does not count then
    #[arg(long, value_name = "SITE=R,…", value_parser = ranks::parse)]
    ranks: Option<Ranks>,
    /// Measure and plan, and train nothing
    #[arg(long)]
    plan_only: bool,
    /// Where a base in int8 or nf4 is kept for the next time; `none` keeps nothing
    /// [default: as for `fedpipe train`]
    #[arg(long, value_name = "DIR|none")]
    quantized_cache: Option<PathBuf>,
    /// Measure this site in this process, print its measurement, and do nothing else
    #[arg(long, hide = true, value_name = "SITE")]
    measure: Option<WorkerName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Simulates.
    pub fn run(self) -> anyhow::Result<()> {
        let spec = job_file::read(&self.job)?;
        check(&spec)?;
        let fleet = Fleet::read(&self.fleet)?;
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let cache = quantized::cache(self.quantized_cache.as_deref(), |name| env::var_os(name));
        let model = sites::model(self.model.as_ref(), &spec)?;
        let mut sites = Sites::open(&fleet, &spec, &model, folder.path(), cache)?;
        sites.round_trip = self.round_trip;
        if let Some(site) = &self.measure {
            return measuring::tell(spec, &mut sites, site);
        }
        let cache = self.quantized_cache.as_deref();
        let measuring = Measuring::of(&self.fleet, &self.job, &model, cache);
        let mut profiles = Profiles::open(self.profiles.as_deref(), &model, measuring)?;
        let mut simulated = Simulated::planned(spec, &sites, &mut profiles)?;
        if let Some(ranks) = &self.ranks {
            ranks.replace(&mut simulated)?;
        }
        if self.plan_only {
            return self.tell(&Report::planned(&simulated, &sites));
        }
        let limits = Limits {
            until: self.until.map(|until| until.as_secs_f64()),
            out: self.out.as_deref(),
            // What was predicted of other ranks says nothing of these.
            looks: self.ranks.is_none(),
        };
        let run = Course::new(&mut simulated, &mut sites, folder.path(), limits).run()?;
        let targets = Targets {
            loss: self.target_loss,
            accuracy: self.target_accuracy,
        };
        let report = Report::of(&simulated, &sites, run, targets);
        if let Some(out) = &self.out {
            let text = serde_json::to_string_pretty(&report)?;
            std::fs::write(out.join("report.json"), text + "\n")
                .with_context(|| format!("cannot write into {}", out.display()))?;
        }
        self.tell(&report)
    }

    fn tell(&self, report: &Report<'_>) -> anyhow::Result<()> {
        if self.json {
            output::json(report)
        } else {
            output::line(report.text()?)
        }
    }
}

fn check(spec: &Spec) -> anyhow::Result<()> {
    if let Err(refusals) = spec.check() {
        let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        anyhow::bail!("the job is refused: {}", said.join("; "));
    }
    ensure!(
        spec.plan_from.is_none(),
        "plan_from: a simulation makes its own plan; fix adapter.rank and training.batch instead"
    );
    Ok(())
}
