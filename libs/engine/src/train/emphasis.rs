//! What the numbers of a direction are multiplied by, number by number: a mask, and how far each number of the
//! adapter moved before.
//!
//! Promises: what is made follows from an adapter that is named by its digest and from scalars that everybody knows,
//! by single rounded operations in a fixed order, so it has the same bits wherever it is made; one tensor of it
//! is made at a time. Does not: know rounds, or decide what moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::adapter::WeightName;
use domain::zeroth::{Scalars, Steps};

use super::replay::{self, Factor};
use crate::normal::Normals;

/// The numbers that move: of each tensor those of largest magnitude in one adapter (Meerkat, arXiv 2506.03337).
#[derive(Debug, Clone)]
pub struct Mask {
    share: f64,
    /// By the number of the tensor: a bit for each of its numbers.
    tensors: BTreeMap<u32, Vec<u64>>,
}

impl Mask {
    /// Of nothing yet; a tensor that is not added moves whole.
    #[must_use]
    pub const fn new(share: f64) -> Self {
        Self {
            share,
            tensors: BTreeMap::new(),
        }
    }

    /// Adds a tensor of the adapter that the mask goes by, named by PEFT's key. One of zeros moves whole.
    pub fn add(&mut self, key: &str, values: &[f32]) {
        let Some(tensor) = tensor(key) else { return };
        let count = (self.share * values.len() as f64).ceil() as usize;
        let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        let last = count.clamp(1, sizes.len().max(1)) - 1;
        if last >= sizes.len() {
            return;
        }
        let (_, least, _) = sizes.select_nth_unstable_by(last, |one, other| other.total_cmp(one));
        let least = *least;
        let mut bits = vec![0u64; values.len().div_ceil(64)];
        for (word, values) in bits.iter_mut().zip(values.chunks(64)) {
            for (bit, value) in values.iter().enumerate() {
                *word |= u64::from(value.abs() >= least) << bit;
            }
        }
        self.tensors.insert(tensor, bits);
    }

    fn moves(&self, tensor: u32, len: usize) -> Option<impl Iterator<Item = bool>> {
        let bits = self.tensors.get(&tensor)?;
        let each = bits
            .iter()
            .flat_map(|word| (0..64).map(move |bit| (word >> bit) & 1 == 1));
        Some(each.take(len))
    }
}

/// What directions are scaled by: the square root of `H⁻¹`, where `H ← (1−ν)·H + ν·Δ²` over some rounds
/// (`HiSo`, arXiv 2506.02370). Here Δ is what a round's scalars come to along unscaled directions and counts in
/// units of its own mean square, and the scale has the mean square 1, both tensor by tensor: the scale then depends
/// on neither η nor the length of a round, and leaves a direction as long as it was.
#[derive(Debug, Clone)]
struct Scale {
    weight: f32,
    /// Of each round, the earliest first, its steps.
    rounds: Vec<Vec<(Normals, f32)>>,
}

/// What the numbers of a direction are multiplied by; by nothing unless something is added.
#[derive(Debug, Clone, Default)]
pub struct Emphasis {
    mask: Option<Arc<Mask>>,
    scale: Option<Scale>,
}

impl Emphasis {
    /// By this mask too.
    #[must_use]
    pub fn masked(self, mask: Arc<Mask>) -> Self {
        let mask = Some(mask);
        Self { mask, ..self }
    }

    /// By how far the numbers moved in these rounds too, the earliest first: how its steps are made, the number of the
    /// first, and their scalars. `weight` is ν.
    #[must_use]
    pub fn scaled<'a>(
        self,
        weight: f64,
        rounds: impl IntoIterator<Item = (&'a Steps, u64, &'a Scalars)>,
    ) -> Self {
        let rounds: Vec<_> = rounds
            .into_iter()
            .map(|(how, first_step, scalars)| replay::streams(how, first_step, scalars))
            .filter(|streams| !streams.is_empty())
            .collect();
        let weight = weight as f32;
        let scale = (!rounds.is_empty()).then_some(Scale { weight, rounds });
        Self { scale, ..self }
    }

    /// Whether nothing is multiplied.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.mask.is_none() && self.scale.is_none()
    }

    /// Random numbers that each value takes.
    pub(super) fn numbers(&self) -> usize {
        let rounds = self.scale.iter().flat_map(|scale| &scale.rounds);
        rounds.map(Vec::len).sum()
    }

    /// The multipliers of a tensor of `len` numbers; `None` if all are 1.
    pub(super) fn of(&self, tensor: u32, len: usize) -> Option<Vec<f32>> {
        let scale = self.scale.as_ref().map(|scale| scale.of(tensor, len));
        let moves = self.mask.as_ref().and_then(|mask| mask.moves(tensor, len));
        let Some(moves) = moves else {
            return scale;
        };
        let mut both = scale.unwrap_or_else(|| vec![1.0; len]);
        for (value, moves) in both.iter_mut().zip(moves) {
            if !moves {
                *value = 0.0;
            }
        }
        Some(both)
    }
}

