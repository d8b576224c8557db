//! The exact GELU of BERT: `x · Φ(x)`, `Φ` being the normal distribution itself.

use super::activation::Curve;
use super::simd::exp;

/// `x · Φ(x)`: `gelu` of Hugging Face's configurations.
#[derive(Debug, Clone, Copy)]
pub struct Gelu;

const ROOT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// `1/√(2π)`
const DENSITY: f32 = 0.398_942_3;

/// `Φ(x)` and `e^(−x²/2)`. The tail `½·erfc(|x|/√2)` by Abramowitz and Stegun, formula 7.1.26, whose error is at most
/// 1.5e-7 of the whole: what f32 tells apart near 1.
#[inline(always)]
fn distribution(x: f32) -> (f32, f32) {
    let t = 1.0 / (1.0 + 0.327_591_1 * (x.abs() * ROOT_HALF));
    let bell = exp(-0.5 * x * x);
    let polynomial = 1.061_405_4f32
        .mul_add(t, -1.453_152_1)
        .mul_add(t, 1.421_413_8)
        .mul_add(t, -0.284_496_72)
        .mul_add(t, 0.254_829_6);
    let tail = 0.5 * polynomial * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * distribution(x).0
    }

    #[inline(always)]
    fn both(x: f32) -> (f32, f32) {
        let (share, bell) = distribution(x);
        (x * share, share + x * DENSITY * bell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::activation::{backward, forward};
    use crate::ops::check::{close, differences, dot, plain, random};

    #[test]
    fn value_and_slope_equal_the_plain_function_and_differences() {
        let x: Vec<f32> = random(9000, 1).iter().map(|v| v * 6.0).collect();
        let dy = random(9000, 2);
        let (want_y, want_dx) = plain(&x, &[x.len()], &dy, candle_core::Tensor::gelu_erf);
        let (mut y, mut dx) = (vec![9.0; x.len()], x.clone());
        forward::<Gelu>(&mut y, &x);
        backward::<Gelu>(&mut dx, &dy);
        close(&y, &want_y, 1e-6);
        close(&dx, &want_dx, 2e-6);
        let (x, dx, dy) = (&x[..64], &dx[..64], &dy[..64]);
        differences(x, dx, 5e-3, |x| {
            let mut y = vec![9.0; x.len()];
            forward::<Gelu>(&mut y, x);
            dot(&y, dy)
        });
    }

    #[test]
    fn far_out_it_is_the_identity_or_nothing() {
        for (x, want) in [(-60.0f32, (0.0, 0.0)), (60.0, (60.0, 1.0))] {
            let (value, slope) = Gelu::both(x);
            assert!((value - want.0).abs() < 1e-6 && (slope - want.1).abs() < 1e-6);
        }
    }
}
