//! Scoring on held-out records while training: which adapter is the best, and when to stop.
//!
//! A run that is killed goes on with the scores in its checkpoint and the best adapter beside it; what it finds after
//! those it has found before.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args as Arguments, ValueEnum};
use domain::adapter::WeightShape;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::{Batch, Dataset, Encoder, Format, Refusals, Refused, Split};
use engine::evaluate::{self, Confusion, Evaluator, Loss};
use engine::model::Model;
use engine::train::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::resume::content;

/// Rows computed together.
const CHUNK: usize = 4;

/// Flags of scoring while training.
#[derive(Debug, Arguments)]
#[group(skip)]
pub struct HeldOutArgs {
    /// Records to score on, before training and after every --evaluate-every steps
    #[arg(long, value_name = "FILE", conflicts_with = "held_out_share")]
    held_out: Option<PathBuf>,
    /// The same with a share of the records of --data, chosen by their content and not trained on
    #[arg(long, value_name = "P")]
    held_out_share: Option<f64>,
    /// Steps between two scores
    #[arg(long, value_name = "N", default_value_t = 50)]
    evaluate_every: u64,
    /// Which adapter the run ends with
    #[arg(long, value_enum, default_value = "last")]
    keep: Keep,
    /// Training stops after so many scores in a row without improvement
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// With --patience: a score is an improvement if its loss is lower by more than this
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "patience")]
    min_delta: f64,
}

/// Which adapter a run ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keep {
    /// The one after the last step
    Last,
    /// The one with the lowest held-out loss; of equals the earliest
    Best,
}

impl HeldOutArgs {
    /// What does not go together.
    pub fn check(&self) -> anyhow::Result<()> {
        let scores = self.held_out.is_some() || self.held_out_share.is_some();
        ensure!(
            scores || (self.keep == Keep::Last && self.patience.is_none()),
            "--keep best and --patience go by held-out loss: give --held-out or --held-out-share"
        );
        let sound = self.evaluate_every > 0 && self.patience != Some(0);
        ensure!(sound, "--evaluate-every and --patience start at 1");
        ensure!(
            self.min_delta >= 0.0 && self.min_delta.is_finite(),
            "use a --min-delta from 0"
        );
        let share = self.held_out_share.unwrap_or(0.5);
        ensure!(
            share > 0.0 && share < 1.0,
            "use a --held-out-share between 0 and 1"
        );
        Ok(())
    }

    /// What the result depends on, for telling a run from another.
    pub fn asked(&self) -> anyhow::Result<Value> {
        let sha256 = self.held_out.as_deref().map(content).transpose()?;
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        Ok(json!({
            "file": self.held_out, "sha256": sha256, "share": name(&self.held_out_share), "every": self.evaluate_every,
            "keep": name(&self.keep), "patience": self.patience, "min_delta": name(&self.min_delta),
        }))
    }

    /// How many scores a run of so many steps has, at most.
    pub fn most_scores(&self, steps: u64) -> u64 {
        let scores = self.held_out.is_some() || self.held_out_share.is_some();
        // Before the first step, and after the last.
        let most = steps / self.evaluate_every.max(1) + 2;
        if scores { most } else { 0 }
    }

    /// The records to train on and to score on, if a share is held out. Reads the whole file.
    pub fn split(&self, dataset: &Dataset) -> anyhow::Result<Option<Split>> {
        let Some(share) = self.held_out_share else {
            return Ok(None);
        };
        let split = dataset.split(share)?;
        ensure!(
            !split.training.is_empty() && !split.held_out.is_empty(),
            "--held-out-share {share} of {} records leaves none to {}",
            dataset.len(),
            if split.training.is_empty() {
                "train on"
            } else {
                "score on"
            },
        );
        Ok(Some(split))
    }

    /// The records to score on, of a file in the format of the training records or those that were held out of them; none:
    /// there is no scoring.
    pub fn records(
        &self,
        held_out: Option<Vec<usize>>,
        format: Format,
    ) -> anyhow::Result<Option<Records>> {
        if let Some(path) = &self.held_out {
            let own = Dataset::open(path, format)?;
            let numbers = (0..own.len()).collect();
            let own = Some(own);
            return Ok(Some(Records { own, numbers }));
        }
        Ok(held_out.map(|numbers| Records { own: None, numbers }))
    }
}

