//! Why a worker's choice is what it is, in plain English and with figures.

use domain::job::spec::{Compute, Spec};
use domain::plan::{Binding, Explanation, Rejected};

use super::candidate::Candidate;
use super::predict::needed_bytes;
use super::site::Site;
use super::units::{bytes, seconds};

/// Explains `chosen`, given the time in which the fleet finishes.
pub(super) fn explain(
    spec: &Spec,
    site: &Site<'_>,
    chosen: &Candidate,
    fleet_seconds: f64,
) -> Explanation {
    let larger_rank = site
        .all
        .iter()
        .find(|c| c.rank > chosen.rank && c.batch == chosen.batch);
    let larger_batch = site
        .all
        .iter()
        .find(|c| c.batch > chosen.batch && c.rank == chosen.rank);
    let mut rejected = Vec::new();
    // The larger choice that would have gained most says what binds.
    let mut binding: Option<(Binding, f64)> = None;
    for candidate in larger_rank.into_iter().chain(larger_batch) {
        let (limit, because) = obstacle(site, candidate, fleet_seconds);
        rejected.push(Rejected {
            rank: candidate.rank,
            batch: candidate.batch,
            because,
        });
        if binding.is_none_or(|(_, gain)| candidate.gain > gain) {
            binding = Some((limit, candidate.gain));
        }
    }
    let fixed = spec.adapter.rank.fixed().is_some() && spec.training.batch.fixed().is_some();
    let binding = match binding {
        Some((binding, _)) => binding,
        None if fixed => Binding::Job,
        None => Binding::Nothing,
    };
    Explanation {
        text: text(spec, site, chosen, binding, &rejected, fleet_seconds),
        binding,
        rejected,
    }
}

/// Which limit a larger choice passes, and by how much.
fn obstacle(site: &Site<'_>, candidate: &Candidate, fleet_seconds: f64) -> (Binding, String) {
    let limit = site.profile.measurement.memory_limit_bytes as f64;
    if !site.has_memory_for(candidate) {
        let because = format!(
            "it needs {} of memory, {} more than the worker may use",
            bytes(candidate.needed_bytes),
            bytes(candidate.needed_bytes - limit),
        );
        return (Binding::Memory, because);
    }
    let time = candidate.predicted.round_seconds;
    let because = if time > site.most_seconds {
        format!(
            "a round takes {}, and the job's deadlines leave {}",
            seconds(time),
            seconds(site.most_seconds),
        )
    } else {
        format!(
            "a round takes {}, and the fleet finishes in {}",
            seconds(time),
            seconds(fleet_seconds),
        )
    };
    (Binding::Time, because)
}

fn text(
    spec: &Spec,
    site: &Site<'_>,
    chosen: &Candidate,
    binding: Binding,
    rejected: &[Rejected],
    fleet_seconds: f64,
) -> String {
    let measured = &site.profile.measurement;
    let predicted = &chosen.predicted;
    let targets: Vec<&str> = site.targets.iter().map(|target| target.module()).collect();
    let mut text = format!(
        "Trains rank {} on {} of all {} blocks with {} a step: {} a step, {} a round of {} steps, and \
         at most {} of the {} of memory it may use ({} with {:.1} % for the error that its measurements showed).",
        chosen.rank,
        targets.join(", "),
        measured.layers,
        records(chosen.batch),
        seconds(predicted.step_seconds),
        seconds(predicted.round_seconds),
        spec.training.local_steps,
        bytes(predicted.peak_memory_bytes as f64),
        bytes(measured.memory_limit_bytes as f64),
        bytes(needed_bytes(predicted, site.margin)),
        100.0 * site.margin,
    );
    if spec.training.batch.fixed().is_none() {
        text.push_str(&format!(
            " The gradient's noise scale is {}.",
            site.noise.says()
        ));
    }
    text.push_str(&match spec.precision.compute {
        Compute::Auto => format!(
            " It computes with {}, the fastest it tried.",
            site.mode.mode.kernel
        ),
        _ => format!(
            " It computes with {}, as the job says.",
            site.mode.mode.kernel
        ),
    });
    for (what, fixed) in [
        ("rank", spec.adapter.rank.fixed().is_some()),
        ("batch", spec.training.batch.fixed().is_some()),
    ] {
        if fixed {
            text.push_str(&format!(" The job fixes the {what}."));
        }
    }
    match binding {
        Binding::Memory => text.push_str(" Memory is what limits it."),
        Binding::Time => text.push_str(&format!(
            " Time is what limits it: the fleet finishes a round together in {}.",
            seconds(fleet_seconds)
        )),
        Binding::Nothing => text.push_str(" Nothing larger is allowed."),
        Binding::Job => {}
    }
    for choice in rejected {
        text.push_str(&format!(
            " Rank {} with {} was rejected: {}.",
            choice.rank,
            records(choice.batch),
            choice.because
        ));
    }
    text
}

fn records(batch: u16) -> String {
    match batch {
        1 => "1 record".to_owned(),
        more => format!("{more} records"),
    }
}
