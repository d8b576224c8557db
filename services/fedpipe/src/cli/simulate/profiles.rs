//! Measurements, kept in a file: a site that was measured before for the same questions, or for more, with
//! the same model, data and limits, is not measured again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use contract::message::task::Probe;
use domain::id::WorkerName;
use domain::job::spec::{Base, Importance, Optimizer};
use domain::profile::Measurement;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use worker::{Failure, Local};

use super::measuring::Measuring;
use crate::client::archive;
use crate::output;

/// The file's layout; another one is not read.
const LAYOUT: u32 = 2;

/// Fields of a probe that no measurement depends on, or that say for whom it is.
const INDIFFERENT: [&str; 2] = ["head", "prefix"];
/// The same of the training settings: a probe's records are drawn by any seed, in single batches of its own sizes at
/// rate 0.
const INDIFFERENT_TRAINING: [&str; 6] = [
    "seed",
    "local_steps",
    "schedule",
    "warmup_ratio",
    "accumulate",
    "batch_tokens",
];

/// Measurements by what they depend on.
#[derive(Debug)]
pub struct Profiles {
    path: Option<PathBuf>,
    measuring: Measuring,
    model: String,
    kept: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    layout: u32,
    measurements: BTreeMap<String, Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    worker: WorkerName,
    measurement: Measurement,
}

impl Profiles {
    /// Opens the file, or begins one. Without a path nothing is kept.
    pub fn open(path: Option<&Path>, model: &Path, measuring: Measuring) -> anyhow::Result<Self> {
        let mut kept = File {
            layout: LAYOUT,
            measurements: BTreeMap::new(),
        };
        if let Some(path) = path.filter(|path| path.exists()) {
            let shown = path.display();
            let text = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
            let found: File = serde_json::from_slice(&text)
                .with_context(|| format!("{shown} holds no measurements of this version"))?;
            if found.layout == LAYOUT {
                kept = found;
            }
        }
        let model = match path {
            Some(_) => digest_of(model)?,
            None => String::new(),
        };
        let path = path.map(Path::to_owned);
        Ok(Self {
            path,
            measuring,
            model,
            kept,
        })
    }

    /// The site's measurement: the one that was kept, or a new one, which is kept at once. The inner
    /// failure is what keeps the site from it; nothing is kept of that.
    pub fn measure(
        &mut self,
        site: &Local,
        probe: &Probe,
        link: worker::Link,
    ) -> anyhow::Result<Result<Measurement, Failure>> {
        let mut measurement = match self.known(site, probe)? {
            Some(known) => known,
            None => match self.anew(site, probe)? {
                Ok(measurement) => measurement,
                Err(failure) => return Ok(Err(failure)),
            },
        };
        // The link is the fleet file's, whatever it was when the site was measured.
        measurement.upload_bytes_per_second = link.upload_bytes_per_second;
        measurement.download_bytes_per_second = link.download_bytes_per_second;
        measurement.round_trip_ms = link.round_trip_ms;
        Ok(Ok(measurement))
    }

    /// What the site's measurements say to this question: one that was asked, or one that asked for more.
    fn known(&self, site: &Local, probe: &Probe) -> anyhow::Result<Option<Measurement>> {
        if self.kept.measurements.is_empty() {
            return Ok(None);
        }
        for wider in wider(probe) {
            let kept = self.kept.measurements.get(&self.key(site, &wider)?);
            let measurement = kept.map(|kept| without_more(kept.measurement.clone(), probe));
            // Where nothing is left of it, what keeps the site from the narrower question is not known.
            if let Some(measurement) = measurement.filter(|found| !found.modes.is_empty()) {
                return Ok(Some(measurement));
            }
        }
        Ok(None)
    }

    fn anew(
        &mut self,
        site: &Local,
        probe: &Probe,
    ) -> anyhow::Result<Result<Measurement, Failure>> {
        output::note(format!("{}: measuring", site.name()));
        let measurement = match self.measuring.measure(site.name())? {
            Ok(measurement) => measurement,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(path) = &self.path {
            let key = self.key(site, probe)?;
            let kept = Kept {
                worker: site.name().clone(),
                measurement: measurement.clone(),
            };
            self.kept.measurements.insert(key, kept);
            let aside = path.with_extension("new");
            let text = serde_json::to_vec_pretty(&self.kept)?;
            let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path));
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Ok(measurement))
    }

    /// Everything that a measurement depends on, as one digest.
    fn key(&self, site: &Local, probe: &Probe) -> anyhow::Result<String> {
        let mut asked = serde_json::to_value(probe)?;
        without(&mut asked, &INDIFFERENT);
        if let Some(training) = asked.get_mut("training") {
            without(training, &INDIFFERENT_TRAINING);
            if probe.base != Base::Auto {
                // The largest batch only decides which other bases are looked at.
                without(training, &["batch"]);
            }
            if probe.importance != Importance::Adalora {
                // All other steps are made at rate 0.
                without(training, &["learning_rate"]);
            }
        }
        let config = site.config();
        let files = config.datasets.get(&probe.head.dataset);
        let mut data = Vec::new();
        for path in files.iter().flat_map(|files| {
            let held_out = files.held_out.iter();
            std::iter::once(&files.train).chain(held_out)
        }) {
            data.push(digest_of(path)?);
        }
        let on = json!({
            "version": engine::VERSION,
            "model": self.model,
            "asked": asked,
            "worker": site.name(),
            "memory": site.memory_limit_bytes(),
            "threads": site.threads(),
            "probe_seconds": config.probe_seconds,
            "speed": config.speed,
            "throttle": config.throttle_tokens_per_second,
            "small_counts": config.policy.share_small_counts,
            "files": files,
            "data": data,
        });
        Ok(hex(&Sha256::digest(on.to_string().as_bytes())))
    }
}

