//! Zeroth-order steps as they travel: of each the scalars alone. Who knows the directions can walk them
//! again, and comes to the same adapter, bit for bit.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::artifact::{ArtifactRef, Digest};
use crate::job::mezo::{Distribution, Scaling};
use crate::job::spec::Training;

/// The version of the generator that makes directions: `engine::normal`, which holds it to golden vectors.
/// Another version makes other directions, so that nothing walked by one can be replayed by the other: a job keeps
/// the one that it began with, and a release with another does not drive it.
pub const GENERATOR: u16 = 1;

/// Scalars of a round at most, 64 KiB of them: they travel in a message.
pub const SCALARS_LIMIT: usize = 16_384;

/// How steps are made: all that whoever walks or replays them must agree on. The server says it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// The generator's version.
    pub generator: u16,
    /// With the number of a step, and that of a direction in it, what names a direction.
    pub seed: u64,
    /// What directions are drawn from.
    pub distribution: Distribution,
    /// P: directions of a step.
    pub perturbations: u16,
    /// μ.
    pub perturbation: f64,
    /// Largest scalar; 0: none is too large.
    pub clip: f64,
    /// η.
    pub rate: f64,
    /// Variance of the estimate, of one number, from which on a step takes no further direction; 0: it takes all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variance: f64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Steps {
    /// The steps that a job's settings ask for, along the directions that `seed` names.
    #[must_use]
    pub fn of(training: &Training, seed: u64) -> Self {
        let mezo = &training.mezo;
        Self {
            generator: GENERATOR,
            seed,
            distribution: mezo.distribution,
            perturbations: mezo.perturbations,
            perturbation: mezo.perturbation,
            clip: mezo.clip,
            rate: training.zeroth_order_rate(),
            variance: mezo.variance,
        }
    }

    /// Whether a step that found these scalars needs no further direction: with n of them the mean of `g·z` has
    /// in each number the variance `Σ g² / n²`.
    #[must_use]
    pub fn suffices(&self, found: &[f32]) -> bool {
        /// One scalar tells nothing of how they vary.
        const LEAST: usize = 2;
        let squares: f64 = found.iter().map(|scalar| f64::from(*scalar).powi(2)).sum();
        let count = found.len() as f64;
        self.variance > 0.0 && found.len() >= LEAST && squares <= self.variance * count * count
    }
}

/// The scalars of consecutive steps, P of each. A step that was skipped has [`Scalars::SKIPPED`] for each, one that
/// needed fewer directions [`Scalars::UNUSED`] for each of the others.
///
/// In MessagePack they are 4 bytes each, little-endian; in JSON the same in hexadecimal digits.
#[derive(Clone, Default)]
pub struct Scalars(Vec<f32>);

/// By their bits: the mark of a skipped step is like itself.
impl PartialEq for Scalars {
    fn eq(&self, other: &Self) -> bool {
        let bits = |scalars: &Self| -> Vec<u32> {
            scalars.0.iter().map(|value| value.to_bits()).collect()
        };
        bits(self) == bits(other)
    }
}

/// Why scalars are not those of a round.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// A step is missing, or is there twice.
    #[error("it has {found} scalars where its plan asks for {expected}")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: u64,
    },
    /// A number that is neither finite nor the mark of a skipped step, or a step that is skipped in part.
    #[error("the scalar of step {step} is no number")]
    NotFinite {
        /// Counted from the round's first.
        step: usize,
    },
    /// A step without directions that it should have, or with such as it should not have.
    #[error(
        "step {step} has directions that the job's training.mezo.variance does not ask for, or lacks some"
    )]
    Unused {
        /// Counted from the round's first.
        step: usize,
    },
    /// A number beyond the job's limit.
    #[error("the scalar of step {step} is beyond the job's training.mezo.clip")]
    Clip {
        /// Counted from the round's first.
        step: usize,
    },
}

impl Scalars {
    /// Stands for each scalar of a step whose loss was not finite: such a step moves nothing.
    pub const SKIPPED: f32 = f32::from_bits(0x7fc0_0000);

    /// Stands for each direction that a step did not take.
    pub const UNUSED: f32 = f32::from_bits(0x7fc0_0001);

    /// The scalars of each step's directions, without those that it did not take.
    pub fn taken(&self, perturbations: u16) -> impl Iterator<Item = &[f32]> {
        let steps = self.0.chunks(usize::from(perturbations).max(1));
        steps.map(|values| {
            let taken = |value: &f32| value.to_bits() != Self::UNUSED.to_bits();
            let count = values.iter().rposition(taken).map_or(0, |last| last + 1);
            values.get(..count).unwrap_or(values)
        })
    }

    /// The same as if each step had taken all of its P directions: those that it did not take count 0, the others
    /// P/n, so that P divides them all.
    #[must_use]
    pub fn evened(&self, perturbations: u16) -> Self {
        let count = usize::from(perturbations).max(1);
        let mut all = Vec::with_capacity(self.0.len());
        for taken in self.taken(perturbations) {
            let factor = f64::from(perturbations) / taken.len().max(1) as f64;
            all.extend(taken.iter().map(|value| match taken.len() == count {
                true => *value,
                false => (factor * f64::from(*value)) as f32,
            }));
            all.extend(std::iter::repeat_n(0.0, count.saturating_sub(taken.len())));
        }
        Self(all)
    }

