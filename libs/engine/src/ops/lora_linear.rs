//! A frozen linear layer with its low-rank change as one operation:
//! `y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ` over one or more weights that share their input.
//!
//! `W` stacks the weights' rows (query, key and value; gate and up), `A` stacks their factors, so
//! that each product is done once. Backward gives the gradients of `x`, `A` and `B` only; there is
//! no code here that could make one for `W`.

use super::Table;
use super::frozen::{self, Beside, Frozen, Scratch, Way};
use super::product::{Into, View, ViewMut, multiply, multiply_tall};

/// The low-rank factors of the weights in one stack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Factors {
    /// `[Σ rank, in]`, the parts' factors one below the other.
    pub a: Vec<f32>,
    /// Those of the adapted weights alone, in the order of the stack.
    pub parts: Vec<Part>,
}

/// The factor B of one weight, and where it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// First output column of the weight in the stack.
    pub column: usize,
    /// Output width of the weight.
    pub outputs: usize,
    /// First of its rows in `a`.
    pub first: usize,
    /// Rank.
    pub rank: usize,
    /// `[outputs, rank]`
    pub b: Vec<f32>,
}

impl Factors {
    /// Sum of the parts' ranks.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.parts.iter().map(|part| part.rank).sum()
    }

    /// The same shapes, all zero.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let zero = |part: &Part| Part {
            b: vec![0.0; part.b.len()],
            ..*part
        };
        Self {
            a: vec![0.0; self.a.len()],
            parts: self.parts.iter().map(zero).collect(),
        }
    }
}

/// The change of the stack: its factors and their scale.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The factors; `a` is `[Σ rank, inputs]`.
    pub factors: &'a Factors,
    /// The scale `s`.
    pub scale: f32,
}

/// `x` `[tokens, inputs]` → `y` `[tokens, outputs]`; `low` `[tokens, Σ rank]` receives `x·Aᵀ`.
///
/// # Errors
/// The frozen weight cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward<T: Table>(
    y: &mut [f32],
    low: &mut [f32],
    x: &[f32],
    frozen: Frozen<'_, T>,
    change: Option<Change<'_>>,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let (inputs, outputs) = (frozen.weight.width(), frozen.weight.count());
    let tokens = x.len() / inputs;
    let x = View::new(x, tokens, inputs);
    if let Some(change) = change.filter(|_| frozen.takes_beside(tokens, Way::Forward)) {
        let low = ViewMut::new(low, tokens, change.factors.rank());
        let both = (ViewMut::new(y, tokens, outputs), low);
        return change.beside((inputs, outputs), scratch, |beside, scratch| {
            frozen::beside(Way::Forward, both, x, frozen, beside, scratch)
        });
    }
    let whole = ViewMut::new(y, tokens, outputs);
    frozen::forward(whole, x, frozen, 0..outputs, scratch)?;
    if let Some(change) = change {
        change.add(y, outputs, low, x);
    }
    Ok(())
}

