//! Measurements, kept in a file: a site that was measured before for the same questions, with the same
//! model, data and limits, is not measured again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use contract::message::task::Probe;
use domain::id::WorkerName;
use domain::profile::Measurement;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use worker::{Failure, Local, Workbench};

use crate::client::archive;
use crate::output;

/// The file's layout; another one is not read.
const LAYOUT: u32 = 1;

/// Fields of a probe that no measurement depends on, or that say for whom it is.
const INDIFFERENT: [&str; 2] = ["head", "prefix"];
/// The same of the training settings: a probe's rate is 0, and its records are drawn by any seed.
const INDIFFERENT_TRAINING: [&str; 4] = ["seed", "learning_rate", "local_steps", "batch"];

/// Measurements by what they depend on.
#[derive(Debug)]
pub struct Profiles {
    path: Option<PathBuf>,
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
    pub fn open(path: Option<&Path>, model: &Path) -> anyhow::Result<Self> {
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
        Ok(Self { path, model, kept })
    }

    /// The site's measurement: the one that was kept, or a new one, which is kept at once. The inner
    /// failure is what keeps the site from it; nothing is kept of that.
    pub fn measure(
        &mut self,
        site: &Local,
        bench: &mut Workbench,
        probe: &Probe,
        link: worker::Link,
    ) -> anyhow::Result<Result<Measurement, Failure>> {
        let key = match &self.path {
            Some(_) => self.key(site, probe)?,
            None => String::new(),
        };
        let mut measurement = match self.kept.measurements.get(&key) {
            Some(kept) => kept.measurement.clone(),
            None => match self.anew(key, site, bench, probe)? {
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

    fn anew(
        &mut self,
        key: String,
        site: &Local,
        bench: &mut Workbench,
        probe: &Probe,
    ) -> anyhow::Result<Result<Measurement, Failure>> {
        output::note(format!("{}: measuring", site.name()));
        let measurement = match site.measure(bench, probe, worker::Link::default()) {
            Ok(measurement) => measurement,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(path) = &self.path {
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
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.model,
            "asked": asked,
            "worker": site.name(),
            "memory": site.memory_limit_bytes(),
            "threads": site.threads(),
            "speed": config.speed,
            "throttle": config.throttle_tokens_per_second,
            "small_counts": config.policy.share_small_counts,
            "files": files,
            "data": data,
        });
        Ok(hex(&Sha256::digest(on.to_string().as_bytes())))
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
