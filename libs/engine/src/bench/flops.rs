//! How many floating-point operations a step needs: the count by which speeds are compared.

use domain::adapter::Projection;

use super::Workload;
use crate::model::Config;

/// How often each kind of product is computed in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passes {
    /// Products with a frozen weight: the output, and in backward the gradient of the input.
    frozen: f64,
    /// Products with a factor: the output, the gradients of input and factor.
    factors: f64,
    /// The two products of attention; backward has four.
    attention: f64,
}

impl Passes {
    pub(super) const FORWARD: Self = Self {
        frozen: 1.0,
        factors: 0.0,
        attention: 1.0,
    };
    pub(super) const TWO_FORWARDS: Self = Self {
        frozen: 2.0,
        factors: 2.0,
        attention: 2.0,
    };
    pub(super) const FORWARD_BACKWARD: Self = Self {
        frozen: 2.0,
        factors: 3.0,
        attention: 3.0,
    };
}

/// Operations of one pass of a whole step: a multiplication and an addition are two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flops {
    frozen: f64,
    factors: f64,
    attention: f64,
}

impl Flops {
    pub(super) fn of(config: &Config, workload: &Workload<'_>) -> Self {
        let Workload {
            batch, sequence, ..
        } = *workload;
        let (rows, tokens) = (batch as f64, (batch * sequence) as f64);
        let layers = config.layers as f64;
        let size = |projection: &Projection| config.shape(*projection);
        let projections: Vec<_> = config.projections().collect();
        let block: usize = projections.iter().map(size).map(|(o, i)| o * i).sum();
        // The first token of a row has nothing before it and is never predicted.
        let predicted = rows * workload.labelled.min(sequence.saturating_sub(1)) as f64;
        let output = (config.vocabulary * config.hidden) as f64;
        let targets = workload.targets.iter();
        let widths: usize = targets.map(size).map(|(o, i)| o + i).sum();
        // Query `t` of a row sees `t + 1` keys.
        let pairs = rows * (sequence * (sequence + 1)) as f64 / 2.0;
        let width = (config.heads * config.head_size) as f64;
        Self {
            frozen: 2.0 * (tokens * layers * block as f64 + predicted * output),
            factors: 2.0 * tokens * layers * (usize::from(workload.rank) * widths) as f64,
            attention: 2.0 * 2.0 * layers * pairs * width,
        }
    }

    pub(super) fn total(self, passes: Passes) -> f64 {
        passes.frozen * self.frozen
            + passes.factors * self.factors
            + passes.attention * self.attention
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of SmolLM2-135M, whose 134.5 million parameters all take part in products.
    #[test]
    fn a_token_of_smollm2_costs_four_times_its_parameters_and_what_adapter_and_attention_add() {
        let config = Config {
            architecture: crate::model::Architecture::Llama,
            layers: 30,
            hidden: 576,
            intermediate: 1536,
            heads: 9,
            kv_heads: 3,
            head_size: 64,
            vocabulary: 49152,
            context: 8192,
            padding: None,
            epsilon: 1e-5,
            rope_theta: 1e5,
            rope_factors: Vec::new(),
            tied: true,
            score_scale: None,
            sliding: None,
        };
        let workload = Workload {
            targets: &Projection::ALL,
            rank: 16,
            batch: 4,
            sequence: 256,
            labelled: 256,
            steps: 1,
            checkpoint: false,
        };
        let flops = Flops::of(&config, &workload);
        let per_token = |passes| flops.total(passes) / 1024.0;
        let unlabelled = 49152.0 * 576.0 / 256.0;
        let frozen = 134_479_872.0 - unlabelled;
        let attention = 4.0 * 30.0 * 576.0 * 128.5;
        let trained = 4.0 * frozen + 6.0 * 4_884_480.0 + 3.0 * attention;
        assert_eq!(per_token(Passes::FORWARD_BACKWARD), trained);
        assert_eq!(per_token(Passes::FORWARD), 2.0 * frozen + attention);
        let moved = 4.0 * frozen + 4.0 * 4_884_480.0 + 2.0 * attention;
        assert_eq!(per_token(Passes::TWO_FORWARDS), moved);
    }
}
