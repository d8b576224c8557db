//! Fleets that nobody measured: profiles that follow from a seed, for measuring the planner itself
//! (`fedpipe bench plan`) and testing it at sizes that no machine here can play.
//!
//! Their shape is real (SmolLM2-135M: 30 blocks, width 576, 210 weights); speeds, memories, bandwidths,
//! records and spectra are drawn from ranges that sites have. Nothing in them is a measurement.

use std::collections::BTreeMap;

use domain::adapter::{Encoder, Projection, WeightName, WeightShape};
use domain::id::WorkerName;
use domain::job::spec::{Base, Optimizer};
use domain::profile::{
    CostModel, GradientNoise, Importance, ImportanceMethod, Measurement, Mode, ModeMeasurement,
    ModeProfile, Profile, Sample, WeightImportance,
};

const LAYERS: u16 = 30;
const WIDTH: usize = 576;
const KEYS: usize = 192;
const HIDDEN: usize = 1536;
const MIB: f64 = 1024.0 * 1024.0;

/// Numbers that follow from a seed: SplitMix64 (Steele et al., OOPSLA 2014), as every platform has it.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From `low` to below `high`.
    fn within(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        low + unit * (high - low)
    }

    /// Likewise, evenly in ratio.
    fn scale(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.within(0.0, 1.0))
    }
}

/// So many workers with importance up to `rank_max`, measured in eight modes each.
#[must_use]
pub fn fleet(workers: usize, rank_max: u16, seed: u64) -> BTreeMap<WorkerName, Profile> {
    let spectra = spectra(&mut Stream(seed), rank_max);
    let profiles = (0..workers).filter_map(|index| {
        let name: WorkerName = format!("w{index:05}").parse().ok()?;
        let mut stream = Stream(seed ^ (index as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
        // Independent of how many numbers the seed's own stream gave.
        stream.next();
        Some((name.clone(), profile(name, &mut stream, &spectra)))
    });
    profiles.collect()
}

/// Energies of every weight that a mean site would measure: some weights matter a hundred times more.
fn spectra(stream: &mut Stream, rank_max: u16) -> Vec<WeightImportance> {
    let spectrum = |shape: &WeightShape| {
        let (energy, decay) = (stream.scale(1e-6, 1e-4), stream.within(0.5, 1.8));
        let energies = (1..=rank_max).map(|j| (energy * f64::from(j).powf(-decay)) as f32);
        WeightImportance {
            name: shape.name,
            energies: energies.collect(),
        }
    };
    weights().iter().map(spectrum).collect()
}

/// The linear weights of SmolLM2-135M.
fn weights() -> Vec<WeightShape> {
    let shape = |layer, projection| {
        let (out, inp) = match projection {
            Projection::Q | Projection::O => (WIDTH, WIDTH),
            Projection::K | Projection::V => (KEYS, WIDTH),
            Projection::Gate | Projection::Up => (HIDDEN, WIDTH),
            _ => (WIDTH, HIDDEN),
        };
        WeightShape {
            name: WeightName::new(layer, projection),
            out,
            inp,
        }
    };
    let block = |layer| Projection::ALL.map(|projection| shape(layer, projection));
    (0..LAYERS).flat_map(block).collect()
}

fn profile(name: WorkerName, stream: &mut Stream, spectra: &[WeightImportance]) -> Profile {
    let speed = stream.scale(20.0, 2000.0);
    let loss = stream.within(2.0, 4.0);
    let (mut measured, mut modes) = (Vec::new(), Vec::new());
    for (base, bytes, slower, rounding) in [
        (Base::F32, 540.0, 1.0, 0.0),
        (Base::Bf16, 270.0, 0.7, 0.002),
        (Base::Int8, 150.0, 0.8, 0.01),
        (Base::Nf4, 90.0, 1.1, 0.06),
    ] {
        for checkpoint in [false, true] {
            let mode = Mode {
                base,
                kernel: "synthetic-f32-0".to_owned(),
                checkpoint,
                optimizer: Optimizer::Adamw,
            };
            measured.push(ModeMeasurement {
                mode: mode.clone(),
                base_memory_bytes: (bytes * MIB) as u64,
                samples: vec![Sample {
                    batch: 8,
                    tokens: 1024,
                    squares: 0.0,
                    longest_tokens: 0,
                    parameters: 0,
                    step_seconds: 0.0,
                    peak_memory_bytes: 0,
                }],
                scoring: Vec::new(),
                loss: Some(loss + rounding * stream.within(0.5, 1.5)),
            });
            modes.push(ModeProfile {
                mode,
                cost: cost(stream, bytes * MIB, slower / speed, checkpoint),
                fit_error: stream.within(0.01, 0.1),
                memory_error: stream.within(0.01, 0.05),
                observations: 0,
            });
        }
    }
    let records = stream.scale(50.0, 5000.0) as u64;
    let measurement = Measurement {
        model: None,
        weights: weights(),
        encoder: Encoder::Bert,
        layers: LAYERS,
        memory_limit_bytes: (stream.scale(600.0, 8192.0) * MIB) as u64,
        threads: 2,
        modes: measured,
        noise: Some(GradientNoise {
            signal: stream.within(0.5, 1.5),
            variance: stream.within(4.0, 12.0),
            records: 20,
        }),
        importance: Some(importance(stream, spectra)),
        forward_tokens_per_second: 3.0 * speed,
        upload_bytes_per_second: stream.scale(2e5, 5e7),
        download_bytes_per_second: stream.scale(1e6, 1e8),
        round_trip_ms: stream.scale(1.0, 100.0),
        records,
        held_out: records / 10,
        skipped: 0,
        mean_tokens: stream.within(40.0, 120.0),
        mean_squares: 0.0,
    };
    Profile {
        worker: name,
        measurement,
        modes,
        refined_to: 0,
        settled_to: 0,
        weighed_to: 0,
    }
}

/// The mean site's spectra as one site would see them.
fn importance(stream: &mut Stream, spectra: &[WeightImportance]) -> Importance {
    let own = spectra.iter().map(|weight| {
        let factor = stream.within(0.5, 1.5) as f32;
        WeightImportance {
            name: weight.name,
            energies: weight
                .energies
                .iter()
                .map(|energy| factor * energy)
                .collect(),
        }
    });
    Importance {
        method: ImportanceMethod::Sketch,
        weights: own.collect(),
        agreement: stream.within(0.7, 0.95),
        records: 32,
    }
}

fn cost(stream: &mut Stream, base: f64, seconds_per_token: f64, checkpoint: bool) -> CostModel {
    let (slower, smaller) = if checkpoint { (1.3, 0.2) } else { (1.0, 1.0) };
    let token = stream.within(0.9, 1.1) * slower * seconds_per_token;
    CostModel {
        seconds_fixed: 10.0 * token,
        seconds_per_token: token,
        seconds_per_token_parameter: token * 4e-8,
        seconds_per_square: token * 2e-4,
        memory_fixed: base + 60.0 * MIB,
        memory_per_token: smaller * 0.7 * MIB,
        memory_per_block_token: 0.0,
        memory_per_parameter: 28.0,
        scoring_memory_fixed: base + 80.0 * MIB,
        scoring_memory_per_token: 0.06 * MIB,
    }
}
