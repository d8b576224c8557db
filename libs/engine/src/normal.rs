//! Numbers of a counter-based generator, standard normal ones or signs: the direction of a zeroth-order
//! step, and the random matrices of a sketch. As version 1 of the generator ([`GENERATOR`]) makes them.
//!
//! Promises: value `i` of a tensor depends on its stream, the tensor and `i` alone, so any part can be
//! made again at any time, on any machine and any number of threads, with the same bits. No library
//! function whose last bit differs between systems is used.
//!
//! ChaCha12 gives the bits, the Box–Muller transform makes them normal. The uniform
//! number has 24 bits, so no value lies beyond ±5.77. A sign is one bit.
#![expect(
    clippy::indexing_slicing,
    reason = "values of a task and of a unit are arrays of fixed size"
)]

mod bits;
mod gaussian;
#[cfg(test)]
mod speed;

#[cfg(doc)]
use domain::zeroth::GENERATOR;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::ops::wide;
use gaussian::{BATCH, Desk, GROUP};

/// Values of a task.
const CHUNK: usize = 8 * BATCH;

/// A tensor that moves along directions, one after the other: `values ← from + factor · scale · z`.
#[derive(Debug)]
pub(crate) struct Moving<'a> {
    /// Its number in every direction.
    pub(crate) tensor: u32,
    /// Where it comes to.
    pub(crate) values: &'a mut [f32],
    /// Where it stands, as long as `values`; none: there.
    pub(crate) from: Option<&'a [f32]>,
    /// What the numbers of the direction are multiplied by, as long as `values`; none: by nothing.
    pub(crate) scale: Option<&'a [f32]>,
}

/// One stream of numbers, for every tensor of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normals {
    key: [u8; 32],
    /// Added to a tensor's number, which has 32 bits.
    first: u64,
    signs: bool,
}

impl Normals {
    /// The direction of perturbation `perturbation` in step `step` of the run that `seed` names.
    pub(crate) fn direction(seed: u64, step: u64, perturbation: u32) -> Self {
        Self {
            key: key("fedpipe zeroth-order direction", seed, step),
            first: u64::from(perturbation) << 32,
            signs: false,
        }
    }

    /// As [`Normals::direction`], of ones and minus ones.
    pub(crate) fn signs(seed: u64, step: u64, perturbation: u32) -> Self {
        Self {
            key: key("fedpipe zeroth-order signs", seed, step),
            first: u64::from(perturbation) << 32,
            signs: true,
        }
    }

    /// The random matrices of the sketches that `seed` names: `side` tells those of one weight apart.
    pub(crate) fn sketch(seed: u64, side: u64) -> Self {
        Self {
            key: key("fedpipe gradient sketch", seed, side),
            first: 0,
            signs: false,
        }
    }

    /// The start of the triplets that `seed` names.
    pub(crate) fn triplets(seed: u64) -> Self {
        Self {
            key: key("fedpipe triplets", seed, 0),
            first: 0,
            signs: false,
        }
    }

    /// `values += factor · z`, with the numbers `z` of `tensor`.
    pub(crate) fn add(&self, tensor: u32, values: &mut [f32], factor: f32) {
        Self::add_all(&[(*self, factor)], tensor, values);
    }

    /// As [`Normals::add`] for one stream and factor after the other; a value is in memory once.
    pub(crate) fn add_all(streams: &[(Self, f32)], tensor: u32, values: &mut [f32]) {
        let tasks = values.par_chunks_mut(CHUNK).enumerate();
        tasks.for_each(|(chunk, values)| {
            for (stream, factor) in streams {
                stream.add_from(tensor, chunk * CHUNK, values, *factor);
            }
        });
    }

    /// As [`Normals::add`] for the part of a tensor that begins with its value `first`.
    pub(crate) fn add_part(&self, tensor: u32, first: usize, values: &mut [f32], factor: f32) {
        let unit = self.unit();
        let before = first % unit;
        let (head, rest) = values.split_at_mut(((unit - before) % unit).min(values.len()));
        if before > 0 {
            // The generator gives whole units; what stands before the part is made and dropped.
            let mut whole = [0.0; GROUP * GROUP];
            let whole = &mut whole[..before + head.len()];
            whole[before..].copy_from_slice(head);
            self.add_from(tensor, first - before, whole, factor);
            head.copy_from_slice(&whole[before..]);
        }
        let begin = first + head.len();
        let tasks = rest.par_chunks_mut(CHUNK).enumerate();
        tasks.for_each(|(chunk, values)| {
            self.add_from(tensor, begin + chunk * CHUNK, values, factor);
        });
    }

