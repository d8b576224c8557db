//! Scoring an adapter on the site's held-out records, on the compute thread.

mod answers;

use std::path::PathBuf;
use std::sync::Arc;

use chassis::clock::Stopwatch;
use contract::message::task::Evaluate;
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::plan::scored_together;
use domain::round::Score;
use engine::data::{Batch, Choices, Dataset, Encoder, Record, Refusal, Row};
use engine::evaluate::{Choice, Confusion, Evaluator, best};

use crate::adapter_file;
use crate::compute::{Bench, Key, ModelFiles};
use crate::data::Opened;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::running::Running;

/// What a scoring needs.
#[derive(Debug)]
pub struct Scoring {
    /// What is asked.
    pub task: Evaluate,
    /// Which model, how.
    pub key: Key,
    /// Its files.
    pub files: ModelFiles,
    /// The adapter's file.
    pub global: PathBuf,
    /// The data.
    pub data: Arc<Opened>,
}

/// Records of the site that a task has scored.
#[must_use]
pub fn scored(data: &Opened, task: &Evaluate) -> u64 {
    let held_out = data.summary().held_out;
    task.sample
        .map_or(held_out, |sample| held_out.min(u64::from(sample)))
}

/// Whether the score of so many of the site's held-out records may leave it.
///
/// # Errors
/// If they are too few.
pub fn admit(site: &Machine, records: u64) -> Result<(), Failure> {
    let admitted = site.config.policy.admit_count("the score", records);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))
}

/// One record's rows and the right answer among them.
struct Question {
    choice: Choice,
    answer: usize,
}

impl Scoring {
    /// Scores the adapter. Without held-out records the score is empty.
    ///
    /// # Errors
    /// What keeps the site from it; [`Failure::Stopped`] within one block of being stopped.
    pub fn score(&self, bench: &mut Bench, running: &Running) -> Result<Score, Failure> {
        let Some(held_out) = &self.data.held_out else {
            return Ok(Score::default());
        };
        if !bench.holds(&self.key) {
            running.stage(Stage::Loading, 0);
        }
        let runtime = bench.runtime().clone();
        let model = bench.model(&self.key, &self.files)?.model();
        let chosen = chosen(held_out.len(), self.task.sample);
        let answered = self.task.answers.map_or(0, |asked| asked.records as usize);
        let steps = chosen.len() + answered.min(held_out.len());
        running.stage(Stage::Evaluating, steps as u64);
        let adapter = adapter_file::whole(&self.global, &model.weights(), self.task.scale)?;
        let encoder = self.data.encoder(
            model.tokenizer(),
            self.task.plan.sequence_length,
            (&self.task.labels, self.among()),
        )?;
        let mut evaluator = Evaluator::new(model, Some(&adapter))?;
        drop(adapter);
        let classes = self.task.labels.len().max(self.task.choices.len());
        let mut tally = Tally::new(classes);
        let (pace, mut seconds) = (running.site.forward_pace(), 0.0);
        for numbers in chosen.chunks(self.chunk()) {
            let watch = Stopwatch::start();
            let tokens = if !self.task.labels.is_empty() || self.task.among {
                let rows = self.rows(held_out, &encoder, numbers)?;
                tally.classes(&mut evaluator, rows, running)?
            } else if self.task.choices.is_empty() {
                let rows = self.rows(held_out, &encoder, numbers)?;
                tally.loss(&mut evaluator, rows, running)?
            } else {
                let questions = self.questions(held_out, &encoder, numbers)?;
                tally.choices(&mut evaluator, questions, running)?
            };
            let really = watch.seconds();
            pace.wait(&runtime, &running.stop, tokens, really, || {
                running.advance()
            })?;
            seconds += pace.seconds(tokens, really);
            running.advance();
            running
                .site
                .status
                .update(|progress| progress.done += numbers.len() as u64);
        }
        drop(evaluator);
        let mut score = tally.score(seconds);
        if let Some(asked) = self.task.answers {
            let numbers = self::chosen(held_out.len(), Some(asked.records));
            let records = (held_out, numbers.as_slice());
            let with = (model, &encoder);
            let (counts, more) = answers::compare(self, with, records, asked, (&runtime, running))?;
            score.answers = Some(counts);
            score.seconds += more;
        }
        Ok(score)
    }

