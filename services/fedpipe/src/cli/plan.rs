//! `fedpipe plan`: the plan that a job would get, and why, without a deployment and without training.
//!
//! The fleet is started on this machine with a state folder of its own, measures itself exactly as for
//! a job, and is gone once the plan is made: so the plan is the very one a job would get. A site's
//! memory limit, throttle and bandwidth are those of the fleet file.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use chassis::signals::PARENT_VARIABLE;
use clap::Args as Arguments;
use domain::job::Spec;
use domain::job::spec::Model;
use reqwest::{Method, Url};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::job::show;
use super::source::Source;
use crate::client::Client;
use crate::client::events::{Heard, follow};
use crate::client::{job_file, view};
use crate::watch::words;
use crate::{cli, output};

/// Flags of `fedpipe plan`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe plan --model model.gguf --fleet demo/fleet.toml --job demo/job.yaml
  fedpipe plan --model model --fleet fleet.toml --job job.yaml --json

Each worker of the fleet file measures itself on this machine, one after the other, under its own limits.
Nothing is trained and nothing is kept. It needs nats-server, as `fedpipe up` does.")]
pub struct Args {
    /// GGUF file, Hugging Face folder, or hf://…; it takes the place of the job's model
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    model: Source,
    /// The workers, as for `fedpipe up`
    #[arg(long, value_name = "FILE")]
    fleet: PathBuf,
    /// The job file
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// The nats-server program
    #[arg(long, value_name = "FILE", env = "FEDPIPE_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Plans.
    pub fn run(self) -> anyhow::Result<()> {
        let spec = self.spec()?;
        cli::block_on(async {
            let state = tempfile::tempdir()?;
            let mut fleet = self.start(state.path())?;
            let planned = plan(&mut fleet, &spec).await;
            stop(&mut fleet).await;
            let plan = planned?;
            if self.json {
                output::json(&plan)
            } else {
                output::line(show::plan(&plan)?)
            }
        })
    }

    fn spec(&self) -> anyhow::Result<Spec> {
        let path = self.model.path()?.canonicalize();
        let path = path.with_context(|| format!("there is no model at {}", self.model))?;
        let source = Some(format!("file://{}", path.display()));
        let model = Model {
            digest: None,
            source,
        };
        Ok(Spec {
            model,
            ..job_file::read(&self.job)?
        })
    }

    /// `fedpipe up` for this one question. It ends with this process, however that ends.
    fn start(&self, state: &Path) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["up", "--json", "--log", "warn", "--listen", "127.0.0.1:0"])
            .arg("--fleet")
            .arg(&self.fleet)
            .arg("--state")
            .arg(state)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .env_remove("FEDPIPE_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(program) = &self.nats_server {
            command.arg("--nats-server").arg(program);
        }
        command.spawn().context("the fleet cannot be started")
    }
}

async fn plan(fleet: &mut Child, spec: &Spec) -> anyhow::Result<Value> {
    let client = Client::at(address(fleet).await?)?;
    let request = client.request(Method::POST, "/v1/jobs")?.json(spec);
    let job: view::Job = client.answer(request).await?;
    let mut heard = follow(client.clone(), job.id.clone(), true);
    while let Some(next) = heard.recv().await {
        match next {
            Heard::Event(event) if event.event == "planned" => {
                return client.get(&format!("/v1/jobs/{}/plan", job.id)).await;
            }
            Heard::Event(event) if event.is_last() => {
                bail!("there is no plan: {}", words::event(&event));
            }
            Heard::Event(event) => output::note(words::event(&event)),
            Heard::Broken(why) => output::note(why),
            Heard::Progress(_) => {}
            Heard::End(end) => end?,
        }
    }
    bail!("there is no plan: the job's events ended before it")
}

/// Where the fleet's API is, once all is ready.
async fn address(fleet: &mut Child) -> anyhow::Result<Url> {
    let output = fleet.stdout.take().context("the fleet says nothing")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event.get("event").and_then(Value::as_str) == Some("ready") {
            let api = event.get("api").and_then(Value::as_str);
            // What it says later is of no interest; but somebody must read it, or it would wait.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(api.context("the fleet's API does not answer")?.parse()?);
        }
    }
    bail!("the fleet did not start; what it said is above")
}

async fn stop(fleet: &mut Child) {
    let pid = fleet.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // It may have ended by itself, which is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = fleet.wait().await;
}