/// The held-out records.
#[derive(Debug)]
pub struct Records {
    /// Their own file; none: they are of the training records' file.
    own: Option<Dataset>,
    numbers: Vec<usize>,
}

impl Records {
    /// The mean loss with an adapter, and how a head's classes are told apart. Records that cannot be
    /// learned are left out and counted.
    fn score(
        &self,
        steps: u64,
        (model, adapter): (&Model, Option<&Adapter>),
        (dataset, encoder): (&Dataset, &Encoder),
    ) -> anyhow::Result<(Scored, Refusals)> {
        let mut refused = Refusals::default();
        let dataset = self.own.as_ref().unwrap_or(dataset);
        let mut evaluator = Evaluator::new(model, adapter)?;
        let (mut total, mut confusion) = (Loss::default(), None::<Confusion>);
        for numbers in self.numbers.chunks(CHUNK) {
            let mut batch = Batch::default();
            for number in numbers {
                match encoder.row(*number, &dataset.record(*number)?) {
                    Ok(row) => batch.rows.push(row),
                    Err(refusal) if refusal.is_of_this_record() => {
                        let record = *number;
                        refused.add(&[Refused { record, refusal }]);
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            if batch.rows.iter().any(|row| row.class.is_some()) {
                let (scores, loss) = evaluator.classes(&batch, &Control::new())?;
                total = total.merge(loss);
                let classes = scores.first().map_or(0, Vec::len);
                let confusion = confusion.get_or_insert_with(|| Confusion::new(classes));
                for (row, scores) in batch.rows.iter().zip(&scores) {
                    let truth = row
                        .class
                        .as_ref()
                        .and_then(|class| usize::try_from(class.number).ok());
                    if let Some((truth, guess)) = truth.zip(evaluate::best(scores)) {
                        confusion.add(truth, guess);
                    }
                }
            } else if !batch.rows.is_empty() {
                total = total.merge(evaluator.loss(&batch, &Control::new())?);
            }
        }
        let mean = total.mean().filter(|mean| mean.is_finite());
        let scored = Scored {
            steps,
            loss: mean.context("the held-out records have no finite loss")?,
            accuracy: confusion.as_ref().and_then(Confusion::accuracy),
            balanced_accuracy: confusion.as_ref().and_then(Confusion::balanced_accuracy),
        };
        Ok((scored, refused))
    }
}

/// A score: how many steps were made before it, the mean held-out loss, and of classes, an encoder's or words, the shares told right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub steps: u64,
    pub loss: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy: Option<f64>,
}

/// The scores of a run so far.
#[derive(Debug)]
pub struct Course<'a> {
    args: &'a HeldOutArgs,
    records: Option<Records>,
    scores: Vec<Scored>,
    /// Held-out records that cannot be scored: the same in every score.
    refused: Refusals,
    /// Where the best adapter lies while the run goes on.
    best: PathBuf,
}

impl<'a> Course<'a> {
    /// Of the run that writes to `out`.
    pub fn new(args: &'a HeldOutArgs, records: Option<Records>, out: &Path) -> Self {
        let mut name = out.file_name().map(OsString::from).unwrap_or_default();
        name.push(".best");
        Self {
            args,
            records,
            scores: Vec::new(),
            refused: Refusals::default(),
            best: out.with_file_name(name),
        }
    }

    /// Goes on with the scores of a checkpoint.
    pub fn resume(&mut self, scores: Vec<Scored>) {
        self.scores = scores;
    }

    /// The scores so far.
    pub fn scores(&self) -> &[Scored] {
        &self.scores
    }

    /// Held-out records that this process could not score.
    pub const fn refused(&self) -> &Refusals {
        &self.refused
    }

    /// Whether there is a score after so many steps, of `all`: before the first, after the last, and every so many.
    pub fn is_due(&self, steps: u64, all: u64) -> bool {
        let known = self.scores.last().is_some_and(|last| last.steps >= steps);
        let due = steps == all || steps.is_multiple_of(self.args.evaluate_every);
        self.records.is_some() && due && !known
    }

