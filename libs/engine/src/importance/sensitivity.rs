//! The other way to importance: how sensitive the loss is to the triplets of an adapter in SVD form.
//!
//! AdaLoRA (Zhang et al., arXiv 2303.10512; `loralib/adalora.py`): a change is `s·B·diag(E)·A` with E
//! zero at first. At each step of AdamW every parameter has the sensitivity `I = |w·∂L/∂w|`, smoothed,
//! `Ī ← β₁·Ī + (1−β₁)·I`, with its uncertainty `U ← β₂·U + (1−β₂)·|I − Ī|`. A parameter scores `Ī·U`, and a
//! triplet the score of its E and the means of those of its row of A and its column of B.
//!
//! It needs an adapter of the highest rank with its optimizer, and at least [`STEPS`] steps: the scores of
//! the first few rank the noise of the start. Left out is AdaLoRA's penalty for bases that are not
//! orthogonal, which shapes the adapter, not the score.

use domain::adapter::WeightName;

use super::{Error, Importance, Settings, WeightImportance, pack, records_of};
use crate::adapter::{Adapter, Factors};
use crate::compute::{self, Changes, Keep, Learn, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::normal::Normals;
use crate::ops::lora_linear;
use crate::train::{AdamW, Options};

/// The fewest steps that say something.
pub const STEPS: usize = 40;

/// β₁ and β₂.
const SMOOTHING: f32 = 0.85;

/// The standard deviation of A and B at the start.
const SPREAD: f32 = 0.02;

/// How the adapter is trained while its parameters are watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// The scale `s` of the change.
    pub scale: f32,
    /// The rate of AdamW.
    pub rate: f32,
}

/// Measures the importance of the weights of `model` as AdaLoRA does, by one step on each of `batches`.
/// The energies of a weight are the scores of its triplets, the largest first. Of `settings` the bytes for
/// sketches do not matter; seven copies of an adapter of the highest rank are held instead.
///
/// # Errors
/// As [`super::measure`], or there are fewer than [`STEPS`] batches.
pub fn sensitivity(
    model: &Model,
    settings: &Settings<'_>,
    training: Training,
    batches: &[Batch],
    control: &Control,
) -> Result<Importance, Error> {
    if settings.targets.is_empty() || settings.rank_max == 0 {
        return Err(Error::NothingToMeasure);
    }
    if batches.len() < STEPS {
        return Err(Error::TooFewSteps {
            steps: batches.len(),
        });
    }
    let packed = pack(model, batches)?;
    let mut watched = Triplets::new(model, settings, training)?;
    for (batch, packed) in packed.iter().enumerate() {
        let loss = watched.step(packed, training.rate, control)?;
        if !loss.is_finite() {
            return Err(Error::loss(batch, batches));
        }
    }
    Ok(Importance {
        weights: watched.scores()?,
        records: records_of(batches),
    })
}

/// A value for each A and B, and for each E.
struct Values {
    factors: Changes,
    /// E of a stack where its A would be, and no B.
    middles: Changes,
}

impl Values {
    fn zeros_like(&self) -> Self {
        Self {
            factors: self.factors.zeros_like(),
            middles: self.middles.zeros_like(),
        }
    }

    fn slices(&self) -> impl Iterator<Item = &[f32]> {
        self.factors.slices().chain(self.middles.slices())
    }

    fn slices_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.factors.slices_mut().chain(self.middles.slices_mut())
    }
}

struct Triplets<'m> {
    model: &'m Model,
    own: Values,
    /// Overwritten by each step.
    gradient: Values,
    /// A, and B·diag(E): what the model computes with.
    joined: Changes,
    optimizers: [AdamW; 2],
    /// Ī and U.
    smoothed: [Values; 2],
    workspace: Workspace,
}

