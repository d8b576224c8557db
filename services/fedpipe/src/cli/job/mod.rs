//! `fedpipe job …`: submits, shows and stops jobs through the API.

mod adapter;
pub mod show;
mod submit;

use anyhow::Context;
use clap::{Args as Arguments, Subcommand};
use domain::id::JobId;
use reqwest::Method;
use serde_json::Value;

use crate::client::events::{Heard, follow};
use crate::client::{Client, Connection};
use crate::watch::{self, words};
use crate::{cli, output};

/// A command on jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a job
    Submit(submit::Args),
    /// List jobs, newest first
    List(List),
    /// Show a job: how far it is, whom it waits for and why
    Get(One),
    /// Show what happened to a job
    Events(Events),
    /// Watch a job until it has ended; exit code 1 unless it succeeds
    Watch(One),
    /// End a job for good
    Cancel(One),
    /// Stop a job at the next round boundary, or now
    Pause(Pause),
    /// Go on after a pause
    Resume(One),
    /// Fetch a finished job's adapter as a folder that Hugging Face PEFT loads
    Adapter(adapter::Args),
    /// Delete a job that has ended, with everything of it
    Delete(One),
    /// Show what each worker trains, and why
    Plan(One),
    /// Show a finished job's report
    Report(One),
    /// Show each committed round, and of classes or choices who was taken for whom
    Rounds(One),
}

/// A command on one job.
#[derive(Debug, Arguments)]
pub struct One {
    /// The job, job_ and 16 hexadecimal digits
    #[arg(value_name = "ID")]
    job: JobId,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which jobs.
#[derive(Debug, Arguments)]
pub struct List {
    /// Only jobs in this phase, such as training, queued or failed
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which events.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe job events job_0123456789abcdef
  fedpipe job events job_0123456789abcdef --follow --json")]
pub struct Events {
    /// Which job
    #[command(flatten)]
    one: One,
    /// Wait for more until the job has ended
    #[arg(long)]
    follow: bool,
}

/// When to pause.
#[derive(Debug, Arguments)]
pub struct Pause {
    /// Which job
    #[command(flatten)]
    one: One,
    /// Do not wait for the end of the round: its training is done again after the resume
    #[arg(long)]
    now: bool,
}

impl Command {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<()> {
        cli::block_on(async {
            match self {
                Self::Submit(args) => args.run().await,
                Self::List(args) => list(&args).await,
                Self::Get(one) => one.show("", show::job).await,
                Self::Events(args) => events(args).await,
                Self::Watch(one) => watch::watch(&one.connection.client()?, one.job.as_str()).await,
                Self::Cancel(one) => one.order("cancel").await,
                Self::Pause(Pause { one, now }) => {
                    one.order(if now { "pause?now=true" } else { "pause" })
                        .await
                }
                Self::Resume(one) => one.order("resume").await,
                Self::Adapter(args) => args.run().await,
                Self::Delete(one) => one.delete().await,
                Self::Plan(one) => one.show("/plan", show::plan).await,
                Self::Report(one) => one.show("/report", show::report).await,
                Self::Rounds(one) => one.rounds().await,
            }
        })
    }
}

impl One {
    fn path(&self, below: &str) -> String {
        format!("/v1/jobs/{}{below}", self.job)
    }

    async fn show(
        &self,
        below: &str,
        words: impl Fn(&Value) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let answer: Value = self.connection.client()?.get(&self.path(below)).await?;
        print(self.json, &answer, words)
    }

    /// Gives an order; an answer that the job has not carried it out yet is no failure.
    async fn order(&self, order: &str) -> anyhow::Result<()> {
        let answer = self
            .connection
            .client()?
            .post(&self.path(&format!("/{order}")))
            .await?;
        print(self.json, &answer, show::job)
    }

    async fn rounds(&self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        let rounds = Value::Array(client.items(&self.path("/rounds")).await?);
        if self.json {
            return output::json(&rounds);
        }
        let job: Value = client.get(&self.path("")).await?;
        output::line(show::rounds_of(&job, &rounds)?)
    }

    async fn delete(&self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        client
            .send(client.request(Method::DELETE, &self.path(""))?)
            .await?;
        print(
            self.json,
            &serde_json::json!({ "deleted": self.job }),
            |_| Ok(format!("{} is deleted", self.job)),
        )
    }
}

fn print(
    json: bool,
    value: &Value,
    words: impl Fn(&Value) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    if json {
        output::json(value)
    } else {
        output::line(words(value)?)
    }
}

async fn list(args: &List) -> anyhow::Result<()> {
    let client: Client = args.connection.client()?;
    let filter = match &args.phase {
        Some(phase) if phase.chars().all(|c| c.is_ascii_lowercase()) => format!("?phase={phase}"),
        Some(phase) => {
            anyhow::bail!("{phase:?} is no phase: use one such as training, queued or failed")
        }
        None => String::new(),
    };
    let items = client.items(&format!("/v1/jobs{filter}")).await?;
    print(args.json, &Value::Array(items), show::jobs)
}

async fn events(args: Events) -> anyhow::Result<()> {
    let client = args.one.connection.client()?;
    let mut heard = follow(client, args.one.job.to_string(), args.follow);
    while let Some(next) = heard.recv().await {
        match next {
            Heard::Event(event) if args.one.json => output::json_line(&serde_json::json!({
                "at": event.at, "event": event.event, "detail": event.detail,
            }))?,
            Heard::Event(event) => output::line(format!("{} {}", event.at, words::event(&event)))?,
            Heard::Progress(_) => {}
            Heard::Broken(why) => output::note(format!("connection lost, trying again: {why}")),
            Heard::End(end) => return end.context("the job cannot be followed"),
        }
    }
    Ok(())
}
