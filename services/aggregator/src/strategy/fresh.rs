//! Round 0: the untrained adapter that every worker starts from. A is random, B is zero, so it
//! changes nothing; each worker takes the leading rows of A that its rank allows.

use std::collections::BTreeMap;

use domain::adapter::{RankTable, WeightShape};

use super::source::Sink;
use super::stream::{Purpose, Stream};
use super::{Error, ordered};

/// Writes round 0 of a job: for every weight of `global` A `[rank, in]` with entries uniform in
/// ±1/√in, from a stream of its own, and B `[out, rank]` of zeros.
///
/// # Errors
/// If the table names a weight that is not in `weights`, or the adapter cannot be written.
pub fn fresh(
    global: &RankTable,
    weights: &[WeightShape],
    seed: u64,
    out: &mut dyn Sink,
) -> Result<(), Error> {
    let shapes: BTreeMap<_, _> = weights.iter().map(|weight| (weight.name, weight)).collect();
    for (weight, rank) in ordered(global) {
        let shape = shapes.get(&weight).ok_or(Error::UnknownWeight { weight })?;
        let rank = usize::from(rank);
        let mut stream = Stream::new(seed, Purpose::Adapter, weight);
        let rows = (0..rank).flat_map(|_| stream.row(shape.inp));
        let a: Vec<f32> = rows.map(|value| value as f32).collect();
        let b = vec![0.0; shape.out * rank];
        let mut put = |key: String, shape, values| {
            out.put(&key, shape, values)
                .map_err(|source| Error::Write { key, source })
        };
        put(weight.peft_a(), [rank, shape.inp], a)?;
        put(weight.peft_b(), [shape.out, rank], b)?;
    }
    Ok(())
}
