//! Every site is measured in a process of its own, as it is in a fleet. In one process, what the rounds of the
//! site before leave behind (stacks of threads, blocks that the allocator keeps) would count against the
//! memory of the next.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use domain::cause::Trouble;
use domain::id::WorkerName;
use domain::job::Spec;
use domain::profile::Measurement;
use serde::{Deserialize, Serialize};
use worker::{Failure, Link};

use super::job;
use super::sites::Sites;
use crate::output;

/// How such a process is started.
#[derive(Debug)]
pub struct Measuring {
    words: Vec<OsString>,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// The site's measurement.
    Measured(Box<Measurement>),
    /// What keeps the site from it.
    Failed { trouble: Trouble, detail: String },
}

impl Measuring {
    /// For the sites of this fleet and this job. `cache` is where quantized models are kept, if it was named.
    pub fn of(fleet: &Path, job: &Path, model: &Path, cache: Option<&Path>) -> Self {
        let mut words: Vec<OsString> = vec!["simulate".into()];
        let flags = [
            ("--fleet", Some(fleet)),
            ("--job", Some(job)),
            ("--model", Some(model)),
            ("--quantized-cache", cache),
        ];
        for (flag, path) in flags {
            words.extend(path.map(|_| OsString::from(flag)));
            words.extend(path.map(OsString::from));
        }
        Self { words }
    }

    /// Has a site measured, all but its link. The inner failure is what keeps the site from it.
    pub fn measure(&self, site: &WorkerName) -> anyhow::Result<Result<Measurement, Failure>> {
        let mut command = Command::new(env::current_exe()?);
        command.args(&self.words).args(["--measure", site.as_str()]);
        let done = command.stderr(Stdio::inherit()).output();
        let done = done.with_context(|| format!("{site}: cannot be measured"))?;
        let ended = done.status;
        ensure!(ended.success(), "{site}: measuring it ended with {ended}");
        let told = serde_json::from_slice(&done.stdout);
        let told = told.with_context(|| format!("{site}: measuring it said something else"))?;
        Ok(match told {
            Told::Measured(measurement) => Ok(*measurement),
            Told::Failed { trouble, detail } => Err(Failure::Site { trouble, detail }),
        })
    }
}

/// Measures a site in this process, and prints what came of it.
pub fn tell(spec: Spec, sites: &mut Sites, site: &WorkerName) -> anyhow::Result<()> {
    let job = job::submitted(spec, sites)?;
    let Sites { all, bench, .. } = sites;
    let own = all.iter().find(|one| one.name() == site);
    let own = own.with_context(|| format!("no site {site} has the job's data"))?;
    let probe = profiler::probe(&job, site, job::NEVER);
    let told = match own.measure(bench, &probe, Link::default()) {
        Ok(measurement) => Told::Measured(Box::new(measurement)),
        Err(Failure::Site { trouble, detail }) => Told::Failed { trouble, detail },
        Err(Failure::Stopped) => Told::Failed {
            trouble: Trouble::Internal,
            detail: Failure::Stopped.to_string(),
        },
    };
    output::json_line(&told)
}