impl Scale {
    fn of(&self, tensor: u32, len: usize) -> Vec<f32> {
        let mut h = vec![1.0f32; len];
        let mut moved = vec![0.0f32; len];
        for streams in &self.rounds {
            moved.fill(0.0);
            Normals::add_all(streams, tensor, &mut moved);
            let mean = mean_square(&moved);
            // Rounds that moved nothing, or beyond all bounds, tell nothing.
            if !(mean.is_finite() && mean > 0.0) {
                continue;
            }
            let unit = (1.0 / mean.sqrt()) as f32;
            for (h, moved) in h.iter_mut().zip(&moved) {
                let moved = moved * unit;
                *h = (1.0 - self.weight) * *h + self.weight * (moved * moved);
            }
        }
        // Invariant: 1−ν is above 0, so H is.
        h.iter_mut().for_each(|h| *h = 1.0 / h.sqrt());
        let unit = (1.0 / mean_square(&h).sqrt()) as f32;
        h.iter_mut().for_each(|h| *h *= unit);
        h
    }
}

/// In the order of the values: a sum in another order is another sum.
fn mean_square(values: &[f32]) -> f64 {
    let squares = values.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>() / values.len().max(1) as f64
}

/// The number of the tensor that PEFT's key names.
pub(super) fn tensor(key: &str) -> Option<u32> {
    let (name, is_a) = WeightName::from_peft(key)?;
    let factor = if is_a { Factor::A } else { Factor::B };
    Some(replay::tensor(name, factor))
}

#[cfg(test)]
mod tests {
    use domain::job::spec::Training;

    use super::*;

    const KEY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

    fn scaled(rounds: &[(u64, &[f32])], weight: f64) -> Emphasis {
        let how = Steps::of(&Training::default(), 7);
        let rounds: Vec<(u64, Scalars)> = rounds
            .iter()
            .map(|(first, values)| (*first, Scalars::new(values.to_vec())))
            .collect();
        let rounds = rounds.iter().map(|(first, values)| (&how, *first, values));
        Emphasis::default().scaled(weight, rounds)
    }

    #[test]
    fn the_largest_share_of_a_tensor_moves_and_zeros_move_whole() {
        let mut values: Vec<f32> = (0..200).map(|i| ((i * 37) % 200) as f32 - 100.0).collect();
        values[5] = 0.0;
        let mut mask = Mask::new(0.25);
        mask.add(KEY, &values);
        let tensor = tensor(KEY).unwrap();
        let masked = Emphasis::default().masked(Arc::new(mask));
        let got = masked.of(tensor, 200).unwrap();
        let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        for (value, got) in values.iter().zip(&got) {
            assert_eq!(
                *got,
                f32::from(u8::from(value.abs() >= sizes[49])),
                "{value}"
            );
        }
        assert!((50..=52).contains(&got.iter().filter(|got| **got > 0.0).count()));
        assert_eq!(
            masked.of(tensor + 1, 200),
            None,
            "another tensor moves whole"
        );
        let mut zeros = Mask::new(0.25);
        zeros.add(KEY, &[0.0; 70]);
        let zeros = Emphasis::default().masked(Arc::new(zeros));
        assert_eq!(zeros.of(tensor, 70), Some(vec![1.0; 70]));
    }

    #[test]
    fn the_scale_is_the_formula_and_a_direction_keeps_its_length() {
        let (first, second) = ([2.0, -1.0, 0.5], [1.0, 3.0, -2.0]);
        let emphasis = scaled(&[(0, &first), (3, &second)], 0.3);
        let (tensor, len) = (tensor(KEY).unwrap(), 5000);
        let got = emphasis.of(tensor, len).unwrap();
        let mut h = vec![1.0f64; len];
        for (start, scalars) in [(0, first), (3, second)] {
            let mut moved = vec![0.0f32; len];
            for (step, scalar) in (start..).zip(scalars) {
                Normals::direction(7, step, 0).add(tensor, &mut moved, scalar);
            }
            let mean = moved.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / len as f64;
            for (h, moved) in h.iter_mut().zip(&moved) {
                *h = 0.7 * *h + 0.3 * f64::from(*moved).powi(2) / mean;
            }
        }
        let inverse = h.iter().map(|h| 1.0 / h).sum::<f64>() / len as f64;
        for (got, h) in got.iter().zip(&h) {
            let want = (1.0 / h / inverse).sqrt();
            assert!(
                (f64::from(*got) - want).abs() < 1e-4 * want,
                "{got}, not {want}"
            );
        }
        let square = got.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / len as f64;
        assert!((square - 1.0).abs() < 1e-5, "{square}");
        let spread =
            got.iter().copied().fold(0.0, f32::max) / got.iter().copied().fold(9.0, f32::min);
        assert!(spread > 1.5, "it tells numbers apart: {spread}");
    }

    #[test]
    fn rounds_that_moved_nothing_tell_nothing() {
        let tensor = tensor(KEY).unwrap();
        assert!(scaled(&[], 0.5).is_none());
        assert!(scaled(&[(0, &[Scalars::SKIPPED; 2])], 0.5).is_none());
        assert_eq!(
            scaled(&[(0, &[0.0; 2])], 0.5).of(tensor, 9),
            Some(vec![1.0; 9])
        );
        let both = scaled(&[(0, &[0.0; 2]), (2, &[1.0, 2.0])], 0.5).of(tensor, 99);
        assert_eq!(both, scaled(&[(2, &[1.0, 2.0])], 0.5).of(tensor, 99));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let emphasis = scaled(&[(0, &[2.0, -1.0]), (2, &[1.0, 3.0])], 0.2);
        let of = |count| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
            pool.unwrap().install(|| emphasis.of(3, 20_000)).unwrap()
        };
        let bits = |values: Vec<f32>| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
        assert_eq!(bits(of(1)), bits(of(3)));
    }
}
