//! The values that NF4's codes stand for: sixteen for weights, 256 for magnitudes.

use std::sync::OnceLock;

/// NF4 (bitsandbytes `get_4bit_type("nf4")`; QLoRA appendix E), ascending; code 7 is zero.
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A value is coded by how many of these lie below it: halfway between neighbours of [`NF4`].
pub(super) const BOUNDS: [f32; 15] = {
    let (mut bounds, mut i) = ([0.0; 15], 0);
    #[expect(clippy::indexing_slicing, reason = "at compile time; i < 15")]
    while i < 15 {
        bounds[i] = (NF4[i] + NF4[i + 1]) / 2.0;
        i += 1;
    }
    bounds
};

/// The signed dynamic map of bitsandbytes (`create_dynamic_map()`): decades from 1e-6 to 1, each
/// with twice the values of the one below; dense where most magnitudes are, near their mean.
pub(super) struct DynamicMap([f32; 256]);

/// The map, computed once.
pub(super) fn dynamic_map() -> &'static DynamicMap {
    static MAP: OnceLock<DynamicMap> = OnceLock::new();
    MAP.get_or_init(DynamicMap::new)
}

impl DynamicMap {
    fn new() -> Self {
        let mut values = vec![0.0, 1.0];
        for (exponent, steps) in (-6..=0).zip((0..7).map(|power| 1u32 << power)) {
            let decade = 10f64.powi(exponent);
            for step in 0..steps {
                // The middle of one of `steps` equal parts of [0.1, 1].
                let middle = 0.1 + 0.9 * (f64::from(step) + 0.5) / f64::from(steps);
                values.extend([(decade * middle) as f32, (-decade * middle) as f32]);
            }
        }
        values.sort_unstable_by(f32::total_cmp);
        // Invariant: 2 + 2·(1 + 2 + … + 64) = 256.
        Self(values.try_into().unwrap_or([0.0; 256]))
    }

    /// What `code` stands for, in `[-0.993, 1]`.
    #[inline(always)]
    pub(super) const fn value(&self, code: u8) -> f32 {
        #[expect(clippy::indexing_slicing, reason = "every u8 is below 256")]
        self.0[code as usize]
    }

    /// The code whose value is nearest to `value`.
    pub(super) fn nearest(&self, value: f32) -> u8 {
        let above = self.0.partition_point(|have| *have < value).min(255);
        let below = above.saturating_sub(1);
        let distance = |index: usize| (self.value(index as u8) - value).abs();
        let nearest = if distance(below) <= distance(above) {
            below
        } else {
            above
        };
        nearest as u8
    }
}
