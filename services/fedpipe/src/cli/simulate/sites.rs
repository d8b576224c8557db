//! The fleet's sites in this process: who has the job's data, and what each is like.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use domain::id::WorkerName;
use domain::job::Spec;
use engine::model::Cache;
use serde::Serialize;
use worker::{Local, Workbench};

use super::clock::Link;
use crate::cli::source::Source;
use crate::up::Fleet;

/// The sites that take part, ordered by name, and what they compute on, one after the other.
pub struct Sites {
    /// Each.
    pub all: Vec<Local>,
    /// The one place where they compute.
    pub bench: Workbench,
    /// From any site to the control plane and back.
    pub round_trip: Duration,
}

/// What a site plays.
#[derive(Debug, Serialize)]
pub struct About {
    /// Its name.
    worker: WorkerName,
    /// Share of this machine's speed.
    speed: Option<f64>,
    /// Cap on its speed.
    throttle_tokens_per_second: Option<f64>,
    /// Bytes that it may use.
    memory_limit_bytes: u64,
    /// Compute threads.
    threads: u16,
    /// Cap on its link.
    bandwidth_limit: Option<u64>,
}

/// The model's file or folder: the one given, or the job's.
pub fn model(given: Option<&Source>, spec: &Spec) -> anyhow::Result<PathBuf> {
    let source = spec.model.source.as_deref();
    let of_job = source.map(|source| source.trim_start_matches("file://").parse());
    let Some(model) = given.cloned().map(Ok).or(of_job).transpose()? else {
        bail!("the job names its model by digest; give its file or folder with --model");
    };
    let path = model.path()?.canonicalize();
    path.with_context(|| format!("there is no model at {model}"))
}

/// A site's link.
pub fn link(site: &Local, round_trip: Duration) -> Link {
    let limit = site.config().bandwidth();
    Link {
        bytes_per_second: limit.map_or(0.0, |limit| limit.get() as f64),
        round_trip,
    }
}

impl Sites {
    /// Opens the sites that have the job's data set and that the job does not leave out.
    pub fn open(
        fleet: &Fleet,
        spec: &Spec,
        model: &Path,
        folder: &Path,
        quantized: Option<Cache>,
    ) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for site in &fleet.workers {
            let config: worker::Config = site.config.clone().try_into()?;
            let named = spec.data.sites.is_empty() || spec.data.sites.contains(&site.name);
            if !named || !config.datasets.contains_key(&spec.data.dataset) {
                continue;
            }
            let state_dir = folder.join(site.name.as_str());
            let config = worker::Config {
                state_dir,
                ..config
            };
            let opened = Local::open(config, model.to_owned());
            all.push(opened.with_context(|| format!("worker {}", site.name))?);
        }
        all.sort_by(|left, right| left.name().cmp(right.name()));
        let dataset = &spec.data.dataset;
        ensure!(
            !all.is_empty(),
            "no site of the fleet has the data set {dataset}"
        );
        if let Some(absent) = spec
            .data
            .sites
            .iter()
            .find(|named| all.iter().all(|site| site.name() != *named))
        {
            bail!("data.sites: the fleet has no site {absent} with the data set {dataset}");
        }
        Ok(Self {
            all,
            bench: Workbench::new(quantized)?,
            round_trip: Duration::ZERO,
        })
    }

    /// What each plays.
    pub fn about(&self) -> Vec<About> {
        let about = |site: &Local| {
            let config = site.config();
            About {
                worker: site.name().clone(),
                speed: config.speed,
                throttle_tokens_per_second: config.throttle_tokens_per_second,
                memory_limit_bytes: site.memory_limit_bytes(),
                threads: site.threads(),
                bandwidth_limit: config.bandwidth_limit.map(|limit| limit.0),
            }
        };
        self.all.iter().map(about).collect()
    }
}