impl<'m> Triplets<'m> {
    fn new(model: &'m Model, settings: &Settings<'_>, training: Training) -> Result<Self, Error> {
        let start = start(model, settings, training.scale)?;
        let factors = Changes::new(model, &start)?;
        let middle = |factors: &lora_linear::Factors| lora_linear::Factors {
            a: vec![0.0; factors.rank()],
            parts: Vec::new(),
        };
        let middles = Changes {
            scale: factors.scale,
            blocks: factors
                .blocks
                .iter()
                .map(|block| block.each_ref().map(middle))
                .collect(),
            head: None,
        };
        let own = Values { factors, middles };
        Ok(Self {
            model,
            gradient: own.zeros_like(),
            joined: own.factors.clone(),
            optimizers: [AdamW::new(&own.factors), AdamW::new(&own.middles)],
            smoothed: [own.zeros_like(), own.zeros_like()],
            own,
            workspace: Workspace::default(),
        })
    }

    /// One step, and what it tells of every parameter; gives the batch's mean loss before it.
    fn step(&mut self, packed: &Packed, rate: f32, control: &Control) -> Result<f64, Error> {
        self.join();
        let keep = Keep::Inputs {
            from: self.joined.lowest().unwrap_or_default(),
        };
        let learn = Learn::Factors(&mut self.gradient.factors);
        let (changes, workspace) = (Some(&self.joined), &mut self.workspace);
        let loss = compute::learn(
            self.model,
            changes,
            packed,
            (keep, learn),
            control,
            workspace,
        )?;
        if loss.is_finite() {
            self.part();
            let options = Options::default();
            let [factors, middles] = &mut self.optimizers;
            let (own, gradient) = (&mut self.own, &self.gradient);
            factors.step(&mut own.factors, &gradient.factors, 1.0, rate, &options);
            middles.step(&mut own.middles, &gradient.middles, 1.0, rate, &options);
            self.watch();
        }
        Ok(loss)
    }

    /// `joined ← (A, B·diag(E))`.
    fn join(&mut self) {
        let stacks = self.own.factors.blocks.iter().flatten();
        let stacks = stacks.zip(self.own.middles.blocks.iter().flatten());
        for (joined, (own, middle)) in self.joined.blocks.iter_mut().flatten().zip(stacks) {
            joined.a.clone_from(&own.a);
            for (joined, own) in joined.parts.iter_mut().zip(&own.parts) {
                let e = middle
                    .a
                    .get(own.first..own.first + own.rank)
                    .unwrap_or_default();
                let rows = joined.b.chunks_exact_mut(own.rank);
                for (joined, own) in rows.zip(own.b.chunks_exact(own.rank)) {
                    let values = own.iter().zip(e);
                    joined
                        .iter_mut()
                        .zip(values)
                        .for_each(|(to, (b, e))| *to = b * e);
                }
            }
        }
    }

    /// From the gradient of `B·diag(E)` to those of B and E.
    fn part(&mut self) {
        let Values { factors, middles } = &mut self.gradient;
        let gradients = factors
            .blocks
            .iter_mut()
            .flatten()
            .zip(middles.blocks.iter_mut().flatten());
        let stacks = self.own.factors.blocks.iter().flatten();
        let stacks = stacks.zip(self.own.middles.blocks.iter().flatten());
        for ((gradient, d_middle), (own, middle)) in gradients.zip(stacks) {
            d_middle.a.fill(0.0);
            for (gradient, own) in gradient.parts.iter_mut().zip(&own.parts) {
                let place = own.first..own.first + own.rank;
                let e = middle.a.get(place.clone()).unwrap_or_default();
                let d_e = d_middle.a.get_mut(place).unwrap_or_default();
                let rows = gradient.b.chunks_exact_mut(own.rank);
                for (d, b) in rows.zip(own.b.chunks_exact(own.rank)) {
                    for (((d, b), e), d_e) in d.iter_mut().zip(b).zip(e).zip(d_e.iter_mut()) {
                        *d_e += *d * b;
                        *d *= e;
                    }
                }
            }
        }
    }

