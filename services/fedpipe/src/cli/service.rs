//! `fedpipe api|profiler|planner|aggregator|worker`: one service as this process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use artifacts::measured::{self, Answered};
use chassis::telemetry::{self, Metric};
use clap::Args as Arguments;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{output, units};

/// How long a thread that did blocking work waits for more. Each one's stack counts against a worker's
/// memory limit, and a round's transfers use a dozen: they are gone before training is at its largest.
const KEEP_ALIVE: Duration = Duration::from_millis(100);

/// How long the end waits for blocking work that nobody waits for any more. Names are resolved by such: one that no
/// server answers for, a collector's say, would hold the process for as long as the resolver tries.
const LAST: Duration = Duration::from_secs(1);

/// What every service is told alike. Layers: defaults < file < environment (`FEDPIPE_NATS__URL`) < flag.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples, alike for every service:
  fedpipe worker --config site.toml
  fedpipe api --config api.toml
  FEDPIPE_NATS__URL=nats://10.0.0.5:4222 fedpipe planner --dump-config

Configuration: defaults < file < environment (FEDPIPE_NATS__URL is nats.url) < flags. Unknown keys are refused.")]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the resulting configuration, secrets as ***, and stop
    #[arg(long)]
    dump_config: bool,
    /// Where NATS is, such as nats://127.0.0.1:4222
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Address of /healthz, /readyz and /metrics; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,
    /// What is logged: info, debug, info,bus=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The idle knob: how long without progress is noticed, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    idle: Option<Duration>,
}

impl Args {
    /// The flags as a layer of configuration; what is null was not given.
    pub fn flags(&self) -> Value {
        json!({
            "nats": { "url": self.nats_url },
            "health": { "listen": self.health_listen },
            "telemetry": { "log": self.log },
            "liveness": { "idle_ms": self.idle.map(units::milliseconds) },
        })
    }

    /// Runs a service until it is told to stop.
    pub fn run<C, E, F>(&self, flags: &Value, service: impl FnOnce(C) -> F) -> anyhow::Result<()>
    where
        C: Serialize + DeserializeOwned + Default,
        E: std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<(), E>>,
    {
        let config: C = chassis::config::load(self.config.as_deref(), flags)?;
        if self.dump_config {
            return output::line(chassis::config::dump(&config)?.trim_end());
        }
        measured::listen(observe_storage);
        Ok(to_its_end(service(config))??)
    }
}

/// Runs a service, on threads that end with it.
fn to_its_end<T>(service: impl Future<Output = T>) -> io::Result<T> {
    // Two threads serve a control service of any size; what computes has its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()?;
    let result = runtime.block_on(service);
    runtime.shutdown_timeout(LAST);
    Ok(result)
}

/// Storage knows no metrics, and metrics know no storage: this is where they meet.
fn observe_storage(answered: Answered) {
    let labels = [("operation", answered.operation.name())];
    telemetry::observe(Metric::StorageSeconds, answered.took.as_secs_f64(), &labels);
    if answered.failed {
        telemetry::count(Metric::StorageErrors, 1, &labels);
    }
}

/// Flags of `fedpipe api`.
#[derive(Debug, Arguments)]
pub struct ApiArgs {
    /// What every service is told alike
    #[command(flatten)]
    pub common: Args,
    /// Address to listen on; port 0 takes a free one; beyond loopback only with a token (FEDPIPE_TOKEN)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where objects lie: file:///folder or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    storage_url: Option<String>,
}

impl ApiArgs {
    /// The flags as a layer of configuration.
    pub fn flags(&self) -> Value {
        let mut flags = self.common.flags();
        merge(
            &mut flags,
            json!({ "listen": self.listen, "storage": { "url": self.storage_url } }),
        );
        flags
    }
}

/// Flags of `fedpipe worker`.
#[derive(Debug, Arguments)]
pub struct WorkerArgs {
    /// What every service is told alike
    #[command(flatten)]
    pub common: Args,
    /// The worker's name, unique in the fleet
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Compute threads; 0 for as many as this process may use
    #[arg(long, value_name = "N")]
    threads: Option<u16>,
    /// Memory the process may use, such as 4GiB
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Folder for results, journal and the model cache
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl WorkerArgs {
    /// The flags as a layer of configuration.
    pub fn flags(&self) -> Value {
        let mut flags = self.common.flags();
        merge(
            &mut flags,
            json!({
                "name": self.name,
                "threads": self.threads,
                "memory_limit": self.memory_limit,
                "state_dir": self.state_dir,
            }),
        );
        flags
    }
}

fn merge(into: &mut Value, other: Value) {
    if let (Value::Object(into), Value::Object(other)) = (into, other) {
        into.extend(other);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use chassis::clock::Stopwatch;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkerArgs,
    }

    #[test]
    fn flags_that_are_not_given_leave_the_file_as_it_is() {
        let line = Line::parse_from(["x", "--idle", "2s", "--name", "a"]);
        let config: worker::Config =
            chassis::config::load_from(None, [], &line.args.flags()).unwrap();
        assert_eq!(config.liveness.idle_ms, 2000);
        assert_eq!(
            config.name.map(|name| name.to_string()).as_deref(),
            Some("a")
        );
        assert_eq!(config.nats, bus::Connect::default());
    }

    #[test]
    fn the_end_does_not_wait_for_a_name_that_nobody_resolves() {
        let (release, held) = mpsc::channel::<()>();
        let (starting, started) = tokio::sync::oneshot::channel();
        let watch = Stopwatch::start();
        let service = async {
            drop(tokio::task::spawn_blocking(move || {
                starting.send(()).unwrap();
                held.recv_timeout(Duration::from_secs(30))
            }));
            started.await.unwrap();
            7
        };
        assert_eq!(to_its_end(service).unwrap(), 7);
        assert!(watch.seconds() < 20.0, "{} s to end", watch.seconds());
        drop(release);
    }
}
