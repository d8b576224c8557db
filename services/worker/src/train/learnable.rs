//! What of a data set a job can learn from: how long its records are, and whether there are enough.

use domain::cause::Trouble;
use engine::data::{self, Encoder};

use crate::data::Opened;
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;
use crate::running::Running;

/// How long records are, as the model sees them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Mean tokens of a record.
    pub mean: f64,
    /// Mean of the square of a record's tokens.
    pub mean_square: f64,
}

/// The mean number of tokens of a record as the model sees it, and of its square, over records that have a row: of a large
/// file as many as tell it, and more only where too few of these can be learned from.
///
/// # Errors
/// If no record has one, or the task is stopped.
pub fn lengths(data: &Opened, encoder: &Encoder, running: &Running) -> Result<Lengths, Failure> {
    let (mut tokens, mut squares, mut rows) = (0.0, 0.0, 0u64);
    let (evenly, all) = spread(data.train.len());
    for (looked_at, number) in all.enumerate() {
        if looked_at >= evenly && rows >= SMALLEST_COUNT {
            break;
        }
        running.stop.check()?;
        let record = data
            .train
            .record(number)
            .map_err(|error| data.trouble(&error))?;
        match encoder.row(number, &record) {
            Ok(row) => {
                let length = row.tokens.len() as f64;
                tokens += length;
                squares += length * length;
                rows += 1;
            }
            Err(refusal) if refusal.is_of_this_record() => {}
            Err(refusal) => return Err(data.trouble(&refusal.into())),
        }
        running.advance();
    }
    if rows == 0 {
        return Err(data.trouble(&data::Refusal::NothingToLearn.into()));
    }
    admit("the length of records", rows, running)?;
    let rows = rows as f64;
    Ok(Lengths {
        mean: tokens / rows,
        mean_square: squares / rows,
    })
}

/// Records that are encoded to know their mean length, at most, if enough of them can be learned from.
const MEAN_RECORDS: usize = 4096;

/// The numbers of so many records: some of them evenly over the file, how many, and then the others.
fn spread(records: usize) -> (usize, impl Iterator<Item = usize>) {
    let stride = records.div_ceil(MEAN_RECORDS).max(1);
    let evenly = (0..records).step_by(stride);
    let others = (0..records).filter(move |number| !number.is_multiple_of(stride));
    (evenly.len(), evenly.chain(others))
}

/// Refuses a job whose settings leave the data set too few records for a figure of them to leave the site: which records have a row
/// is the submitter's choice too, by the answers that the loss is among, by labels, by a short sequence.
///
/// # Errors
/// If there are too few and the site did not consent, or the task is stopped.
pub fn enough(data: &Opened, encoder: &Encoder, running: &Running) -> Result<(), Failure> {
    let mut rows = 0;
    for number in 0..data.train.len() {
        running.stop.check()?;
        let record = data.train.record(number);
        let record = record.map_err(|error| data.trouble(&error))?;
        match encoder.row(number, &record) {
            Ok(_) => rows += 1,
            Err(refusal) if refusal.is_of_this_record() => {}
            Err(refusal) => return Err(data.trouble(&refusal.into())),
        }
        if rows >= SMALLEST_COUNT {
            break;
        }
        running.advance();
    }
    admit("the loss", rows, running)
}

fn admit(what: &str, records: u64, running: &Running) -> Result<(), Failure> {
    let admitted = running.site.config.policy.admit_count(what, records);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_through_evenly_and_then_whole() {
        let small: Vec<usize> = spread(3).1.collect();
        assert_eq!((spread(3).0, small), (3, vec![0, 1, 2]));
        assert_eq!(spread(0).1.count(), 0);
        let records = 2 * MEAN_RECORDS + 1;
        let (evenly, numbers) = spread(records);
        let mut numbers: Vec<usize> = numbers.collect();
        assert!(evenly <= MEAN_RECORDS, "{evenly}");
        assert_eq!(numbers.get(..3), Some([0, 3, 6].as_slice()));
        assert_eq!(numbers.get(evenly..evenly + 3), Some([1, 2, 4].as_slice()));
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..records));
    }
}
