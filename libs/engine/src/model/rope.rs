//! How rotary frequencies are scaled for contexts longer than a model was first trained on.

use super::Error;

/// Llama 3's scaling, as `config.json` says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Llama3 {
    pub(crate) factor: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
    /// The context of the first training.
    pub(crate) original: f32,
}

impl Llama3 {
    /// What each frequency of a head of `size` is divided by: 1 where it turns often within the original context,
    /// `factor` where it hardly turns, and between the two in between (transformers' `_compute_llama3_parameters`).
    pub(crate) fn factors(self, size: usize, theta: f32) -> Result<Vec<f32>, Error> {
        let Self {
            factor,
            low,
            high,
            original,
        } = self;
        let possible = factor >= 1.0 && low > 0.0 && high > low && original > 0.0;
        if !(possible && factor.is_finite() && high.is_finite() && original.is_finite()) {
            return Err(Error::Setting {
                key: "rope_parameters".to_owned(),
            });
        }
        let divisor = |j: usize| {
            let frequency = 1.0 / theta.powf((2 * j) as f32 / size as f32);
            let turns = original * frequency / (2.0 * std::f32::consts::PI);
            if turns < low {
                factor
            } else if turns > high {
                1.0
            } else {
                let smooth = (turns - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        Ok((0..size / 2).map(divisor).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_frequencies_stay_slow_ones_are_divided_and_the_rest_lies_between() {
        let scaling = Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        let factors = scaling.factors(128, 500_000.0).unwrap();
        assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
        assert!(factors.is_sorted());
        let between = factors
            .iter()
            .filter(|factor| **factor > 1.0 && **factor < 8.0);
        assert_eq!(between.count(), 6);
        let wrong = Llama3 {
            high: 1.0,
            ..scaling
        };
        assert!(wrong.factors(128, 500_000.0).is_err());
    }
}
