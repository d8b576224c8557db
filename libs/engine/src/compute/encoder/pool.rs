//! From the rows' first tokens to classes, as each family's class for sequence classification goes: a dense layer and its curve,
//! which are BERT's pooler or part of the head, and the head's linear layer. Few rows and small matrices: nothing here is worth
//! a buffer of the workspace.

use domain::adapter;

use super::super::Packed;
use super::super::forward::add;
use crate::adapter::{Dense, Head};
use crate::model::Encoder;
use crate::ops::product::{Into, View, ViewMut, multiply};

/// What the head's last layer reads, and how it came to be.
pub(super) struct Pooled<'a> {
    head: &'a Head,
    /// Before the last layer; none only of a BERT without a pooler, which is not loaded.
    dense: Option<&'a Dense>,
    /// What the dense layer read, `[rows, width]`.
    first: Vec<f32>,
    /// What the last layer reads, `[rows, width]`.
    values: Vec<f32>,
    rows: usize,
    width: usize,
}

impl<'a> Pooled<'a> {
    /// Of `hidden` `[tokens, width]`, whose rows begin at `bounds`.
    pub(super) fn new(
        (encoder, head): (&'a Encoder, &'a Head),
        hidden: &[f32],
        bounds: &[usize],
    ) -> Self {
        let (rows, width) = (bounds.len().saturating_sub(1), head.shape().width);
        let mut first = Vec::with_capacity(rows * width);
        for start in bounds.iter().take(rows) {
            let token = hidden.get(start * width..(start + 1) * width);
            first.extend_from_slice(token.unwrap_or_default());
        }
        let mut pooled = Self {
            head,
            dense: head.dense.as_ref().or(encoder.pooler.as_ref()),
            values: vec![0.0; rows * width],
            first,
            rows,
            width,
        };
        pooled.curve();
        pooled
    }

    fn curve(&mut self) {
        let (rows, width) = (self.rows, self.width);
        let Some(dense) = self.dense else { return };
        multiply(
            ViewMut::new(&mut self.values, rows, width),
            View::new(&self.first, rows, width),
            View::new(&dense.weight, width, width).t(),
            1.0,
            Into::Overwrite,
        );
        let above_zero = self.is_above_zero();
        for row in self.values.chunks_exact_mut(width) {
            add(row, &dense.bias);
            for value in row {
                *value = if above_zero {
                    value.max(0.0)
                } else {
                    value.tanh()
                };
            }
        }
    }

    /// Whether the curve is what is above zero, and not the hyperbolic tangent.
    fn is_above_zero(&self) -> bool {
        self.head.shape().encoder == adapter::Encoder::Distilbert
    }

    /// `[rows, classes]`
    pub(super) fn logits(&self) -> Vec<f32> {
        let head = self.head;
        let classes = head.shape().classes;
        let mut logits = vec![0.0; self.rows * classes];
        multiply(
            ViewMut::new(&mut logits, self.rows, classes),
            View::new(&self.values, self.rows, self.width),
            View::new(&head.weight, classes, self.width).t(),
            1.0,
            Into::Overwrite,
        );
        for row in logits.chunks_exact_mut(classes) {
            add(row, &head.bias);
        }
        logits
    }

    /// The mean loss of the rows that have a class, and its gradient with respect to the logits.
    pub(super) fn loss(&self, packed: &Packed) -> (f64, Vec<f32>) {
        let classes = self.head.shape().classes;
        let logits = self.logits();
        let mut d = vec![0.0; logits.len()];
        let count = packed.targets.len().max(1) as f64;
        let mut total = 0.0;
        for target in &packed.targets {
            let place = target.row * classes..(target.row + 1) * classes;
            let Some((own, d)) = logits.get(place.clone()).zip(d.get_mut(place)) else {
                continue;
            };
            let logs = log_softmax(own);
            for (class, (d, log)) in d.iter_mut().zip(&logs).enumerate() {
                let wanted = class == target.token as usize;
                if wanted {
                    total -= log;
                }
                *d += ((log.exp() - f64::from(u8::from(wanted))) / count) as f32;
            }
        }
        (total / count, d)
    }

    /// The gradient of the head's own values: overwritten.
    pub(super) fn head_gradient(&self, gradient: &mut Head, d_logits: &[f32]) {
        let classes = gradient.shape().classes;
        multiply(
            ViewMut::new(&mut gradient.weight, classes, self.width),
            View::new(d_logits, self.rows, classes).t(),
            View::new(&self.values, self.rows, self.width),
            1.0,
            Into::Overwrite,
        );
        sum_rows(&mut gradient.bias, d_logits);
        let Some(dense) = &mut gradient.dense else {
            return;
        };
        let d = self.dense_backward(d_logits);
        multiply(
            ViewMut::new(&mut dense.weight, self.width, self.width),
            View::new(&d, self.rows, self.width).t(),
            View::new(&self.first, self.rows, self.width),
            1.0,
            Into::Overwrite,
        );
        sum_rows(&mut dense.bias, &d);
    }

    /// The gradient `[rows, width]` of what the dense layer gives its curve.
    fn dense_backward(&self, d_logits: &[f32]) -> Vec<f32> {
        let (rows, width) = (self.rows, self.width);
        let classes = self.head.shape().classes;
        let mut d = vec![0.0; rows * width];
        multiply(
            ViewMut::new(&mut d, rows, width),
            View::new(d_logits, rows, classes),
            View::new(&self.head.weight, classes, width),
            1.0,
            Into::Overwrite,
        );
        let above_zero = self.is_above_zero();
        for (d, value) in d.iter_mut().zip(&self.values) {
            *d *= if above_zero {
                f32::from(u8::from(*value > 0.0))
            } else {
                1.0 - value * value
            };
        }
        d
    }

    /// The gradient `[tokens, width]` of what the encoder gave: nothing but for the rows' first tokens.
    pub(super) fn backward(&self, d_hidden: &mut [f32], bounds: &[usize], d_logits: &[f32]) {
        let (rows, width) = (self.rows, self.width);
        d_hidden.fill(0.0);
        let Some(dense) = self.dense else { return };
        let d = self.dense_backward(d_logits);
        let mut d_first = vec![0.0; rows * width];
        multiply(
            ViewMut::new(&mut d_first, rows, width),
            View::new(&d, rows, width),
            View::new(&dense.weight, width, width),
            1.0,
            Into::Overwrite,
        );
        for (start, row) in bounds.iter().zip(d_first.chunks_exact(width)) {
            if let Some(out) = d_hidden.get_mut(start * width..(start + 1) * width) {
                out.copy_from_slice(row);
            }
        }
    }
}

/// The sum of rows.
fn sum_rows(sum: &mut [f32], rows: &[f32]) {
    sum.fill(0.0);
    for row in rows.chunks_exact(sum.len().max(1)) {
        add(sum, row);
    }
}

/// The logarithms of the classes' probabilities.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let apart = logits.iter().map(|logit| f64::from(logit - most));
    let apart: Vec<f64> = apart.collect();
    let total: f64 = apart.iter().map(|value| value.exp()).sum();
    apart.into_iter().map(|value| value - total.ln()).collect()
}
