//! How updates become one adapter: the rule, the weights, and what the server does with their mean.

use serde::{Deserialize, Serialize};

use super::legality::{self, Combination};
use super::spec::Spec;

/// The rule that merges updates. Its files: one per rule in the aggregator's `strategy`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Merges the changes as products and refactorizes; exact up to the kept rank.
    #[default]
    Product,
    /// Appends the updates to a side term that all apply and nobody trains, and restarts the adapter
    /// (`FLoRA`); exact.
    Stack,
    /// A is drawn once and frozen, B is averaged (FFA-LoRA); exact, half the bytes.
    Ffa,
    /// Averages each rank-1 slice over the sites that have it (RBLA); not exact.
    Slice,
    /// Averages A and averages B (`FedIT`); not exact.
    Fedit,
    /// Averages as `slice`, and puts what that leaves out into a side term (FedEx-LoRA); exact.
    Residual,
    /// The mean of the parameters at one common rank: exact where sites move along directions that all
    /// know, as zeroth-order sites do.
    Sum,
}

/// Which factors of an adapter a site trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trains {
    /// A and B.
    #[default]
    Both,
    /// B alone; A is the same everywhere and does not travel.
    B,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Product,
        Self::Stack,
        Self::Ffa,
        Self::Slice,
        Self::Fedit,
        Self::Residual,
        Self::Sum,
    ];

    /// Its name in job files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Stack => "stack",
            Self::Ffa => "ffa",
            Self::Slice => "slice",
            Self::Fedit => "fedit",
            Self::Residual => "residual",
            Self::Sum => "sum",
        }
    }

    /// Which factors its sites train.
    #[must_use]
    pub const fn trains(self) -> Trains {
        match self {
            Self::Ffa => Trains::B,
            _ => Trains::Both,
        }
    }

    /// Whether its merged adapters carry slices that every site applies and none trains.
    #[must_use]
    pub const fn has_side_term(self) -> bool {
        matches!(self, Self::Stack | Self::Residual)
    }

    /// Whether a slice means the same direction from round to round, so that the server may keep
    /// moments of it.
    #[must_use]
    pub const fn keeps_coordinates(self) -> bool {
        matches!(self, Self::Ffa | Self::Slice | Self::Fedit | Self::Sum)
    }

    /// Whether it can merge sites of different rank.
    #[must_use]
    pub const fn takes_uneven_ranks(self) -> bool {
        matches!(
            self,
            Self::Product | Self::Stack | Self::Slice | Self::Residual
        )
    }

    /// Whether the merged change is the mean of the sites' changes, up to what the kept rank drops.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        matches!(
            self,
            Self::Product | Self::Stack | Self::Ffa | Self::Residual
        )
    }

    /// Slices of the side term of one weight after `rounds` rounds at most, when the sites' ranks add
    /// up to `ranks` and the merged adapter holds `kept`: what a site must have room for, in f32.
    #[must_use]
    pub fn side_slices(
        self,
        (out, inp): (usize, usize),
        rounds: usize,
        ranks: usize,
        kept: usize,
    ) -> usize {
        let added = match self {
            Self::Stack => ranks,
            Self::Residual => ranks + 2 * kept,
            _ => 0,
        };
        out.min(inp).min(added.saturating_mul(rounds))
    }
}

/// A site's share of the merge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// By records trained on in the round.
    #[default]
    Samples,
    /// By tokens trained on in the round.
    Tokens,
    /// The same for every site.
    Equal,
}

/// What is done where sites take different numbers of steps in a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Nothing: who takes more steps moves the mean more.
    #[default]
    None,
    /// Each change is divided by its steps, and their mean multiplied by the mean number of steps
    /// (`FedNova`, arXiv 2007.07481).
    Fednova,
}

