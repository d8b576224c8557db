//! How good a model with an adapter is: loss, and the choice among completions.
//!
//! Does not: decide what the choices are, or read data.

use crate::adapter::Adapter;
use crate::compute::{self, Changes, Error, Keep, Packed, Workspace};
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::model::Model;

/// Evaluates one model with one adapter; keeps the buffers between batches.
#[derive(Debug)]
pub struct Evaluator<'m> {
    model: &'m Model,
    changes: Option<Changes>,
    workspace: Workspace,
}

/// The loss over a number of tokens; add those of several batches up with [`Loss::merge`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Loss {
    /// Sum over the labelled tokens, in nats.
    pub sum: f64,
    /// Tokens that were to be predicted.
    pub labelled_tokens: usize,
    /// Tokens that went through the model.
    pub tokens: usize,
}

/// A prompt and the completions to choose among.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Token ids of each completion, at least one each.
    pub candidates: Vec<Vec<u32>>,
}

/// How often each class was taken for each: balanced accuracy is the mean recall of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// `counts[truth][guess]`
    counts: Vec<Vec<u64>>,
}

impl<'m> Evaluator<'m> {
    /// An evaluator of `model` with `adapter`, or of the base alone.
    ///
    /// # Errors
    /// The adapter does not fit the model.
    pub fn new(model: &'m Model, adapter: Option<&Adapter>) -> Result<Self, Error> {
        let changes = adapter
            .map(|adapter| Changes::new(model, adapter))
            .transpose()?;
        Ok(Self {
            model,
            changes,
            workspace: Workspace::default(),
        })
    }

    /// The loss of the batch's labelled tokens.
    ///
    /// # Errors
    /// The control was cancelled, or the batch does not fit the model.
    pub fn loss(&mut self, batch: &Batch, control: &Control) -> Result<Loss, Error> {
        if self.model.encoder().is_some() {
            return Ok(self.classes(batch, control)?.1);
        }
        let packed = Packed::new(batch, self.model.config())?;
        let scores = self.target_scores(&packed, control)?;
        let sum = scores.iter().map(|score| -f64::from(*score)).sum();
        Ok(Loss {
            sum,
            labelled_tokens: packed.targets.len(),
            tokens: packed.tokens.len(),
        })
    }

    /// The logarithm of the probability of each class, of an encoder's head or of the words that a decoder chooses among, for
    /// each row; and the loss of the rows' own classes, each of which counts as one label.
    ///
    /// # Errors
    /// The model is an encoder without a head, or a decoder and the rows have no words; as [`Evaluator::loss`].
    pub fn classes(
        &mut self,
        batch: &Batch,
        control: &Control,
    ) -> Result<(Vec<Vec<f64>>, Loss), Error> {
        let packed = Packed::new(batch, self.model.config())?;
        let logs = if packed.among.is_empty() {
            self.of_head(&packed, control)?
        } else {
            self.read(&packed, control, |model, hidden, workspace| {
                compute::scores_among(model, hidden, &packed, workspace)
            })?
        };
        let classes = logs.first().map_or(0, Vec::len);
        let mut loss = Loss {
            sum: 0.0,
            labelled_tokens: packed.targets.len(),
            tokens: packed.tokens.len(),
        };
        for target in &packed.targets {
            let row = logs.get(target.row);
            let own = row.and_then(|row| row.get(target.token as usize));
            let own = own.ok_or(Error::Class {
                row: target.row,
                class: target.token,
                classes,
            })?;
            loss.sum -= own;
        }
        Ok((logs, loss))
    }

    fn of_head(&mut self, packed: &Packed, control: &Control) -> Result<Vec<Vec<f64>>, Error> {
        let Self {
            model,
            changes,
            workspace,
        } = self;
        let logits = model
            .threads()
            .run(|| compute::class_scores(model, changes.as_ref(), packed, control, workspace))?;
        let rows = packed.bounds.len().saturating_sub(1).max(1);
        let classes = (logits.len() / rows).max(1);
        let rows = logits.chunks_exact(classes);
        Ok(rows.map(compute::log_softmax).collect())
    }

