//! The shape of a classification head, and what its tensors are called.
//!
//! Inside this program they have keys that stand before those of all factors in an adapter's file, whatever the family;
//! what is published has PEFT's.

use serde::{Deserialize, Serialize};

use super::{Encoder, Projection, WeightShape};

/// What stands before every key of PEFT's.
const PEFT: &str = "base_model.model.";

/// The key of BERT's head, PEFT's and this program's: the module `classifier` of `modules_to_save`, trained in full.
pub const HEAD_WEIGHT: &str = "base_model.model.classifier.weight";
/// The head's bias, `[classes]`.
pub const HEAD_BIAS: &str = "base_model.model.classifier.bias";

/// The shape of a classification head: a weight `[classes, width]` and a bias `[classes]`; where the family has it, behind a
/// dense layer of a weight `[width, width]` and a bias `[width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadShape {
    /// Whose head it is.
    pub encoder: Encoder,
    /// Classes that it tells apart.
    pub classes: usize,
    /// Width of what it reads.
    pub width: usize,
}

/// A tensor of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPart {
    /// `[classes, width]`
    Weight,
    /// `[classes]`
    Bias,
    /// `[width, width]`
    DenseWeight,
    /// `[width]`
    DenseBias,
}

/// A tensor of a head, with its names and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadTensor {
    /// Which it is.
    pub part: HeadPart,
    /// Its key in the files of this program.
    pub key: &'static str,
    /// Its name in a checkpoint.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl HeadTensor {
    /// PEFT's key.
    #[must_use]
    pub fn peft(&self) -> String {
        format!("{PEFT}{}", self.name)
    }
}

impl Encoder {
    /// Part, key and name of each tensor of a head, in the order of the keys.
    const fn head(self) -> &'static [(HeadPart, &'static str, &'static str)] {
        use HeadPart::{Bias, DenseBias, DenseWeight, Weight};
        match self {
            Self::Bert => &[
                (Bias, HEAD_BIAS, "classifier.bias"),
                (Weight, HEAD_WEIGHT, "classifier.weight"),
            ],
            Self::Roberta => &[
                (
                    DenseBias,
                    "base_model.model.classifier.dense.bias",
                    "classifier.dense.bias",
                ),
                (
                    DenseWeight,
                    "base_model.model.classifier.dense.weight",
                    "classifier.dense.weight",
                ),
                (
                    Bias,
                    "base_model.model.classifier.out_proj.bias",
                    "classifier.out_proj.bias",
                ),
                (
                    Weight,
                    "base_model.model.classifier.out_proj.weight",
                    "classifier.out_proj.weight",
                ),
            ],
            // PEFT's keys of the dense layer would stand behind the factors.
            Self::Distilbert => &[
                (Bias, HEAD_BIAS, "classifier.bias"),
                (
                    DenseBias,
                    "base_model.model.classifier.pre_classifier.bias",
                    "pre_classifier.bias",
                ),
                (
                    DenseWeight,
                    "base_model.model.classifier.pre_classifier.weight",
                    "pre_classifier.weight",
                ),
                (Weight, HEAD_WEIGHT, "classifier.weight"),
            ],
        }
    }

    /// Whether the head has a dense layer of its own.
    #[must_use]
    pub const fn has_dense(self) -> bool {
        !matches!(self, Self::Bert)
    }

    /// Whose head has tensors of these keys, this program's or PEFT's; none where there is no tensor of a head.
    #[must_use]
    pub fn of_head(has: impl Fn(&str) -> bool) -> Option<Self> {
        let any = |encoder: &Self, only_own: bool| {
            let mut tensors = encoder.head().iter();
            tensors.any(|(_, key, name)| {
                let shared = [HEAD_WEIGHT, HEAD_BIAS].contains(key);
                !(only_own && shared) && (has(key) || has(&format!("{PEFT}{name}")))
            })
        };
        // BERT's two keys are among DistilBERT's four.
        let mut others = [Self::Roberta, Self::Distilbert].into_iter();
        others
            .find(|encoder| any(encoder, true))
            .or_else(|| any(&Self::Bert, false).then_some(Self::Bert))
    }
}

