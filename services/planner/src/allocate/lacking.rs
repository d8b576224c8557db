//! What a site lacks for the smallest choice that the job allows, with figures.

use domain::cause::Trouble;
use domain::job::barred::Bar;
use domain::job::spec::{Base, Compute, Optimizer, Spec};
use domain::profile::{ModeProfile, Profile};
use domain::zeroth::SCALARS_LIMIT;

use super::lane::{Lane, Lanes, is_sound};
use super::mode;
use super::predict::most_seconds;
use super::site::{Lack, Site};
use super::sizes::sizes;
use super::units::{bytes, seconds};

/// Modes that a sentence names at most.
const NAMED: usize = 6;

/// The least that a set of choices asks for.
struct Least<'a> {
    lane: Lane<'a>,
    needed: f64,
    seconds: f64,
    longest: f64,
}

/// `None` if the site has room for something that can run.
pub(super) fn lacking(site: &Site<'_>) -> Option<Lack> {
    if site.source.fits(&site.open) {
        return None;
    }
    let spec = site.source.spec;
    let unreached = unreached(site);
    let others = format!("{}{unreached}", zeroth_order(site));
    let Some(least) = least(site, &site.open) else {
        let detail = format!(
            "it measured nothing that a plan of this job can use: {}, it measured {}, and it may use {} of \
             memory{others}",
            asked(spec),
            measured(site.profile),
            bytes(site.memory()),
        );
        // Where gradients are asked for, or open, the site had no room to measure them. Zeroth-order steps were
        // measured, and cannot run in the arithmetic that they were measured in.
        let measured_in_vain = spec.training.is_zeroth_order() && !site.shown.lanes.is_empty();
        let trouble = if measured_in_vain && unreached.is_empty() {
            Trouble::PlanUnsupported
        } else {
            Trouble::OutOfMemory
        };
        return Some(Lack::new(trouble, detail));
    };
    let smallest = format!(
        "the smallest choice the job allows (rank {}, {} records a step of up to {} tokens, {})",
        site.source.space.least_rank(),
        least.lane.batch,
        spec.training.sequence_length,
        mode::words(&least.lane.mode.mode),
    );
    if least.needed > site.memory() {
        let detail = format!(
            "{smallest} needs {}{} of memory and it may use {}: {} are missing{others}",
            bytes(least.needed),
            side_term(site),
            bytes(site.memory()),
            bytes(least.needed - site.memory()),
        );
        return Some(Lack::new(Trouble::OutOfMemory, detail));
    }
    let detail = format!(
        "{smallest} takes {} a round of {} steps and the job's deadlines leave {}: {} are missing{others}",
        seconds(least.seconds),
        least.lane.steps,
        seconds(least.longest),
        seconds(least.seconds - least.longest),
    );
    Some(Lack::new(Trouble::TooLate, detail))
}

/// What the job asks of a mode, by its fields.
pub(super) fn asked(spec: &Spec) -> String {
    let fixed = fixed_modes(spec);
    if fixed.is_empty() {
        return "the job leaves base, arithmetic and optimizer open".to_owned();
    }
    let fixed: Vec<String> = fixed
        .iter()
        .map(|(field, value)| format!("{field} {value}"))
        .collect();
    format!("the job asks for {}", fixed.join(", "))
}

/// What of a mode the job fixes: the field, and its value as job files write it.
pub(super) fn fixed_modes(spec: &Spec) -> Vec<(&'static str, &'static str)> {
    let base = match spec.precision.base {
        Base::Auto => None,
        Base::Source => Some("source"),
        Base::F32 => Some("f32"),
        Base::Bf16 => Some("bf16"),
        Base::Int8 => Some("int8"),
        Base::Nf4 => Some("nf4"),
    };
    let compute = match spec.precision.compute {
        Compute::Auto => None,
        Compute::F32 => Some("f32"),
        Compute::Bf16 => Some("bf16"),
        Compute::Int8 => Some("int8"),
    };
    let fields = [
        ("precision.base", base),
        ("precision.compute", compute),
        ("training.optimizer", optimizer(spec.training.optimizer)),
    ];
    let fixed = fields
        .into_iter()
        .filter_map(|(field, value)| Some((field, value?)));
    fixed.collect()
}

const fn optimizer(optimizer: Optimizer) -> Option<&'static str> {
    match optimizer {
        Optimizer::Auto => None,
        Optimizer::Adamw => Some("adamw"),
        Optimizer::Sgd => Some("sgd"),
        Optimizer::Mezo => Some("mezo"),
    }
}

