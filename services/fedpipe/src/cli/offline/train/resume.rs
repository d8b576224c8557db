//! Going on after an interruption: a checkpoint beside the adapter's folder, and the metrics up to it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use domain::adapter::WeightShape;
use domain::artifact::Digest;
use engine::train::Trainer;
use engine::train::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::held_out::{Course, Scored};
use crate::output;

/// A run's checkpoint.
pub struct Resume {
    path: PathBuf,
    /// Steps between two; 0: none is written.
    every: u64,
    /// What the run is asked for, as far as its result depends on it.
    asked: Value,
}

impl Resume {
    /// The checkpoint of the run that writes to `out`: a file beside it.
    pub fn new(out: &Path, every: u64, asked: Value) -> Self {
        let mut name = out.file_name().map(OsString::from).unwrap_or_default();
        name.push(".checkpoint");
        Self {
            path: out.with_file_name(name),
            every,
            asked,
        }
    }

    /// Has the trainer go on from the checkpoint, if there is one; gives the steps that were made.
    pub fn begin(
        &self,
        trainer: &mut Trainer<'_>,
        shapes: &[WeightShape],
        course: &mut Course<'_>,
    ) -> anyhow::Result<u64> {
        let path = self.path.display();
        if !is_there(&self.path)? {
            output::note(format!(
                "{path} is not there: beginning with the first step"
            ));
            return Ok(0);
        }
        let checkpoint = Checkpoint::read(&self.path, shapes)?;
        let (asked, scores) = parts(&checkpoint.asked);
        if let Some(other) = difference(asked, &self.asked) {
            bail!(
                "{path} is of a run with other settings ({other}). Next: the same settings, or leave out --resume"
            );
        }
        trainer.resume(&checkpoint)?;
        course.resume(scores);
        output::note(format!("{path}: going on after step {}", checkpoint.steps));
        Ok(checkpoint.steps)
    }

    /// Writes a checkpoint, if it is time for one.
    pub fn step(&self, trainer: &Trainer<'_>, scores: &[Scored]) -> anyhow::Result<()> {
        let made = trainer.steps();
        if self.every > 0 && made.is_multiple_of(self.every) {
            let asked = json!({ ASKED: self.asked, SCORES: scores });
            trainer.checkpoint(asked)?.write(&self.path)?;
        }
        Ok(())
    }

    /// The run has ended and its adapter is saved.
    pub fn done(&self) {
        // What cannot be deleted is no failure of a run that has succeeded.
        let _ = fs::remove_file(&self.path);
    }
}

/// Names in a checkpoint's header: what was asked for, and the held-out scores so far.
const ASKED: &str = "asked";
const SCORES: &str = "scores";

/// What a checkpoint's run was asked for, and its scores.
fn parts(header: &Value) -> (&Value, Vec<Scored>) {
    let scores = header.get(SCORES).cloned().unwrap_or_default();
    let scores = serde_json::from_value(scores).unwrap_or_default();
    (header.get(ASKED).unwrap_or(header), scores)
}

/// Whether there is a checkpoint to go on from. One that cannot be looked at is not taken for none: that would begin anew.
pub fn is_there(path: &Path) -> anyhow::Result<bool> {
    let found = path.try_exists();
    found.with_context(|| format!("cannot read the checkpoint {}", path.display()))
}

/// The content of a file that a run's result depends on: another of the same name makes it another run.
pub fn content(path: &Path) -> anyhow::Result<Digest> {
    let digest = crate::client::archive::digest(path);
    digest.with_context(|| format!("cannot read {}", path.display()))
}

/// The first setting that differs.
pub fn difference(then: &Value, now: &Value) -> Option<String> {
    let (Some(then), Some(now)) = (then.as_object(), now.as_object()) else {
        return (then != now).then(|| "unknown".to_owned());
    };
    let keys = then.keys().chain(now.keys());
    let said = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let differs = |key: &&String| then.get(*key) != now.get(*key);
    keys.into_iter().find(differs).map(|key| {
        format!(
            "{key}: {} then, {} now",
            said(then.get(key)),
            said(now.get(key))
        )
    })
}

/// The file of metrics: after `steps` steps, which an interrupted run made, their lines stay and any later are made again.
pub fn metrics(path: &Path, steps: u64) -> anyhow::Result<File> {
    let unwritable = || format!("cannot write {}", path.display());
    if steps == 0 {
        return File::create(path).with_context(unwritable);
    }
    let before = fs::read_to_string(path).unwrap_or_default();
    let is_before = |line: &&str| {
        let line = serde_json::from_str::<Value>(line).ok();
        line.and_then(|line| line.get("step")?.as_u64())
            .is_some_and(|step| step < steps)
    };
    let kept: Vec<&str> = before.lines().filter(is_before).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(unwritable)?;
    for line in kept {
        writeln!(file, "{line}").with_context(unwritable)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_checkpoint_that_is_not_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        assert!(!is_there(&path).unwrap());
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let said = format!("{:#}", is_there(&path).unwrap_err());
        assert!(said.contains("cannot read the checkpoint"), "{said}");
    }

    #[test]
    fn a_setting_that_differs_is_named_with_both_values() {
        let then = json!({ "rank": 8, "seed": 1 });
        assert_eq!(difference(&then, &then), None);
        let named = difference(&then, &json!({ "rank": 8, "seed": 2 })).unwrap();
        assert_eq!(named, "seed: 1 then, 2 now");
        let named = difference(&then, &json!({ "rank": 8, "seed": 1, "new": true })).unwrap();
        assert_eq!(named, "new: nothing then, true now");
    }

    #[test]
    fn metrics_after_the_checkpoint_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // The process was killed while it wrote the last line.
        fs::write(&path, "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"st").unwrap();
        writeln!(metrics(&path, 2).unwrap(), "{{\"step\":2}}").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n");
    }
}
