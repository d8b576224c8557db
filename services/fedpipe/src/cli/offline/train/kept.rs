//! Where a zeroth-order run stands: the scalars of its steps, a few bytes each. Whoever goes on does these steps again from the
//! adapter or the model's files that it began with, without a pass, and ends with the bytes of a run that was never interrupted.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use domain::zeroth::Scalars;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::held_out::{Course, Scored};
use super::resume::{difference, is_there};
use crate::output;

/// A written limit: a million steps of a few directions each, in digits.
const FILE_LIMIT_BYTES: u64 = 64 << 20;
/// Bytes of a scalar and of a score in it, at most, and of all else.
const SCALAR_BYTES: u64 = "4294967295,".len() as u64;
const SCORE_BYTES: u64 = 192;
const OTHER_BYTES: u64 = 1 << 20;

/// Refuses a run of so many steps, with so many directions each, and scores that a checkpoint would not hold, before the first.
pub fn check((steps, each): (u64, u16), scores: u64) -> anyhow::Result<()> {
    let scalars = steps
        .saturating_mul(u64::from(each))
        .saturating_mul(SCALAR_BYTES);
    let scores = scores.saturating_mul(SCORE_BYTES);
    let bytes = scalars.saturating_add(scores).saturating_add(OTHER_BYTES);
    ensure!(
        bytes <= FILE_LIMIT_BYTES,
        "what {steps} steps of {each} directions find may have {bytes} bytes, and a checkpoint has {FILE_LIMIT_BYTES} at most: \
         use fewer --steps, and go on from what they leave, or fewer --perturbations or scores"
    );
    Ok(())
}

/// A walk's checkpoint: a file beside the folder that it will make.
pub struct Kept {
    path: PathBuf,
    /// Steps between two; 0: none is written.
    every: u64,
    /// What the run is asked for, as far as its result depends on it.
    asked: Value,
    /// Scalars of a step.
    each: u64,
}

/// What the file holds; the scalars by their bits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stands {
    asked: Value,
    scores: Vec<Scored>,
    scalars: Vec<u32>,
}

impl Kept {
    /// That of the run which makes `out`, in steps of so many scalars.
    pub fn new(out: &Path, every: u64, each: u16, asked: Value) -> Self {
        let mut name = out.file_name().map(OsString::from).unwrap_or_default();
        name.push(".checkpoint");
        Self {
            path: out.with_file_name(name),
            every,
            asked,
            each: u64::from(each).max(1),
        }
    }

    /// Has a trainer go on from the checkpoint, if there is one; gives the steps that were made. `resume` does so many steps
    /// again by their scalars, or says that they are not of so many.
    pub fn begin(
        &self,
        resume: impl FnOnce(&Scalars, usize) -> bool,
        course: &mut Course<'_>,
    ) -> anyhow::Result<u64> {
        let path = self.path.display();
        if !is_there(&self.path)? {
            output::note(format!(
                "{path} is not there: beginning with the first step"
            ));
            return Ok(0);
        }
        let Stands {
            asked,
            scores,
            scalars,
        } = self.read()?;
        if let Some(other) = difference(&asked, &self.asked) {
            bail!(
                "{path} is of a run with other settings ({other}). Next: the same settings, or leave out --resume"
            );
        }
        let steps = scalars.len() as u64 / self.each;
        let scalars = Scalars::new(scalars.into_iter().map(f32::from_bits).collect());
        output::note(format!("{path}: doing {steps} steps again"));
        ensure!(
            resume(&scalars, steps as usize),
            "the checkpoint {path} is damaged: its last step is not whole"
        );
        course.resume(scores);
        output::note(format!("{path}: going on after step {steps}"));
        Ok(steps)
    }

    /// Writes a checkpoint after so many steps, if it is time for one: the scalars of all of them.
    pub fn step(
        &self,
        made: u64,
        scalars: impl FnOnce() -> Scalars,
        scores: &[Scored],
    ) -> anyhow::Result<()> {
        if self.every == 0 || !made.is_multiple_of(self.every) {
            return Ok(());
        }
        self.save(&scalars(), scores)
    }

    /// Writes a checkpoint, even where none was asked for.
    pub fn save(&self, scalars: &Scalars, scores: &[Scored]) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(&Stands {
            asked: self.asked.clone(),
            scores: scores.to_vec(),
            scalars: scalars.values().iter().map(|one| one.to_bits()).collect(),
        })?;
        self.write(&bytes)
            .with_context(|| format!("cannot write the checkpoint {}", self.path.display()))
    }

    /// What there is of a run whose result could not be written, as far as its steps were saved.
    pub fn left(&self, saved: &anyhow::Result<()>) -> String {
        let path = self.path.display();
        match saved {
            Ok(()) => format!(
                "the trained model is not written; {path} has its steps. Next: the same command with --resume, which trains \
                 nothing again"
            ),
            Err(error) => {
                format!(
                    "the trained model is not written, and its steps could not be saved ({error:#})"
                )
            }
        }
    }

    /// The run has ended and what it made is saved.
    pub fn done(&self) {
        // What cannot be deleted is no failure of a run that has succeeded.
        let _ = fs::remove_file(&self.path);
    }

    fn read(&self) -> anyhow::Result<Stands> {
        let path = self.path.display();
        let about = fs::metadata(&self.path);
        let about = about.with_context(|| format!("cannot read the checkpoint {path}"))?;
        ensure!(
            about.len() <= FILE_LIMIT_BYTES,
            "the checkpoint {path} is damaged, or of a run by gradients: it is larger than any of a walk"
        );
        let bytes = fs::read(&self.path);
        let bytes = bytes.with_context(|| format!("cannot read the checkpoint {path}"))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("the checkpoint {path} is damaged, or of a run by gradients"))
    }

    /// In the place of an older one, which stays until this is whole.
    fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_begun_fits_its_checkpoint() {
        assert!(check((1_000_000, 5), 0).is_ok());
        assert!(check((u64::MAX, 1), 0).is_err() && check((1, 1), u64::MAX).is_err());
        assert!(check((1_000_000, 7), 0).is_err());
        // The longest that it may say.
        let score = Scored {
            steps: u64::MAX,
            loss: -f64::MIN_POSITIVE,
            accuracy: Some(-f64::MIN_POSITIVE),
            balanced_accuracy: Some(-f64::MIN_POSITIVE),
        };
        let stands = |scalars, scores| Stands {
            asked: Value::Null,
            scores: vec![score; scores],
            scalars: vec![u32::MAX; scalars],
        };
        let bytes = |stands: Stands| serde_json::to_vec(&stands).unwrap().len() as u64;
        let nothing = bytes(stands(0, 0));
        assert!(bytes(stands(100, 0)) <= nothing + 100 * SCALAR_BYTES);
        assert!(bytes(stands(0, 100)) <= nothing + 100 * SCORE_BYTES);
    }
}
