//! The fleet file: the workers that `fedpipe up` starts on this machine.
//!
//! A `[[workers]]` table is a site.toml without what `up` decides itself (NATS, storage, health, logs).
//! Relative paths are relative to the folder in which `up` is started, as in a site.toml.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::id::WorkerName;
use serde::Deserialize;
use toml::{Table, Value};

/// Workers that `up` starts at most.
const LIMIT: usize = 1000;

/// Keys of a site.toml that a fleet file may give.
const KEYS: [&str; 14] = [
    "name",
    "memory_limit",
    "threads",
    "probe_seconds",
    "throttle_tokens_per_second",
    "speed",
    "bandwidth_limit",
    "cache_bytes",
    "quantized_bytes",
    "adapter_bytes",
    "models",
    "datasets",
    "policy",
    "telemetry",
];

/// The workers, as their `site.toml` begins.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Each with its name.
    pub workers: Vec<Site>,
}

/// One worker.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub name: WorkerName,
    /// What its `site.toml` says beside what `up` decides; the name is in it.
    pub config: Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workers: Vec<Table>,
}

impl Fleet {
    /// So many workers, `site-1` and so on, that have no data.
    pub fn unnamed(count: u16) -> anyhow::Result<Self> {
        let site = |number: u16| -> anyhow::Result<Site> {
            let name: WorkerName = format!("site-{number}").parse()?;
            let config = Table::from_iter([("name".to_owned(), Value::String(name.to_string()))]);
            Ok(Site { name, config })
        };
        Ok(Self {
            workers: (1..=count).map(site).collect::<Result<_, _>>()?,
        })
    }

    /// Reads a fleet file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the fleet file {shown}"))?;
        Self::parse(&text).with_context(|| format!("the fleet file {shown} is refused"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        ensure!(!file.workers.is_empty(), "it has no [[workers]] table");
        ensure!(
            file.workers.len() <= LIMIT,
            "it has more than {LIMIT} workers"
        );
        let sites = file.workers.into_iter().enumerate();
        let workers: Vec<Site> = sites
            .map(|(index, table)| Site::new(index, table))
            .collect::<anyhow::Result<_>>()?;
        let names: BTreeSet<&WorkerName> = workers.iter().map(|site| &site.name).collect();
        ensure!(
            names.len() == workers.len(),
            "two workers have the same name"
        );
        Ok(Self { workers })
    }
}

impl Site {
    fn new(index: usize, config: Table) -> anyhow::Result<Self> {
        let Some(Value::String(name)) = config.get("name") else {
            bail!("[[workers]] number {} has no name", index + 1);
        };
        let name: WorkerName = name.parse()?;
        if let Some(key) = config.keys().find(|key| !KEYS.contains(&key.as_str())) {
            bail!(
                "worker {name}: no such key: {key}; known are {}",
                KEYS.join(", ")
            );
        }
        let read: Result<worker::Config, _> = config.clone().try_into();
        read.map_err(|error| anyhow::anyhow!("{}", error.message().trim_end()))
            .with_context(|| format!("worker {name}"))?;
        Ok(Self { name, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], &str>) {
        let read = Fleet::parse(text).map_err(|error| format!("{error:#}"));
        match (read, expected) {
            (Ok(fleet), Ok(names)) => {
                let found: Vec<&str> = fleet
                    .workers
                    .iter()
                    .map(|site| site.name.as_str())
                    .collect();
                assert_eq!(found, names);
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (read, expected) => panic!("{text}: {read:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_fleet_file_names_its_workers_once() {
        check(
            "[[workers]]\nname = \"a\"\n[[workers]]\nname = \"b\"\nthreads = 1",
            Ok(&["a", "b"]),
        );
        check("", Err("no [[workers]]"));
        check("[[workers]]\nthreads = 1", Err("number 1 has no name"));
        check(
            "[[workers]]\nname = \"a\"\n[[workers]]\nname = \"a\"",
            Err("same name"),
        );
        check("[[workers]]\nname = \"A b\"", Err("worker name"));
        check("[[worker]]\nname = \"a\"", Err("unknown field `worker`"));
    }

    #[test]
    fn a_key_that_a_worker_does_not_have_is_refused_with_the_worker() {
        check(
            "[[workers]]\nname = \"a\"\nthreds = 1",
            Err("worker a: no such key: threds"),
        );
        check(
            "[[workers]]\nname = \"a\"\n[workers.nats]\nurl = \"x\"",
            Err("no such key: nats"),
        );
        check(
            "[[workers]]\nname = \"a\"\n[workers.policy]\nhour = \"1\"",
            Err("worker a: unknown field `hour`"),
        );
        check(
            "[[workers]]\nname = \"a\"\nmemory_limit = \"much\"",
            Err("worker a:"),
        );
    }

    #[test]
    fn the_demonstration_s_fleet_is_accepted() {
        let text = include_str!("../../../../demo/fleet.toml");
        check(text, Ok(&["mail-a", "mail-b", "mail-c"]));
    }

    #[test]
    fn workers_without_a_file_are_numbered() {
        let fleet = Fleet::unnamed(2).unwrap();
        let names: Vec<&str> = fleet
            .workers
            .iter()
            .map(|site| site.name.as_str())
            .collect();
        assert_eq!(names, ["site-1", "site-2"]);
    }
}
