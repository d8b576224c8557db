//! Leaving out parts of an input, from a counter: any part of a mask can be made again, on any thread.
//!
//! A value is kept with probability `1 − rate` and then divided by it. Which are kept depends on the key, the
//! stream and the value's place alone, so that backward, and a block that is computed again, see the same mask.

use rayon::prelude::*;

/// Values that one task handles.
const TASK: usize = 1 << 14;
/// Places are drawn with so many bits.
const BITS: u32 = 24;

/// What is left out in one pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    rate: f32,
    key: u64,
}

impl Dropout {
    /// Leaves out `rate` of all values, from 0 to below 1; none where it is 0. Each seed and step has a mask of its
    /// own.
    pub(crate) fn new(rate: f32, seed: u64, step: u64) -> Option<Self> {
        let key = mixed(mixed(seed ^ 0x6472_6f70_6f75_7421).wrapping_add(step));
        (rate > 0.0).then_some(Self { rate, key })
    }

    /// `out ← x` as far as it is kept, else 0.
    pub(crate) fn mask(self, out: &mut [f32], x: &[f32], stream: u64) {
        self.each(out, x, stream, |out, x| *out = x);
    }

    /// `out += x` as far as it is kept.
    pub(crate) fn add(self, out: &mut [f32], x: &[f32], stream: u64) {
        self.each(out, x, stream, |out, x| *out += x);
    }

    fn each(self, out: &mut [f32], x: &[f32], stream: u64, into: impl Fn(&mut f32, f32) + Sync) {
        let key = mixed(self.key.wrapping_add(stream));
        let least = (self.rate * (1u32 << BITS) as f32) as u64;
        let scale = 1.0 / (1.0 - self.rate);
        let tasks = out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).enumerate();
        tasks.for_each(|(task, (out, x))| {
            let first = (task * TASK) as u64;
            for (place, (out, x)) in (first..).zip(out.iter_mut().zip(x)) {
                let drawn = mixed(key.wrapping_add(place.wrapping_mul(GOLDEN))) >> (64 - BITS);
                into(out, if drawn >= least { x * scale } else { 0.0 });
            }
        });
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit.
const fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(GOLDEN);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(rate: f32, seed: u64, step: u64, stream: u64) -> Vec<f32> {
        let ones = vec![1.0; 3 * TASK + 5];
        let mut out = vec![9.0; ones.len()];
        let dropout = Dropout::new(rate, seed, step).unwrap();
        dropout.mask(&mut out, &ones, stream);
        out
    }

    #[test]
    fn the_share_that_is_left_out_is_the_rate_and_the_mean_stays() {
        for rate in [0.05, 0.5] {
            let out = masked(rate, 1, 2, 3);
            let count = out.len() as f32;
            let gone = out.iter().filter(|value| **value == 0.0).count() as f32 / count;
            assert!((gone - rate).abs() < 0.01, "{gone} of {rate}");
            let mean = out.iter().sum::<f32>() / count;
            assert!((mean - 1.0).abs() < 0.02, "{mean}");
        }
        assert_eq!(Dropout::new(0.0, 1, 2), None);
    }

    #[test]
    fn a_mask_is_the_same_again_and_another_for_every_seed_step_and_stream() {
        let first = masked(0.3, 1, 2, 3);
        assert_eq!(masked(0.3, 1, 2, 3), first);
        for other in [
            masked(0.3, 2, 2, 3),
            masked(0.3, 1, 3, 3),
            masked(0.3, 1, 2, 4),
        ] {
            // Independent masks agree at 0.7² + 0.3² of the places.
            let same = other.iter().zip(&first).filter(|(a, b)| a == b).count() as f32;
            assert!((same / first.len() as f32 - 0.58).abs() < 0.02);
        }
    }

    #[test]
    fn adding_is_masking_on_top_of_what_is_there() {
        let x: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let dropout = Dropout::new(0.4, 7, 0).unwrap();
        let (mut masked, mut added) = (vec![0.0; 100], vec![1.0; 100]);
        dropout.mask(&mut masked, &x, 5);
        dropout.add(&mut added, &x, 5);
        assert!(masked.iter().zip(&added).all(|(m, a)| m + 1.0 == *a));
    }
}
