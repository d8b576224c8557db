//! What this process is doing, for the process that follows it.
//!
//! One file, written before heavy work and removed after it. Whoever finds it at its start knows
//! that its predecessor died there; three deaths on one task, or one for want of memory, end it.

use std::io;
use std::path::{Path, PathBuf};

use chassis::memory::Exhaustion;
use contract::subject::Address;
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::id::{Epoch, JobId, WorkerName};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::failure::Failure;

/// Deaths after which a task is given up.
const DEATHS: u32 = 3;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    job: JobId,
    epoch: Epoch,
    kind: String,
    stage: Stage,
    deaths: u32,
}

/// The file.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

/// A task that killed its process, and what is to be reported of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Casualty {
    /// The task.
    pub task: Address,
    /// Why it is given up.
    pub failure: Failure,
}

impl Journal {
    /// The journal at this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// Reads what the process before left, counts its death, and gives the task up if it must be.
    ///
    /// # Errors
    /// If the file cannot be read or written; a damaged one counts as none.
    pub fn inherit(
        &self,
        worker: &WorkerName,
        exhaustion: Option<Exhaustion>,
        limit_bytes: u64,
    ) -> io::Result<Option<Casualty>> {
        let Some(mut entry) = self.read()? else {
            return Ok(None);
        };
        entry.deaths += 1;
        let stage = said(entry.stage);
        let failure = match exhaustion {
            Some(Exhaustion {
                asked_bytes,
                used_bytes,
            }) => Failure::new(
                Trouble::OutOfMemory,
                format!(
                    "while {stage}: asked for {asked_bytes} bytes with {used_bytes} in use, limit {limit_bytes}"
                ),
            ),
            None if entry.deaths >= DEATHS => Failure::new(
                Trouble::Crashed,
                format!(
                    "the process died {} times, last while {stage}",
                    entry.deaths
                ),
            ),
            None => {
                tracing::warn!(job = %entry.job, deaths = entry.deaths, stage, "the process before this one died");
                self.write(&entry)?;
                return Ok(None);
            }
        };
        let task = Address {
            worker: worker.clone(),
            job: entry.job,
            epoch: entry.epoch,
            kind: entry.kind,
        };
        Ok(Some(Casualty { task, failure }))
    }

    /// Begins a task, or takes it up again.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn begin(&self, task: &Address, stage: Stage) -> io::Result<()> {
        let before = self.read()?.filter(|entry| {
            (&entry.job, entry.epoch, &entry.kind) == (&task.job, task.epoch, &task.kind)
        });
        self.write(&Entry {
            job: task.job.clone(),
            epoch: task.epoch,
            kind: task.kind.clone(),
            stage,
            deaths: before.map_or(0, |entry| entry.deaths),
        })
    }

    /// Notes the stage of the task under way.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn stage(&self, stage: Stage) -> io::Result<()> {
        match self.read()? {
            Some(entry) => self.write(&Entry { stage, ..entry }),
            None => Ok(()),
        }
    }

    /// The task is done, reported as failed, or handed back.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn end(&self) -> io::Result<()> {
        durable::remove(&self.path)
    }

    fn read(&self) -> io::Result<Option<Entry>> {
        let bytes = durable::read(&self.path)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    // Not synced: only a power failure could lose it, and that says nothing about the task.
    fn write(&self, entry: &Entry) -> io::Result<()> {
        let partial = self.path.with_added_extension("partial");
        std::fs::write(&partial, serde_json::to_vec(entry)?)?;
        std::fs::rename(&partial, &self.path)
    }
}

/// A stage in the middle of a sentence.
#[must_use]
pub const fn said(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "idle",
        Stage::Downloading => "downloading",
        Stage::Loading => "loading the model",
        Stage::Probing => "measuring",
        Stage::Training => "training",
        Stage::Uploading => "uploading",
        Stage::Evaluating => "scoring",
        Stage::Stopping => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerName {
        "w".parse().unwrap()
    }

    fn task(epoch: u64) -> Address {
        Address {
            worker: worker(),
            job: JobId::from_bits(1),
            epoch: Epoch(epoch),
            kind: "train".to_owned(),
        }
    }

    fn with_journal(check: impl FnOnce(&Journal)) {
        let folder = tempfile::tempdir().unwrap();
        check(&Journal::at(&folder.path().join("running")));
    }

    #[test]
    fn the_third_death_on_one_task_ends_it_and_names_the_stage() {
        with_journal(|journal| {
            for death in 1..=3 {
                journal.begin(&task(1), Stage::Downloading).unwrap();
                journal.stage(Stage::Loading).unwrap();
                let casualty = journal.inherit(&worker(), None, 9).unwrap();
                let text = casualty.map(|c| c.failure.to_string());
                assert_eq!(text.is_some(), death == 3, "death {death}: {text:?}");
                if let Some(text) = text {
                    assert!(
                        text.contains("3 times") && text.contains("loading the model"),
                        "{text}"
                    );
                }
            }
        });
    }

    #[test]
    fn want_of_memory_ends_a_task_at_once_and_says_how_much() {
        with_journal(|journal| {
            journal.begin(&task(1), Stage::Training).unwrap();
            let exhaustion = Exhaustion {
                asked_bytes: 70_000,
                used_bytes: 5,
            };
            let casualty = journal
                .inherit(&worker(), Some(exhaustion), 9)
                .unwrap()
                .unwrap();
            assert_eq!(casualty.task, task(1));
            let Failure::Site { trouble, detail } = casualty.failure else {
                panic!("not a stop")
            };
            assert_eq!(trouble, Trouble::OutOfMemory);
            for part in ["70000", "with 5 in use", "limit 9", "training"] {
                assert!(detail.contains(part), "{detail}");
            }
        });
    }

    #[test]
    fn a_task_that_ended_leaves_nothing_and_another_starts_at_zero() {
        with_journal(|journal| {
            journal.begin(&task(1), Stage::Training).unwrap();
            journal.end().unwrap();
            journal.end().unwrap();
            assert_eq!(journal.inherit(&worker(), None, 9).unwrap(), None);
            for _ in 0..2 {
                journal.begin(&task(1), Stage::Training).unwrap();
                assert_eq!(journal.inherit(&worker(), None, 9).unwrap(), None);
            }
            journal.begin(&task(2), Stage::Training).unwrap();
            assert_eq!(journal.inherit(&worker(), None, 9).unwrap(), None);
        });
    }
}
