//! `fedpipe eval`: loss and perplexity; an encoder's classes; balanced accuracy among choices; generated answers beside the wanted ones.

mod answers;
mod nothing;

use std::path::PathBuf;

use clap::Args as Arguments;
use engine::control::Control;
use engine::data::{Batch, Dataset, Encoder, Refusal, Refusals, Refused};
use engine::evaluate::{Choice, Confusion, Evaluator, Loss, best};
use serde_json::{Value, json};

use super::{DataArgs, ModelArgs, labels};
use crate::cli::confusion;
use crate::output;

/// Records computed together.
const CHUNK: usize = 8;

/// Flags of `fedpipe eval`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe eval --model model.gguf --data heldout.jsonl
  fedpipe eval --model minilm --adapter adapter --data heldout.jsonl      the classes of an encoder's head
  fedpipe eval --model merged --data heldout.jsonl                        the same of an export, which names them
  fedpipe eval --model model.gguf --adapter adapter --data heldout.jsonl --choice ' yes' --choice ' no' --json
  fedpipe eval --model model.gguf --adapter adapter --data questions.jsonl --answers --tokens 32")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Adapter folder
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// A completion among which the likeliest is the answer; give two or more
    #[arg(long = "choice", value_name = "TEXT")]
    choices: Vec<String>,
    /// Generate an answer to each record by the likeliest tokens and compare it with the record's: exact match, F1 of
    /// words, ROUGE-L, BLEU
    #[arg(long, conflicts_with = "choices")]
    answers: bool,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 64, requires = "answers")]
    tokens: usize,
    /// Only the first so many records
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a pass over the records found.
#[derive(Default)]
struct Found {
    records: u64,
    refused: Refusals,
    figures: serde_json::Map<String, Value>,
    /// `[truth][guess]`, where there are choices.
    confusion: Vec<Vec<u64>>,
}

impl Found {
    /// Counts a record that has no row; an error if none of them would have one.
    fn refuse(&mut self, record: usize, refusal: Refusal) -> anyhow::Result<()> {
        if !refusal.is_of_this_record() {
            return Err(refusal.into());
        }
        self.refused.add(&[Refused { record, refusal }]);
        Ok(())
    }

    /// What a table of answers comes to.
    fn count(&mut self, confusion: &Confusion) {
        let counts = confusion.counts().iter().enumerate();
        let right: u64 = counts.filter_map(|(truth, row)| row.get(truth)).sum();
        let accuracy = (self.records > 0).then(|| right as f64 / self.records as f64);
        let figures = [
            ("balanced_accuracy", json!(confusion.balanced_accuracy())),
            ("accuracy", json!(accuracy)),
            ("confusion", json!(confusion.counts())),
        ];
        let figures = figures.map(|(name, value)| (name.to_owned(), value));
        self.figures.extend(figures);
        self.confusion = confusion.counts().to_vec();
    }
}