    /// Directions of all steps that were taken, those of skipped ones included.
    #[must_use]
    pub fn directions(&self, perturbations: u16) -> u64 {
        let counts = self.taken(perturbations).map(|values| values.len() as u64);
        counts.sum()
    }

    /// Of these numbers.
    #[must_use]
    pub const fn new(values: Vec<f32>) -> Self {
        Self(values)
    }

    /// The numbers, step by step.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// 4 bytes each, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    /// Reads what [`Scalars::to_bytes`] wrote; `None` if a number is cut, or there are too many.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<4>();
        let fits = rest.is_empty() && values.len() <= SCALARS_LIMIT;
        let read = || values.iter().map(|bytes| f32::from_le_bytes(*bytes));
        fits.then(|| Self(read().collect()))
    }

    /// How far they can move any number of the adapter, at most, where directions are not scaled. Under
    /// `training.mezo.scaling` a number can move √d times as far, d being those of its tensor: scales count in units of
    /// their own mean square. Whoever bounds this to stay within 32-bit floats has to leave room for that.
    #[must_use]
    pub fn reach(&self, how: &Steps) -> f64 {
        /// No number of a direction is larger.
        const LARGEST: f64 = 6.0;
        let mean = |values: &[f32]| {
            let finite = values.iter().filter(|value| value.is_finite());
            let sum: f64 = finite.map(|value| f64::from(value.abs())).sum();
            sum / values.len().max(1) as f64
        };
        LARGEST * how.rate * self.taken(how.perturbations).map(mean).sum::<f64>()
    }

    /// How many steps were skipped.
    ///
    /// # Errors
    /// What keeps them from being the scalars of `count` steps of `how`.
    pub fn skipped(&self, count: u32, how: &Steps) -> Result<u32, Illegal> {
        let expected = u64::from(count) * u64::from(how.perturbations);
        let found = self.0.len();
        if found as u64 != expected {
            return Err(Illegal::Count { found, expected });
        }
        let clip = how.clip as f32;
        let is_mark = |value: &f32| value.to_bits() == Self::SKIPPED.to_bits();
        let mut skipped = 0;
        let chunks = self.0.chunks_exact(usize::from(how.perturbations).max(1));
        for ((step, all), values) in chunks.enumerate().zip(self.taken(how.perturbations)) {
            if all.iter().all(is_mark) {
                skipped += 1;
            } else if (values.len() < all.len() && !how.suffices(values))
                || values
                    .split_last()
                    .is_some_and(|(_, before)| how.suffices(before))
            {
                return Err(Illegal::Unused { step });
            } else if values.iter().any(|value| !value.is_finite()) {
                return Err(Illegal::NotFinite { step });
            } else if clip > 0.0 && values.iter().any(|value| value.abs() > clip) {
                return Err(Illegal::Clip { step });
            }
        }
        Ok(skipped)
    }
}

impl fmt::Debug for Scalars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalars({})", self.0.len())
    }
}

impl Serialize for Scalars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let bytes = self.to_bytes();
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&bytes);
        }
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            // Invariant: writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Reader)
        } else {
            deserializer.deserialize_bytes(Reader)
        }
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Scalars;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {SCALARS_LIMIT} numbers of 4 bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Scalars, E> {
        Scalars::from_bytes(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalars, E> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| {
            let value = 16 * digit(*high)? + digit(*low)?;
            u8::try_from(value).ok()
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let bytes = bytes.filter(|_| rest.is_empty());
        self.visit_bytes(&bytes.ok_or_else(|| E::custom("not hexadecimal digits"))?)
    }
}

/// What a committed round did, where all sites walk along the same directions: it made the adapter `start`
/// the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Which round, counted from 1.
    pub round: u32,
    /// The number of its first step, counted through the job from 0.
    pub first_step: u64,
    /// The merged adapter before it.
    pub start: Digest,
    /// The mean of the sites' scalars.
    pub scalars: Scalars,
}

/// What a task says of the zeroth-order steps of its job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// How the steps are made.
    pub steps: Steps,
    /// The rate of this worker's own steps, where sites have rates of their own; the log's scalars are of the
    /// rate in `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Rounds that the task's worker may have missed, one after the other, the last the one that made the
    /// task's adapter; empty where sites cannot replay rounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Committed>,
    /// Which numbers of the adapter move, and from which round on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Masked>,
    /// By what directions are scaled. The log then reaches back as many rounds before those that may have been
    /// missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

/// Which numbers of the adapter move: of each tensor the share that is largest in this merged adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Masked {
    /// The share.
    pub share: f64,
    /// Rounds after this one are masked.
    pub after: u32,
    /// The merged adapter of that round; its digest is what everybody agrees on.
    pub adapter: ArtifactRef,
}