    /// The answers that the loss is among; none where it is of words.
    fn among(&self) -> &[String] {
        if self.task.among {
            &self.task.choices
        } else {
            &[]
        }
    }

    /// Records that are computed together: as many as the planner counted memory for.
    fn chunk(&self) -> usize {
        let choices = self.task.choices.len();
        let rows = if self.task.among { 1 } else { choices };
        scored_together(self.task.plan.batch, rows)
    }

    fn rows(
        &self,
        held_out: &Dataset,
        encoder: &Encoder,
        numbers: &[usize],
    ) -> Result<Vec<Row>, Failure> {
        let row = |number, record: &Record| encoder.row(number, record);
        self.encoded(held_out, numbers, row)
    }

    fn questions(
        &self,
        held_out: &Dataset,
        encoder: &Encoder,
        numbers: &[usize],
    ) -> Result<Vec<Question>, Failure> {
        let offered = &self.task.choices;
        let choices = |number, record: &Record| encoder.choices(number, record, offered);
        let all = self.encoded(held_out, numbers, choices)?;
        let question = |own: Choices| {
            let (answer, choice) = (own.answer?, choice(&own.rows)?);
            Some(Question { choice, answer })
        };
        Ok(all.into_iter().filter_map(question).collect())
    }

    /// What `encode` makes of these records; those that it refuses for themselves are left out.
    fn encoded<T>(
        &self,
        held_out: &Dataset,
        numbers: &[usize],
        encode: impl Fn(usize, &Record) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Failure> {
        let mut made = Vec::with_capacity(numbers.len());
        for number in numbers {
            let record = held_out.record(*number);
            let record = record.map_err(|error| self.data.trouble(&error))?;
            match encode(*number, &record) {
                Ok(one) => made.push(one),
                Err(refusal) if refusal.is_of_this_record() => {}
                Err(refusal) => return Err(self.data.trouble(&refusal.into())),
            }
        }
        Ok(made)
    }
}

/// Prompt and candidates of rows that share their prompt.
fn choice(rows: &[Row]) -> Option<Choice> {
    let first = rows.first()?;
    let prompt = first.labelled.iter().position(|labelled| *labelled)?;
    let tail = |row: &Row| row.tokens.get(prompt..).map(<[u32]>::to_vec);
    Some(Choice {
        prompt: first.tokens.get(..prompt)?.to_vec(),
        candidates: rows.iter().map(tail).collect::<Option<_>>()?,
    })
}

/// What was counted so far.
struct Tally {
    records: u64,
    loss_sum: f64,
    labelled_tokens: u64,
    confusion: Option<Confusion>,
}

impl Tally {
    fn new(classes: usize) -> Self {
        Self {
            records: 0,
            loss_sum: 0.0,
            labelled_tokens: 0,
            confusion: (classes > 0).then(|| Confusion::new(classes)),
        }
    }

    /// Counts rows; returns the tokens computed.
    fn loss(
        &mut self,
        evaluator: &mut Evaluator<'_>,
        rows: Vec<Row>,
        running: &Running,
    ) -> Result<usize, Failure> {
        if rows.is_empty() {
            return Ok(0);
        }
        let count = rows.len() as u64;
        let loss = evaluator.loss(&Batch { rows }, running.stop.control())?;
        if !loss.sum.is_finite() {
            return Err(not_finite(self.records, count));
        }
        self.records += count;
        self.loss_sum += loss.sum;
        self.labelled_tokens += loss.labelled_tokens as u64;
        Ok(loss.tokens)
    }

    /// Counts answers; the loss is that of the right answer. Returns the tokens computed.
    fn choices(
        &mut self,
        evaluator: &mut Evaluator<'_>,
        questions: Vec<Question>,
        running: &Running,
    ) -> Result<usize, Failure> {
        if questions.is_empty() {
            return Ok(0);
        }
        let mut answers = Vec::with_capacity(questions.len());
        let mut choices = Vec::with_capacity(questions.len());
        for Question { choice, answer } in questions {
            answers.push(answer);
            choices.push(choice);
        }
        let all = evaluator.choices(&choices, running.stop.control())?;
        let mut tokens = 0;
        for ((choice, answer), scores) in choices.iter().zip(answers).zip(all) {
            let right = scores
                .get(answer)
                .copied()
                .filter(|score| score.is_finite());
            let (Some(right), Some(guess)) = (right, best(&scores)) else {
                return Err(not_finite(self.records, 1));
            };
            self.records += 1;
            self.loss_sum -= right;
            let labelled = choice.candidates.get(answer).map_or(0, Vec::len);
            self.labelled_tokens += labelled as u64;
            if let Some(confusion) = &mut self.confusion {
                confusion.add(answer, guess);
            }
            tokens += computed(choice);
        }
        Ok(tokens)
    }

