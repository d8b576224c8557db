//! What packing gains: the same records, with the same loss, in batches that fill a budget of tokens and in others.

use std::time::Duration;

use super::{Error, median};
use crate::adapter::Adapter;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::model::Model;
use crate::train::{Options, Trainer};

/// How records are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Each by itself.
    Alone,
    /// So many to a batch, each as long as its batch's longest: what a program computes that cannot tell rows apart
    /// otherwise. So many as fill the budget if all are as long as the sequence allows.
    Padded,
    /// As many, without the padding.
    Records,
    /// As many as fit the budget, without padding.
    Packed,
}

impl Batching {
    /// All, the slowest first.
    pub const ALL: [Self; 4] = [Self::Alone, Self::Padded, Self::Records, Self::Packed];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Padded => "padded",
            Self::Records => "records",
            Self::Packed => "packed",
        }
    }
}

/// One way's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batched {
    /// Which way.
    pub batching: Batching,
    /// Batches that the records made.
    pub batches: usize,
    /// Tokens that went through the model, padding among them.
    pub computed_tokens: usize,
    /// Median time of a step over all records.
    pub step: Duration,
    /// Mean loss of the labelled tokens: the same in every way.
    pub loss: f64,
}

/// Measures a training step over all rows in every way of batching, `repeats` times in turn, after one that is not
/// measured. At rate 0, so that every step sees the same adapter. `now` is a monotonic clock.
///
/// # Errors
/// The rows do not fit the model.
pub fn packing(
    model: &Model,
    adapter: &Adapter,
    (rows, budget, sequence): (&[Row], usize, usize),
    repeats: usize,
    now: impl Fn() -> Duration,
) -> Result<Vec<Batched>, Error> {
    let control = Control::new();
    let mut trainer = Trainer::new(model, adapter, Options::default())?;
    let ways = Batching::ALL.map(|way| (way, batches(rows, way, budget, sequence)));
    let mut times = vec![Vec::new(); ways.len()];
    let mut losses = vec![f64::NAN; ways.len()];
    for repeat in 0..=repeats.max(1) {
        for ((_, batches), (times, loss)) in ways.iter().zip(times.iter_mut().zip(&mut losses)) {
            let start = now();
            *loss = trainer.step_over(batches, 0.0, &control)?.loss;
            if repeat > 0 {
                times.push(now().saturating_sub(start));
            }
        }
    }
    let figures = ways.iter().zip(times.into_iter().zip(losses));
    let figures = figures.map(|((batching, batches), (times, loss))| Batched {
        batching: *batching,
        batches: batches.len(),
        computed_tokens: batches.iter().map(tokens).sum(),
        step: median(times),
        loss,
    });
    Ok(figures.collect())
}

/// The rows in batches, in their order.
fn batches(rows: &[Row], batching: Batching, budget: usize, sequence: usize) -> Vec<Batch> {
    let full = (budget / sequence.max(1)).max(1);
    let each = match batching {
        Batching::Packed => return packed(rows, budget),
        Batching::Alone => 1,
        Batching::Padded | Batching::Records => full,
    };
    let cut = rows.chunks(each).map(|rows| Batch {
        rows: rows.to_vec(),
    });
    match batching {
        Batching::Padded => cut.map(padded).collect(),
        _ => cut.collect(),
    }
}

fn packed(rows: &[Row], budget: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for row in rows {
        let last = batches.last_mut();
        match last.filter(|batch| tokens(batch) + row.tokens.len() <= budget) {
            Some(batch) => batch.rows.push(row.clone()),
            None => batches.push(Batch {
                rows: vec![row.clone()],
            }),
        }
    }
    batches
}

/// Every row as long as the longest: what is behind its end is not learned, and no token before it sees it.
fn padded(mut batch: Batch) -> Batch {
    let longest = batch.rows.iter().map(|row| row.tokens.len()).max();
    for row in &mut batch.rows {
        row.tokens.resize(longest.unwrap_or(0), 0);
        row.labelled.resize(longest.unwrap_or(0), false);
    }
    batch
}

fn tokens(batch: &Batch) -> usize {
    batch.rows.iter().map(|row| row.tokens.len()).sum()
}

/// So many made-up rows of mixed length: most are short, as records are, and some as long as the sequence allows. The
/// last quarter of each is labelled.
#[must_use]
pub fn mixed_rows(model: &Model, count: usize, sequence: usize) -> Vec<Row> {
    let vocabulary = model.config().vocabulary.max(1) as u64;
    let drawn = |number: usize| {
        let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed >> 33
    };
    let shortest = (sequence / 32).max(2).min(sequence);
    let row = |record: usize| {
        let share = drawn(record) as f64 / (1u64 << 31) as f64;
        let length = shortest + ((sequence - shortest) as f64 * share.powi(3)).round() as usize;
        let token = |place: usize| (drawn(record * sequence + place) % vocabulary) as u32;
        Row {
            tokens: (0..length).map(token).collect(),
            labelled: (0..length).map(|place| 4 * place >= 3 * length).collect(),
            class: None,
            record,
        }
    };
    (0..count).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lengths: &[usize]) -> Vec<Row> {
        let row = |(record, length): (usize, &usize)| Row {
            tokens: vec![1; *length],
            labelled: vec![true; *length],
            class: None,
            record,
        };
        lengths.iter().enumerate().map(row).collect()
    }

    #[test]
    fn every_way_has_every_record_once_and_only_padding_adds_tokens() {
        let rows = rows(&[3, 9, 2, 2, 8, 1, 5]);
        let check = |way, sizes: &[usize], computed: usize| {
            let batches = batches(&rows, way, 10, 5);
            let found: Vec<usize> = batches.iter().map(|batch| batch.rows.len()).collect();
            assert_eq!(found, sizes, "{way:?}");
            assert_eq!(
                batches.iter().map(tokens).sum::<usize>(),
                computed,
                "{way:?}"
            );
            let order: Vec<usize> = (batches.iter())
                .flat_map(|batch| batch.rows.iter().map(|row| row.record))
                .collect();
            assert_eq!(order, [0, 1, 2, 3, 4, 5, 6], "{way:?}");
        };
        check(Batching::Alone, &[1; 7], 30);
        check(Batching::Records, &[2, 2, 2, 1], 30);
        check(Batching::Padded, &[2, 2, 2, 1], 43);
        check(Batching::Packed, &[1, 1, 2, 2, 1], 30);
    }
}
