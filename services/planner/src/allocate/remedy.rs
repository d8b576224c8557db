//! What a person can do about a fleet that cannot be planned for: the fields of the job that stand in the way, and
//! whose sites' data or models do.

use domain::cause::{SiteTrouble, Trouble};
use domain::job::Quorum;
use domain::job::spec::Spec;

use super::lacking::fixed_modes;

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
        if spec.evaluation.is_some() {
            steps.push("lower adapter.rank_max, or leave evaluation out".to_owned());
        }
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
    if memory && spec.adapter.rank.fixed().is_some_and(|rank| *rank > 1) {
        free.push("adapter.rank");
    }
    if memory && spec.training.batch.fixed().is_some_and(|batch| *batch > 1) {
        free.push("training.batch");
    }
    if memory || modes {
        let fixed = fixed_modes(spec).into_iter().map(|(field, _)| field);
        // Arithmetic takes no memory of its own.
        free.extend(fixed.filter(|field| modes || *field != "precision.compute"));
    }
    free
}
