//! The explanation as one paragraph.

use domain::job::spec::{Compute, Optimizer, Spec};
use domain::job::training::AUTO_STEPS_LIMIT;
use domain::plan::{Binding, Change, RankBasis, RankSummary, Rejected};
use domain::profile::Mode;

use crate::allocate::mode;
use crate::allocate::predict::{memory_margin, needed_bytes};
use crate::allocate::units::{bytes, loss, seconds};

use super::Chosen;

/// Tells what was chosen, on what grounds, what limits it and what was rejected.
pub(super) fn text(
    chosen: &Chosen<'_>,
    binding: Binding,
    rejected: &[Rejected],
    ranks: &[RankSummary],
) -> String {
    let mut sentences = vec![choice(chosen, ranks), grounds(chosen)];
    let spec = chosen.site.source.spec;
    let zeroth_order = chosen.decision.lane.mode.mode.optimizer == Optimizer::Mezo;
    if zeroth_order && !spec.training.is_zeroth_order() {
        sentences.push(without_gradients(chosen));
    }
    if spec.training.batch.fixed().is_none() {
        let noise = chosen.site.source.worth.noise.says();
        sentences.push(format!("The gradient's noise scale is {noise}."));
    }
    if spec.training.local_steps.fixed().is_none() {
        sentences.push(format!(
            "The job leaves the steps open, 1 to {AUTO_STEPS_LIMIT}: a site of another speed may make more or fewer, \
             and the merge is normalized by them."
        ));
    }
    sentences.push(computing(chosen));
    for (what, fixed) in [
        ("rank", spec.adapter.rank.fixed().is_some()),
        ("batch", spec.training.batch.fixed().is_some()),
    ] {
        if fixed {
            sentences.push(format!("The job fixes the {what}."));
        }
    }
    match binding {
        Binding::Memory => sentences.push("Memory is what limits it.".to_owned()),
        Binding::Time => sentences.push(time(chosen)),
        Binding::Nothing => sentences.push("Nothing larger would gain.".to_owned()),
        Binding::Job => {}
    }
    sentences.extend(rejected.iter().map(|other| rejection(chosen, other)));
    sentences.join(" ")
}

/// Why it does without gradients beside sites that have them.
fn without_gradients(chosen: &Chosen<'_>) -> String {
    let (site, spec) = (chosen.site, chosen.site.source.spec);
    let measured = || {
        let modes = site.profile.modes.iter().map(|fitted| &fitted.mode);
        modes.filter(|mode| mode.optimizer != Optimizer::Mezo && mode::is_open(mode, spec))
    };
    // Whether what was measured in a mode tells what a step of this job needs.
    let tells = |mode: &Mode| {
        let mut lanes = site.shown.lanes.iter();
        lanes.any(|lane| lane.mode.mode == *mode)
    };
    let why = if measured().next().is_none() {
        "No step by gradients was measured here, for want of memory or time"
    } else if measured().all(tells) {
        "No step by gradients fits here"
    } else {
        "No step by gradients is known to fit here (some were measured too small to plan one of this job by, or \
         without scoring)"
    };
    format!("{why}, so it trains zeroth-order, by forward passes alone.")
}

fn time(chosen: &Chosen<'_>) -> String {
    let fleet = seconds(chosen.fleet_seconds);
    let mut words =
        format!("Time is what limits it: the fleet finishes a round together in {fleet}");
    if chosen.is_held_by_deadlines() {
        let longest = seconds(chosen.decision.choice.longest);
        words.push_str(&format!(", and the job's deadlines leave {longest}"));
    }
    words.push('.');
    words
}

fn choice(chosen: &Chosen<'_>, ranks: &[RankSummary]) -> String {
    let (site, predicted) = (chosen.site, chosen.predicted);
    let margin = memory_margin(chosen.decision.lane.mode);
    format!(
        "Trains {} with {}: {} a step, {} a round of {} steps, and at most {} of the {} of \
         memory it may use ({} with {:.1} % for the error that its measurements showed).",
        trained(chosen, ranks),
        a_step(site.source.spec, chosen.decision.lane.batch),
        seconds(predicted.step_seconds),
        seconds(predicted.round_seconds),
        chosen.decision.lane.steps,
        bytes(predicted.peak_memory_bytes as f64),
        bytes(site.memory()),
        bytes(needed_bytes(predicted, margin)),
        100.0 * margin,
    )
}