    /// As [`Normals::add_all`], each number of a direction multiplied by that of `scale` in its place first.
    pub(crate) fn add_scaled(
        streams: &[(Self, f32)],
        tensor: u32,
        values: &mut [f32],
        scale: &[f32],
    ) {
        let both = values.par_chunks_mut(CHUNK).zip(scale.par_chunks(CHUNK));
        both.enumerate().for_each(|(chunk, (values, scale))| {
            for (stream, factor) in streams {
                stream.add_scaled_from((tensor, chunk * CHUNK), values, scale, *factor);
            }
        });
    }

    /// Moves all of these along one stream by its factor after the other. They are one piece of work for all threads of the
    /// pool, for most are too small to be worth a thread by themselves.
    pub(crate) fn move_all<'a>(
        streams: &[(Self, f32)],
        tensors: impl IntoIterator<Item = Moving<'a>>,
    ) {
        let mut tasks = Vec::new();
        for one in tensors {
            let mut from = one.from.map(|from| from.chunks(CHUNK));
            let mut scale = one.scale.map(|scale| scale.chunks(CHUNK));
            for (chunk, values) in one.values.chunks_mut(CHUNK).enumerate() {
                let from = from.as_mut().and_then(Iterator::next);
                let scale = scale.as_mut().and_then(Iterator::next);
                tasks.push(((one.tensor, chunk * CHUNK), values, from, scale));
            }
        }
        let tasks = tasks.into_par_iter();
        tasks.for_each(|((tensor, first), values, from, scale)| {
            if let Some(from) = from {
                values.copy_from_slice(from);
            }
            for (stream, factor) in streams {
                match scale {
                    None => stream.add_from(tensor, first, values, *factor),
                    Some(scale) => {
                        stream.add_scaled_from((tensor, first), values, scale, *factor);
                    }
                }
            }
        });
    }

    /// Values that one call of the generator makes.
    const fn unit(&self) -> usize {
        if self.signs { GROUP * GROUP } else { GROUP }
    }

    /// From the value `first` on, which begins a unit.
    fn add_from(&self, tensor: u32, first: usize, values: &mut [f32], factor: f32) {
        let stream = self.first + u64::from(tensor);
        if self.signs {
            return self.add_signs(stream, first, values, factor);
        }
        let mut key = [0; 8];
        let (words, _) = self.key.as_chunks::<4>();
        for (word, bytes) in key.iter_mut().zip(words) {
            *word = u32::from_le_bytes(*bytes);
        }
        let mut desk = Desk::new();
        wide!(|| {
            for (number, values) in values.chunks_mut(BATCH).enumerate() {
                let z = desk.batch(&key, stream, first + number * BATCH);
                for (value, z) in values.iter_mut().zip(z) {
                    *value += factor * z;
                }
            }
        });
    }

    /// As [`Normals::add_from`] of a tensor from a value on, each number multiplied by that of `scale` in its place first.
    fn add_scaled_from(
        &self,
        (tensor, first): (u32, usize),
        values: &mut [f32],
        scale: &[f32],
        factor: f32,
    ) {
        let mut numbers = [0.0; CHUNK];
        let z = &mut numbers[..values.len()];
        self.add_from(tensor, first, z, 1.0);
        for (value, (scale, z)) in values.iter_mut().zip(scale.iter().zip(z.iter())) {
            *value += factor * (scale * z);
        }
    }

    fn add_signs(&self, stream: u64, first: usize, values: &mut [f32], factor: f32) {
        let mut generator = ChaCha12Rng::from_seed(self.key);
        generator.set_stream(stream);
        // A group of words has a bit for each of as many groups of values.
        generator.set_word_pos((first / GROUP) as u128);
        let mut bytes = [0; 4 * GROUP];
        for values in values.chunks_mut(GROUP * GROUP) {
            generator.fill_bytes(&mut bytes);
            let (words, _) = bytes.as_chunks::<4>();
            wide!(|| {
                for (word, values) in words.iter().zip(values.chunks_mut(GROUP)) {
                    let word = u32::from_le_bytes(*word);
                    for (bit, value) in values.iter_mut().enumerate() {
                        let negative = (word >> bit) & 1 == 0;
                        *value += if negative { -factor } else { factor };
                    }
                }
            });
        }
    }
}

