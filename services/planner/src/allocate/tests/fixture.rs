use super::*;

fn weights() -> Vec<WeightShape> {
    let shape = |layer, projection| WeightShape {
        name: WeightName::new(layer, projection),
        out: 576,
        inp: 576,
    };
    (0..LAYERS)
        .flat_map(|layer| Projection::ALL.map(|projection| shape(layer, projection)))
        .collect()
}

/// A site of the given speed (1: 200 tokens a second) and memory.
pub(super) fn site(name: &str, speed: f64, memory: u64) -> (WorkerName, Profile) {
    let cost = CostModel {
        seconds_fixed: 0.05 / speed,
        seconds_per_token: 5e-3 / speed,
        seconds_per_token_parameter: 2e-9 / speed,
        seconds_per_square: 0.0,
        memory_fixed: 0.5 * GIB as f64,
        memory_per_token: 500_000.0,
        memory_per_block_token: 0.0,
        memory_per_parameter: 24.0,
        scoring_memory_fixed: 0.6 * GIB as f64,
        scoring_memory_per_token: 50_000.0,
    };
    let sample = |batch: u16, parameters| {
        let tokens = u32::from(batch) * 100;
        Sample {
            batch,
            tokens,
            squares: f64::from(batch) * 1e4,
            longest_tokens: 0,
            parameters,
            step_seconds: cost.step_seconds(f64::from(tokens), 0.0, parameters),
            peak_memory_bytes: cost.peak_memory_bytes(f64::from(tokens), parameters) as u64,
        }
    };
    let measurement = Measurement {
        model: None,
        weights: weights(),
        encoder: Encoder::Bert,
        layers: LAYERS,
        memory_limit_bytes: memory,
        threads: 2,
        modes: vec![ModeMeasurement {
            mode: mode(),
            base_memory_bytes: GIB / 2,
            samples: vec![sample(1, 100_000), sample(16, 100_000), sample(2, 800_000)],
            scoring: vec![sample(1, 800_000)],
            loss: None,
        }],
        noise: None,
        importance: None,
        forward_tokens_per_second: 600.0 * speed,
        upload_bytes_per_second: 5e6,
        download_bytes_per_second: 2e7,
        round_trip_ms: 2.0,
        records: 500,
        held_out: 50,
        skipped: 0,
        mean_tokens: 100.0,
        mean_squares: 1e4,
    };
    let worker: WorkerName = name.parse().expect("legal");
    let profile = Profile {
        worker: worker.clone(),
        measurement,
        modes: vec![ModeProfile {
            mode: mode(),
            cost,
            fit_error: 0.02,
            memory_error: 0.05,
            observations: 0,
        }],
        refined_to: 0,
        settled_to: 0,
        weighed_to: 0,
    };
    (worker, profile)
}

pub(super) fn mode() -> Mode {
    Mode {
        base: Base::Source,
        kernel: "portable".to_owned(),
        checkpoint: false,
        optimizer: Optimizer::Adamw,
    }
}