    /// Scores an adapter, and keeps it if it is the best so far.
    pub fn score(
        &mut self,
        steps: u64,
        (model, adapter): (&Model, Adapter),
        with: (&Dataset, &Encoder),
    ) -> anyhow::Result<Option<Scored>> {
        let Some(records) = &self.records else {
            return Ok(None);
        };
        let (scored, refused) = records.score(steps, (model, Some(&adapter)), with)?;
        self.refused = refused;
        self.scores.push(scored);
        if self.args.keep == Keep::Best && best(&self.scores) == Some(scored) {
            let checkpoint = Checkpoint {
                steps,
                adapter,
                moments: Vec::new(),
                asked: json!("the best adapter of a run"),
            };
            checkpoint.write(&self.best)?;
        }
        Ok(Some(scored))
    }

    /// Scores the model itself; which of its steps was the best is all that is kept.
    pub fn score_model(
        &mut self,
        steps: u64,
        model: &Model,
        with: (&Dataset, &Encoder),
    ) -> anyhow::Result<Option<Scored>> {
        let Some(records) = &self.records else {
            return Ok(None);
        };
        let (scored, refused) = records.score(steps, (model, None), with)?;
        self.refused = refused;
        self.scores.push(scored);
        Ok(Some(scored))
    }

    /// The score that the run ends with, where it ends with the best.
    pub fn best_score(&self) -> Option<Scored> {
        best(&self.scores).filter(|_| self.args.keep == Keep::Best)
    }

    /// Whether the patience is at its end.
    pub fn is_out_of_patience(&self) -> bool {
        let without = without_improvement(&self.scores, self.args.min_delta);
        self.args
            .patience
            .is_some_and(|patience| without >= patience)
    }

    /// The adapter that the run ends with, if that is another than the last, and its score.
    pub fn best(&self, shapes: &[WeightShape]) -> anyhow::Result<Option<(Scored, Adapter)>> {
        let Some(best) = self.best_score() else {
            return Ok(None);
        };
        let kept = Checkpoint::read(&self.best, shapes)?;
        if kept.steps != best.steps {
            bail!(
                "{} is of step {}, the best was after {}",
                self.best.display(),
                kept.steps,
                best.steps
            );
        }
        Ok(Some((best, kept.adapter)))
    }

    /// The run has ended and its adapter is saved.
    pub fn done(&self) {
        // What cannot be deleted is no failure of a run that has succeeded.
        let _ = fs::remove_file(&self.best);
    }
}

/// The lowest; of equals the earliest.
fn best(scores: &[Scored]) -> Option<Scored> {
    let mut best: Option<Scored> = None;
    for one in scores {
        if best.is_none_or(|known| one.loss < known.loss) {
            best = Some(*one);
        }
    }
    best
}

/// Scores since the last that was lower than all before by more than `min_delta`, as in a job (`domain::job::Course`).
fn without_improvement(scores: &[Scored], min_delta: f64) -> u64 {
    let (mut mark, mut since) = (f64::INFINITY, 0);
    for one in scores {
        if mark - one.loss > min_delta {
            (mark, since) = (one.loss, 0);
        } else {
            since += 1;
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(losses: &[f64]) -> Vec<Scored> {
        let scored = |(steps, loss): (u64, &f64)| Scored {
            steps,
            loss: *loss,
            accuracy: None,
            balanced_accuracy: None,
        };
        (0..).zip(losses).map(scored).collect()
    }

    #[test]
    fn the_best_is_the_earliest_of_the_lowest() {
        assert_eq!(best(&[]), None);
        let all = scores(&[3.0, 1.0, 2.0, 1.0]);
        assert_eq!(best(&all).map(|one| one.steps), Some(1));
        let harmed = scores(&[1.0, 2.0]);
        assert_eq!(best(&harmed).map(|one| one.steps), Some(0));
    }

    #[test]
    fn improvements_are_counted_as_in_a_job() {
        let all = scores(&[3.0, 2.0, 1.95, 1.93, 1.91, 1.0]);
        let since = |count: usize, delta| without_improvement(&all[..count], delta);
        assert_eq!(
            [2, 3, 4, 5, 6].map(|count| since(count, 0.1)),
            [0, 1, 2, 3, 0]
        );
        assert_eq!([2, 3, 4, 5, 6].map(|count| since(count, 0.0)), [0; 5]);
    }
}
