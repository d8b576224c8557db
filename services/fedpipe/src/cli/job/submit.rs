//! `fedpipe job submit`: reads a job file, submits it once, and watches it if asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as Arguments;
use domain::id::Submitter;
use domain::job::Spec;
use reqwest::Method;
use serde_json::Value;

use crate::client::{Client, Connection, Problem, job_file};
use crate::{output, watch};

/// Attempts to hand the job in.
const ATTEMPTS: u32 = 5;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Flags of `fedpipe job submit`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe job submit -f job.yaml
  fedpipe job submit -f demo/job.yaml --watch
  fedpipe job submit -f job.json --idempotency-key nightly-2026-11-22 --json")]
pub struct Args {
    /// The job file: YAML, or .json or .toml
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Show its progress until it has ended; exit code 1 unless it succeeds
    #[arg(long)]
    watch: bool,
    /// Whoever submits again with this key gets the same job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Who submits; sites' policies go by it
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Submits.
    pub async fn run(self) -> anyhow::Result<()> {
        let spec = job_file::read(&self.file)?;
        let client = self.connection.client()?;
        let job = self.submit(&client, &spec).await?;
        let id = job.get("id").and_then(Value::as_str).unwrap_or_default();
        if self.json {
            output::json(&job)?;
        } else {
            output::line(format!("{id} submitted"))?;
        }
        if self.watch {
            watch::watch(&client, id).await
        } else {
            Ok(())
        }
    }

    /// Hands the job in; a lost answer is asked for again under the same key, so that there is one job.
    async fn submit(&self, client: &Client, spec: &Spec) -> anyhow::Result<Value> {
        let key = self
            .idempotency_key
            .clone()
            .unwrap_or_else(chassis::clock::random_token);
        let mut attempt = 1;
        loop {
            let mut request = client
                .request(Method::POST, "/v1/jobs")?
                .header("Idempotency-Key", &key)
                .json(spec);
            if let Some(submitter) = &self.submitter {
                request = request.header("Fedpipe-Submitter", submitter.as_str());
            }
            match client.answer(request).await {
                Ok(job) => return Ok(job),
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                    output::note(format!("{error:#}; trying again"));
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Problem>() {
        Some(problem) => problem.is_passing(),
        // The connection broke after it stood: the job may have arrived. Nobody there at all is no such case.
        None => error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(|error| !error.is_connect() && !error.is_builder()),
    }
}