    /// Counts the classes that a head gives rows; returns the tokens computed.
    fn classes(
        &mut self,
        evaluator: &mut Evaluator<'_>,
        rows: Vec<Row>,
        running: &Running,
    ) -> Result<usize, Failure> {
        if rows.is_empty() {
            return Ok(0);
        }
        let batch = Batch { rows };
        let (scores, loss) = evaluator.classes(&batch, running.stop.control())?;
        if !loss.sum.is_finite() {
            return Err(not_finite(self.records, batch.rows.len() as u64));
        }
        for (row, scores) in batch.rows.iter().zip(&scores) {
            let answer = row
                .class
                .as_ref()
                .and_then(|class| usize::try_from(class.number).ok());
            if let (Some(confusion), Some((answer, guess))) =
                (&mut self.confusion, answer.zip(best(scores)))
            {
                confusion.add(answer, guess);
            }
        }
        self.records += batch.rows.len() as u64;
        self.loss_sum += loss.sum;
        self.labelled_tokens += loss.labelled_tokens as u64;
        Ok(loss.tokens)
    }

    fn score(self, seconds: f64) -> Score {
        let confusion = self.confusion.map(|confusion| confusion.counts().to_vec());
        Score {
            records: self.records,
            loss_sum: self.loss_sum,
            labelled_tokens: self.labelled_tokens,
            confusion: confusion.unwrap_or_default(),
            answers: None,
            seconds,
            bytes_down: 0,
        }
    }
}

/// Tokens that go through the model: a prompt once if every candidate is one token.
fn computed(choice: &Choice) -> usize {
    let prompt = choice.prompt.len();
    if choice
        .candidates
        .iter()
        .all(|candidate| candidate.len() == 1)
    {
        return prompt;
    }
    choice
        .candidates
        .iter()
        .map(|candidate| prompt + candidate.len())
        .sum()
}

fn not_finite(scored: u64, count: u64) -> Failure {
    Failure::new(
        Trouble::NotFinite,
        format!("a score among {count} records after {scored} scored ones"),
    )
}

/// The records to score, ascending: all, or a fixed sample that no order of the file's writing
/// favours.
fn chosen(records: usize, sample: Option<u32>) -> Vec<usize> {
    let mut all: Vec<usize> = (0..records).collect();
    if let Some(sample) = sample {
        all.sort_by_key(|number| mixed(*number as u64));
        all.truncate(sample as usize);
        all.sort_unstable();
    }
    all
}

/// SplitMix64's finalizer: a fixed permutation of the numbers.
const fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_fixed_and_spread_and_no_larger_than_the_data() {
        assert_eq!(chosen(5, None), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(5, Some(9)), [0, 1, 2, 3, 4]);
        let sample = chosen(1000, Some(16));
        assert_eq!(sample, chosen(1000, Some(16)));
        assert_eq!(sample.len(), 16);
        assert!(sample.iter().any(|n| *n < 300) && sample.iter().any(|n| *n > 700));
        let larger = chosen(1000, Some(32));
        assert!(sample.iter().all(|number| larger.contains(number)));
    }

    #[test]
    fn rows_with_one_prompt_become_a_choice() {
        let row = |answer: &[u32]| Row {
            tokens: [&[7, 8], answer].concat(),
            labelled: [vec![false; 2], vec![true; answer.len()]].concat(),
            class: None,
            record: 0,
        };
        let choice = choice(&[row(&[1]), row(&[2, 3])]).unwrap();
        assert_eq!(choice.prompt, [7, 8]);
        assert_eq!(choice.candidates, [vec![1], vec![2, 3]]);
        assert_eq!(computed(&choice), 3 + 4);
    }
}
