//! Where a round stood when its worker was told to end: kept on disk, so that whoever starts in its place goes on from
//! there and ends with the bytes of a round that was never interrupted.
//!
//! It is a help and never needed: one that is missing, damaged, of another program or of other data counts as none, and
//! the round is trained from its beginning. A worker that is killed leaves none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contract::subject::Address;
use domain::adapter::WeightShape;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Learned, Learner};
use crate::failure::explain;

/// Where one task's training is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
    file: PathBuf,
    process: CancellationToken,
}

/// A round's steps so far, and what they were steps of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stood {
    /// The engine: another one may compute in another order.
    version: String,
    /// The data set's training records.
    records: u64,
    /// Each step.
    pub steps: Vec<Done>,
    /// The most memory that they took, in bytes.
    pub peak_bytes: u64,
}

/// One step; numbers by their bits, so that none changes on its way over the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Records that it learned from.
    pub records: u64,
    tokens: usize,
    passes: usize,
    loss: Option<u64>,
    seconds: u64,
}

impl Done {
    /// A step that took so long at the site's pace.
    pub fn new(records: u64, step: &Learned, seconds: f64) -> Self {
        Self {
            records,
            tokens: step.tokens,
            passes: step.passes,
            loss: step.loss.map(f64::to_bits),
            seconds: seconds.to_bits(),
        }
    }

    /// What it found.
    pub fn learned(&self) -> Learned {
        Learned {
            loss: self.loss.map(f64::from_bits),
            tokens: self.tokens,
            passes: self.passes,
            gradient_norm: None,
        }
    }

    /// How long it took, at the site's pace.
    pub fn seconds(&self) -> f64 {
        f64::from_bits(self.seconds)
    }
}

impl Stood {
    /// A round over a data set of so many records, before its first step.
    pub fn new(records: u64) -> Self {
        Self {
            version: engine::VERSION.to_owned(),
            records,
            steps: Vec::new(),
            peak_bytes: 0,
        }
    }

    /// Whether the other is further in the very same round.
    fn goes_on_in(&self, other: &Self) -> bool {
        let of = |stood: &Self| (stood.version.clone(), stood.records);
        self.steps.is_empty() && of(self) == of(other) && !other.steps.is_empty()
    }
}

impl Kept {
    /// Of this task; `process` says when the worker is told to end.
    #[must_use]
    pub fn of(work_dir: &Path, task: &Address, process: &CancellationToken) -> Self {
        Self {
            folder: work_dir.to_owned(),
            file: work_dir.join(format!("{}.{}.checkpoint", task.job, task.epoch)),
            process: process.clone(),
        }
    }

    /// Whether the worker was told to end: a task that is stopped for another reason is not taken up again.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.process.is_cancelled()
    }

    /// Keeps where the learner stands, in the place of whatever another task left; says so, or why not.
    pub fn keep(&self, learner: &mut Learner<'_>, stood: &Stood) {
        let steps = stood.steps.len();
        let kept = self.clear().map_err(|error| explain(&error));
        match kept.and_then(|()| learner.keep(&self.file, stood)) {
            Ok(()) => tracing::info!(steps, "the round is kept as far as it came"),
            Err(why) => tracing::warn!(steps, why, "the round is not kept, it begins anew"),
        }
    }

    fn clear(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            crate::durable::remove(&entry?.path())?;
        }
        Ok(())
    }

    /// Has a learner that has just begun go on from where the round stood; its steps, none if it begins anew.
    pub fn take_up(
        &self,
        learner: &mut Learner<'_>,
        shapes: &[WeightShape],
        begun: &Stood,
    ) -> Option<Stood> {
        if !self.file.exists() {
            return None;
        }
        match learner.take_up(&self.file, shapes, |stood| begun.goes_on_in(stood)) {
            Ok(stood) => {
                tracing::info!(steps = stood.steps.len(), "the round goes on");
                Some(stood)
            }
            Err(why) => {
                tracing::warn!(
                    why,
                    "what was kept of the round is not used, it begins anew"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_in_itself_only() {
        let step = Learned {
            loss: Some(0.1 + 0.2),
            tokens: 7,
            passes: 6,
            gradient_norm: None,
        };
        let begun = Stood::new(10);
        let mut further = begun.clone();
        assert!(!begun.goes_on_in(&further), "there is no step");
        further.steps.push(Done::new(4, &step, 1.0 / 3.0));
        assert!(begun.goes_on_in(&further));
        assert!(!Stood::new(11).goes_on_in(&further), "other data");
        let other = Stood {
            version: "0.0.0".to_owned(),
            ..further.clone()
        };
        assert!(!begun.goes_on_in(&other), "another program");
        let text = serde_json::to_string(&further).unwrap();
        let read: Stood = serde_json::from_str(&text).unwrap();
        assert_eq!(read, further);
        assert_eq!(read.steps[0].learned(), step);
    }
}
