//! From the rows' first tokens to classes, as `BertForSequenceClassification` goes: a linear layer, a hyperbolic tangent,
//! the head. Few rows and small matrices: nothing here is worth a buffer of the workspace.

use super::super::Packed;
use super::super::forward::add;
use crate::adapter::Head;
use crate::model::Encoder;
use crate::ops::product::{Into, View, ViewMut, multiply};

/// What the head reads, `[rows, width]`.
pub(super) struct Pooled {
    values: Vec<f32>,
    rows: usize,
    width: usize,
}

impl Pooled {
    /// Of `hidden` `[tokens, width]`, whose rows begin at `bounds`.
    pub(super) fn new(encoder: &Encoder, hidden: &[f32], bounds: &[usize]) -> Self {
        let (rows, width) = (bounds.len().saturating_sub(1), encoder.pooler_bias.len());
        let mut first = Vec::with_capacity(rows * width);
        for start in bounds.iter().take(rows) {
            let token = hidden.get(start * width..(start + 1) * width);
            first.extend_from_slice(token.unwrap_or_default());
        }
        let mut values = vec![0.0; rows * width];
        multiply(
            ViewMut::new(&mut values, rows, width),
            View::new(&first, rows, width),
            View::new(&encoder.pooler, width, width).t(),
            1.0,
            Into::Overwrite,
        );
        for row in values.chunks_exact_mut(width) {
            add(row, &encoder.pooler_bias);
            row.iter_mut().for_each(|value| *value = value.tanh());
        }
        Self {
            values,
            rows,
            width,
        }
    }

    /// `[rows, classes]`
    pub(super) fn logits(&self, head: &Head) -> Vec<f32> {
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
    pub(super) fn loss(&self, head: &Head, packed: &Packed) -> (f64, Vec<f32>) {
        let classes = head.shape().classes;
        let logits = self.logits(head);
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
        gradient.bias.fill(0.0);
        for row in d_logits.chunks_exact(classes) {
            add(&mut gradient.bias, row);
        }
    }

    /// The gradient `[tokens, width]` of what the encoder gave: nothing but for the rows' first tokens.
    pub(super) fn backward(
        &self,
        d_hidden: &mut [f32],
        bounds: &[usize],
        (encoder, head): (&Encoder, &Head),
        d_logits: &[f32],
    ) {
        let (rows, width) = (self.rows, self.width);
        let classes = head.shape().classes;
        let mut d = vec![0.0; rows * width];
        multiply(
            ViewMut::new(&mut d, rows, width),
            View::new(d_logits, rows, classes),
            View::new(&head.weight, classes, width),
            1.0,
            Into::Overwrite,
        );
        for (d, value) in d.iter_mut().zip(&self.values) {
            *d *= 1.0 - value * value;
        }
        let mut d_first = vec![0.0; rows * width];
        multiply(
            ViewMut::new(&mut d_first, rows, width),
            View::new(&d, rows, width),
            View::new(&encoder.pooler, width, width),
            1.0,
            Into::Overwrite,
        );
        d_hidden.fill(0.0);
        for (start, row) in bounds.iter().zip(d_first.chunks_exact(width)) {
            if let Some(out) = d_hidden.get_mut(start * width..(start + 1) * width) {
                out.copy_from_slice(row);
            }
        }
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
