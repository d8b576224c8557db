//! Which token comes next.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How tokens are drawn. The filters apply in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What a token's score is divided by if it is above 0, or multiplied by, once the token has occurred in prompt or
    /// answer (arXiv 1909.05858); 1 turns it off.
    pub repetition_penalty: f32,
    /// Scores are divided by it: below 1 the likely gets likelier; 0 always takes the likeliest, whatever follows here.
    pub temperature: f32,
    /// Only so many of the likeliest; 0: all.
    pub top_k: usize,
    /// Only the likeliest that together have this probability (arXiv 1904.09751); 1: all.
    pub top_p: f32,
    /// Only those with at least this share of the likeliest's probability; 0: all.
    pub min_p: f32,
    /// What is drawn from: the same seed, model and prompt give the same text.
    pub seed: u64,
}

impl Default for Sampling {
    /// The likeliest token, always.
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether every number is one that means something.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let Self {
            repetition_penalty,
            temperature,
            top_p,
            min_p,
            ..
        } = *self;
        (repetition_penalty > 0.0 && repetition_penalty.is_finite())
            && (temperature >= 0.0 && temperature.is_finite())
            && (top_p > 0.0 && top_p <= 1.0)
            && (0.0..=1.0).contains(&min_p)
    }
}

/// Draws one token after another.
#[derive(Debug)]
pub(super) struct Sampler {
    how: Sampling,
    random: ChaCha12Rng,
}

impl Sampler {
    pub(super) fn new(how: Sampling) -> Self {
        Self {
            how,
            random: ChaCha12Rng::seed_from_u64(how.seed),
        }
    }

    /// The next token's id; `scores` are changed, `seen` are the tokens so far.
    pub(super) fn next(&mut self, scores: &mut [f32], seen: &[u32]) -> u32 {
        self.penalize(scores, seen);
        if self.how.temperature == 0.0 {
            return highest(scores);
        }
        let mut candidates = self.candidates(scores);
        self.narrow(&mut candidates);
        let whole: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let drawn = f64::from(self.random.next_u32()) / (f64::from(u32::MAX) + 1.0) * whole;
        let mut sum = 0.0;
        for (id, weight) in &candidates {
            sum += weight;
            if drawn < sum {
                return *id;
            }
        }
        candidates
            .last()
            .map_or_else(|| highest(scores), |(id, _)| *id)
    }

    fn penalize(&self, scores: &mut [f32], seen: &[u32]) {
        let penalty = self.how.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut distinct = seen.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for id in distinct {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score > 0.0 {
                    *score / penalty
                } else {
                    *score * penalty
                };
            }
        }
    }

    /// Ids with their weights, the likeliest first (the lowest id among equals): probabilities but for a factor.
    fn candidates(&self, scores: &[f32]) -> Vec<(u32, f64)> {
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |score: f32| (f64::from(score - most) / f64::from(self.how.temperature)).exp();
        let mut all: Vec<(u32, f64)> = (0u32..)
            .zip(scores.iter().map(|score| weight(*score)))
            .collect();
        all.sort_by(|(a, first), (b, second)| second.total_cmp(first).then(a.cmp(b)));
        all
    }

    fn narrow(&self, candidates: &mut Vec<(u32, f64)>) {
        let Sampling {
            top_k,
            top_p,
            min_p,
            ..
        } = self.how;
        if top_k > 0 {
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            let whole: f64 = candidates.iter().map(|(_, weight)| weight).sum();
            let mut sum = 0.0;
            let enough = candidates.iter().position(|(_, weight)| {
                sum += weight;
                sum >= f64::from(top_p) * whole
            });
            candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
        }
        // The likeliest has weight 1.
        candidates.retain(|(_, weight)| *weight >= f64::from(min_p));
    }
}

fn highest(scores: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, score) in (0u32..).zip(scores) {
        if *score > best.1 {
            best = (id, *score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 0.5, 0.25, 0.15, 0.1.
    fn scores() -> Vec<f32> {
        [0.15f32, 0.5, 0.1, 0.25].map(f32::ln).to_vec()
    }

    fn shares(how: Sampling) -> [f64; 4] {
        let mut sampler = Sampler::new(how);
        let mut counts = [0.0; 4];
        for _ in 0..4000 {
            counts[sampler.next(&mut scores(), &[]) as usize] += 1.0 / 4000.0;
        }
        counts
    }

    fn near(got: [f64; 4], want: [f64; 4]) {
        for (got_one, want_one) in got.iter().zip(want) {
            assert!((got_one - want_one).abs() < 0.03, "{got:?}, {want:?}");
            assert_eq!(*got_one == 0.0, want_one == 0.0, "{got:?}, {want:?}");
        }
    }

    #[test]
    fn tokens_come_with_their_probability_as_far_as_the_filters_leave_them() {
        let how = Sampling {
            temperature: 1.0,
            seed: 3,
            ..Sampling::default()
        };
        near(shares(how), [0.15, 0.5, 0.1, 0.25]);
        near(
            shares(Sampling { top_k: 2, ..how }),
            [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0],
        );
        near(
            shares(Sampling { top_p: 0.6, ..how }),
            [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0],
        );
        near(
            shares(Sampling {
                min_p: 0.3 - 1e-3,
                ..how
            }),
            [0.15 / 0.9, 0.5 / 0.9, 0.0, 0.25 / 0.9],
        );
        // Squared and made to add up again.
        let squared = Sampling {
            temperature: 0.5,
            ..how
        };
        near(
            shares(squared),
            [0.0225, 0.25, 0.01, 0.0625].map(|v| v / 0.345),
        );
    }

    #[test]
    fn the_likeliest_is_taken_at_temperature_zero_and_what_occurred_is_held_back() {
        assert_eq!(
            shares(Sampling::default()).map(f64::round),
            [0.0, 1.0, 0.0, 0.0]
        );
        let mut held = Sampler::new(Sampling {
            repetition_penalty: 3.0,
            ..Sampling::default()
        });
        // Logarithms are negative: what occurred is multiplied away from the others.
        assert_eq!(held.next(&mut scores(), &[1, 1]), 3);
        assert_eq!(held.next(&mut [1.0, 2.0], &[1]), 0);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling {
                temperature: 1.0,
                seed,
                ..Sampling::default()
            });
            (0..20)
                .map(|_| sampler.next(&mut scores(), &[]))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
