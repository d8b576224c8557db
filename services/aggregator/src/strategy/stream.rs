//! The random numbers of the merge: one counter-based stream per purpose and weight.
//!
//! A stream is ChaCha with 20 rounds, keyed by SHA-256 of the job's seed, the purpose and the
//! weight's name, so that it is the same on every machine and does not depend on what else is drawn.

use domain::adapter::WeightName;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// What a stream is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The factor A of round 0.
    Adapter,
    /// Rows of A that start anew because their slice has died.
    Restart,
    /// The factor A that starts anew after a round.
    Fresh {
        /// Which.
        round: u32,
    },
}

impl Purpose {
    fn name(self) -> String {
        match self {
            Self::Adapter => "adapter".to_owned(),
            Self::Restart => "restart".to_owned(),
            Self::Fresh { round } => format!("fresh {round}"),
        }
    }
}

pub(super) struct Stream(ChaCha20Rng);

impl Stream {
    pub(super) fn new(seed: u64, purpose: Purpose, weight: WeightName) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        // The lengths are hashed too, so that no two (purpose, name) pairs share a key.
        for part in [purpose.name(), weight.to_string()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(ChaCha20Rng::from_seed(hash.finalize().into()))
    }

    /// Uniform in `[-bound, bound)`.
    pub(super) fn uniform(&mut self, bound: f64) -> f64 {
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (2.0 * unit - 1.0) * bound
    }

    /// A row of a fresh A: kaiming-uniform with a = √5, that is uniform in ±1/√in.
    pub(super) fn row(&mut self, inp: usize) -> Vec<f64> {
        let bound = 1.0 / (inp.max(1) as f64).sqrt();
        (0..inp).map(|_| self.uniform(bound)).collect()
    }
}
