//! Means of factors, slice by slice, in 64 bits: what the averaging rules share.

use super::Error;
use super::change::Factors;
use super::merge::{Input, Merged};
use super::server;
use super::weight::Weight;

/// What is left of a slice under this share of it is rounding of the shares.
const ROUNDING: f64 = 1e-12;

/// Slice by slice `current + Σ_i share(i, j) · (update_i − current)`, over the workers that have slice j.
/// Where the updates hold B alone, A stays. With a server optimizer the sum is its gradient.
pub(super) fn merge(
    weight: &Weight<'_>,
    current: &Factors,
    share: impl Fn(&Input<'_>, usize) -> f64,
) -> Result<Merged, Error> {
    let mean = average(weight, current, share)?;
    let Some(server) = &weight.merge.server else {
        return Ok(Merged {
            whole: Factors {
                rank: weight.keep,
                a: mean.a.map_or_else(|| current.a.clone(), rounded),
                b: rounded(mean.b),
            },
            ..Merged::default()
        });
    };
    let (shape, keep) = (weight.shape, weight.keep);
    let mut state = Vec::new();
    let mut step = |key: String, shape, current: &[f32], mean: &[f64]| {
        let stepped = server::step(server, &key, shape, current, mean)?;
        state.extend(stepped.state);
        Ok::<_, Error>(stepped.values)
    };
    let a = match &mean.a {
        Some(mean) => step(shape.name.peft_a(), [keep, shape.inp], &current.a, mean)?,
        None => current.a.clone(),
    };
    let b = step(shape.name.peft_b(), [shape.out, keep], &current.b, &mean.b)?;
    Ok(Merged {
        whole: Factors { rank: keep, a, b },
        state,
        ..Merged::default()
    })
}

struct Average {
    /// `[keep, inp]`; absent where A does not move.
    a: Option<Vec<f64>>,
    /// `[out, keep]`.
    b: Vec<f64>,
}

fn average(
    weight: &Weight<'_>,
    current: &Factors,
    share: impl Fn(&Input<'_>, usize) -> f64,
) -> Result<Average, Error> {
    let (keep, inp) = (weight.keep, weight.shape.inp);
    let inputs = weight.merge.inputs;
    let shares_of = |input: &Input<'_>| -> Vec<f64> {
        (0..weight.rank(input)).map(|j| share(input, j)).collect()
    };
    let mut left = vec![1.0; keep];
    // A late one's change is its difference from what it had loaded, which is taken off below.
    for input in inputs.iter().filter(|input| input.start.is_none()) {
        for (left, share) in left.iter_mut().zip(shares_of(input)) {
            *left -= share;
        }
    }
    for left in left.iter_mut().filter(|left| left.abs() < ROUNDING) {
        *left = 0.0;
    }
    let mut b = vec![0.0; current.b.len()];
    add_columns(&mut b, keep, &current.b, &left);
    let mut a = vec![0.0; current.a.len()];
    add_rows(&mut a, inp, &current.a, &left);
    let mut moved = false;
    for input in inputs {
        let Some(update) = weight.update(input)? else {
            continue;
        };
        let shares = shares_of(input);
        add_columns(&mut b, keep, &update.b, &shares);
        moved |= !update.a.is_empty();
        add_rows(&mut a, inp, &update.a, &shares);
        if let Some(start) = weight.start(input)? {
            let taken: Vec<f64> = shares.iter().take(start.rank).map(|share| -share).collect();
            add_columns(&mut b, keep, &start.b, &taken);
            add_rows(&mut a, inp, &start.a, &taken);
        }
    }
    Ok(Average {
        a: moved.then_some(a),
        b,
    })
}

/// `sum[j, :] += share[j] · rows[j, :]`.
fn add_rows(sum: &mut [f64], inp: usize, rows: &[f32], shares: &[f64]) {
    let rows = rows.chunks_exact(inp).zip(shares);
    for (sum, (row, share)) in sum.chunks_exact_mut(inp).zip(rows) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += share * f64::from(*value);
        }
    }
}

/// `sum[:, j] += share[j] · columns[:, j]`; `sum` is `[out, keep]`, `columns` `[out, shares]`.
fn add_columns(sum: &mut [f64], keep: usize, columns: &[f32], shares: &[f64]) {
    if shares.is_empty() {
        return;
    }
    let rows = columns.chunks_exact(shares.len());
    for (sum, row) in sum.chunks_exact_mut(keep).zip(rows) {
        for ((sum, value), share) in sum.iter_mut().zip(row).zip(shares) {
            *sum += share * f64::from(*value);
        }
    }
}

fn rounded(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}