/// The modes that a site measured, the first few of them.
pub(super) fn measured(profile: &Profile) -> String {
    let all = &profile.modes;
    let words = |fitted: &ModeProfile| {
        let words = mode::words(&fitted.mode);
        match optimizer(fitted.mode.optimizer) {
            // The words say so.
            None | Some("mezo") => words,
            Some(own) => format!("{words} by {own}"),
        }
    };
    let named: Vec<String> = all.iter().take(NAMED).map(words).collect();
    match all.len().saturating_sub(NAMED) {
        0 if all.is_empty() => "nothing".to_owned(),
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

/// Modes that the job allows and in which no step of it can be predicted, as the end of a sentence: the figures
/// before it are of others, and one of these may have fitted.
fn unreached(site: &Site<'_>) -> String {
    let (spec, profile) = (site.source.spec, site.profile);
    let known = || site.open.lanes.iter().chain(&site.shown.lanes);
    let without = profile.modes.iter().filter(|fitted| {
        mode::is_open(&fitted.mode, spec)
            && mode::runs(&fitted.mode, spec)
            && is_sound(fitted)
            && known().all(|lane| lane.mode.mode != fitted.mode)
    });
    let why = |fitted: &ModeProfile| {
        let words = mode::words(&fitted.mode);
        let measurement = &profile.measurement;
        let measured = measurement.mode(&fitted.mode);
        if spec.evaluation.is_some() && measured.is_none_or(|mode| mode.scoring.is_empty()) {
            return format!("; with {words} it had no memory left to measure scoring");
        }
        let records = (measurement.records, measurement.mean_tokens);
        let sizes = sizes(spec, fitted.mode.optimizer, records);
        let least = sizes.iter().map(|(batch, _)| *batch).min().unwrap_or(1);
        let samples = measured.into_iter().flat_map(|mode| &mode.samples);
        let largest = samples.map(|sample| sample.peak_tokens());
        let training = site.source.conditions.training_bytes(fitted, least);
        let needed = training.of(site.source.space.frontier.least());
        let lacking = needed - site.memory();
        let lacking = match lacking > 0.0 {
            true => format!(
                ", which by these would take about {}: {} are missing",
                bytes(needed),
                bytes(lacking)
            ),
            false => String::new(),
        };
        format!(
            "; {words} was measured up to {:.0} tokens a step, too few to plan one of {}{lacking}",
            largest.fold(0.0, f64::max),
            spec.training.batch_tokens_at_most(least),
        )
    };
    without.take(NAMED).map(why).collect()
}

/// What of it is the side term's, as words between the figure and what it is of.
fn side_term(site: &Site<'_>) -> String {
    let side = site.source.conditions.side_bytes;
    if side == 0 {
        return String::new();
    }
    let strategy = site.source.spec.aggregation.strategy.name();
    let side = bytes(side as f64);
    format!(" ({side} of it for the side term that strategy {strategy} may grow to)")
}

/// What is nearest to fitting: of those that fit memory the fastest, else the smallest.
fn least<'a>(site: &Site<'_>, lanes: &Lanes<'a>) -> Option<Least<'a>> {
    let parameters = site.source.space.frontier.least();
    let needs = lanes
        .lanes
        .iter()
        .zip(&lanes.choices)
        .map(|(lane, choice)| {
            let training = site.source.conditions.training_bytes(lane.mode, lane.batch);
            Least {
                lane: *lane,
                needed: training.of(parameters).max(lane.scoring),
                seconds: choice.seconds.of(parameters),
                longest: choice.longest.min(most_seconds(site.source.spec)),
            }
        });
    needs.min_by(|left, right| {
        let missing = |least: &Least<'_>| (least.needed - site.memory()).max(0.0);
        let late = |least: &Least<'_>| least.seconds - least.longest;
        let order = missing(left).total_cmp(&missing(right));
        order.then(late(left).total_cmp(&late(right)))
    })
}

/// What zeroth-order training would have taken here, as the end of a sentence.
fn zeroth_order(site: &Site<'_>) -> String {
    let Some(least) = least(site, &site.shown) else {
        return String::new();
    };
    let fits = if least.needed > site.memory() {
        format!(
            ", {} more than it may use",
            bytes(least.needed - site.memory())
        )
    } else {
        ", which it has".to_owned()
    };
    let but = if !site.source.spec.takes_zeroth_order() {
        let barred = barred(site.source.spec);
        format!(", but not {barred}, so the site cannot take part")
    } else if !mode::has_slope(&least.lane.mode.mode) {
        ", but such steps are planned in f32 arithmetic alone".to_owned()
    } else {
        String::new()
    };
    format!(
        "; zeroth-order training would take {} of memory{fits}, and {} a round{but}",
        bytes(least.needed),
        seconds(least.seconds),
    )
}

/// All that keeps the job's sites from zeroth-order steps: to leave out one of several would help nobody.
fn barred(spec: &Spec) -> String {
    let words = |bar: Bar| match bar {
        Bar::Field(field) => format!("with training.{field}"),
        Bar::Labels => "with training.labels".to_owned(),
        Bar::Rule(strategy) => format!("under strategy {}", strategy.name()),
        Bar::Scalars(scalars) => {
            format!("with {scalars} scalars a round, where a message holds {SCALARS_LIMIT}")
        }
    };
    let all: Vec<String> = spec.bars().into_iter().map(words).collect();
    all.join(" nor ")
}
