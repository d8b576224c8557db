//! What the ops' tests share: seeded values, comparison, and candle's autograd as the reference.

use candle_core::{Device, Result, Tensor, Var};

/// Values in `[-1, 1)`, the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Asserts that the two differ by at most `tolerance` of the largest wanted value (at least 1).
#[track_caller]
pub fn close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1f32, |most, v| most.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * largest,
            "element {i}: got {g}, want {w}"
        );
    }
}

/// The composition's value and, through autograd, the gradient of its input.
pub fn plain(
    x: &[f32],
    shape: &[usize],
    dy: &[f32],
    op: impl Fn(&Tensor) -> Result<Tensor>,
) -> (Vec<f32>, Vec<f32>) {
    let run = || {
        let x = Var::from_slice(x, shape, &Device::Cpu)?;
        let y = op(x.as_tensor())?;
        let dy = Tensor::from_slice(dy, y.shape(), &Device::Cpu)?;
        let gradients = (&y * dy)?.sum_all()?.backward()?;
        let dx = gradients
            .get(x.as_tensor())
            .expect("a gradient")
            .flatten_all()?
            .to_vec1()?;
        Ok::<_, candle_core::Error>((y.flatten_all()?.to_vec1()?, dx))
    };
    run().expect("the plain composition")
}

/// `Σ a·b` in `f64`: with the gradient of a result as `b`, the loss whose gradient an op computes.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// Asserts that `gradient` is the derivative of `loss`, by central differences at a few elements.
#[track_caller]
pub fn differences(x: &[f32], gradient: &[f32], tolerance: f64, loss: impl Fn(&[f32]) -> f64) {
    let step = 1e-2f32;
    let largest = gradient
        .iter()
        .fold(1e-3f64, |most, v| most.max(f64::from(v.abs())));
    let stride = (x.len() / 13).max(1);
    for i in (0..x.len()).step_by(stride) {
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let plus = loss(&moved);
        moved[i] = x[i] - step;
        let minus = loss(&moved);
        let want = (plus - minus) / (2.0 * f64::from(step));
        let got = f64::from(gradient[i]);
        assert!(
            (got - want).abs() <= tolerance * largest,
            "element {i}: gradient {got}, difference {want}"
        );
    }
}