/// The ranks in words: one for all weights, or the range of each projection.
fn trained(chosen: &Chosen<'_>, ranks: &[RankSummary]) -> String {
    let layers = chosen.site.source.space.layers;
    if !chosen.is_by_weight() {
        let targets: Vec<&str> = ranks.iter().map(|row| row.projection.module()).collect();
        let (rank, targets) = (chosen.ranks.max(), targets.join(", "));
        return format!("rank {rank} on {targets} of all {layers} blocks");
    }
    let row = |row: &RankSummary| {
        let module = row.projection.module();
        let range = match (row.trained, row.least == row.most) {
            (0, _) => return format!("{module} nowhere"),
            (_, true) => format!("{}", row.most),
            _ => format!("{}–{}", row.least, row.most),
        };
        let frozen = match row.frozen {
            0 => String::new(),
            frozen => format!(" and frozen in {frozen} blocks"),
        };
        format!("{module} {range}{frozen}")
    };
    let rows: Vec<String> = ranks.iter().map(row).collect();
    let frozen: u32 = ranks.iter().map(|row| u32::from(row.frozen)).sum();
    let all: u32 = ranks
        .iter()
        .map(|row| u32::from(row.frozen + row.trained))
        .sum();
    format!(
        "{} of {all} weights, each at its own rank ({})",
        all - frozen,
        rows.join(", ")
    )
}

/// What the worth of its ranks rests on.
fn grounds(chosen: &Chosen<'_>) -> String {
    let space = &chosen.site.source.space;
    let expects = match chosen.site.source.worth.loss {
        Some(start) => format!(
            "a round is expected to lower the loss, {start:.3} at the start, by at most {}",
            loss(chosen.decision.solution.value)
        ),
        None => "no loss was measured, so gains are shares of it".to_owned(),
    };
    let agreement = space.agreement.unwrap_or(0.0);
    match space.basis {
        RankBasis::Measured => format!(
            "Ranks follow the measured importance of each weight, on whose order two seeds agree to \
             {agreement:.2}; {expects}."
        ),
        RankBasis::Disagreeing => format!(
            "All weights have one rank, because two seeds of the probe agree on their importance \
             to {agreement:.2} only, less than 0.5; {expects}."
        ),
        RankBasis::Assumed => format!(
            "All weights have one rank, of which the j-th row is assumed to add about 1/j of the first, because no \
             site measured importance; {expects}."
        ),
        RankBasis::Fixed => format!("{}.", capital(&expects)),
    }
}

fn computing(chosen: &Chosen<'_>) -> String {
    let mode = &chosen.decision.lane.mode.mode;
    let words = mode::words(mode);
    let tried = chosen.site.profile.modes.len();
    match chosen.site.source.spec.precision.compute {
        Compute::Auto if tried > 1 => {
            format!("It computes on {words}, the best of the {tried} modes it measured.")
        }
        Compute::Auto => format!("It computes on {words}."),
        Compute::Bf16 | Compute::Int8 if mode.optimizer == Optimizer::Mezo => format!(
            "It computes on {words}: the arithmetic that the job names would round away what such a step looks for."
        ),
        _ => format!("It computes on {words}, as the job says."),
    }
}

fn rejection(chosen: &Chosen<'_>, other: &Rejected) -> String {
    let size = format!("rank {} with {}", other.rank, records(other.batch));
    let what = match (&other.mode, other.change) {
        (Some(mode), _) if chosen.is_by_weight() => {
            format!(
                "{} with {}",
                capital(&mode::words(mode)),
                records(other.batch)
            )
        }
        (Some(mode), _) => format!("{} at {size}", capital(&mode::words(mode))),
        (None, Some(Change::Rank)) if chosen.is_by_weight() => {
            format!("The next higher rank ({})", other.rank)
        }
        (None, Some(Change::Batch)) if chosen.is_by_weight() => {
            format!("A batch of {}", records(other.batch))
        }
        (None, None) if chosen.is_by_weight() => "Another number of steps".to_owned(),
        (None, None) => format!("Another number of steps at {size}"),
        (None, _) => capital(&size),
    };
    format!("{what} was rejected: {}.", other.because)
}

/// How many records a step has.
fn a_step(spec: &Spec, batch: u16) -> String {
    let training = &spec.training;
    let batch = match training.batch_tokens {
        Some(tokens) => format!(
            "batches of at most {tokens} tokens, about {}",
            records(batch)
        ),
        None => records(batch),
    };
    match training.accumulate {
        1 if training.batch_tokens.is_none() => format!("{batch} a step"),
        1 => format!("{batch}, one a step"),
        batches => format!("{batch} a batch and {batches} batches a step"),
    }
}

fn records(batch: u16) -> String {
    match batch {
        1 => "1 record".to_owned(),
        more => format!("{more} records"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
