//! Elementwise building blocks that the compiler can vectorize, and the switch to wide vectors.

/// Lanes of every reduction, whatever the machine's vector width: so sums are the same everywhere.
pub(super) const LANES: usize = 16;

/// Rows that one task of an elementwise operation handles.
pub(super) const ROWS: usize = 8;

/// Runs a kernel, `wide!(|| …)`, compiled for the widest vector unit present.
///
/// No operation is reassociated or contracted by this, so results do not depend on it. A macro, for a kernel that is not
/// inlined where the unit is chosen is compiled for the narrowest one; so is each function it calls that is not.
macro_rules! wide {
    (|| $kernel:expr) => {
        pulp::Arch::new().dispatch($crate::ops::Kernel(
            #[inline(always)]
            || $kernel,
        ))
    };
}

pub(crate) use wide;

/// A kernel as the choice of the unit takes it. Called by reference: a closure that is called by value is called through a
/// function that nobody can have inlined.
#[derive(Debug)]
pub(crate) struct Kernel<F>(pub(crate) F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Kernel<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// `eˣ` within 2 ulp on `[-87, 88]`, clamped outside; NaN stays NaN. Branch-free.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Cephes expf: a minimax polynomial on |r| ≤ ln 2 / 2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let e = p * r * r + r + 1.0;
    let power = shifted
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .wrapping_add(127)
        << 23;
    e * f32::from_bits(power)
}

/// `Σ term(i)` over `0..len` in fixed lanes.
#[inline(always)]
pub(super) fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = len - len % LANES;
    let mut start = 0;
    while start < whole {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
        start += LANES;
    }
    for (total, i) in lanes.iter_mut().zip(whole..len) {
        *total += term(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (a, b) in low.iter_mut().zip(high.iter()) {
            *a += *b;
        }
        width /= 2;
    }
    let [total, ..] = lanes;
    total
}

/// The largest of `values`; negative infinity when there are none.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, value) in lanes.iter_mut().zip(chunk) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    for (most, value) in lanes.iter_mut().zip(rest) {
        *most = if *value > *most { *value } else { *most };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= 3e-7 * exact, "{x}: {ours} {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(-1e30), exp(-87.0));
    }

    #[test]
    fn a_sum_takes_every_term_once() {
        for len in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum(len, |i| i as f32), (0..len).sum::<usize>() as f32);
        }
        assert_eq!(max(&[1.0, 7.0, -3.0]), 7.0);
    }
}
