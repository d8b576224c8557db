//! A site's `site.toml`: where everything is, what this machine may use, what the site admits.
//!
//! Unknown keys are refused. Every limit here is the site's own; no job can raise one.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;

use bus::Connect;
use chassis::config::{Health, Liveness, Telemetry};
use domain::artifact::Digest;
use domain::hub;
use domain::id::{DatasetName, Submitter, WorkerName};
use engine::data::{Format, LossOn, Truncate};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::hours::Hours;
use crate::size::Size;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The worker's name, unique in the fleet. Required.
    pub name: Option<WorkerName>,
    /// How to reach NATS.
    pub nats: Connect,
    /// How to reach object storage. Without a url, which is how a site of somebody else's is set up, the
    /// worker has no credentials: the control plane signs a URL for each object that its jobs let it
    /// reach. `ca_file` and `allow_http` then say whom to trust.
    pub storage: artifacts::Config,
    /// How to reach the Hugging Face Hub, for jobs whose model is named `hf://…`; used only as far as
    /// `policy.allow_hub` lets a job.
    pub hub: artifacts::hub::Config,
    /// Where health and metrics are served.
    pub health: Health,
    /// What is logged.
    pub telemetry: Telemetry,
    /// The idle knob.
    pub liveness: Liveness,
    /// Folder for sealed results, the journal, downloads and the model cache.
    pub state_dir: PathBuf,
    /// Models fetched by digest are kept up to so many bytes.
    pub cache_bytes: Size,
    /// What was made of models for a base in int8 or NF4 is kept up to so many bytes, the oldest
    /// dropped first; 0: it is made at each loading.
    pub quantized_bytes: Size,
    /// Largest adapter that is fetched, in bytes.
    pub adapter_bytes: Size,
    /// Compute threads; 0: as many as this process may use.
    pub threads: u16,
    /// Seconds of computing after which a probe begins nothing new, about: the fewer, the fewer modes are
    /// measured. What a first plan cannot do without is measured whatever it takes.
    pub probe_seconds: u32,
    /// Memory the process may use (sets `RLIMIT_DATA`); absent: what its cgroup allows.
    pub memory_limit: Option<Size>,
    /// Caps training and scoring, to play a slower machine.
    pub throttle_tokens_per_second: Option<f64>,
    /// Share of this machine's speed that training and scoring have, above 0 and at most 1, to play a
    /// slower machine.
    pub speed: Option<f64>,
    /// Caps transfers, in bytes a second, to play a slower link.
    pub bandwidth_limit: Option<Size>,
    /// Models this site has already: digest to a local file or folder.
    pub models: BTreeMap<Digest, PathBuf>,
    /// Data sets by the names that jobs use.
    pub datasets: BTreeMap<DatasetName, Files>,
    /// Which jobs the site admits.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            nats: Connect::default(),
            storage: artifacts::Config::default(),
            hub: artifacts::hub::Config::default(),
            health: Health::default(),
            telemetry: Telemetry::default(),
            liveness: Liveness::default(),
            state_dir: PathBuf::from("worker-state"),
            cache_bytes: Size(20 << 30),
            quantized_bytes: Size(8 << 30),
            adapter_bytes: Size(4 << 30),
            threads: 0,
            probe_seconds: 60,
            memory_limit: None,
            throttle_tokens_per_second: None,
            speed: None,
            bandwidth_limit: None,
            models: BTreeMap::new(),
            datasets: BTreeMap::new(),
            policy: Policy::default(),
        }
    }
}

/// The files of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Records to train on.
    #[serde(alias = "path")]
    pub train: PathBuf,
    /// Records to score on; absent: this site scores nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<PathBuf>,
    /// What the files hold.
    #[serde(default)]
    pub format: Format,
    /// Of `{"text", "label"}` records: the question that follows the text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// Of `{"text", "label"}` records: the completion that stands for each label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Which tokens are learned.
    #[serde(default)]
    pub loss_on: LossOn,
    /// What is cut from a record that is too long.
    #[serde(default)]
    pub truncate: Truncate,
}