/// Whether a key of this program's files is a head's, of any family.
#[must_use]
pub fn is_head_key(key: &str) -> bool {
    let mut all = Encoder::ALL.iter().flat_map(|encoder| encoder.head());
    all.any(|(_, own, _)| *own == key)
}

impl HeadShape {
    /// That of a head over a model of these weights: it reads what the queries read.
    #[must_use]
    pub fn over(encoder: Encoder, weights: &[WeightShape], classes: usize) -> Option<Self> {
        let query = |weight: &&WeightShape| weight.name.projection() == Projection::Q;
        let width = weights.iter().find(query)?.inp;
        (classes > 0).then_some(Self {
            encoder,
            classes,
            width,
        })
    }

    /// The shape of the head in a file of this program, of which this says the tensors' shapes; none where it has none.
    #[must_use]
    pub fn found(shape_of: impl Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let encoder = Encoder::of_head(|key| shape_of(key).is_some())?;
        let mut tensors = encoder.head().iter();
        let (_, key, _) = tensors.find(|(part, ..)| *part == HeadPart::Weight)?;
        match shape_of(key)?.as_slice() {
            &[classes, width] => Some(Self {
                encoder,
                classes,
                width,
            }),
            _ => None,
        }
    }

    /// Its tensors, in the order of their keys.
    #[must_use]
    pub fn tensors(self) -> Vec<HeadTensor> {
        let Self { classes, width, .. } = self;
        let tensor = |(part, key, name): &(HeadPart, &'static str, &'static str)| HeadTensor {
            part: *part,
            key,
            name,
            shape: match part {
                HeadPart::Weight => vec![classes, width],
                HeadPart::Bias => vec![classes],
                HeadPart::DenseWeight => vec![width, width],
                HeadPart::DenseBias => vec![width],
            },
        };
        self.encoder.head().iter().map(tensor).collect()
    }

    /// Its trainable parameters.
    #[must_use]
    pub fn parameters(self) -> u64 {
        let tensors = self.tensors().into_iter();
        tensors
            .map(|tensor| tensor.shape.iter().product::<usize>() as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::WeightName;
    use super::*;

    #[test]
    fn a_head_reads_what_queries_read() {
        let shape = |projection, out, inp| WeightShape {
            name: WeightName::new(0, projection),
            out,
            inp,
        };
        let weights = [shape(Projection::Down, 8, 32), shape(Projection::Q, 16, 8)];
        let over = |encoder, classes| HeadShape::over(encoder, &weights, classes);
        let head = over(Encoder::Bert, 3).expect("a head");
        assert_eq!((head.classes, head.width, head.parameters()), (3, 8, 27));
        for encoder in [Encoder::Roberta, Encoder::Distilbert] {
            let head = over(encoder, 3).expect("a head");
            assert_eq!(head.parameters(), 27 + 8 * 9);
        }
        assert_eq!(over(Encoder::Bert, 0), None);
        assert_eq!(HeadShape::over(Encoder::Bert, &[], 3), None);
    }

    /// Writers of adapters' files take tensors in the order of their names, the head first.
    #[test]
    fn keys_are_in_order_and_before_those_of_factors() {
        let factor = WeightName::new(0, Projection::Down).peft_a();
        for encoder in Encoder::ALL {
            let head = HeadShape {
                encoder,
                classes: 2,
                width: 4,
            };
            let keys: Vec<&str> = head.tensors().iter().map(|tensor| tensor.key).collect();
            assert!(keys.is_sorted(), "{keys:?}");
            assert!(keys.iter().all(|key| is_head_key(key) && **key < *factor));
            let shape_of = |wanted: &str| {
                let mut tensors = head.tensors().into_iter();
                tensors.find(|tensor| tensor.key == wanted).map(|t| t.shape)
            };
            assert_eq!(HeadShape::found(shape_of), Some(head));
            let peft: Vec<String> = head.tensors().iter().map(HeadTensor::peft).collect();
            let of_peft = Encoder::of_head(|key| peft.iter().any(|own| own == key));
            assert_eq!(of_peft, Some(encoder));
        }
        assert!(!is_head_key(&factor));
        assert_eq!(HeadShape::found(|_| None), None);
    }
}