    /// Smooths the sensitivity of every parameter.
    fn watch(&mut self) {
        let [mean, uncertainty] = &mut self.smoothed;
        let smoothed = mean.slices_mut().zip(uncertainty.slices_mut());
        let now = self.own.slices().zip(self.gradient.slices());
        for ((mean, uncertainty), (own, gradient)) in smoothed.zip(now) {
            let values = own.iter().zip(gradient);
            for ((mean, uncertainty), (w, g)) in mean.iter_mut().zip(uncertainty).zip(values) {
                let sensitivity = (w * g).abs();
                *mean = SMOOTHING * *mean + (1.0 - SMOOTHING) * sensitivity;
                let off = (sensitivity - *mean).abs();
                *uncertainty = SMOOTHING * *uncertainty + (1.0 - SMOOTHING) * off;
            }
        }
    }

    /// What the triplets of each weight score.
    fn scores(self) -> Result<Vec<WeightImportance>, Error> {
        let [mut score, uncertainty] = self.smoothed;
        for (score, uncertainty) in score.slices_mut().zip(uncertainty.slices()) {
            let values = score.iter_mut().zip(uncertainty);
            values.for_each(|(score, uncertainty)| *score *= uncertainty);
        }
        let mut weights = Vec::new();
        let blocks = self.model.blocks().iter();
        let scores = score.factors.blocks.iter().zip(&score.middles.blocks);
        for ((layer, block), (factors, middles)) in (0u16..).zip(blocks).zip(scores) {
            let stacks = block.stacks.iter().zip(factors.iter().zip(middles));
            for (stack, (factors, middle)) in stacks {
                for part in &factors.parts {
                    let Some(place) = stack.parts.iter().find(|place| place.first == part.column)
                    else {
                        continue;
                    };
                    let name = WeightName::new(layer, place.projection);
                    let mut energies = triplets(factors, part, &middle.a);
                    if !energies.iter().all(|energy| energy.is_finite()) {
                        return Err(Error::Gradient { weight: name });
                    }
                    energies.sort_by(|one, other| other.total_cmp(one));
                    weights.push(WeightImportance { name, energies });
                }
            }
        }
        Ok(weights)
    }
}

/// `s(E_j)` and the means of `s` over row j of A and column j of B, for each triplet of one weight.
fn triplets(factors: &lora_linear::Factors, part: &lora_linear::Part, middle: &[f32]) -> Vec<f32> {
    let inputs = factors.a.len() / factors.rank();
    let of = |j: usize| {
        let row = factors
            .a
            .chunks_exact(inputs)
            .nth(part.first + j)
            .unwrap_or_default();
        let column = part.b.iter().skip(j).step_by(part.rank);
        let mean = |sum: f32, count: usize| sum / count as f32;
        let e = middle.get(part.first + j).copied().unwrap_or_default();
        e + mean(row.iter().sum(), inputs) + mean(column.sum(), part.outputs)
    };
    (0..part.rank).map(of).collect()
}

/// A and B normal, as AdaLoRA begins.
pub(super) fn start(
    model: &Model,
    settings: &Settings<'_>,
    scale: f32,
) -> Result<Adapter, crate::adapter::Error> {
    let random = Normals::triplets(settings.seed);
    let wanted = model.weights().into_iter();
    let wanted = wanted.filter(|shape| settings.targets.contains(&shape.name.projection()));
    let factors = wanted.map(|shape| {
        let tensor = 2 * (16 * u32::from(shape.name.layer()) + shape.name.projection() as u32);
        let values = |tensor: u32, len: usize| {
            let mut values = vec![0.0; len];
            random.add(tensor, &mut values, SPREAD);
            values
        };
        let rank = usize::from(settings.rank_max);
        let (a, b) = (
            values(tensor, rank * shape.inp),
            values(tensor + 1, rank * shape.out),
        );
        Factors::new(shape, settings.rank_max, a, b)
    });
    Adapter::new(scale, factors.collect::<Result<Vec<_>, _>>()?)
}