    /// For each choice, the logarithm of each candidate's probability after the prompt.
    ///
    /// Where all candidates are single tokens the prompt is computed once; otherwise once for each
    /// candidate. All choices given are computed together: give as many as memory allows.
    ///
    /// # Errors
    /// The control was cancelled; a prompt or candidate is empty, too long, or has unknown tokens.
    pub fn choices(
        &mut self,
        choices: &[Choice],
        control: &Control,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let single = choices.iter().all(|choice| {
            choice
                .candidates
                .iter()
                .all(|candidate| candidate.len() == 1)
        });
        if single {
            self.single_tokens(choices, control)
        } else {
            self.completions(choices, control)
        }
    }

    /// The logits after every token of `tokens`, `[tokens, vocabulary]`: for tests and inspection
    /// of short texts, since all of them are held.
    ///
    /// # Errors
    /// As [`Evaluator::loss`].
    pub fn logits(&mut self, tokens: &[u32], control: &Control) -> Result<Vec<f32>, Error> {
        let Self {
            model,
            changes,
            workspace,
        } = self;
        let packed = Packed::unlabelled(&[tokens], model.config())?;
        let positions: Vec<usize> = (0..tokens.len()).collect();
        model.threads().run(|| {
            let trace = compute::forward(
                model,
                changes.as_ref(),
                &packed,
                Keep::Nothing,
                control,
                workspace,
            )?;
            compute::logits(model, &trace.hidden, &positions, workspace)
        })
    }

    fn single_tokens(
        &mut self,
        choices: &[Choice],
        control: &Control,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let rows: Vec<&[u32]> = choices
            .iter()
            .map(|choice| choice.prompt.as_slice())
            .collect();
        let packed = Packed::unlabelled(&rows, self.model.config())?;
        let vocabulary = self.model.config().vocabulary;
        let mut wanted = Vec::new();
        for (row, choice) in choices.iter().enumerate() {
            let ids: Vec<u32> = choice.candidates.iter().flatten().copied().collect();
            if let Some(token) = ids.iter().find(|id| **id as usize >= vocabulary) {
                return Err(Error::Token {
                    row,
                    token: *token,
                    vocabulary,
                });
            }
            wanted.push(ids);
        }
        let wanted: Vec<&[u32]> = wanted.iter().map(Vec::as_slice).collect();
        let positions: Vec<usize> = packed.bounds.iter().skip(1).map(|end| end - 1).collect();
        let scores = self.scores(&packed, &positions, &wanted, control)?;
        Ok(scores
            .into_iter()
            .map(|row| row.into_iter().map(f64::from).collect())
            .collect())
    }

    fn completions(
        &mut self,
        choices: &[Choice],
        control: &Control,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let mut batch = Batch::default();
        for (record, Choice { prompt, candidates }) in choices.iter().enumerate() {
            for candidate in candidates {
                if prompt.is_empty() || candidate.is_empty() {
                    return Err(Error::Row {
                        row: record,
                        tokens: prompt.len(),
                        labels: candidate.len(),
                    });
                }
                let tokens = [prompt.as_slice(), candidate].concat();
                let labelled = (0..tokens.len()).map(|i| i >= prompt.len()).collect();
                batch.rows.push(Row {
                    tokens,
                    labelled,
                    class: None,
                    record,
                });
            }
        }
        let packed = Packed::new(&batch, self.model.config())?;
        let scores = self.target_scores(&packed, control)?;
        let mut sums = vec![0f64; batch.rows.len()];
        for (target, score) in packed.targets.iter().zip(scores) {
            if let Some(sum) = sums.get_mut(target.row) {
                *sum += f64::from(score);
            }
        }
        let mut sums = sums.into_iter();
        Ok(choices
            .iter()
            .map(|choice| sums.by_ref().take(choice.candidates.len()).collect())
            .collect())
    }

