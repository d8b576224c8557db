//! What a person can do about a fleet that cannot be planned for: the fields of the job that stand in the way, and
//! whose sites' data or models do. Nothing is advised that submission would refuse.

use domain::cause::{SiteTrouble, Trouble};
use domain::job::barred::Bar;
use domain::job::spec::{Optimizer, Spec};
use domain::job::{Choice, Quorum};

use super::lacking::fixed_modes;
use super::sizes::sizes;

/// As the end of a message: empty where none of these would help. `able` sites can take part.
pub(super) fn next(spec: &Spec, able: usize, excluded: &[SiteTrouble]) -> String {
    let has = |trouble| excluded.iter().any(|site| site.trouble == trouble);
    let mut steps: Vec<String> = Vec::new();
    let free = free(
        spec,
        has(Trouble::OutOfMemory),
        has(Trouble::PlanUnsupported),
    );
    if !free.is_empty() {
        steps.push(format!("leave {} to auto", free.join(", ")));
    }
    if has(Trouble::OutOfMemory) {
        steps.push("shorten training.sequence_length".to_owned());
        if spec.training.batch_tokens.is_some() {
            steps.push("lower training.batch_tokens".to_owned());
        }
        steps.extend(smaller_adapter(spec));
        steps.extend(without_gradients(spec));
    }
    if has(Trouble::TooLate) {
        let words = "raise rounds.deadline or deadline_seconds";
        let steps_are_fixed = spec.training.local_steps.fixed().is_some();
        let or = if steps_are_fixed {
            ", or lower training.local_steps"
        } else {
            ""
        };
        steps.push(format!("{words}{or}"));
    }
    if has(Trouble::DataUnusable) || has(Trouble::ModelUnusable) {
        let words = "see that every site has the job's model and records of its data set";
        steps.push(words.to_owned());
    }
    if able > 0 && spec.rounds.quorum != Quorum::Auto {
        steps.push(format!("lower rounds.quorum to {able}, or to auto"));
    }
    if excluded.is_empty() && able == 0 {
        steps.push("see with `fedpipe fleet` which sites run and have the data set".to_owned());
    }
    match steps.split_last() {
        None => String::new(),
        Some((last, [])) => format!("; next: {last}"),
        Some((last, others)) => format!("; next: {}; or {last}", others.join("; ")),
    }
}

/// Fields that the job fixes and that `auto` would make smaller, or let a site choose.
fn free(spec: &Spec, memory: bool, modes: bool) -> Vec<&'static str> {
    let mut free = Vec::new();
    let uneven = spec.aggregation.strategy.takes_uneven_ranks();
    if memory && uneven && spec.adapter.rank.fixed().is_some_and(|rank| *rank > 1) {
        free.push("adapter.rank");
    }
    let batch = spec.training.batch.fixed();
    if memory && batch.is_some_and(|batch| *batch > least_batch(spec)) {
        free.push("training.batch");
    }
    if memory || modes {
        let fixed = fixed_modes(spec).into_iter().map(|(field, _)| field);
        free.extend(fixed.filter(|field| match *field {
            "training.optimizer" => optimizer_helps(spec, modes),
            // Arithmetic takes no memory of its own.
            "precision.compute" => modes,
            _ => true,
        }));
    }
    free
}

/// The smallest batch that `auto` takes at a site of enough records: large enough that no site must refuse it.
fn least_batch(spec: &Spec) -> u16 {
    let mut open = spec.clone();
    open.training.batch = Choice::Auto;
    let enough = (u64::MAX, 1.0);
    let legal = sizes(&open, spec.training.optimizer, enough).into_iter();
    legal.map(|(batch, _)| batch).min().unwrap_or(1)
}

/// Whether a site gains by an open optimizer. Memory does by zeroth-order steps alone: beside these all take more.
fn optimizer_helps(spec: &Spec, modes: bool) -> bool {
    let mut open = spec.clone();
    open.training.optimizer = Optimizer::Auto;
    let smaller = !spec.training.is_zeroth_order() && open.takes_zeroth_order();
    (modes || smaller) && open.check().is_ok()
}

/// What makes adapters smaller that `auto` does not: one rank of all sites, and the merged adapter, which scoring loads
/// and zeroth-order sites train, whole.
fn smaller_adapter(spec: &Spec) -> Option<String> {
    let (rank, rank_max) = (spec.adapter.rank.fixed().copied(), spec.adapter.rank_max);
    let is_scored = spec.evaluation.is_some();
    let one_rank =
        !spec.aggregation.strategy.takes_uneven_ranks() && rank.is_some_and(|rank| rank > 1);
    let needs_all = is_scored || spec.training.is_zeroth_order();
    let smaller = if rank_max == 1 {
        None
    } else if needs_all && rank == Some(rank_max) {
        // No rank may be above it.
        Some("adapter.rank and adapter.rank_max together")
    } else if is_scored && one_rank {
        Some("adapter.rank or adapter.rank_max")
    } else if is_scored {
        Some("adapter.rank_max")
    } else {
        one_rank.then_some("adapter.rank")
    };
    // A job that goes by its scores is refused without them.
    let may_leave_out = is_scored && !spec.rounds.compares_scores();
    match (smaller, may_leave_out) {
        (Some(fields), true) => Some(format!("lower {fields}, or leave evaluation out")),
        (Some(fields), false) => Some(format!("lower {fields}")),
        (None, true) => Some("leave evaluation out".to_owned()),
        (None, false) => None,
    }
}

/// What lets sites without room for gradients train zeroth-order, where a setting keeps them from it. A rule, or a head
/// for labels, is what the job is about, and nobody is told to give it up.
fn without_gradients(spec: &Spec) -> Option<String> {
    let (mut fields, mut scalars) = (Vec::new(), false);
    if spec.training.optimizer == Optimizer::Auto {
        for bar in spec.bars() {
            match bar {
                Bar::Field(field) => fields.push(format!("training.{field}")),
                Bar::Scalars(_) => scalars = true,
                Bar::Labels | Bar::Rule(_) => return None,
            }
        }
    }
    let out = (!fields.is_empty()).then(|| format!("leave {} out", fields.join(", ")));
    let fewer = scalars.then(|| "lower training.local_steps".to_owned());
    let steps: Vec<String> = out.into_iter().chain(fewer).collect();
    let why = "so that sites without room for gradients may train zeroth-order";
    (!steps.is_empty()).then(|| format!("{}, {why}", steps.join(" and ")))
}
