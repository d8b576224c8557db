//! A trained update that is not stored yet: kept on disk, so that a restart uploads it instead of
//! training again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contract::message::report::{Head, Walked};
use contract::subject::Address;
use domain::artifact::Digest;
use domain::round::UpdateMetrics;
use domain::zeroth::Scalars;
use serde::{Deserialize, Serialize};

use crate::durable;

/// What is told of an update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Its figures.
    pub metrics: UpdateMetrics,
    /// The version of the generator that its directions are of: that of the program that trained it, which need not be
    /// this one.
    #[serde(default = "first_generator")]
    pub generator: u16,
    /// The digest of the file that zeroth-order steps began with; absent for others, and of a program that did not
    /// look.
    #[serde(default)]
    pub start: Option<Digest>,
    /// The digest of the adapter that its scalars led to, if that is told.
    pub reached: Option<Digest>,
}

/// Of the programs that did not say.
const fn first_generator() -> u16 {
    1
}

impl Figures {
    /// The report of these scalars, as whoever trained them would have made it: whether it counts is for the server to
    /// say. `None` if it is not known what they began with; the round is then to be trained again.
    #[must_use]
    pub fn walked(self, head: Head, round: u32, scalars: Scalars) -> Option<Walked> {
        Some(Walked {
            head,
            round,
            generator: self.generator,
            start: self.start?,
            reached: self.reached,
            scalars,
            metrics: self.metrics,
        })
    }
}

/// The one pending update of a worker: it has one task at a time.
#[derive(Debug, Clone)]
pub struct Pending {
    folder: PathBuf,
    name: String,
}

impl Pending {
    /// Of this task.
    #[must_use]
    pub fn of(work_dir: &Path, task: &Address) -> Self {
        Self {
            folder: work_dir.to_owned(),
            name: format!("{}.{}", task.job, task.epoch),
        }
    }

    /// The update's file: tensors, or scalars.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.update", self.name))
    }

    // Written last: where it is, the update is whole.
    fn figures(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// The figures of the update that was trained before, if one was.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn find(&self) -> io::Result<Option<Figures>> {
        let figures = durable::read(&self.figures())?;
        let figures = figures.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(figures.filter(|_| self.file().exists()))
    }

    /// Keeps an update; whatever another task left goes.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn keep(&self, update: &[u8], figures: &Figures) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            durable::remove(&entry?.path())?;
        }
        durable::write(&self.file(), update)?;
        durable::write(&self.figures(), &serde_json::to_vec(figures)?)
    }

    /// Forgets the update: it is stored and sealed.
    ///
    /// # Errors
    /// If the files cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        durable::remove(&self.figures())?;
        durable::remove(&self.file())
    }
}

#[cfg(test)]
mod tests {
    use domain::id::{Epoch, JobId};
    use domain::zeroth::GENERATOR;

    use super::*;

    fn figures() -> Figures {
        let metrics = UpdateMetrics {
            records: 8,
            tokens: 100,
            loss: 1.5,
            steps: 2,
            skipped_steps: 0,
            refused_records: 0,
            compute_seconds: 0.1,
            tokens_per_second: 1000.0,
            peak_memory_bytes: 5,
            bytes_up: 0,
            bytes_down: 7,
            control_bytes_up: 3,
            energies: domain::energy::EnergyTable::default(),
        };
        Figures {
            metrics,
            generator: GENERATOR + 1,
            start: Some(Digest::from_bytes(&[2; 32])),
            reached: Some(Digest::from_bytes(&[1; 32])),
        }
    }

    fn task(epoch: u64) -> Address {
        Address {
            worker: "w".parse().unwrap(),
            job: JobId::from_bits(1),
            epoch: Epoch(epoch),
            kind: "train".to_owned(),
        }
    }

    #[test]
    fn an_update_is_found_by_its_own_task_only_and_another_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [1, 2].map(|epoch| Pending::of(folder.path(), &task(epoch)));
        assert_eq!(first.find().unwrap(), None);
        first.keep(b"one", &figures()).unwrap();
        assert_eq!(first.find().unwrap(), Some(figures()));
        assert_eq!(second.find().unwrap(), None);
        second.keep(b"two", &figures()).unwrap();
        assert_eq!(first.find().unwrap(), None);
        second.forget().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn scalars_are_reported_as_those_of_the_program_that_found_them() {
        let folder = tempfile::tempdir().unwrap();
        let pending = Pending::of(folder.path(), &task(1));
        let head = || Head {
            worker: "w".parse().unwrap(),
            job: JobId::from_bits(1),
            epoch: Epoch(1),
        };
        pending.keep(b"", &figures()).unwrap();
        let found = pending.find().unwrap().unwrap();
        let walked = found.walked(head(), 3, Scalars::default()).unwrap();
        assert_eq!(walked.generator, GENERATOR + 1);
        assert_eq!(walked.start, Digest::from_bytes(&[2; 32]));

        let mut earlier = serde_json::to_value(figures()).unwrap();
        let fields = earlier.as_object_mut().unwrap();
        fields.remove("generator");
        fields.remove("start");
        fs::write(pending.figures(), earlier.to_string()).unwrap();
        let found = pending.find().unwrap().unwrap();
        assert_eq!((found.generator, &found.start), (1, &None));
        let walked = found.walked(head(), 3, Scalars::default());
        assert_eq!(walked, None, "it is not known what they began with");
    }

    #[test]
    fn an_update_without_its_figures_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let pending = Pending::of(folder.path(), &task(1));
        fs::write(pending.file(), b"half").unwrap();
        assert_eq!(pending.find().unwrap(), None);
        fs::write(pending.figures(), b"{").unwrap();
        assert_eq!(pending.find().unwrap(), None);
    }
}