/// Which jobs the site admits. Empty lists admit everything; paths are the exception.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Whose jobs.
    pub allow_submitters: BTreeSet<Submitter>,
    /// Which models, by digest.
    pub allow_models: BTreeSet<Digest>,
    /// Which of the site's data sets.
    pub allow_datasets: BTreeSet<DatasetName>,
    /// Folders below which a job may name a model by path; empty: none.
    pub allow_paths: Vec<PathBuf>,
    /// Models of the Hub that the site fetches from there itself: `org/name`, `org/name@commit`, `org/*` or `*`; empty: none,
    /// for the Hub then learns that this site asks for them.
    pub allow_hub: BTreeSet<hub::Allowed>,
    /// Hours of the day (UTC) in which the site works, such as `22-06`.
    pub hours: Option<Hours>,
    /// Whether figures averaged over fewer than 8 records may leave the site.
    pub share_small_counts: bool,
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`Error::Config`], naming the key.
    pub fn check(&self) -> Result<WorkerName, Error> {
        let refuse = |key, reason: &str| Error::Config {
            key,
            reason: reason.to_owned(),
        };
        let name = self.name.clone();
        let name = name.ok_or_else(|| refuse("name", "every worker needs its own name"))?;
        let throttle = self.throttle_tokens_per_second;
        if throttle.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(refuse("throttle_tokens_per_second", "use a number above 0"));
        }
        if self
            .speed
            .is_some_and(|share| !(share > 0.0 && share <= 1.0))
        {
            return Err(refuse("speed", "use a number above 0, at most 1"));
        }
        if !(1..=3600).contains(&self.probe_seconds) {
            return Err(refuse("probe_seconds", "use 1 to 3600"));
        }
        if self.bandwidth_limit == Some(Size(0)) {
            return Err(refuse("bandwidth_limit", "use a number above 0"));
        }
        if self.memory_limit.is_some_and(|limit| limit.0 < 16 << 20) {
            return Err(refuse("memory_limit", "use at least 16MiB"));
        }
        if let Some(path) = self.policy.allow_paths.iter().find(|p| !p.is_absolute()) {
            let reason = format!("{} is not an absolute path", path.display());
            return Err(refuse("policy.allow_paths", &reason));
        }
        Ok(name)
    }

    /// Compute threads to use.
    #[must_use]
    pub fn compute_threads(&self) -> u16 {
        match self.threads {
            0 => u16::try_from(chassis::memory::threads()).unwrap_or(u16::MAX),
            threads => threads,
        }
    }

    /// Where quantized models are kept; none if the site keeps none.
    #[must_use]
    pub fn quantized(&self) -> Option<engine::model::Cache> {
        let limit_bytes = self.quantized_bytes.0;
        let folder = self.state_dir.join("quantized");
        (limit_bytes > 0).then_some(engine::model::Cache {
            folder,
            limit_bytes,
        })
    }

    /// The cap on transfers.
    #[must_use]
    pub fn bandwidth(&self) -> Option<NonZeroU64> {
        self.bandwidth_limit
            .and_then(|limit| NonZeroU64::new(limit.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        std::fs::write(&path, text).unwrap();
        chassis::config::load_from(Some(&path), [], &()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_site_file_is_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = format!(
            r#"
            name = "mail-1"
            state_dir = "/var/lib/fedpipe"
            cache_bytes = "5GB"
            quantized_bytes = "1GB"
            memory_limit = "2GiB"
            threads = 2
            throttle_tokens_per_second = 60
            bandwidth_limit = 1048576
            [nats]
            url = "nats://127.0.0.1:4222"
            [storage]
            url = "file:///tmp/objects"
            [hub]
            endpoint = "https://hub.example.org"
            [models]
            "{digest}" = "/srv/models/one"
            [datasets.mail]
            train = "/data/train.jsonl"
            held_out = "/data/held.jsonl"
            labels = {{ spam = " yes", ham = " no" }}
            [policy]
            allow_submitters = ["alice"]
            allow_models = ["{digest}"]
            allow_hub = ["HuggingFaceTB/*", "org/name"]
            hours = "22-06"
            "#
        );
        let config = load(&text).unwrap();
        assert_eq!(config.check().unwrap().as_str(), "mail-1");
        assert_eq!(config.memory_limit, Some(Size(2 << 30)));
        assert_eq!(config.bandwidth_limit, Some(Size(1 << 20)));
        let quantized = config.quantized().unwrap();
        assert_eq!(quantized.limit_bytes, 1_000_000_000);
        assert!(quantized.folder.starts_with("/var/lib/fedpipe"));
        let mail: DatasetName = "mail".parse().unwrap();
        let files = config.datasets.get(&mail).unwrap();
        assert_eq!(files.held_out, Some(PathBuf::from("/data/held.jsonl")));
        assert_eq!(files.labels.get("spam").map(String::as_str), Some(" yes"));
        assert!(!config.policy.share_small_counts);
        let dumped = chassis::config::dump(&config).unwrap();
        assert_eq!(load(&dumped).unwrap(), config);
    }

    #[test]
    fn a_site_may_keep_no_quantized_models() {
        let config = load("name = \"a\"\nquantized_bytes = 0\n").unwrap();
        assert_eq!(config.quantized(), None);
    }

    #[test]
    fn a_data_set_may_call_its_training_file_path() {
        let text = "name = \"a\"\n[datasets.mail]\npath = \"/data/train.jsonl\"\n";
        assert_eq!(load(text).unwrap().datasets.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("colour = 1", "colour"),
            ("[policy]\nallow = []", "allow"),
            ("[datasets.mail]\ntrain = \"a\"\nlables = {}", "lables"),
            ("memory_limit = \"much\"", "memory_limit"),
            ("[policy]\nhours = \"25-3\"", "hours"),
            ("[policy]\nallow_hub = [\"name\"]", "allow_hub"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        for (text, named) in [
            ("threads = 1", "name"),
            ("name = \"a\"\nthrottle_tokens_per_second = 0", "throttle"),
            ("name = \"a\"\nprobe_seconds = 0", "probe_seconds"),
            ("name = \"a\"\nspeed = 0.0", "speed"),
            ("name = \"a\"\nspeed = 1.5", "speed"),
            (
                "name = \"a\"\n[policy]\nallow_paths = [\"x\"]",
                "allow_paths",
            ),
        ] {
            let error = load(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
