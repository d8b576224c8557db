//! How many records of a step teach: the gradient's noise scale, pooled over the fleet.
//!
//! `B = Σ p_i·variance_i / Σ p_i·signal_i` with p_i a site's share of the records: the scale of the gradient
//! that the merge averages. It is kept between the smallest and the largest batch that is looked at,
//! because beyond them it changes no choice: a signal that drowns in the noise means "the larger the
//! better", a noise that was not seen "one record says it all".

use std::collections::BTreeMap;

use domain::id::WorkerName;
use domain::profile::Profile;

use super::sizes::{LARGEST_BATCH, SMALLEST_BATCH};

/// The scale where no site could measure one: as in [`BatchNoise::measured_on`].
const ASSUMED: f64 = 8.0;

/// The batch whose noise is as large as its signal, in records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNoise {
    /// The scale.
    pub records: f64,
    /// Records whose gradients it was measured on; 0: it is an assumption.
    pub measured_on: u64,
}

impl BatchNoise {
    /// Of all sites that measured it.
    #[must_use]
    pub fn of(profiles: &BTreeMap<WorkerName, Profile>) -> Self {
        let (mut signal, mut variance, mut measured_on) = (0.0, 0.0, 0);
        for measured in profiles.values().map(|profile| &profile.measurement) {
            let Some(noise) = measured.noise else {
                continue;
            };
            let share = measured.records as f64;
            if (noise.signal + noise.variance).is_finite() && share > 0.0 {
                signal += share * noise.signal;
                variance += share * noise.variance.max(0.0);
                measured_on += noise.records;
            }
        }
        let records = if measured_on == 0 {
            ASSUMED
        } else if signal > 0.0 {
            (variance / signal).clamp(SMALLEST_BATCH, LARGEST_BATCH)
        } else {
            LARGEST_BATCH
        };
        Self {
            records,
            measured_on,
        }
    }

    /// What a step of so many records is worth against a noiseless one, between 0 and 1: `b/(b + B)`
    /// (McCandlish et al., arXiv 1812.06162, eq. 2.7).
    #[must_use]
    pub fn worth(self, batch: u16) -> f64 {
        let batch = f64::from(batch);
        batch / (batch + self.records)
    }

    /// In a sentence.
    pub(super) fn says(self) -> String {
        let Self {
            records,
            measured_on,
        } = self;
        if measured_on == 0 {
            return format!("taken as {records:.0} records, for no site measured it");
        }
        let at_least = if records >= LARGEST_BATCH {
            "at least "
        } else {
            ""
        };
        format!("{at_least}{records:.1} records, measured on {measured_on}")
    }
}