impl Args {
    /// Evaluates.
    pub fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.choices.len() != 1,
            "one --choice is no choice: give two or more"
        );
        let dataset = self.data.open()?;
        let model = self.model.load()?;
        let from = self.adapter.as_deref();
        let adapter = super::adapter(from, &model.weights())?;
        let head = adapter.as_ref().and_then(|own| own.head());
        let head = head.or(model.head());
        let named = labels::named(self.model.model.path()?, head, &dataset);
        let labels = labels::of(&self.data.labels, (model.config(), named), &dataset, from)?;
        anyhow::ensure!(
            labels.is_empty() || (self.choices.is_empty() && !self.answers),
            "an encoder with a classification head tells its labels apart and writes nothing: leave out --choice and --answers"
        );
        let encoder = self.data.encoder(&model, (&labels, &[]))?;
        labels::fits(head, &labels)?;
        let mut evaluator = Evaluator::new(&model, adapter.as_ref())?;
        let found = if self.answers {
            let records = (self.count(&dataset), self.tokens, self.data.sequence_length);
            answers::compare((&model, adapter.as_ref()), (&dataset, &encoder), records)?
        } else if !labels.is_empty() {
            self.classes(&mut evaluator, &dataset, &encoder, labels.len())?
        } else if self.choices.is_empty() {
            self.loss(&mut evaluator, &dataset, &encoder)?
        } else {
            self.accuracy(&mut evaluator, &dataset, &encoder)?
        };
        anyhow::ensure!(
            found.records > 0,
            "{}",
            nothing::said(&found.refused, self.answers)
        );
        if found.refused.total() > 0 {
            output::note(format!("not evaluated: {}", found.refused));
        }
        if self.json {
            let mut all = found.figures;
            all.insert("records".to_owned(), found.records.into());
            all.insert("refused".to_owned(), found.refused.total().into());
            return output::json(&all);
        }
        let figure =
            |(name, value): (&String, &Value)| format!("{}: {value}", name.replace('_', " "));
        let lines = found
            .figures
            .iter()
            .filter(|(name, _)| *name != "confusion");
        let lines: Vec<String> = lines.map(figure).collect();
        if !found.confusion.is_empty() {
            let names = if labels.is_empty() {
                &self.choices
            } else {
                &labels
            };
            output::line(confusion::table(names, &found.confusion))?;
        }
        output::line(format!(
            "{}\nrecords: {} ({} refused)",
            lines.join("\n"),
            found.records,
            found.refused.total()
        ))
    }

    fn count(&self, dataset: &Dataset) -> usize {
        self.limit.unwrap_or(usize::MAX).min(dataset.len())
    }

    fn loss(
        &self,
        evaluator: &mut Evaluator<'_>,
        dataset: &Dataset,
        encoder: &Encoder,
    ) -> anyhow::Result<Found> {
        let (mut found, mut total) = (Found::default(), None::<Loss>);
        let mut batch = Batch::default();
        let count = self.count(dataset);
        for number in 0..count {
            match encoder.windows(number, &dataset.record(number)?) {
                Ok(rows) => {
                    found.records += 1;
                    batch.rows.extend(rows);
                }
                Err(refusal) => found.refuse(number, refusal)?,
            }
            if batch.rows.len() >= CHUNK || number + 1 == count {
                for rows in batch.rows.chunks(CHUNK) {
                    let loss = evaluator.loss(
                        &Batch {
                            rows: rows.to_vec(),
                        },
                        &Control::new(),
                    )?;
                    total = Some(match total {
                        Some(sum) => sum.merge(loss),
                        None => loss,
                    });
                }
                batch.rows.clear();
            }
        }
        found.figures.insert(
            "loss".to_owned(),
            json!(total.as_ref().and_then(Loss::mean)),
        );
        found.figures.insert(
            "perplexity".to_owned(),
            json!(total.as_ref().and_then(Loss::perplexity)),
        );
        Ok(found)
    }

    /// An encoder's classes of the records.
    fn classes(
        &self,
        evaluator: &mut Evaluator<'_>,
        dataset: &Dataset,
        encoder: &Encoder,
        classes: usize,
    ) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let (mut confusion, mut total) = (Confusion::new(classes), Loss::default());
        let mut batch = Batch::default();
        let count = self.count(dataset);
        for number in 0..count {
            match encoder.row(number, &dataset.record(number)?) {
                Ok(row) => batch.rows.push(row),
                Err(refusal) => found.refuse(number, refusal)?,
            }
            let whole = batch.rows.len() >= CHUNK || number + 1 == count;
            if !whole || batch.rows.is_empty() {
                continue;
            }
            let (scores, loss) = evaluator.classes(&batch, &Control::new())?;
            for (row, scores) in batch.rows.iter().zip(&scores) {
                let truth = row
                    .class
                    .as_ref()
                    .and_then(|class| usize::try_from(class.number).ok());
                if let Some((truth, guess)) = truth.zip(best(scores)) {
                    confusion.add(truth, guess);
                }
            }
            found.records += batch.rows.len() as u64;
            total = total.merge(loss);
            batch.rows.clear();
        }
        found.figures.insert("loss".to_owned(), json!(total.mean()));
        found.count(&confusion);
        Ok(found)
    }

    fn accuracy(
        &self,
        evaluator: &mut Evaluator<'_>,
        dataset: &Dataset,
        encoder: &Encoder,
    ) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let (mut confusion, mut lost) = (Confusion::new(self.choices.len()), 0.0);
        let mut waiting: Vec<(Choice, usize)> = Vec::new();
        let count = self.count(dataset);
        for number in 0..count {
            match question(encoder, number, dataset, &self.choices)? {
                Ok(question) => waiting.push(question),
                Err(refusal) => found.refuse(number, refusal)?,
            }
            let whole = waiting.len() >= CHUNK || number + 1 == count;
            if whole && !waiting.is_empty() {
                let (asked, answers): (Vec<Choice>, Vec<usize>) = waiting.drain(..).unzip();
                let scores = evaluator.choices(&asked, &Control::new())?;
                for (scores, answer) in scores.iter().zip(answers) {
                    found.records += 1;
                    lost += among(scores, answer);
                    if let Some(guess) = best(scores) {
                        confusion.add(answer, guess);
                    }
                }
            }
        }
        if found.records > 0 {
            let mean = lost / found.records as f64;
            let name = "loss_among_choices".to_owned();
            found.figures.insert(name, json!(mean));
        }
        found.count(&confusion);
        Ok(found)
    }
}

/// The loss of the right choice among all, from the logarithms of their probabilities: what training among single tokens
/// lowers.
fn among(scores: &[f64], answer: usize) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let right = scores.get(answer).copied().unwrap_or(f64::NEG_INFINITY);
    largest + sum.ln() - right
}

/// A record's prompt, the choices' tokens, and the right one, or why there is none.
fn question(
    encoder: &Encoder,
    number: usize,
    dataset: &Dataset,
    choices: &[String],
) -> anyhow::Result<Result<(Choice, usize), Refusal>> {
    let asked = match encoder.choices(number, &dataset.record(number)?, choices) {
        Ok(asked) => asked,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (Some(answer), Some(first)) = (asked.answer, asked.rows.first()) else {
        return Ok(Err(Refusal::OtherAnswer));
    };
    let start = first
        .labelled
        .iter()
        .position(|labelled| *labelled)
        .unwrap_or(first.tokens.len());
    let prompt = first.tokens.get(..start).unwrap_or_default().to_vec();
    let candidate = |row: &engine::data::Row| row.tokens.get(start..).unwrap_or_default().to_vec();
    let candidates = asked.rows.iter().map(candidate).collect();
    Ok(Ok((Choice { prompt, candidates }, answer)))
}
