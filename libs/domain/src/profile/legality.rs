//! Whether a measurement can be one: its figures are numbers that can be stored and computed with, and its lists no longer
//! than those of any model and machine. Whether a job can be planned with it is the planner's to say.

use super::{Importance, Measurement, ModeMeasurement, Sample};
use crate::adapter::{LAYER_LIMIT, Projection};
use crate::figure::{is_from_zero, is_number};

/// Modes at most: more than there are bases, kernels of one machine and ways of training to combine.
const MODES: usize = 128;

/// Steps, or passes of scoring, of a mode at most: more than a probe makes in all.
const SAMPLES: usize = 256;

/// The longest name of a kernel, in bytes: it is stored with every plan.
const KERNEL_BYTES: usize = 100;

/// The widest weight: wider than any, and yet no number of parameters is too large to be counted.
const WIDTH: usize = 1 << 24;

impl Measurement {
    /// The name of the first figure that no site can have measured, if any. 0 is legal: so is told what was not measured.
    #[must_use]
    pub fn illegal(&self) -> Option<&'static str> {
        let figures = [
            ("forward_tokens_per_second", self.forward_tokens_per_second),
            ("upload_bytes_per_second", self.upload_bytes_per_second),
            ("download_bytes_per_second", self.download_bytes_per_second),
            ("round_trip_ms", self.round_trip_ms),
            ("mean_tokens", self.mean_tokens),
            ("mean_squares", self.mean_squares),
        ];
        let wrong = figures.into_iter().find(|(_, value)| !is_from_zero(*value));
        let noise = self.noise.as_ref();
        let sound = [
            ("layers", usize::from(self.layers) <= LAYER_LIMIT),
            ("weights", self.has_sound_weights()),
            ("modes", self.modes.len() <= MODES),
            (
                "noise",
                noise.is_none_or(|noise| is_number(noise.signal) && is_number(noise.variance)),
            ),
            (
                "importance",
                self.importance.as_ref().is_none_or(Importance::is_sound),
            ),
        ];
        let unsound = sound.into_iter().find(|(_, is_sound)| !is_sound);
        let mode = || self.modes.iter().find_map(ModeMeasurement::illegal);
        let wrong = wrong.map(|(name, _)| name);
        wrong.or(unsound.map(|(name, _)| name)).or_else(mode)
    }

    fn has_sound_weights(&self) -> bool {
        let sound = |width: usize| (1..=WIDTH).contains(&width);
        self.weights.len() <= usize::from(self.layers) * Projection::of_every_family().count()
            && self
                .weights
                .iter()
                .all(|weight| sound(weight.out) && sound(weight.inp))
    }
}

impl ModeMeasurement {
    fn illegal(&self) -> Option<&'static str> {
        let few = |samples: &[Sample]| samples.len() <= SAMPLES;
        let sound = [
            ("kernel", self.mode.kernel.len() <= KERNEL_BYTES),
            ("samples", few(&self.samples) && few(&self.scoring)),
            // By rounding, the mean of losses near 0 may lie below it.
            ("loss", self.loss.is_none_or(is_number)),
        ];
        let unsound = sound.into_iter().find(|(_, is_sound)| !is_sound);
        let mut samples = self.samples.iter().chain(&self.scoring);
        let sample = || samples.find_map(Sample::illegal);
        unsound.map(|(name, _)| name).or_else(sample)
    }
}

impl Sample {
    fn illegal(&self) -> Option<&'static str> {
        let figures = [
            ("squares", self.squares),
            ("step_seconds", self.step_seconds),
        ];
        let wrong = figures.into_iter().find(|(_, value)| !is_from_zero(*value));
        wrong.map(|(name, _)| name)
    }
}