impl Change<'_> {
    /// `low ← x·Aᵀ`, `y += s·low·Bᵀ`.
    pub(super) fn add(&self, y: &mut [f32], outputs: usize, low: &mut [f32], x: View<'_>) {
        let Self { factors, scale } = *self;
        let (tokens, rank) = (x.rows(), factors.rank());
        multiply(
            ViewMut::new(low, tokens, rank),
            x,
            View::new(&factors.a, rank, x.cols()).t(),
            1.0,
            Into::Overwrite,
        );
        for part in &factors.parts {
            let y = ViewMut::strided(
                y.get_mut(part.column..).unwrap_or_default(),
                tokens,
                part.outputs,
                outputs,
            );
            let low = View::strided(
                low.get(part.first..).unwrap_or_default(),
                tokens,
                part.rank,
                rank,
            );
            let b = View::new(&part.b, part.outputs, part.rank);
            multiply(y, low, b.t(), scale, Into::Add);
        }
    }

    /// `d_low ← s·dy·B`.
    pub(super) fn low_gradient(&self, d_low: &mut [f32], dy: View<'_>) {
        let Self { factors, scale } = *self;
        for part in &factors.parts {
            let d_low = ViewMut::strided(
                d_low.get_mut(part.first..).unwrap_or_default(),
                dy.rows(),
                part.rank,
                factors.rank(),
            );
            let b = View::new(&part.b, part.outputs, part.rank);
            let dy = dy.columns(part.column, part.outputs);
            multiply(d_low, dy, b, scale, Into::Overwrite);
        }
    }

    /// `dx += d_low·A`.
    pub(super) fn add_to_input_gradient(&self, dx: ViewMut<'_>, d_low: &[f32]) {
        let rank = self.factors.rank();
        let d_low = View::new(d_low, dx.rows(), rank);
        let a = View::new(&self.factors.a, rank, dx.cols());
        multiply(dx, d_low, a, 1.0, Into::Add);
    }

    /// Calls `product` with the factors as two matrices, B's parts joined and scaled.
    fn beside<R>(
        &self,
        (inputs, outputs): (usize, usize),
        scratch: &mut Scratch,
        product: impl FnOnce(Beside<'_>, &mut Scratch) -> R,
    ) -> R {
        let rank = self.factors.rank();
        let mut joined = std::mem::take(&mut scratch.joined);
        joined.clear();
        joined.resize(outputs * rank, 0.0);
        for part in &self.factors.parts {
            let rows = joined.chunks_exact_mut(rank).skip(part.column);
            for (row, b) in rows.zip(part.b.chunks_exact(part.rank)) {
                let own = row.iter_mut().skip(part.first);
                own.zip(b).for_each(|(to, b)| *to = b * self.scale);
            }
        }
        let beside = Beside {
            a: View::new(&self.factors.a, rank, inputs),
            b: View::new(&joined, outputs, rank),
        };
        let result = product(beside, scratch);
        scratch.joined = joined;
        result
    }
}

/// What backward learns of the change, and what the forward kept for it.
#[derive(Debug)]
pub struct Learned<'a> {
    /// The change.
    pub change: Change<'a>,
    /// The input, `[tokens, inputs]`.
    pub x: &'a [f32],
    /// `x·Aᵀ`, `[tokens, Σ rank]`.
    pub low: &'a [f32],
    /// Overwritten by the gradient of the factors.
    pub gradient: &'a mut Factors,
    /// `[tokens, Σ rank]`: overwritten by the gradient of `x·Aᵀ`.
    pub d_low: &'a mut [f32],
}

/// The gradients of the input, `dx ← dy·W + s·(dy·B)·A`, where it is asked for, and of the change,
/// given that of the output `dy` `[tokens, outputs]`.
///
/// # Errors
/// The frozen weight cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward<T: Table>(
    dx: Option<&mut [f32]>,
    dy: &[f32],
    frozen: Frozen<'_, T>,
    learned: Option<Learned<'_>>,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let (inputs, outputs) = (frozen.weight.width(), frozen.weight.count());
    let tokens = dy.len() / outputs;
    let dy = View::new(dy, tokens, outputs);
    let dx = dx.map(|dx| ViewMut::new(dx, tokens, inputs));
    let input_gradient = |dx, scratch: &mut Scratch| {
        frozen::backward(dx, dy, frozen, 0..outputs, Into::Overwrite, scratch)
    };
    let Some(mut learned) = learned else {
        return dx.map_or(Ok(()), |dx| input_gradient(dx, scratch));
    };
    match dx {
        Some(dx) if frozen.takes_beside(tokens, Way::Backward) => {
            let change = learned.change;
            let d_low = ViewMut::new(learned.d_low, tokens, change.factors.rank());
            change.beside((inputs, outputs), scratch, |beside, scratch| {
                frozen::beside(Way::Backward, (dx, d_low), dy, frozen, beside, scratch)
            })?;
        }
        Some(mut dx) => {
            learned.change.low_gradient(learned.d_low, dy);
            input_gradient(dx.reborrow(), scratch)?;
            learned.change.add_to_input_gradient(dx, learned.d_low);
        }
        None => learned.change.low_gradient(learned.d_low, dy),
    }
    learned.factors_gradient(dy);
    Ok(())
}

