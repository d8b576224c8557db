//! The score of triplets against AdaLoRA's own formulas.

use domain::adapter::{Projection, WeightName, WeightShape};

use super::{batches, settings, tiny};
use crate::adapter::{Adapter, Factors};
use crate::control::Control;
use crate::data::Batch;
use crate::importance::sensitivity::start;
use crate::importance::{Error, STEPS, Settings, Training, sensitivity};
use crate::model::Model;
use crate::train::{Options, Trainer};

/// Forty batches, as many as a score needs.
fn forty() -> Vec<Batch> {
    batches().into_iter().cycle().take(STEPS).collect()
}

const TRAINING: Training = Training {
    scale: 2.0,
    rate: 1e-2,
};

/// By the formulas of `loralib/adalora.py`, weight by weight, on adapters whole: `B·diag(E)` as the B of a
/// trainer that tells its gradient.
#[test]
fn sensitivity_is_adaloras_score() {
    let model = tiny(2);
    let settings = Settings {
        targets: &[Projection::Q, Projection::V],
        ..settings(3)
    };
    let got = sensitivity(&model, &settings, TRAINING, &forty(), &Control::new()).unwrap();
    let want = adalora(&model, &settings);
    assert_eq!(got.records, 4);
    assert_eq!(got.weights.len(), want.len());
    for (got, (name, mut want)) in got.weights.iter().zip(want) {
        want.sort_by(|one, other| other.total_cmp(one));
        assert_eq!(got.name, name);
        for (got, want) in got.energies.iter().zip(&want) {
            let error = (f64::from(*got) / want - 1.0).abs();
            assert!(error < 1e-2, "{name}: {got}, want {want}");
        }
    }
}

/// A parameter with its moments, its Ī and its U.
#[derive(Clone, Copy)]
struct Watched {
    value: f64,
    moments: (f64, f64),
    smoothed: (f64, f64),
}

impl Watched {
    fn step(&mut self, gradient: f64, step: i32) {
        let (m, v) = &mut self.moments;
        *m = 0.9 * *m + 0.1 * gradient;
        *v = 0.999 * *v + 0.001 * gradient * gradient;
        let (m, v) = (
            *m / (1.0 - 0.9f64.powi(step)),
            *v / (1.0 - 0.999f64.powi(step)),
        );
        self.value -= f64::from(TRAINING.rate) * m / (v.sqrt() + 1e-8);
        let now = (self.value * gradient).abs();
        let (mean, uncertainty) = &mut self.smoothed;
        *mean = 0.85 * *mean + 0.15 * now;
        *uncertainty = 0.85 * *uncertainty + 0.15 * (now - *mean).abs();
    }

    fn score(&self) -> f64 {
        self.smoothed.0 * self.smoothed.1
    }
}

fn adalora(model: &Model, settings: &Settings<'_>) -> Vec<(WeightName, Vec<f64>)> {
    let rank = usize::from(settings.rank_max);
    let watch = |values: &[f32]| -> Vec<Watched> {
        let watched = values.iter().map(|value| Watched {
            value: f64::from(*value),
            moments: (0.0, 0.0),
            smoothed: (0.0, 0.0),
        });
        watched.collect()
    };
    let start = start(model, settings, TRAINING.scale).unwrap();
    let shapes: Vec<WeightShape> = start.factors().map(Factors::shape).collect();
    let mut all: Vec<[Vec<Watched>; 3]> = start
        .factors()
        .map(|own| [watch(own.a()), watch(&vec![0.0; rank]), watch(own.b())])
        .collect();
    for (step, batch) in (1..).zip(forty()) {
        let joined = shapes.iter().zip(&all).map(|(shape, [a, e, b])| {
            let product = |(at, b): (usize, &Watched)| (b.value * e[at % rank].value) as f32;
            let b = b.iter().enumerate().map(product).collect();
            let a = a.iter().map(|a| a.value as f32).collect();
            Factors::new(*shape, settings.rank_max, a, b).unwrap()
        });
        let adapter = Adapter::new(TRAINING.scale, joined).unwrap();
        let mut trainer = Trainer::new(model, &adapter, Options::default()).unwrap();
        let gradient = trainer.gradient_of(&batch).unwrap();
        for ([a, e, b], gradient) in all.iter_mut().zip(gradient.factors()) {
            let d_b: Vec<f64> = gradient.b().iter().copied().map(f64::from).collect();
            let mut d_e = vec![0.0; rank];
            for (at, (d, b)) in d_b.iter().zip(b.iter()).enumerate() {
                d_e[at % rank] += d * b.value;
            }
            let by_e: Vec<f64> = e.iter().map(|e| e.value).collect();
            for (at, (b, d)) in b.iter_mut().zip(&d_b).enumerate() {
                b.step(d * by_e[at % rank], step);
            }
            for (a, d) in a.iter_mut().zip(gradient.a()) {
                a.step(f64::from(*d), step);
            }
            for (e, d) in e.iter_mut().zip(&d_e) {
                e.step(*d, step);
            }
        }
    }
    let scored = shapes.iter().zip(&all).map(|(shape, [a, e, b])| {
        let triplet = |j: usize| {
            let row: f64 = a[j * shape.inp..][..shape.inp]
                .iter()
                .map(Watched::score)
                .sum();
            let column: f64 = b.iter().skip(j).step_by(rank).map(Watched::score).sum();
            e[j].score() + row / shape.inp as f64 + column / shape.out as f64
        };
        (shape.name, (0..rank).map(triplet).collect())
    });
    scored.collect()
}

#[test]
fn sensitivity_repeats_itself_and_refuses_what_tells_nothing() {
    let control = Control::new();
    let run = |model: &Model, batches: &[Batch]| {
        sensitivity(model, &settings(2), TRAINING, batches, &control)
    };
    let want = run(&tiny(2), &forty()).unwrap();
    assert_eq!(run(&tiny(1), &forty()).unwrap(), want, "one thread");
    assert!(want.weights.iter().all(|weight| weight.worth(2) > 0.0));
    let error = run(&tiny(1), &forty()[1..]).unwrap_err();
    assert!(matches!(error, Error::TooFewSteps { steps: 39 }), "{error}");
}
