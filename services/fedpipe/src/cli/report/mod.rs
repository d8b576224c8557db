//! `fedpipe report`: loss and accuracy as curves, from a job, a saved report, a simulation or a file of metrics.
//!
//! The drawing is our own: lines, marks and a legend are a few hundred lines, the same bytes everywhere, where a
//! plotting library would bring its fonts and back ends along for them.

mod axis;
mod chart;
mod curves;
mod page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args as Arguments;
use domain::id::JobId;
use serde_json::Value;

use crate::client::Connection;
use crate::{cli, output};
use chart::Chart;
use curves::{Curve, Kind};

/// Largest file that is read.
const FILE_BYTES: u64 = 256 << 20;

/// Sources at most.
const SOURCES: usize = 32;

/// Flags of `fedpipe report`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe report job_0123456789abcdef -o job.html          a job, under way or done, as the API has it
  fedpipe report before.jsonl after.jsonl -o both.svg      two runs of `fedpipe train --metrics` in one chart
  fedpipe report job_0123456789abcdef out/report.json -o both.html     a job beside its simulation
  fedpipe report product=a.json slice=b.json --sites -o rules.html     with names of one's own, and every site

It reads what `fedpipe train --metrics`, `fedpipe job report ID --json`, `fedpipe job rounds ID --json` and
`fedpipe simulate --json` or `--out` write. Training loss of a round is the mean of its sites by their records;
curves of more than 1000 points are drawn by means of neighbours, and say so. What is written is one file that
loads nothing from elsewhere; the same input gives the same bytes.")]
pub struct Args {
    /// Jobs by id, and files; NAME=… gives it a name in the legend
    #[arg(value_name = "JOB|FILE", required = true)]
    sources: Vec<String>,
    /// Where to write: *.svg for the charts, *.html for a page with the numbers as well
    #[arg(long, short, value_name = "FILE", required_unless_present = "json")]
    output: Option<PathBuf>,
    /// Draw the training loss of each site as well
    #[arg(long)]
    sites: bool,
    /// Heading of the page
    #[arg(long, value_name = "TEXT", default_value = "Loss and accuracy")]
    title: String,
    #[command(flatten)]
    connection: Connection,
    /// Print the curves as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Draws.
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(
            self.sources.len() <= SOURCES,
            "give at most {SOURCES} jobs and files"
        );
        let mut all: Vec<Curve> = Vec::new();
        for source in &self.sources {
            let found = self
                .read(source)
                .with_context(|| format!("cannot draw {source}"))?;
            all.extend(
                found
                    .into_iter()
                    .filter(|curve| self.sites || curve.kind != Kind::Site),
            );
        }
        if let Some(path) = &self.output {
            let text = self.draw(path, &Chart::all(&all))?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        match (&self.output, self.json) {
            (_, true) => output::json(&all),
            (Some(path), false) => {
                output::line(format!("{}: {} curves", path.display(), all.len()))
            }
            (None, false) => Ok(()),
        }
    }

    fn draw(&self, path: &Path, charts: &[Chart<'_>]) -> anyhow::Result<String> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(chart::svg(charts)),
            Some("html" | "htm") => Ok(page::html(&self.title, charts)),
            _ => bail!("{} is to be what? Name it *.svg or *.html", path.display()),
        }
    }

    fn read(&self, source: &str) -> anyhow::Result<Vec<Curve>> {
        // A file that is there is meant, whatever its name.
        let (name, place) = match source.split_once('=') {
            Some((name, place)) if !Path::new(source).exists() => (Some(name), place),
            _ => (None, source),
        };
        if let Ok(job) = place.parse::<JobId>()
            && !Path::new(place).exists()
        {
            let rounds = cli::block_on(async {
                self.connection
                    .client()?
                    .items(&format!("/v1/jobs/{job}/rounds"))
                    .await
            })?;
            ensure!(!rounds.is_empty(), "it has not committed a round yet");
            return curves::read(name.unwrap_or(place), &Value::Array(rounds).to_string());
        }
        let path = Path::new(place);
        let bytes = fs::metadata(path)
            .context("there is no such file, and it is no job's id")?
            .len();
        ensure!(
            bytes <= FILE_BYTES,
            "it has {bytes} bytes, more than {FILE_BYTES}"
        );
        let text = fs::read_to_string(path).context("it cannot be read as text")?;
        curves::read(name.unwrap_or(place), &text)
    }
}