impl Learned<'_> {
    /// `dB ← s·dyᵀ·low` of each part, and `dA ← d_lowᵀ·x`.
    pub(super) fn factors_gradient(&mut self, dy: View<'_>) {
        let Change { factors, scale } = self.change;
        let (tokens, rank) = (dy.rows(), factors.rank());
        let mut across = Vec::new();
        for (part, gradient) in factors.parts.iter().zip(&mut self.gradient.parts) {
            let low = View::new(self.low, tokens, rank).columns(part.first, part.rank);
            let dy = dy.columns(part.column, part.outputs);
            across.resize(part.rank * part.outputs, 0.0);
            multiply_tall(&mut across, low, dy, scale);
            transpose(&mut gradient.b, &across, part.outputs);
        }
        let inputs = factors.a.len() / rank;
        let d_low = View::new(self.d_low, tokens, rank);
        let x = View::new(self.x, tokens, inputs);
        multiply_tall(&mut self.gradient.a, d_low, x, 1.0);
    }
}

/// `from` `[rank, outputs]` → `to` `[outputs, rank]`.
fn transpose(to: &mut [f32], from: &[f32], outputs: usize) {
    let rank = from.len() / outputs;
    for (column, row) in to.chunks_exact_mut(rank).enumerate() {
        let values = from.iter().skip(column).step_by(outputs);
        row.iter_mut()
            .zip(values)
            .for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    use super::*;
    use crate::kernel::{Compute, Kernel};
    use crate::ops::Dense;
    use crate::ops::check::{close, differences, dot, plain, random};

    /// Two weights of 5 and 3 outputs (the first with rank 2, the second with rank 1), and between
    /// them one of 4 outputs without an adapter.
    struct Case {
        tokens: usize,
        inputs: usize,
        weight: Vec<f32>,
        factors: Factors,
        kernel: Kernel,
    }

    const OUTPUTS: usize = 12;
    const SCALE: f32 = 0.7;

    impl Case {
        fn new(tokens: usize, inputs: usize, kernel: Kernel) -> Self {
            let part = |column, outputs, first, rank| Part {
                column,
                outputs,
                first,
                rank,
                b: random(outputs * rank, 5 + column as u64),
            };
            let factors = Factors {
                a: random(3 * inputs, 3),
                parts: vec![part(0, 5, 0, 2), part(9, 3, 2, 1)],
            };
            Self {
                tokens,
                inputs,
                weight: random(OUTPUTS * inputs, 4),
                factors,
                kernel,
            }
        }

        fn weight(&self) -> Dense<'_> {
            Dense {
                data: &self.weight,
                width: self.inputs,
            }
        }

        fn frozen<'a>(&self, weight: &'a Dense<'a>) -> Frozen<'a, Dense<'a>> {
            Frozen {
                weight,
                kernel: self.kernel,
            }
        }

        fn forward(&self, x: &[f32], factors: &Factors) -> (Vec<f32>, Vec<f32>) {
            let (mut y, mut low) = (vec![9.0; self.tokens * OUTPUTS], vec![9.0; self.tokens * 3]);
            forward(
                &mut y,
                &mut low,
                x,
                self.frozen(&self.weight()),
                Some(Change {
                    factors,
                    scale: SCALE,
                }),
                &mut Scratch::default(),
            )
            .unwrap();
            (y, low)
        }

        /// The gradients of the input and of the factors; and what a caller that asks for no gradient of
        /// the input gets of the latter.
        fn backward(&self, x: &[f32], dy: &[f32]) -> (Vec<f32>, Factors, Factors) {
            let (_, low) = self.forward(x, &self.factors);
            let (weight, mut scratch) = (self.weight(), Scratch::default());
            let mut run = |dx: Option<&mut [f32]>| {
                let mut gradient = self.factors.zeros_like();
                let mut d_low = vec![9.0; low.len()];
                let learned = Learned {
                    change: Change {
                        factors: &self.factors,
                        scale: SCALE,
                    },
                    x,
                    low: &low,
                    gradient: &mut gradient,
                    d_low: &mut d_low,
                };
                let frozen = self.frozen(&weight);
                backward(dx, dy, frozen, Some(learned), &mut scratch).unwrap();
                gradient
            };
            let mut dx = vec![9.0; x.len()];
            let gradient = run(Some(&mut dx));
            (dx, gradient, run(None))
        }

        /// The composition with `x`, with A and with the two B as variables: its value, and their
        /// gradients.
        fn plain(&self, x: &[f32], dy: &[f32]) -> (Vec<f32>, [Vec<f32>; 4]) {
            let (tokens, inputs) = (self.tokens, self.inputs);
            let tensor = |data: &[f32], rows: usize, cols: usize| {
                Tensor::from_slice(data, (rows, cols), &Device::Cpu).unwrap()
            };
            let [first, second] = &self.factors.parts[..] else {
                unreachable!("two parts");
            };
            let fixed = [
                tensor(x, tokens, inputs),
                tensor(&self.factors.a, 3, inputs),
                tensor(&first.b, first.outputs, first.rank),
                tensor(&second.b, second.outputs, second.rank),
            ];
            let of = |variable: usize| {
                let own = fixed[variable].flatten_all().unwrap().to_vec1::<f32>();
                plain(&own.unwrap(), fixed[variable].dims(), dy, |own| {
                    let at = |index: usize| {
                        if index == variable {
                            own
                        } else {
                            &fixed[index]
                        }
                    };
                    self.composition([at(0), at(1), at(2), at(3)])
                })
            };
            let y = of(0).0;
            (y, [of(0).1, of(1).1, of(2).1, of(3).1])
        }

        fn composition(&self, [x, a, first, second]: [&Tensor; 4]) -> Result<Tensor> {
            let weight = Tensor::from_slice(&self.weight, (OUTPUTS, self.inputs), &Device::Cpu)?;
            let y = x.matmul(&weight.t()?)?;
            let low = x.matmul(&a.t()?)?;
            let change = |part: &Part, b: &Tensor| {
                let low = low.narrow(1, part.first, part.rank)?.contiguous()?;
                low.matmul(&b.t()?)
            };
            let none = Tensor::zeros((self.tokens, 4), candle_core::DType::F32, &Device::Cpu)?;
            let parts = &self.factors.parts;
            let changes = [change(&parts[0], first)?, none, change(&parts[1], second)?];
            y + (Tensor::cat(&changes, 1)? * f64::from(SCALE))?
        }
    }

    /// One token, widths that fill no vector, and so many tokens that a kernel takes the change along.
    const SIZES: [(usize, usize); 5] = [(1, 1), (1, 64), (7, 33), (9, 128), (70, 80)];

    /// Rounding a factor to bf16 or to eight bits is good to 1/256 or 1/127 of it; the products here have
    /// up to 128 terms up to 1.
    fn tolerance(kernel: Kernel) -> f32 {
        match kernel.compute() {
            Compute::F32 => 1e-5,
            Compute::Bf16 => 0.03,
            Compute::Int8 => 0.06,
        }
    }

    #[test]
    fn forward_and_backward_equal_the_plain_composition_in_every_kernel() {
        for kernel in Kernel::available() {
            for (tokens, inputs) in SIZES {
                let case = Case::new(tokens, inputs, kernel);
                let (x, dy) = (random(tokens * inputs, 1), random(tokens * OUTPUTS, 2));
                let (want_y, [want_dx, want_a, want_first, want_second]) = case.plain(&x, &dy);
                let within = tolerance(kernel);
                close(&case.forward(&x, &case.factors).0, &want_y, within);
                let (dx, gradient, alone) = case.backward(&x, &dy);
                close(&dx, &want_dx, within);
                for gradient in [gradient, alone] {
                    close(&gradient.a, &want_a, within);
                    close(&gradient.parts[0].b, &want_first, within);
                    close(&gradient.parts[1].b, &want_second, within);
                }
            }
        }
    }

    /// In f32: rounding to fewer bits is a staircase, which has no differences to compare with.
    #[test]
    fn gradients_are_the_differences_of_the_forward() {
        for (tokens, inputs) in SIZES {
            let case = Case::new(tokens, inputs, Kernel::best(Compute::F32));
            let (x, dy) = (random(tokens * inputs, 1), random(tokens * OUTPUTS, 2));
            let (dx, gradient, _) = case.backward(&x, &dy);
            let loss = |x: &[f32], factors: &Factors| dot(&case.forward(x, factors).0, &dy);
            differences(&x, &dx, 2e-3, |x| loss(x, &case.factors));
            let with = |change: &dyn Fn(&mut Factors)| {
                let mut factors = case.factors.clone();
                change(&mut factors);
                loss(&x, &factors)
            };
            differences(&case.factors.a, &gradient.a, 2e-3, |a| {
                with(&|factors| factors.a = a.to_vec())
            });
            for (index, part) in case.factors.parts.iter().enumerate() {
                differences(&part.b, &gradient.parts[index].b, 2e-3, |b| {
                    with(&|factors| factors.parts[index].b = b.to_vec())
                });
            }
        }
    }
}
