//! Real records in rows of a stated length: what is measured is the work, and no length of a single
//! record leaves the site with it.

use engine::data::{Batch, Row};

/// The same records, each cut at its beginning or begun with a copy of its own tokens, so that every
/// row has `length` tokens. Where a record's prompt is not learned, neither is what is put before it.
#[must_use]
pub fn sized(batch: Batch, length: usize) -> Batch {
    let rows = batch
        .rows
        .into_iter()
        .map(|row| resized(row, length.max(2)));
    Batch {
        rows: rows.collect(),
    }
}

fn resized(mut row: Row, length: usize) -> Row {
    // A row's first token is never learned; the second tells whether its beginning is.
    let learned = row.labelled.get(1).copied().unwrap_or(false);
    if let Some(excess) = row.tokens.len().checked_sub(length) {
        row.tokens.drain(..excess);
        row.labelled.drain(..excess);
    } else {
        let missing = length - row.tokens.len();
        let before: Vec<u32> = row.tokens.iter().copied().cycle().take(missing).collect();
        row.labelled = [vec![learned; before.len()], row.labelled].concat();
        row.tokens = [before, row.tokens].concat();
    }
    if let Some(first) = row.labelled.first_mut() {
        *first = false;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labelled: &[bool], length: usize, tokens: &[u32], expected: &[bool]) {
        let row = Row {
            tokens: (1..).take(labelled.len()).collect(),
            labelled: labelled.to_vec(),
            class: None,
            record: 0,
        };
        let sized = sized(Batch { rows: vec![row] }, length);
        let row = sized.rows.first().unwrap();
        assert_eq!(
            (row.tokens.as_slice(), row.labelled.as_slice()),
            (tokens, expected)
        );
    }

    #[test]
    fn every_row_has_the_stated_length_and_keeps_its_answer() {
        let completion = [false, false, true];
        check(&completion, 3, &[1, 2, 3], &completion);
        check(&completion, 2, &[2, 3], &[false, true]);
        let longer = [false, false, false, false, true];
        check(&completion, 5, &[1, 2, 1, 2, 3], &longer);
        check(
            &[false, true],
            4,
            &[1, 2, 1, 2],
            &[false, true, false, true],
        );
    }
}
