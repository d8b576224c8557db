//! Standard normal numbers of a stream's words, by Box and Muller.
//!
//! Promises: each operation is one rounded operation in 32 bits, in one order, so no vector width and no machine changes
//! a bit.
#![expect(
    clippy::indexing_slicing,
    reason = "lanes are indices of arrays of fixed size"
)]

use super::bits::{Blocks, LANES, WORDS, every_other};

/// Values of a group: two blocks of words. Word `i` of the one gives the radius and word `i` of the other the angle of the
/// values `i` and `i + 16`.
pub(super) const GROUP: usize = 2 * WORDS;

/// Values that are made together: a group in each lane.
pub(super) const BATCH: usize = GROUP * LANES;

/// What batches are made in, one after the other.
pub(super) struct Desk {
    radii: Blocks,
    angles: Blocks,
    spare: Blocks,
    cosines: [[f32; LANES]; WORDS],
    sines: [[f32; LANES]; WORDS],
    z: [f32; BATCH],
}

impl Desk {
    pub(super) const fn new() -> Self {
        Self {
            radii: [[0; LANES]; WORDS],
            angles: [[0; LANES]; WORDS],
            spare: [[0; LANES]; WORDS],
            cosines: [[0.0; LANES]; WORDS],
            sines: [[0.0; LANES]; WORDS],
            z: [0.0; BATCH],
        }
    }

    /// The values of a stream from `first` on, which begins a group.
    #[inline(always)]
    pub(super) fn batch(&mut self, key: &[u32; 8], stream: u64, first: usize) -> &[f32; BATCH] {
        let Self {
            radii,
            angles,
            spare,
            cosines,
            sines,
            z,
        } = self;
        let block = (first / WORDS) as u64;
        every_other(key, stream, block, (&mut *radii, &mut *spare));
        every_other(key, stream, block.wrapping_add(1), (&mut *angles, spare));
        let words = radii.iter().zip(angles.iter());
        for ((radii, angles), (cosines, sines)) in
            words.zip(cosines.iter_mut().zip(sines.iter_mut()))
        {
            for lane in 0..LANES {
                (cosines[lane], sines[lane]) = pair(radii[lane], angles[lane]);
            }
        }
        // From a group in each lane to one after the other.
        for (lane, group) in z.chunks_exact_mut(GROUP).enumerate() {
            let (first, second) = group.split_at_mut(WORDS);
            for (z, row) in first.iter_mut().zip(cosines.iter()) {
                *z = row[lane];
            }
            for (z, row) in second.iter_mut().zip(sines.iter()) {
                *z = row[lane];
            }
        }
        z
    }
}

/// Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
#[inline(always)]
fn pair(a: u32, b: u32) -> (f32, f32) {
    const UNIT: f32 = 1.0 / (1 << 24) as f32;
    // In (0, 1]: the logarithm exists. Through i32, which every vector unit converts.
    let uniform = ((a >> 8) as i32 + 1) as f32 * UNIT;
    let radius = (-2.0 * ln(uniform)).sqrt();
    let (sine, cosine) = sine_cosine(b >> 8);
    (radius * cosine, radius * sine)
}

/// The natural logarithm of a positive normal number, within 2 ulp; exactly 0 at 1. Cephes logf.
#[inline(always)]
fn ln(x: f32) -> f32 {
    /// The bits of √½: the mantissa is taken from `[√½, √2)`.
    const ROOT_HALF: u32 = 0x3F35_04F3;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = (shifted as i32 >> 23) as f32;
    let r = f32::from_bits((shifted & 0x007F_FFFF) + ROOT_HALF) - 1.0;
    let mut p = 7.037_683_6e-2;
    p = p * r - 1.151_461e-1;
    p = p * r + 1.167_699_9e-1;
    p = p * r - 1.242_014_1e-1;
    p = p * r + 1.424_932_3e-1;
    p = p * r - 1.666_805_8e-1;
    p = p * r + 2.000_071_5e-1;
    p = p * r - 2.499_999_4e-1;
    p = p * r + 3.333_333e-1;
    let square = r * r;
    let small = r * square * p + exponent * -2.121_944_4e-4 - 0.5 * square;
    small + r + exponent * 0.693_359_4
}

/// Sine and cosine of `angle` of the 2²⁴ parts of a whole turn, within 2e-7. Cephes sinf and cosf.
#[inline(always)]
fn sine_cosine(angle: u32) -> (f32, f32) {
    const QUARTERS: f32 = 1.0 / (1 << 22) as f32;
    // The nearest quarter, in integers: vector units round numbers to integers each in its own way.
    let quadrant = ((angle + (1 << 21)) >> 22) as i32;
    let r = (angle as i32 as f32 * QUARTERS - quadrant as f32) * std::f32::consts::FRAC_PI_2;
    let z = r * r;
    let sine = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let cosine =
        ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (sine, cosine) = if quadrant & 1 == 0 {
        (sine, cosine)
    } else {
        (cosine, sine)
    };
    let negate = |value: f32, when: i32| if when & 2 == 0 { value } else { -value };
    (negate(sine, quadrant), negate(cosine, quadrant + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_what_box_and_muller_say() {
        let words = (0..200_000u32).map(|i| i.wrapping_mul(2_654_435_769));
        for (a, b) in words.clone().zip(words.skip(77)).chain([
            (0, 0),
            (u32::MAX, u32::MAX),
            (1 << 8, 1 << 29),
        ]) {
            let unit = f64::from(1 << 24);
            let radius = (-2.0 * (f64::from((a >> 8) + 1) / unit).ln()).sqrt();
            let angle = std::f64::consts::TAU * f64::from(b >> 8) / unit;
            let (x, y) = pair(a, b);
            let close = |got: f32, want: f64| (f64::from(got) - want).abs() < 1.5e-6;
            assert!(
                close(x, radius * angle.cos()) && close(y, radius * angle.sin()),
                "{a} {b}: {x} {y}"
            );
        }
    }

    /// As the definition says it: the quarter that a rounded sum in 32 bits is truncated to.
    #[test]
    fn the_nearest_quarter_is_that_of_the_definition() {
        let near = |angle: u32| (angle.saturating_sub(3)..angle + 4).filter(|at| *at < 1 << 24);
        let edges = (0..=32).flat_map(|eighth| near(eighth << 19));
        for angle in edges.chain((0..1 << 24).step_by(997)) {
            let quarters = angle as f32 / (1 << 24) as f32 * 4.0;
            let want = (quarters + 0.5) as u32;
            assert_eq!((angle + (1 << 21)) >> 22, want, "{angle}");
        }
    }

    /// The same source, compiled for the narrowest instructions and for the widest that this machine has.
    #[test]
    fn no_vector_width_changes_a_bit() {
        for seed in 0..200 {
            let key = [seed; 8];
            let narrow = *Desk::new().batch(&key, 7, 32);
            let wide = crate::ops::wide!(|| *Desk::new().batch(&key, 7, 32));
            assert_eq!(narrow.map(f32::to_bits), wide.map(f32::to_bits), "{seed}");
        }
    }
}
