//! Why a worker's choice is what it is: what binds, what the next better choices would have cost, and why
//! they were rejected.

mod alternatives;
mod text;

use domain::adapter::RankTable;
use domain::plan::{Binding, Explanation, Prediction, RankBasis, RankSummary};

use super::program::{Choice, Instance};
use super::site::Site;
use super::solve::Decision;

/// What a limit's removal must gain, as a share, to be more than rounding.
const LEAST: f64 = 1e-9;

/// What is to be explained.
pub(super) struct Chosen<'a> {
    pub site: &'a Site<'a>,
    pub decision: &'a Decision<'a>,
    pub ranks: &'a RankTable,
    /// `Σ φ` of these ranks.
    pub gain: f64,
    pub predicted: &'a Prediction,
    /// Seconds in which the fleet finishes.
    pub fleet_seconds: f64,
}

impl Chosen<'_> {
    /// The explanation.
    pub(super) fn explain(&self) -> Explanation {
        let rejected = alternatives::rejected(self);
        let binding = self.binding();
        let ranks = summary(self.ranks);
        Explanation {
            text: text::text(self, binding, &rejected, &ranks),
            binding,
            rejected,
            ranks,
        }
    }

    /// The limit whose removal would gain most.
    fn binding(&self) -> Binding {
        let spec = self.site.source.spec;
        let training = &spec.training;
        let sizes = training.batch.fixed().is_some() && training.local_steps.fixed().is_some();
        if spec.adapter.rank.fixed().is_some() && sizes {
            return Binding::Job;
        }
        let value = self.decision.solution.value;
        // The job's deadlines are a limit of time as the fleet's round is, and fall with it.
        let untimed = self.site.open.choices.iter().map(|choice| Choice {
            longest: f64::INFINITY,
            ..*choice
        });
        let untimed: Vec<Choice> = untimed.collect();
        let without = |memory: f64, seconds: f64| {
            let mut instance = Instance {
                memory,
                ..self.site.instance(seconds)
            };
            if seconds.is_infinite() {
                instance.choices = &untimed;
            }
            most(&instance).map_or(0.0, |most| most - value)
        };
        let (by_memory, by_time) = (
            without(f64::MAX, self.fleet_seconds),
            without(self.site.memory(), f64::INFINITY),
        );
        let least = LEAST * value.abs();
        if by_memory.max(by_time) > least {
            return if by_memory >= by_time {
                Binding::Memory
            } else {
                Binding::Time
            };
        }
        // Neither alone is in the way: both are, or nothing is.
        if without(f64::MAX, f64::INFINITY) > least {
            Binding::Memory
        } else {
            Binding::Nothing
        }
    }

    /// Whether a longer round of the fleet would gain nothing, as long as the job's deadlines stand.
    fn is_held_by_deadlines(&self) -> bool {
        let value = self.decision.solution.value;
        let longer = most(&self.site.instance(f64::INFINITY));
        longer.is_none_or(|longer| longer - value <= LEAST * value.abs())
    }

    /// Whether each weight has its own rank.
    fn is_by_weight(&self) -> bool {
        self.site.source.space.basis == RankBasis::Measured
    }
}

/// The most that whole steps reach under the budgets.
fn most(instance: &Instance<'_>) -> Option<f64> {
    let values = instance.choices.iter().filter_map(|choice| {
        let room = choice.room(instance.memory, instance.seconds)?;
        let (_, gain) = instance.frontier.reached(room)?;
        Some(choice.value(gain))
    });
    values.max_by(f64::total_cmp)
}

fn summary(ranks: &RankTable) -> Vec<RankSummary> {
    let of = |projection| {
        let row = ranks.row(projection);
        let trained = || row.iter().copied().filter(|rank| *rank > 0);
        let count = |blocks: usize| u16::try_from(blocks).unwrap_or(u16::MAX);
        let sum: f64 = trained().map(f64::from).sum();
        RankSummary {
            projection,
            trained: count(trained().count()),
            frozen: count(row.len() - trained().count()),
            least: trained().min().unwrap_or(0),
            most: trained().max().unwrap_or(0),
            mean: sum / row.len().max(1) as f64,
        }
    };
    ranks.targets().map(of).collect()
}