impl Walk {
    /// Of steps made so, by a site that trains at the job's rate and has nothing to replay.
    #[must_use]
    pub const fn new(steps: Steps) -> Self {
        Self {
            steps,
            rate: None,
            log: Vec::new(),
            mask: None,
            scaling: None,
        }
    }

    /// How this worker makes its own steps.
    #[must_use]
    pub fn own(&self) -> Steps {
        Steps {
            rate: self.rate.unwrap_or(self.steps.rate),
            ..self.steps
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(perturbations: u16, clip: f64) -> Steps {
        Steps {
            generator: GENERATOR,
            seed: 1,
            distribution: Distribution::Gaussian,
            perturbations,
            perturbation: 1e-2,
            clip,
            rate: 1e-4,
            variance: 0.0,
        }
    }

    #[test]
    fn a_step_takes_directions_until_its_estimate_varies_little_enough_and_says_how_many() {
        let bound = Steps {
            variance: 1.0,
            ..steps(4, 0.0)
        };
        assert!(!bound.suffices(&[0.1]), "one tells nothing");
        assert!(bound.suffices(&[1.0, 1.5]));
        assert!(!bound.suffices(&[2.0, 2.0]));
        assert!(!steps(4, 0.0).suffices(&[0.0; 3]), "no bound");
        let (unused, mark) = (Scalars::UNUSED, Scalars::SKIPPED);
        let check = |values: &[f32], how: &Steps| Scalars::new(values.to_vec()).skipped(1, how);
        assert_eq!(check(&[1.0, 1.5, unused, unused], &bound), Ok(0));
        assert_eq!(check(&[2.0, 2.0, 0.5, unused], &bound), Ok(0));
        assert_eq!(
            check(&[9.0, 9.0, 9.0, 9.0], &bound),
            Ok(0),
            "as many as there are"
        );
        assert_eq!(check(&[mark; 4], &bound), Ok(1));
        let illegal = Err(Illegal::Unused { step: 0 });
        assert_eq!(check(&[2.0, 2.0, unused, unused], &bound), illegal);
        assert_eq!(check(&[1.0, 1.5, 3.0, unused], &bound), illegal);
        assert_eq!(check(&[1.0, unused, unused, unused], &bound), illegal);
        assert_eq!(check(&[unused; 4], &bound), illegal);
        assert_eq!(check(&[1.0, 1.5, unused, unused], &steps(4, 0.0)), illegal);
        assert!(check(&[1.0, 1.5, unused, 1.0], &bound).is_err(), "a gap");
        let two = Scalars::new(vec![1.0, 1.5, unused, unused, 9.0, 9.0, 9.0, 9.0]);
        assert_eq!(two.directions(4), 6);
        let even = [2.0, 3.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0];
        assert_eq!(two.evened(4), Scalars::new(even.to_vec()));
        let reach = two.reach(&bound);
        assert!((reach - 6.0 * 1e-4 * (1.25 + 9.0)).abs() < 1e-12, "{reach}");
    }

    #[test]
    fn scalars_keep_their_bits_in_text() {
        let bits = [0x3f80_0001, 0x8000_0000, 0x7fc0_0000, 0x0000_0001];
        let scalars = Scalars::new(bits.map(f32::from_bits).to_vec());
        let text = serde_json::to_string(&scalars).expect("JSON");
        let read: Scalars = serde_json::from_str(&text).expect("read");
        let read: Vec<u32> = read.values().iter().map(|value| value.to_bits()).collect();
        assert_eq!(read, bits);
        for wrong in ["\"0\"", "\"00\"", "\"0000000g\"", "3"] {
            assert!(serde_json::from_str::<Scalars>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Scalars::from_bytes(&vec![0; 4 * SCALARS_LIMIT + 4]), None);
    }

    #[test]
    fn a_gap_a_repetition_and_what_is_no_number_are_seen() {
        let check =
            |values: &[f32], clip| Scalars::new(values.to_vec()).skipped(2, &steps(2, clip));
        let mark = Scalars::SKIPPED;
        assert_eq!(check(&[1.0, 2.0, 3.0, -4.0], 4.0), Ok(0));
        assert_eq!(check(&[mark, mark, 3.0, 4.0], 0.0), Ok(1));
        for (count, wrong) in [(3, vec![1.0; 3]), (6, vec![1.0; 6])] {
            let expected = Illegal::Count {
                found: count,
                expected: 4,
            };
            assert_eq!(check(&wrong, 0.0), Err(expected));
        }
        let nan = |step| Err(Illegal::NotFinite { step });
        assert_eq!(check(&[1.0, 1.0, mark, 1.0], 0.0), nan(1));
        assert_eq!(check(&[f32::INFINITY, 1.0, 1.0, 1.0], 0.0), nan(0));
        let other = f32::from_bits(0xffc0_0000);
        assert_eq!(check(&[1.0, 1.0, other, other], 0.0), nan(1));
        let beyond = Err(Illegal::Clip { step: 1 });
        assert_eq!(check(&[1.0, 1.0, 1.0, -4.1], 4.0), beyond);
    }
}
