//! `fedpipe doctor`: whether this site is ready, a line for each thing it needs.

use std::path::PathBuf;
use std::time::Duration;

use bus::Bus;
use chassis::clock::Stopwatch;
use clap::Args as Arguments;
use contract::permission::Role;
use domain::id::WorkerName;
use serde::Serialize;

use super::source::Source;
use crate::output::{self, Said};
use crate::{cli, units};

/// How long NATS may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Less than this is not enough for any model.
const LEAST_MEMORY: u64 = 256 << 20;

/// Flags of `fedpipe doctor`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe doctor --config site.toml
  fedpipe doctor --config site.toml --model model.gguf --json

Exit code 1 if anything is not ready.")]
pub struct Args {
    /// The site's site.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A model that this site is to train; of the Hub, hf://…, as this machine reaches it
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    model: Option<Source>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

impl Finding {
    fn of(what: impl Into<String>, found: anyhow::Result<String>, next: &'static str) -> Self {
        let (ok, detail) = match found {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        Self {
            what: what.into(),
            ok,
            detail,
            next: (!ok).then_some(next),
        }
    }
}

impl Args {
    /// Looks at everything, and fails if anything is not ready.
    pub fn run(self) -> anyhow::Result<()> {
        let findings = cli::block_on(self.findings())?;
        if self.json {
            output::json(&findings)?;
        } else {
            for finding in &findings {
                let word = if finding.ok { "ok    " } else { "not ok" };
                output::line(format!("{word}  {}: {}", finding.what, finding.detail))?;
                if let Some(next) = finding.next {
                    output::line(format!("        next: {next}"))?;
                }
            }
        }
        let wrong = findings.iter().filter(|finding| !finding.ok).count();
        if wrong > 0 {
            return Err(Said(format!("{wrong} of {} are not ready", findings.len())).into());
        }
        Ok(())
    }

    async fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let read: Result<worker::Config, _> = chassis::config::load(self.config.as_deref(), &());
        let config = match read {
            Ok(config) => config,
            Err(error) => {
                let next = "put right what it names; docs/site.md and `fedpipe worker --dump-config` \
                            have the keys";
                return Ok(vec![Finding::of("configuration", Err(error.into()), next)]);
            }
        };
        let name = config.check();
        let mut findings = vec![Finding::of(
            "configuration",
            name.as_ref()
                .map(ToString::to_string)
                .map_err(|error| anyhow::anyhow!("{error}")),
            "give the site its own name in site.toml",
        )];
        if let Ok(name) = name {
            let found = nats(&config, &name).await;
            let error = found.as_ref().err().and_then(|error| error.downcast_ref());
            let next = error.and_then(bus::Error::next);
            let next = next.unwrap_or("start NATS, or correct [nats] in site.toml");
            findings.push(Finding::of("nats", found, next));
        }
        let next = if config.storage.url.is_empty() {
            "start the api; it must have S3 storage that this site reaches (its storage.urls.endpoint)"
        } else {
            "correct [storage] in site.toml, or start the storage"
        };
        findings.push(Finding::of("storage", storage(&config).await, next));
        findings.push(Finding::of(
            "memory",
            memory(&config),
            "raise memory_limit or the limit of the container",
        ));
        findings.extend(data(&config));
        if let Some(model) = &self.model {
            findings.push(Finding::of(
                "model",
                load(model),
                "fetch the model again, or convert it to GGUF or safetensors",
            ));
        }
        Ok(findings)
    }
}

async fn connected(config: &worker::Config, name: &WorkerName) -> anyhow::Result<Bus> {
    let role = Role::Worker(name.clone());
    let connecting = Bus::connect_once(&config.nats, &role);
    match tokio::time::timeout(ANSWER, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => anyhow::bail!("{} does not answer", config.nats.url),
    }
}

async fn nats(config: &worker::Config, name: &WorkerName) -> anyhow::Result<String> {
    let bus = connected(config, name).await?;
    let watch = Stopwatch::start();
    let known = bus.worker_is_known(name).await;
    let ms = watch.seconds() * 1000.0;
    let queue = if known {
        "this site has a queue"
    } else {
        "this site has no queue yet: it gets one when its worker starts"
    };
    Ok(format!(
        "{} answers in {ms:.1} ms; {queue}",
        config.nats.url
    ))
}

async fn storage(config: &worker::Config) -> anyhow::Result<String> {
    if !config.storage.url.is_empty() {
        artifacts::Store::open(&config.storage)?.ready().await?;
        return Ok(format!("{} answers", config.storage.url));
    }
    let name = config.check()?;
    let bus = connected(config, &name).await?;
    let storage = worker::Storage::open(&config.storage, &bus, &name)?;
    storage.store(None).ready().await?;
    Ok("answers to URLs that the api signs for this site".to_owned())
}

fn memory(config: &worker::Config) -> anyhow::Result<String> {
    let allowed = chassis::memory::limit_bytes(std::path::Path::new("/"))?;
    let limit = config.memory_limit.map_or(allowed, |limit| limit.0);
    anyhow::ensure!(
        limit <= allowed,
        "memory_limit is {}, but only {} are allowed here",
        units::bytes(limit),
        units::bytes(allowed)
    );
    anyhow::ensure!(
        limit >= LEAST_MEMORY,
        "{} are too little",
        units::bytes(limit)
    );
    Ok(format!(
        "{} and {} threads",
        units::bytes(limit),
        config.compute_threads()
    ))
}

fn data(config: &worker::Config) -> Vec<Finding> {
    let next = "correct the path, the format or the records";
    let mut findings = Vec::new();
    for (name, files) in &config.datasets {
        for path in [Some(&files.train), files.held_out.as_ref()]
            .into_iter()
            .flatten()
        {
            let found =
                engine::data::Dataset::open(path, files.format).map_err(anyhow::Error::from);
            let found = found.map(|data| {
                let skipped = data.skipped();
                let skipped = if skipped.total() > 0 {
                    format!(", skipped {skipped}")
                } else {
                    String::new()
                };
                format!("{}: {} records{skipped}", path.display(), data.len())
            });
            findings.push(Finding::of(format!("data set {name}"), found, next));
        }
    }
    if findings.is_empty() {
        let none = Err(anyhow::anyhow!("this site has no data set"));
        findings.push(Finding::of(
            "data",
            none,
            "add [datasets.NAME] with train = \"…\" to site.toml",
        ));
    }
    findings
}

fn load(model: &Source) -> anyhow::Result<String> {
    let model = engine::model::Model::load(model.path()?, &engine::model::LoadOptions::default())?;
    let config = model.config();
    Ok(format!(
        "{} blocks of width {}, {} in memory",
        config.layers,
        config.hidden,
        units::bytes(model.base_bytes())
    ))
}
