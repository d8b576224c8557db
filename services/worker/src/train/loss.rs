//! The loss that leaves the site while it trains: never averaged over fewer than 8 records.
//!
//! Steps are gathered until they hold enough records; their mean is shared and the next gathering
//! starts. Steps at the end that would not be enough by themselves are never shared apart, because
//! the round's own mean would then give them away.

use crate::policy::SMALLEST_COUNT;

/// Gathers the losses of steps.
#[derive(Debug, Clone)]
pub struct SharedLoss {
    smallest: u64,
    /// Records of the steps still to come.
    left: u64,
    records: u64,
    weighted: f64,
    shared: Option<f64>,
}

impl SharedLoss {
    /// For a round over so many records; with consent every step's loss is shared.
    #[must_use]
    pub const fn new(records: u64, share_small_counts: bool) -> Self {
        Self {
            smallest: if share_small_counts {
                1
            } else {
                SMALLEST_COUNT
            },
            left: records,
            records: 0,
            weighted: 0.0,
            shared: None,
        }
    }

    /// Adds a step's mean loss over its records, and says what may be shown now.
    pub fn add(&mut self, records: u64, loss: f64) -> Option<f64> {
        self.left = self.left.saturating_sub(records);
        self.records += records;
        self.weighted += loss * records as f64;
        let enough = self.records >= self.smallest;
        if enough && (self.left == 0 || self.left >= self.smallest) {
            self.shared = Some(self.weighted / self.records as f64);
            self.records = 0;
            self.weighted = 0.0;
        }
        self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(batch: u64, steps: u64, consent: bool, expected: &[Option<f64>]) {
        let mut loss = SharedLoss::new(batch * steps, consent);
        let shown: Vec<_> = (0..steps)
            .map(|step| loss.add(batch, step as f64))
            .collect();
        assert_eq!(
            shown, expected,
            "batch {batch}, {steps} steps, consent {consent}"
        );
    }

    #[test]
    fn a_shown_loss_holds_at_least_eight_records_and_leaves_no_smaller_rest() {
        check(4, 4, false, &[None, Some(0.5), Some(0.5), Some(2.5)]);
        check(4, 3, false, &[None, None, Some(1.0)]);
        check(8, 2, false, &[Some(0.0), Some(1.0)]);
        check(3, 2, false, &[None, None]);
        check(1, 3, true, &[Some(0.0), Some(1.0), Some(2.0)]);
    }
}