/// A question, and those whose answers hold what it asks: a probe that measures what weights are worth, or
/// more ways to train, measures the rest as it would without. Only what it has time for may differ.
fn wider(probe: &Probe) -> Vec<Probe> {
    let importances = match probe.importance {
        Importance::Uniform => vec![Importance::Uniform, Importance::Sketch, Importance::Adalora],
        asked => vec![asked],
    };
    let optimizers = match probe.training.optimizer {
        // What no other question measures.
        asked @ (Optimizer::Auto | Optimizer::Sgd) => vec![asked],
        asked => vec![asked, Optimizer::Auto],
    };
    let mut all = Vec::new();
    for importance in importances {
        for optimizer in &optimizers {
            let mut wider = Probe {
                importance,
                ..probe.clone()
            };
            wider.training.optimizer = *optimizer;
            all.push(wider);
        }
    }
    all
}

/// What a measurement says to a question that asks for less.
fn without_more(measurement: Measurement, probe: &Probe) -> Measurement {
    let asked = probe.training.optimizer;
    let mut modes = measurement.modes;
    modes.retain(|one| asked == Optimizer::Auto || one.mode.optimizer == asked);
    let importance = measurement
        .importance
        .filter(|_| probe.importance != Importance::Uniform);
    Measurement {
        modes,
        importance,
        ..measurement
    }
}

fn without(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        for field in fields {
            object.remove(*field);
        }
    }
}

/// A file's digest, or that of the digests of a folder's files in the order of their names.
fn digest_of(path: &Path) -> anyhow::Result<String> {
    let of_file = |path: &Path| -> anyhow::Result<String> {
        let digest = archive::digest(path);
        let digest = digest.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(digest.to_string())
    };
    if !path.is_dir() {
        return of_file(path);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let digests: Vec<String> = files
        .iter()
        .map(|file| of_file(file))
        .collect::<anyhow::Result<_>>()?;
    Ok(hex(&Sha256::digest(digests.concat().as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(importance: &str, optimizer: &str) -> Probe {
        let asked = json!({
            "head": {
                "worker": "a", "job": "job_0000000000000000", "epoch": 1, "submitter": "local",
                "model": {"path": "m"}, "dataset": "mail", "expires_at": 0,
            },
            "targets": ["q"],
            "rank_max": 8,
            "base": "auto",
            "training": {"optimizer": optimizer},
            "importance": importance,
            "choices": [],
            "prefix": "",
        });
        serde_json::from_value(asked).unwrap()
    }

    #[test]
    fn what_asks_for_less_is_answered_by_what_asked_for_more_and_not_the_other_way_round() {
        let wider = |importance, optimizer| -> Vec<(Importance, Optimizer)> {
            let all = wider(&probe(importance, optimizer));
            all.iter()
                .map(|one| (one.importance, one.training.optimizer))
                .collect()
        };
        let all = wider("uniform", "adamw");
        assert_eq!(all.first(), Some(&(Importance::Uniform, Optimizer::Adamw)));
        assert_eq!(all.len(), 6);
        assert!(all.contains(&(Importance::Sketch, Optimizer::Auto)));
        let own = [(Importance::Sketch, Optimizer::Auto)];
        assert_eq!(wider("sketch", "auto"), own);
        let own = [
            (Importance::Adalora, Optimizer::Mezo),
            (Importance::Adalora, Optimizer::Auto),
        ];
        assert_eq!(wider("adalora", "mezo"), own);
    }

    #[test]
    fn of_an_answer_to_more_only_what_was_asked_is_left() {
        let mode = |optimizer| {
            json!({
                "mode": {"base": "source", "kernel": "k", "checkpoint": false, "optimizer": optimizer},
                "base_memory_bytes": 1, "samples": [], "scoring": [], "loss": null,
            })
        };
        let measurement: Measurement = serde_json::from_value(json!({
            "model": null, "weights": [], "layers": 1, "memory_limit_bytes": 1, "threads": 1,
            "modes": [mode("adamw"), mode("mezo")],
            "importance": {"method": "sketch", "weights": [], "agreement": 1.0, "records": 8},
            "forward_tokens_per_second": 1.0, "upload_bytes_per_second": 1.0,
            "download_bytes_per_second": 1.0, "round_trip_ms": 1.0,
            "records": 1, "held_out": 1, "skipped": 0, "mean_tokens": 1.0,
        }))
        .unwrap();
        let left = without_more(measurement.clone(), &probe("uniform", "adamw"));
        assert_eq!(left.modes, measurement.modes[..1]);
        assert_eq!(left.importance, None);
        let all = without_more(measurement.clone(), &probe("sketch", "auto"));
        assert_eq!(all, measurement);
    }
}
