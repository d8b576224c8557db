//! A normalization of either kind.

use crate::model::Norm;
use crate::ops::{layer_norm, rms_norm};

/// The normalized rows of `x`.
pub(super) fn forward(y: &mut [f32], x: &[f32], norm: &Norm, epsilon: f32) {
    let Norm { weight, bias } = norm;
    if bias.is_empty() {
        rms_norm::forward(y, x, weight, epsilon);
    } else {
        layer_norm::forward(y, x, (weight, bias), epsilon);
    }
}

/// Adds the gradient of `x` to `dx`, given that of the normalized rows.
pub(super) fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], norm: &Norm, epsilon: f32) {
    if norm.bias.is_empty() {
        rms_norm::backward(dx, dy, x, &norm.weight, epsilon);
    } else {
        layer_norm::backward(dx, dy, x, &norm.weight, epsilon);
    }
}
