//! The speed of plain `f32` matrix products of a model's own shapes: what a step can approach.

use std::time::Duration;

use super::median;
use crate::model::Model;
use crate::ops::product::{Into, View, ViewMut, multiply};

/// Times each product is measured, after one that is not.
const REPEATS: usize = 5;

/// Output columns of the output layer that are multiplied: more would only take longer.
const OUTPUT_COLUMNS: usize = 8192;

/// Floating-point operations per second of `x·Wᵀ` over `tokens` rows, for every stack of a block
/// and a slice of the output layer, each weighted as often as a forward pass computes it.
///
/// Operands are random and small beside a model, and freed at the end. `now` is a monotonic clock.
#[must_use]
pub fn roofline(model: &Model, tokens: usize, now: impl Fn() -> Duration) -> f64 {
    let config = model.config();
    let (hidden, layers) = (config.hidden, config.layers as f64);
    let (queries, keys) = (
        config.heads * config.head_size,
        config.kv_heads * config.head_size,
    );
    let columns = config.vocabulary.min(OUTPUT_COLUMNS);
    let slices = config.vocabulary as f64 / columns as f64;
    let products = [
        (hidden, queries + 2 * keys, layers),
        (queries, hidden, layers),
        (hidden, 2 * config.intermediate, layers),
        (config.intermediate, hidden, layers),
        (hidden, columns, slices),
    ];
    let (mut operations, mut seconds) = (0.0, 0.0);
    for (inputs, outputs, times) in products {
        let took = product(model, tokens, inputs, outputs, &now).as_secs_f64();
        operations += times * 2.0 * (tokens * inputs * outputs) as f64;
        seconds += times * took;
    }
    operations / seconds
}

/// The median time of one product.
fn product(
    model: &Model,
    tokens: usize,
    inputs: usize,
    outputs: usize,
    now: &impl Fn() -> Duration,
) -> Duration {
    // Values do not change the speed as long as they are normal numbers.
    let fill = |len: usize| (0..len).map(|i| 0.5 + (i % 97) as f32 / 97.0).collect();
    let (x, w): (Vec<f32>, Vec<f32>) = (fill(tokens * inputs), fill(outputs * inputs));
    let mut y = vec![0.0; tokens * outputs];
    let mut times = Vec::new();
    for repeat in 0..=REPEATS {
        let start = now();
        model.threads().run(|| {
            multiply(
                ViewMut::new(&mut y, tokens, outputs),
                View::new(&x, tokens, inputs),
                View::new(&w, outputs, inputs).t(),
                1.0,
                Into::Overwrite,
            );
        });
        let took = now().saturating_sub(start);
        if repeat > 0 {
            times.push(took);
        }
    }
    median(times)
}