fn key(purpose: &str, seed: u64, index: u64) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(purpose);
    digest.update(seed.to_le_bytes());
    digest.update(index.to_le_bytes());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A direction, and what it begins with. By `tests/reference/make_normals.py`, which knows the
    /// definition alone.
    struct Golden {
        seed: u64,
        step: u64,
        perturbation: u32,
        tensor: u32,
        /// The bits of the first numbers.
        first: [u32; 4],
        /// SHA-256 of the first 1 000 003, little-endian.
        digest: &'static str,
    }

    const GOLDEN: [Golden; 4] = [
        Golden {
            seed: 0,
            step: 0,
            perturbation: 0,
            tensor: 0,
            first: [0xbfd1_803c, 0x3e7c_90fa, 0x3ed6_8d93, 0xbeac_6237],
            digest: "8777c088891db3be56074bc8154f63817123edcc46c5f34fa13c0b13dc47e5bb",
        },
        Golden {
            seed: 7,
            step: 0,
            perturbation: 0,
            tensor: 3,
            first: [0x3eaf_962d, 0x3ed6_051a, 0x3f04_48e1, 0x3e6f_249b],
            digest: "9b4c33720ccc09f21a6671c3298ef1fe9b89c5ab7cc3acae1bfe3a0e342d3b4a",
        },
        Golden {
            seed: 7,
            step: 29,
            perturbation: 1,
            tensor: 958,
            first: [0xbfa8_40ca, 0xbd4f_2930, 0xbee6_4034, 0xbe0b_2dde],
            digest: "b4937ac6756ae83b7ecbaaed731c2bb8ff49af05225c5da9267d9a2c69e2273c",
        },
        Golden {
            seed: u64::MAX,
            step: u64::MAX,
            perturbation: u32::MAX,
            tensor: u32::MAX,
            first: [0xbf1b_cefb, 0x3f09_21ea, 0x3eac_fb76, 0x3e9e_33a7],
            digest: "8a411e5036dd82e98e5e38670f027815567dff33fa8ad28dbb4263b6be543d22",
        },
    ];

    fn numbers(seed: u64, step: u64, tensor: u32, len: usize) -> Vec<f32> {
        perturbed(seed, step, 0, tensor, len)
    }

    fn perturbed(seed: u64, step: u64, number: u32, tensor: u32, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        Normals::direction(seed, step, number).add(tensor, &mut values, 1.0);
        values
    }

    /// The stream is part of the protocol: a server replays what a site walked, on another machine.
    #[test]
    fn the_first_numbers_and_a_long_run_are_the_known_ones() {
        for known in GOLDEN {
            let Golden {
                seed,
                step,
                perturbation,
                tensor,
                ..
            } = known;
            let z = perturbed(seed, step, perturbation, tensor, 1_000_003);
            let first: Vec<u32> = z.iter().take(4).map(|z| z.to_bits()).collect();
            let bytes: Vec<u8> = z.iter().flat_map(|z| z.to_le_bytes()).collect();
            let digest = hex::encode(Sha256::digest(bytes));
            assert_eq!(first, known.first, "{seed} {step} {perturbation} {tensor}");
            assert_eq!(
                digest, known.digest,
                "{seed} {step} {perturbation} {tensor}"
            );
        }
    }

    /// As [`GOLDEN`], of signs: whether each of the first 32 is positive, from the lowest bit on.
    const GOLDEN_SIGNS: [(u64, u64, u32, u32, u32, &str); 2] = [
        (
            7,
            0,
            0,
            3,
            0x9ea7_0901,
            "4349dedb1f3a95038d47c6bbee99bc84d5f664d9054990ee9244126e08a18994",
        ),
        (
            7,
            29,
            1,
            958,
            0x6d87_313a,
            "7295c515670a07f32cb3c36d67e9b03304b4664194a9cba5be373e16464fe3f0",
        ),
    ];

    #[test]
    fn the_signs_are_the_known_ones() {
        for (seed, step, perturbation, tensor, first, digest) in GOLDEN_SIGNS {
            let mut z = vec![0.0; 1_000_003];
            Normals::signs(seed, step, perturbation).add(tensor, &mut z, 1.0);
            assert!(z.iter().all(|z| z.abs() == 1.0));
            let bits = z.iter().take(32).rev();
            let bits = bits.fold(0, |bits, z| (bits << 1) | u32::from(*z > 0.0));
            let bytes: Vec<u8> = z.iter().flat_map(|z| z.to_le_bytes()).collect();
            assert_eq!(bits, first, "{bits:#x}");
            assert_eq!(hex::encode(Sha256::digest(bytes)), digest);
            let mean = z.iter().sum::<f32>() / z.len() as f32;
            assert!(mean.abs() < 0.004, "{mean}");
        }
    }

    #[test]
    fn many_streams_at_once_are_one_after_the_other() {
        let streams = [
            (Normals::direction(1, 2, 0), 0.5),
            (Normals::signs(1, 3, 0), -0.25),
            (Normals::direction(1, 4, 1), 1e-3),
        ];
        let start: Vec<f32> = (0..2 * CHUNK + 77).map(|i| (i as f32).sin()).collect();
        let (mut all, mut single) = (start.clone(), start);
        Normals::add_all(&streams, 9, &mut all);
        for (stream, factor) in streams {
            stream.add(9, &mut single, factor);
        }
        assert_eq!(all, single);
    }

    #[test]
    fn scaled_streams_are_the_numbers_times_the_scale() {
        let streams = [
            (Normals::direction(1, 2, 0), 0.5),
            (Normals::signs(1, 3, 0), -0.25),
        ];
        let len = 2 * CHUNK + 77;
        let scale: Vec<f32> = (0..len).map(|i| (i % 3) as f32 * 0.7).collect();
        let mut got: Vec<f32> = (0..len).map(|i| (i as f32).sin()).collect();
        let mut want = got.clone();
        Normals::add_scaled(&streams, 9, &mut got, &scale);
        for (stream, factor) in streams {
            let mut z = vec![0.0; len];
            stream.add(9, &mut z, 1.0);
            for ((want, z), scale) in want.iter_mut().zip(&z).zip(&scale) {
                *want += factor * (scale * z);
            }
        }
        assert_eq!(got, want);
        let still = (0..len).step_by(3).map(|i| (i as f32).sin());
        assert!(
            got.iter()
                .step_by(3)
                .zip(still)
                .all(|(got, still)| *got == still)
        );
    }

    #[test]
    fn many_tensors_moved_at_once_are_each_moved_by_itself() {
        let tensors = [(3, 2 * CHUNK + 77), (4, 5), (9, BATCH), (12, CHUNK)];
        let start = |len: usize| (0..len).map(|i| (i as f32).sin()).collect::<Vec<f32>>();
        let streams = [
            (Normals::direction(1, 2, 0), 0.3),
            (Normals::signs(1, 2, 0), -0.1),
        ];
        for streams in [&streams[..1], &streams[1..], &streams] {
            for scaled in [false, true] {
                let scales = tensors.map(|(_, len)| vec![0.7f32; len]);
                let starts = tensors.map(|(_, len)| start(len));
                let (mut want, mut there) = (starts.clone(), starts.clone());
                for (((tensor, _), want), scale) in tensors.iter().zip(&mut want).zip(&scales) {
                    if scaled {
                        Normals::add_scaled(streams, *tensor, want, scale);
                    } else {
                        Normals::add_all(streams, *tensor, want);
                    }
                }
                let mut beside = tensors.map(|(_, len)| vec![f32::NAN; len]);
                let mut moving = Vec::new();
                let values = there.iter_mut().map(|values| (values, None));
                let moved = beside.iter_mut().zip(&starts);
                let all = values.chain(moved.map(|(values, from)| (values, Some(from.as_slice()))));
                let named = tensors.iter().zip(&scales).cycle();
                for ((values, from), ((tensor, _), scale)) in all.zip(named) {
                    moving.push(Moving {
                        tensor: *tensor,
                        values,
                        from,
                        scale: scaled.then_some(scale.as_slice()),
                    });
                }
                Normals::move_all(streams, moving);
                assert_eq!(there, want, "in place");
                assert_eq!(beside, want, "beside");
            }
        }
    }

    #[test]
    fn the_numbers_are_standard_normal() {
        let z = numbers(1, 2, 3, 1_000_000);
        let moment = |k: i32| z.iter().map(|z| f64::from(*z).powi(k)).sum::<f64>() / z.len() as f64;
        // Standard errors of the first four moments: 0.001, 0.0014, 0.0039, 0.0098.
        assert!(moment(1).abs() < 0.004, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.006, "{}", moment(2));
        assert!(moment(3).abs() < 0.016, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.04, "{}", moment(4));
        let neighbours = z.windows(2).map(|w| f64::from(w[0] * w[1])).sum::<f64>();
        let halves = z.chunks_exact(32).map(|g| f64::from(g[0] * g[16]));
        assert!((neighbours / z.len() as f64).abs() < 0.004);
        assert!((halves.sum::<f64>() * 32.0 / z.len() as f64).abs() < 0.025);
    }

    #[test]
    fn seed_step_perturbation_and_tensor_alone_choose_the_numbers() {
        let long = numbers(1, 2, 3, 3 * CHUNK + 5);
        assert_eq!(
            numbers(1, 2, 3, CHUNK + 7),
            long[..CHUNK + 7],
            "the length does not matter"
        );
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let alone = one.unwrap().install(|| numbers(1, 2, 3, long.len()));
        assert_eq!(alone, long, "nor does the number of threads");
        for other in [
            numbers(2, 2, 3, 8),
            numbers(1, 3, 3, 8),
            numbers(1, 2, 4, 8),
            perturbed(1, 2, 1, 3, 8),
        ] {
            assert_ne!(other, long[..8]);
        }
    }
}
