//! `fedpipe up`: everything on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as Arguments;

use crate::units;
use crate::up::{self, Fleet, Options};

/// Flags of `fedpipe up`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe up --workers 3
  fedpipe up --fleet demo/fleet.toml --state /var/lib/fedpipe --listen 127.0.0.1:8080
  fedpipe up --fleet fleet.toml --storage s3.toml --json

A fleet file has one [[workers]] table per worker: name, memory_limit, threads, speed, throttle_tokens_per_second,
bandwidth_limit, probe_seconds, [workers.datasets.NAME] train, held_out, format, and [workers.policy], as in a site.toml.
Paths in it are relative to the folder in which `fedpipe up` is started.

What a site measured for one job serves others of the same model for a day: FEDPIPE_REUSE_PROFILES_SECONDS sets
how long, 0 turns it off.

The state folder keeps everything: start again with the same one and unfinished jobs go on. Logs are in STATE/logs.")]
pub struct Args {
    /// Start so many workers, named site-1 and so on, without data
    #[arg(long, value_name = "N", conflicts_with = "fleet", value_parser = clap::value_parser!(u16).range(0..=1000))]
    workers: Option<u16>,
    /// Start the workers this file describes
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Folder of everything that is kept
    #[arg(long, value_name = "DIR", default_value = up::DEFAULT_STATE, env = "FEDPIPE_STATE")]
    state: PathBuf,
    /// Address of the API; port 0 takes a free one; beyond loopback only with a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Token that API requests must show
    #[arg(long, env = "FEDPIPE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The idle knob: how long without progress is noticed
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    idle: Duration,
    /// Object storage other than STATE/objects: TOML with url, endpoint, access_key, secret_key …; the
    /// workers of this fleet get none of it, the api signs URLs for them
    #[arg(long, value_name = "FILE")]
    storage: Option<PathBuf>,
    /// The nats-server program; otherwise $FEDPIPE_TOOLS/bin, ./.tools/bin and the PATH are searched
    #[arg(long, value_name = "FILE", env = "FEDPIPE_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// What the services log
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Print events as lines of JSON: ready, died, restarted, stopped
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs until it is told to stop.
    pub fn run(self) -> anyhow::Result<()> {
        let fleet = match (&self.fleet, self.workers) {
            (Some(file), _) => Fleet::read(file)?,
            (None, count) => Fleet::unnamed(count.unwrap_or(1))?,
        };
        let options = Options {
            fleet,
            state: self.state,
            listen: self.listen,
            token: self.token,
            idle: self.idle,
            storage: self.storage,
            nats_server: self.nats_server,
            log: self.log,
            json: self.json,
        };
        // One thread: the kernel ties a child's life to the thread that started it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(up::run(options))
    }
}