impl Importance {
    fn is_sound(&self) -> bool {
        let mut energies = self.weights.iter().flat_map(|weight| &weight.energies);
        is_number(self.agreement) && energies.all(|energy| is_from_zero(f64::from(*energy)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GradientNoise, ImportanceMethod, Mode, WeightImportance};
    use super::*;
    use crate::adapter::{Encoder, WeightName, WeightShape};
    use crate::job::spec::{Base, Optimizer};

    fn measured() -> Measurement {
        let weight = WeightShape {
            name: WeightName::new(1, Projection::Q),
            out: 64,
            inp: 32,
        };
        let sample = Sample {
            batch: 1,
            tokens: 100,
            squares: 1e4,
            longest_tokens: 0,
            parameters: 4000,
            step_seconds: 0.5,
            peak_memory_bytes: 1 << 30,
        };
        Measurement {
            model: None,
            weights: vec![weight],
            encoder: Encoder::Bert,
            layers: 2,
            memory_limit_bytes: 4 << 30,
            threads: 1,
            modes: vec![ModeMeasurement {
                mode: Mode {
                    base: Base::Source,
                    kernel: "portable-f32-1".to_owned(),
                    checkpoint: false,
                    optimizer: Optimizer::Adamw,
                },
                base_memory_bytes: 1 << 29,
                samples: vec![sample.clone(); 3],
                scoring: vec![sample],
                loss: Some(2.5),
            }],
            // Noise can make the estimate of the signal negative.
            noise: Some(GradientNoise {
                signal: -0.5,
                variance: 4.0,
                records: 21,
            }),
            importance: Some(Importance {
                method: ImportanceMethod::Sketch,
                weights: vec![WeightImportance {
                    name: WeightName::new(1, Projection::Q),
                    energies: vec![0.5, 0.0],
                }],
                agreement: -1.0,
                records: 32,
            }),
            forward_tokens_per_second: 2000.0,
            upload_bytes_per_second: 1e7,
            download_bytes_per_second: 2e7,
            round_trip_ms: 0.5,
            records: 100,
            held_out: 40,
            skipped: 1,
            mean_tokens: 64.5,
            mean_squares: 5000.5,
        }
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Measurement), expected: Option<&str>) {
        let mut changed = measured();
        change(&mut changed);
        assert_eq!(changed.illegal(), expected, "{changed:?}");
    }

    #[test]
    fn no_figure_is_taken_in_that_json_cannot_hold_or_that_leads_there() {
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let wrong = |change: fn(&mut Measurement) -> &mut f64, name| {
                check(|measured| *change(measured) = value, Some(name));
            };
            wrong(
                |m| &mut m.forward_tokens_per_second,
                "forward_tokens_per_second",
            );
            wrong(
                |m| &mut m.upload_bytes_per_second,
                "upload_bytes_per_second",
            );
            wrong(
                |m| &mut m.download_bytes_per_second,
                "download_bytes_per_second",
            );
            wrong(|m| &mut m.round_trip_ms, "round_trip_ms");
            wrong(|m| &mut m.mean_tokens, "mean_tokens");
            wrong(|m| &mut m.mean_squares, "mean_squares");
            wrong(|m| &mut m.modes[0].samples[0].squares, "squares");
            wrong(|m| &mut m.modes[0].samples[2].step_seconds, "step_seconds");
            wrong(|m| &mut m.modes[0].scoring[0].step_seconds, "step_seconds");
        }
        for value in [f64::NAN, f64::NEG_INFINITY, 1e300] {
            let signal = |signal| {
                let variance = 4.0;
                let records = 21;
                Some(GradientNoise {
                    signal,
                    variance,
                    records,
                })
            };
            check(|m| m.noise = signal(value), Some("noise"));
            check(|m| m.modes[0].loss = Some(value), Some("loss"));
            let agreement = |importance: &mut Importance| importance.agreement = value;
            check(
                |m| m.importance.iter_mut().for_each(agreement),
                Some("importance"),
            );
        }
        for energy in [f32::NAN, f32::INFINITY, -1.0] {
            let weights = |weight: &mut WeightImportance| weight.energies = vec![1.0, energy];
            let set = |importance: &mut Importance| importance.weights.iter_mut().for_each(weights);
            check(
                |m| m.importance.iter_mut().for_each(set),
                Some("importance"),
            );
        }
    }

    #[test]
    fn what_was_not_measured_is_legal() {
        check(|_| {}, None);
        check(
            |measured| {
                measured.round_trip_ms = 0.0;
                measured.upload_bytes_per_second = 0.0;
                measured.mean_squares = 0.0;
                measured.noise = None;
                measured.importance = None;
                measured.modes[0].loss = None;
                measured.modes[0].scoring.clear();
                measured.modes[0].samples[0].squares = 0.0;
            },
            None,
        );
        // As of reports of before there were any; no model can be fitted to it, which the profiler says.
        check(|measured| measured.modes.clear(), None);
    }

    #[test]
    fn no_list_or_word_is_longer_than_one_of_a_model_and_a_machine() {
        let kernel = |bytes: usize| {
            move |measured: &mut Measurement| measured.modes[0].mode.kernel = "k".repeat(bytes)
        };
        check(kernel(KERNEL_BYTES), None);
        check(kernel(1 << 20), Some("kernel"));
        check(
            |m| m.modes = vec![m.modes[0].clone(); MODES + 1],
            Some("modes"),
        );
        let lists: [fn(&mut ModeMeasurement) -> &mut Vec<Sample>; 2] =
            [|mode| &mut mode.samples, |mode| &mut mode.scoring];
        for list in lists {
            let more = |m: &mut Measurement| {
                let samples = list(&mut m.modes[0]);
                *samples = vec![samples[0].clone(); SAMPLES + 1];
            };
            check(more, Some("samples"));
        }
        check(|m| m.layers = 2000, Some("layers"));
        check(|m| m.weights = vec![m.weights[0]; 23], Some("weights"));
        check(|m| m.weights[0].out = usize::MAX, Some("weights"));
        check(|m| m.weights[0].inp = 0, Some("weights"));
    }
}