    fn target_scores(&mut self, packed: &Packed, control: &Control) -> Result<Vec<f32>, Error> {
        self.read(packed, control, |model, hidden, workspace| {
            compute::target_scores(model, hidden, packed, workspace)
        })
    }

    fn scores(
        &mut self,
        packed: &Packed,
        positions: &[usize],
        wanted: &[&[u32]],
        control: &Control,
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.read(packed, control, |model, hidden, workspace| {
            compute::log_probabilities(model, hidden, positions, wanted, workspace)
        })
    }

    /// What `read` makes of the residual stream after the last block.
    fn read<T: Send>(
        &mut self,
        packed: &Packed,
        control: &Control,
        read: impl FnOnce(&Model, &[f32], &mut Workspace) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let Self {
            model,
            changes,
            workspace,
        } = self;
        let model: &Model = model;
        model.threads().run(|| {
            let (changes, keep) = (changes.as_ref(), Keep::Nothing);
            let trace = compute::forward(model, changes, packed, keep, control, workspace)?;
            let found = read(model, &trace.hidden, workspace)?;
            workspace.give(trace.hidden);
            Ok(found)
        })
    }
}

impl Loss {
    /// Mean loss of a labelled token, in nats; none when nothing was labelled.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.labelled_tokens > 0).then(|| self.sum / self.labelled_tokens as f64)
    }

    /// `e` to the mean loss.
    #[must_use]
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(f64::exp)
    }

    /// The loss of both together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            labelled_tokens: self.labelled_tokens + other.labelled_tokens,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// The index of the highest score, the lowest index among equals; none when there are none.
#[must_use]
pub fn best(scores: &[f64]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, score) in scores.iter().enumerate() {
        if best.is_none_or(|(_, most)| *score > most) {
            best = Some((index, *score));
        }
    }
    best.map(|(index, _)| index)
}

impl Confusion {
    /// No counts yet, of `classes` classes.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self {
            counts: vec![vec![0; classes]; classes],
        }
    }

    /// Counts one guess; classes that were not announced are ignored.
    pub fn add(&mut self, truth: usize, guess: usize) {
        if let Some(count) = self
            .counts
            .get_mut(truth)
            .and_then(|row| row.get_mut(guess))
        {
            *count += 1;
        }
    }

    /// `counts[truth][guess]`
    #[must_use]
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Adds the counts of another of as many classes.
    pub fn merge(&mut self, other: &Self) {
        for (row, other) in self.counts.iter_mut().zip(&other.counts) {
            for (count, other) in row.iter_mut().zip(other) {
                *count += other;
            }
        }
    }

    /// The share that was taken for what it is; none when nothing was counted.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let total: u64 = self.counts.iter().flatten().sum();
        let right = self.counts.iter().enumerate();
        let right: u64 = right.filter_map(|(class, row)| row.get(class)).sum();
        (total > 0).then(|| right as f64 / total as f64)
    }

    /// The mean recall of the classes that occur; none when nothing was counted.
    #[must_use]
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recall = |(class, row): (usize, &Vec<u64>)| {
            let total: u64 = row.iter().sum();
            (total > 0).then(|| row.get(class).copied().unwrap_or(0) as f64 / total as f64)
        };
        let recalls: Vec<f64> = self.counts.iter().enumerate().filter_map(recall).collect();
        (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_accuracy_of_a_constant_answer_is_one_half() {
        let mut confusion = Confusion::new(2);
        for truth in [0, 0, 0, 0, 0, 0, 1] {
            confusion.add(truth, 0);
        }
        assert_eq!(confusion.balanced_accuracy(), Some(0.5));
        confusion.add(1, 1);
        assert_eq!(confusion.balanced_accuracy(), Some(0.75));
        assert_eq!(confusion.accuracy(), Some(7.0 / 8.0));
        assert_eq!(Confusion::new(2).accuracy(), None);
        assert_eq!(Confusion::new(2).balanced_accuracy(), None);
    }

    #[test]
    fn the_first_of_equal_scores_is_best() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn nothing_labelled_has_no_mean() {
        assert_eq!(Loss::default().perplexity(), None);
    }
}
