//! Which of the measured modes a job leaves open, and how people call them.

use domain::job::spec::{Base, Compute, Optimizer, Spec};
use domain::plan::Change;
use domain::profile::Mode;

/// Whether the job leaves this mode open. Recomputing activations changes no result and is always open; so are
/// zeroth-order steps in f32, for whatever faster arithmetic the job asks for would round their slopes away.
pub(super) fn is_open(mode: &Mode, spec: &Spec) -> bool {
    let base = spec.precision.base == Base::Auto || spec.precision.base == mode.base;
    let optimizer = match spec.training.optimizer {
        Optimizer::Auto => true,
        fixed => fixed == mode.optimizer,
    };
    let compute = match (spec.precision.compute, arithmetic(&mode.kernel)) {
        (Compute::Auto, _) | (_, None) => true,
        (_, Some(Compute::F32)) if mode.optimizer == Optimizer::Mezo => true,
        (fixed, Some(own)) => fixed == own,
    };
    base && optimizer && compute
}

/// Whether a worker can train so in this job. What cannot is looked at and named, but not planned.
pub(super) fn runs(mode: &Mode, spec: &Spec) -> bool {
    mode.optimizer != Optimizer::Mezo || (spec.takes_zeroth_order() && has_slope(mode))
}

/// Whether what a zeroth-order step finds in this mode's arithmetic means what it means in f32. Of the faster
/// arithmetics none passed the gate on a model that was measured (`fedpipe bench zo-agreement`; docs/engine.md), so
/// none is planned. Whatever a first-order step computes with has its own gate, the probe's losses.
pub(super) fn has_slope(mode: &Mode) -> bool {
    let exact = matches!(arithmetic(&mode.kernel), None | Some(Compute::F32));
    exact || mode.optimizer != Optimizer::Mezo
}

/// The arithmetic in a kernel's name, such as `amx-bf16-2`.
fn arithmetic(kernel: &str) -> Option<Compute> {
    kernel.split('-').find_map(|part| match part {
        "f32" => Some(Compute::F32),
        "bf16" => Some(Compute::Bf16),
        "int8" => Some(Compute::Int8),
        _ => None,
    })
}

/// In what one mode differs from another; the first that applies. `None` if they are the same.
pub(super) fn change(from: &Mode, to: &Mode) -> Option<Change> {
    let changes = [
        (from.optimizer != to.optimizer, Change::Optimizer),
        (from.base != to.base, Change::Base),
        (from.kernel != to.kernel, Change::Kernel),
        (from.checkpoint != to.checkpoint, Change::Checkpoint),
    ];
    let mut applying = changes.into_iter().filter(|(differs, _)| *differs);
    applying.next().map(|(_, change)| change)
}

/// A mode in words.
pub(super) fn words(mode: &Mode) -> String {
    let base = match mode.base {
        Base::Auto => "auto",
        Base::Source => "the base as it came",
        Base::F32 => "an f32 base",
        Base::Bf16 => "a bf16 base",
        Base::Int8 => "an int8 base",
        Base::Nf4 => "an nf4 base",
    };
    let mut words = format!("{base} with {}", mode.kernel);
    if mode.checkpoint {
        words.push_str(", activations recomputed");
    }
    if mode.optimizer == Optimizer::Mezo {
        words.push_str(", zeroth-order");
    }
    words
}
