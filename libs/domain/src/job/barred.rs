//! What of a job keeps its sites from zeroth-order steps, where the planner chooses who makes them.

use super::aggregation::{Strategy, Trains};
use super::mezo::Wire;
use super::spec::{Optimizer, Spec};
use crate::zeroth::SCALARS_LIMIT;

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// A field of `training` that only steps by gradients have.
    Field(&'static str),
    /// A classification head, which is learned in full: zeroth-order steps move factors alone.
    Labels,
    /// A rule that trains B alone: zeroth-order steps move A as well.
    Rule(Strategy),
    /// So many scalars of a round, more than a message holds.
    Scalars(u64),
}

impl Spec {
    /// Whether sites may train zeroth-order: all, or those without room for gradients beside others.
    #[must_use]
    pub fn takes_zeroth_order(&self) -> bool {
        match self.training.optimizer {
            Optimizer::Mezo => true,
            Optimizer::Auto => self.bars().is_empty(),
            Optimizer::Adamw | Optimizer::Sgd => false,
        }
    }

    /// Everything that keeps sites without room for gradients from zeroth-order steps, were the optimizer left open.
    #[must_use]
    pub fn bars(&self) -> Vec<Bar> {
        let training = &self.training;
        let mut bars: Vec<Bar> = training.of_gradients_alone().map(Bar::Field).collect();
        if training.classifies() {
            bars.push(Bar::Labels);
        }
        let strategy = self.aggregation.strategy;
        if strategy.trains() == Trains::B {
            bars.push(Bar::Rule(strategy));
        }
        let scalars = training.mezo.scalars(training.most_steps());
        if training.mezo.wire == Wire::Scalars && scalars > SCALARS_LIMIT as u64 {
            bars.push(Bar::Scalars(scalars));
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str, expected: &[Bar]) {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},{more}}}"#
        );
        let spec: Spec = serde_json::from_str(&text).expect(more);
        assert_eq!(spec.check(), Ok(()), "{more}");
        assert_eq!(spec.bars(), expected, "{more}");
        assert_eq!(spec.takes_zeroth_order(), expected.is_empty(), "{more}");
    }

    #[test]
    fn a_job_that_leaves_the_optimizer_open_names_all_that_keeps_its_sites_at_gradients() {
        check(r#""training":{}"#, &[]);
        let limit = SCALARS_LIMIT;
        check(&format!(r#""training":{{"local_steps":{limit}}}"#), &[]);
        check(
            r#""training":{"local_steps":20000}"#,
            &[Bar::Scalars(20_000)],
        );
        let tensors =
            r#""training":{"local_steps":20000,"mezo":{"seeds":"per-worker","wire":"tensors"}}"#;
        check(tensors, &[]);
        check(r#""training":{"labels":["a","b"]}"#, &[Bar::Labels]);
        let ffa = r#""adapter":{"rank":8},"aggregation":{"strategy":"ffa"}"#;
        check(ffa, &[Bar::Rule(Strategy::Ffa)]);
        check(
            &format!(
                r#"{ffa},"training":{{"schedule":"cosine","warmup_ratio":0.1,"accumulate":2,"batch_tokens":512,"dropout":0.1}}"#
            ),
            &[
                Bar::Field("schedule"),
                Bar::Field("warmup_ratio"),
                Bar::Field("accumulate"),
                Bar::Field("batch_tokens"),
                Bar::Field("dropout"),
                Bar::Rule(Strategy::Ffa),
            ],
        );
    }
}
