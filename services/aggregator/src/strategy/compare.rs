//! How far a merged adapter is from the dense formula: what the benchmark tells of every rule.
//!
//! It sums whole weights, so it is not what a round computes on the way.

use artifacts::tensors::TensorFile;
use domain::adapter::WeightName;
use faer::Mat;

use super::change::Factors;
use super::check::{Refused, read, shapes};
use super::round::Round;
use super::source::Source;
use crate::Error;

/// `‖ΔW_agg − ΔW*‖_F / ‖ΔW*‖_F` over the given weights, where `ΔW* = ΔW_t + Σ_i c_i · (s·B_i·A_i − S_i)`.
///
/// # Errors
/// If a file of the round cannot be read, or is not what the round says.
pub fn error(round: &Round, weights: &[WeightName]) -> Result<f64, Error> {
    let refused = |source| Error::Merge {
        round: round.round,
        source: super::Error::Global { source },
    };
    let (start, merged) = (
        TensorFile::open(&round.start)?,
        TensorFile::open(&round.out)?,
    );
    let (mut off, mut all) = (0.0, 0.0);
    for shape in shapes(&start).map_err(refused)? {
        if !weights.contains(&shape.name) {
            continue;
        }
        let whole = |file: &TensorFile| factors(file, shape.name, None).map_err(refused);
        let loaded = whole(&start)?;
        let mut expected = Mat::zeros(shape.out, shape.inp);
        add(&mut expected, &loaded, loaded.rank, round.scale);
        for member in &round.members {
            let file = TensorFile::open(&member.update)?;
            let update = factors(&file, shape.name, Some(&loaded)).map_err(refused)?;
            let share = round.scale * member.share.weight * member.share.stretch;
            add(&mut expected, &update, update.rank, share);
            add(&mut expected, &loaded, update.rank, -share);
        }
        let result = whole(&merged)?;
        all += expected.squared_norm_l2();
        add(&mut expected, &result, result.rank, -round.scale);
        off += expected.squared_norm_l2();
    }
    Ok(if all > 0.0 { (off / all).sqrt() } else { 0.0 })
}

/// All slices of a weight; A is `frozen`'s where the file holds B alone.
fn factors(
    file: &TensorFile,
    name: WeightName,
    frozen: Option<&Factors>,
) -> Result<Factors, Refused> {
    let key = name.peft_b();
    let (out, rank) = match Source::shape(file, &key).as_deref() {
        Some(&[out, rank]) => (out, rank),
        _ => (0, 0),
    };
    let b = read(file, &key, [out, rank])?;
    let a = match (Source::shape(file, &name.peft_a()).as_deref(), frozen) {
        (Some(&[rows, inp]), _) => read(file, &name.peft_a(), [rows, inp])?,
        (_, Some(frozen)) => {
            let inp = frozen.a.len() / frozen.rank.max(1);
            frozen.a.iter().take(rank * inp).copied().collect()
        }
        _ => Vec::new(),
    };
    Ok(Factors { rank, a, b })
}

/// `sum += share · b[:, ..slices] · a[..slices, :]`.
fn add(sum: &mut Mat<f64>, factors: &Factors, slices: usize, share: f64) {
    let (out, inp, rank) = (sum.nrows(), sum.ncols(), factors.rank);
    let value = |values: &[f32], at: usize| f64::from(values.get(at).copied().unwrap_or(0.0));
    let b = Mat::from_fn(out, slices, |row, j| {
        share * value(&factors.b, row * rank + j)
    });
    let a = Mat::from_fn(slices, inp, |j, column| value(&factors.a, j * inp + column));
    *sum += b * a;
}
