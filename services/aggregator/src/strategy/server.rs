//! Server optimizers: the mean of the changes as a gradient. `FedAvgM` from arXiv 1909.06335; `FedAdam`,
//! `FedYogi` and `FedAdagrad` from arXiv 2003.00295, algorithm 2, with `v` starting at τ² as it asks.

use domain::job::aggregation::{ServerKind, ServerOptimizer};

use super::Error;
use super::check::read;
use super::merge::Server;
use super::source::Source;

/// A tensor after the server's step, and the moments to remember.
pub(super) struct Stepped {
    pub values: Vec<f32>,
    pub state: Vec<(String, [usize; 2], Vec<f32>)>,
}

/// Keys of a tensor's moments, in ascending order.
#[must_use]
pub(super) fn keys(kind: ServerKind, key: &str) -> Vec<String> {
    let (first, second) = (format!("{key}.m"), format!("{key}.v"));
    match kind {
        ServerKind::Fedavg => Vec::new(),
        ServerKind::Fedavgm => vec![first],
        ServerKind::Fedadam | ServerKind::Fedyogi | ServerKind::Fedadagrad => vec![first, second],
    }
}

/// One step of one tensor.
pub(super) fn step(
    server: &Server<'_>,
    key: &str,
    shape: [usize; 2],
    current: &[f32],
    mean: &[f64],
) -> Result<Stepped, Error> {
    let ServerOptimizer {
        kind,
        beta1,
        beta2,
        tau,
        ..
    } = *server.optimizer;
    let rate = server.optimizer.rate();
    let keys = keys(kind, key);
    let moment = |key: Option<&String>, fresh: f32| -> Result<Vec<f32>, Error> {
        match (key, server.state) {
            (Some(key), Some(state)) => state_of(state, key, shape),
            (Some(_), None) => Ok(vec![fresh; current.len()]),
            (None, _) => Ok(Vec::new()),
        }
    };
    let mut first = moment(keys.first(), 0.0)?;
    let mut second = moment(keys.get(1), (tau * tau) as f32)?;
    let mut values = Vec::with_capacity(current.len());
    let mut seconds = second.iter_mut();
    for ((now, mean), m) in current.iter().zip(mean).zip(&mut first) {
        let now = f64::from(*now);
        let change = mean - now;
        let kept = match kind {
            ServerKind::Fedavgm => beta1 * f64::from(*m) + change,
            _ => beta1 * f64::from(*m) + (1.0 - beta1) * change,
        };
        *m = kept as f32;
        let step = match seconds.next() {
            Some(v) => {
                let (before, square) = (f64::from(*v), change * change);
                let next = match kind {
                    ServerKind::Fedadagrad => before + square,
                    ServerKind::Fedyogi => {
                        before - (1.0 - beta2) * square * (before - square).signum()
                    }
                    _ => beta2 * before + (1.0 - beta2) * square,
                };
                *v = next as f32;
                kept / (next.sqrt() + tau)
            }
            None => kept,
        };
        values.push((now + rate * step) as f32);
    }
    let moments = [first, second]
        .into_iter()
        .filter(|moment| !moment.is_empty());
    let state = keys
        .into_iter()
        .zip(moments)
        .map(|(key, values)| (key, shape, values))
        .collect();
    Ok(Stepped { values, state })
}

fn state_of(state: &dyn Source, key: &str, shape: [usize; 2]) -> Result<Vec<f32>, Error> {
    read(state, key, shape).map_err(|source| Error::State { source })
}