/// What the server does with the mean of the changes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// Adds it.
    #[default]
    Fedavg,
    /// Adds it with momentum (arXiv 1909.06335).
    Fedavgm,
    /// Takes it for a gradient in Adam (arXiv 2003.00295).
    Fedadam,
    /// In Yogi.
    Fedyogi,
    /// In Adagrad.
    Fedadagrad,
}

impl ServerKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Fedavg,
        Self::Fedavgm,
        Self::Fedadam,
        Self::Fedyogi,
        Self::Fedadagrad,
    ];

    /// Its name in job files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fedavg => "fedavg",
            Self::Fedavgm => "fedavgm",
            Self::Fedadam => "fedadam",
            Self::Fedyogi => "fedyogi",
            Self::Fedadagrad => "fedadagrad",
        }
    }

    /// Whether it remembers anything from round to round.
    #[must_use]
    pub const fn has_state(self) -> bool {
        !matches!(self, Self::Fedavg)
    }
}

/// The server's optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerOptimizer {
    /// Which.
    pub kind: ServerKind,
    /// η; absent: 1 for `fedavg` and `fedavgm`, 1e-3 for the others.
    pub learning_rate: Option<f64>,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// τ, how much the server adapts at most.
    pub tau: f64,
}

impl Default for ServerOptimizer {
    fn default() -> Self {
        Self {
            kind: ServerKind::Fedavg,
            learning_rate: None,
            beta1: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        }
    }
}

impl ServerOptimizer {
    /// η, the default filled in.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.learning_rate.unwrap_or(match self.kind {
            ServerKind::Fedavg | ServerKind::Fedavgm => 1.0,
            ServerKind::Fedadam | ServerKind::Fedyogi | ServerKind::Fedadagrad => 1e-3,
        })
    }
}

/// How updates become one adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aggregation {
    /// The rule.
    pub strategy: Strategy,
    /// The weights.
    pub weights: Weighting,
    /// What becomes of uneven numbers of steps.
    pub normalize: Normalize,
    /// What the server does with the mean.
    pub optimizer: ServerOptimizer,
    /// Largest Frobenius norm of a site's change, over all weights together; a larger update is refused.
    /// Absent: none is too large.
    pub norm_bound: Option<f64>,
}

impl Aggregation {
    /// Checks the fields, and that they may stand together with the rest of the job.
    pub(super) fn check(&self, spec: &Spec, refuse: &mut impl FnMut(&str, String)) {
        let ServerOptimizer {
            kind,
            learning_rate,
            beta1,
            beta2,
            tau,
        } = self.optimizer;
        let decays = |beta: f64| (0.0..1.0).contains(&beta);
        if !(decays(beta1) && decays(beta2)) {
            let problem = "use numbers from 0 up to, not including, 1".to_owned();
            refuse("aggregation.optimizer.beta", problem);
        }
        if !(tau.is_finite() && tau > 0.0) {
            let problem = "use a number above 0".to_owned();
            refuse("aggregation.optimizer.tau", problem);
        }
        let rate = self.optimizer.rate();
        if !(rate.is_finite() && rate > 0.0 && rate <= 10.0) {
            let problem = "use a number above 0, at most 10".to_owned();
            refuse("aggregation.optimizer.learning_rate", problem);
        }
        if kind == ServerKind::Fedavg && learning_rate.is_some_and(|rate| rate != 1.0) {
            let problem = "fedavg adds the mean as it is; leave it out, or choose fedavgm";
            refuse("aggregation.optimizer.learning_rate", problem.to_owned());
        }
        if self
            .norm_bound
            .is_some_and(|bound| !(bound.is_finite() && bound > 0.0))
        {
            let problem = "use a number above 0, or leave it out".to_owned();
            refuse("aggregation.norm_bound", problem);
        }
        if let Err(illegal) = legality::judge(Combination::of(spec)) {
            refuse(illegal.field, illegal.to_string());
        }
        if let Some(problem) = legality::uneven_steps(spec) {
            refuse("training.local_steps", problem.to_owned());
        }
    }
}
