//! One site of the fleet: what it could train, and whether it can take part at all.

use std::collections::{BTreeMap, BTreeSet};

use domain::adapter::{Projection, RankTable, WeightShape};
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::choice::Choice;
use domain::job::spec::Spec;
use domain::profile::{ModeProfile, Profile};

use super::candidate::{Candidate, batches, ranks};
use super::noise::BatchNoise;
use super::predict::{self, adapter_bytes, memory_margin, needed_bytes, predict, time_margin};
use super::{Request, finish, units};

/// A site that can take part.
pub(super) struct Site<'a> {
    pub name: &'a WorkerName,
    pub profile: &'a Profile,
    /// How it computes.
    pub mode: &'a ModeProfile,
    /// Its share of the fleet's records.
    pub share: f64,
    /// Projections that carry an adapter.
    pub targets: Vec<Projection>,
    /// Every choice, by rank and batch, whether it fits or not.
    pub all: Vec<Candidate>,
    /// Indices into `all` of those that fit memory and deadline, the fastest first; each with the index
    /// of the best choice that takes no longer.
    fitting: Vec<(usize, usize)>,
    /// The longest round that the job's deadlines leave it, in seconds.
    pub most_seconds: f64,
    /// How far its memory was measured to pass a prediction, as a share of it.
    pub margin: f64,
    /// The fleet's.
    pub noise: BatchNoise,
}

impl Site<'_> {
    /// The same rank for every target weight.
    pub(super) fn table(&self, rank: u16) -> RankTable {
        RankTable::uniform(&self.targets, self.profile.measurement.layers, rank)
    }

    /// The best choice that finishes within `seconds`.
    pub(super) fn best_within(&self, seconds: f64) -> Option<&Candidate> {
        let end = self.fitting.partition_point(|(index, _)| {
            let candidate = self.all.get(*index);
            candidate.is_some_and(|c| c.predicted.round_seconds <= seconds)
        });
        let (_, best) = self.fitting.get(end.checked_sub(1)?)?;
        self.all.get(*best)
    }

    /// Round times of the choices that fit, ascending.
    pub(super) fn times(&self) -> impl Iterator<Item = f64> {
        let candidates = self.fitting.iter().filter_map(|(i, _)| self.all.get(*i));
        candidates.map(|candidate| candidate.predicted.round_seconds)
    }

    /// Whether a choice fits into the worker's memory, margin included.
    pub(super) fn has_memory_for(&self, candidate: &Candidate) -> bool {
        candidate.needed_bytes <= self.profile.measurement.memory_limit_bytes as f64
    }
}

/// The sites that can take part, in the order of their names, and the others with what they lack.
pub(super) fn admit<'a>(request: &Request<'a>) -> (Vec<Site<'a>>, Vec<SiteTrouble>) {
    let model = common_model(request.profiles);
    let noise = BatchNoise::of(request.profiles);
    let (mut sites, mut excluded) = (Vec::new(), Vec::new());
    for (name, profile) in request.profiles {
        let site = usable(profile, model, request.spec)
            .and_then(|usable| build(name, profile, usable, request.spec, noise));
        match site {
            Ok(site) => sites.push(site),
            Err((trouble, detail)) => excluded.push(SiteTrouble {
                worker: name.clone(),
                trouble,
                detail,
            }),
        }
    }
    let records = |site: &Site<'_>| site.profile.measurement.records as f64;
    let all: f64 = sites.iter().map(records).sum();
    for site in &mut sites {
        site.share = records(site) / all;
    }
    (sites, excluded)
}

/// The weights that most sites measured; the first of equals by name. All sites must train one model.
fn common_model(profiles: &BTreeMap<WorkerName, Profile>) -> &[WeightShape] {
    let mut seen: Vec<(&[WeightShape], usize)> = Vec::new();
    for profile in profiles.values() {
        let weights = profile.measurement.weights.as_slice();
        match seen.iter_mut().find(|(known, _)| *known == weights) {
            Some((_, count)) => *count += 1,
            None => seen.push((weights, 1)),
        }
    }
    let most = seen.iter().map(|(_, count)| *count).max();
    let first = seen.iter().find(|(_, count)| Some(*count) == most);
    first.map_or(&[], |(weights, _)| *weights)
}

/// What a plan needs of a site's measurement.
struct Usable<'a> {
    targets: Vec<Projection>,
    mode: &'a ModeProfile,
}

/// The targets and the mode, if the site's measurement can be planned with.
fn usable<'a>(
    profile: &'a Profile,
    model: &[WeightShape],
    spec: &Spec,
) -> Result<Usable<'a>, (Trouble, String)> {
    let measured = &profile.measurement;
    if measured.weights != model {
        let detail = "its model has other weights than the other sites' models".to_owned();
        return Err((Trouble::ModelUnusable, detail));
    }
    if measured.records == 0 {
        let detail = "it has no usable training record".to_owned();
        return Err((Trouble::DataUnusable, detail));
    }
    let Some(mode) = predict::mode(profile, spec) else {
        let detail =
            "it measured no first-order training on the base that the job asks for".to_owned();
        return Err((Trouble::PlanUnsupported, detail));
    };
    let others = [
        mode.fit_error,
        mode.memory_error,
        measured.mean_tokens,
        measured.mean_squares,
    ];
    let mut figures = mode.cost.coefficients().into_iter().chain(others);
    let sound = figures.all(|f| f.is_finite() && f >= 0.0);
    if !sound || measured.mean_tokens == 0.0 {
        let detail = "its profile holds a figure that is not a positive number".to_owned();
        return Err((Trouble::Internal, detail));
    }
    let scored = measured.mode(&mode.mode);
    if spec.evaluation.is_some() && scored.is_none_or(|scored| scored.scoring.is_empty()) {
        let detail = format!(
            "it has no memory left to score the merged adapter of rank {}, which the job asks for",
            spec.adapter.rank_max
        );
        return Err((Trouble::OutOfMemory, detail));
    }
    let targets = targets(measured.layers, &measured.weights, spec)?;
    Ok(Usable { targets, mode })
}

/// The projections that the job fixes, or all; each must be there in every block.
fn targets(
    layers: u16,
    weights: &[WeightShape],
    spec: &Spec,
) -> Result<Vec<Projection>, (Trouble, String)> {
    let known: BTreeSet<_> = weights.iter().map(|weight| weight.name).collect();
    let wanted = match &spec.adapter.targets {
        Choice::Auto => Projection::ALL.to_vec(),
        Choice::Fixed(targets) => targets.clone(),
    };
    let table = RankTable::uniform(&wanted, layers, 1);
    let missing = table.trained().find(|(weight, _)| !known.contains(weight));
    match missing {
        None if layers > 0 => Ok(wanted),
        None => Err((Trouble::ModelUnusable, "its model has no blocks".to_owned())),
        Some((weight, _)) => {
            let detail = format!("its model has no weight {weight}, which the job targets");
            Err((Trouble::ModelUnusable, detail))
        }
    }
}

fn build<'a>(
    name: &'a WorkerName,
    profile: &'a Profile,
    usable: Usable<'a>,
    spec: &Spec,
    noise: BatchNoise,
) -> Result<Site<'a>, (Trouble, String)> {
    let measured = &profile.measurement;
    let Usable { targets, mode } = usable;
    let layers = measured.layers;
    let rank_max = spec.adapter.rank_max;
    let global = RankTable::uniform(&targets, layers, rank_max);
    let download_bytes = adapter_bytes(&global, &measured.weights);
    let margin = memory_margin(mode);
    let mut all = Vec::new();
    for rank in ranks(spec) {
        let table = RankTable::uniform(&targets, layers, rank);
        for batch in batches(spec, measured.records) {
            let predicted = predict(measured, mode, spec, &table, batch, download_bytes);
            all.push(Candidate {
                rank,
                batch,
                gain: finish::gain(rank, rank_max, batch, noise),
                needed_bytes: needed_bytes(&predicted, margin),
                predicted,
            });
        }
    }
    let mut site = Site {
        name,
        profile,
        mode,
        share: 0.0,
        targets,
        all,
        fitting: Vec::new(),
        most_seconds: most_seconds(spec) / (1.0 + time_margin(mode)),
        margin,
        noise,
    };
    site.fitting = fitting(&site);
    if site.fitting.is_empty() {
        return Err(lacking(&site, spec));
    }
    Ok(site)
}

/// The longest round that the job allows: its round's deadline, if fixed, and an equal part of the
/// time that the whole job has.
pub(super) fn most_seconds(spec: &Spec) -> f64 {
    let part = spec.deadline_seconds as f64 / f64::from(spec.rounds.count.max(1));
    match spec.rounds.deadline.fixed() {
        Some(seconds) => part.min(f64::from(*seconds)),
        None => part,
    }
}

fn fitting(site: &Site<'_>) -> Vec<(usize, usize)> {
    let in_time = |c: &Candidate| c.predicted.round_seconds <= site.most_seconds;
    let fits = |c: &Candidate| site.has_memory_for(c) && in_time(c);
    let indexed = site.all.iter().enumerate().filter(|(_, c)| fits(c));
    let mut fitting: Vec<(usize, &Candidate)> = indexed.collect();
    // Stable: of equal times the smaller rank and batch comes first.
    fitting.sort_by(|(_, left), (_, right)| {
        let (left, right) = (&left.predicted, &right.predicted);
        left.round_seconds.total_cmp(&right.round_seconds)
    });
    let mut best: Option<(usize, f64)> = None;
    let with_best = fitting.into_iter().map(|(index, candidate)| {
        let kept = match best {
            Some((kept, gain)) if gain >= candidate.gain => kept,
            _ => {
                best = Some((index, candidate.gain));
                index
            }
        };
        (index, kept)
    });
    with_best.collect()
}

/// What the smallest choice lacks, with figures.
fn lacking(site: &Site<'_>, spec: &Spec) -> (Trouble, String) {
    // Invariant: `ranks` and `batches` are never empty, and ascend.
    let Some(least) = site.all.first() else {
        return (Trouble::Internal, "nothing could be tried".to_owned());
    };
    let smallest = format!(
        "the smallest choice the job allows (rank {}, {} records a step of up to {} tokens)",
        least.rank, least.batch, spec.training.sequence_length,
    );
    let limit = site.profile.measurement.memory_limit_bytes as f64;
    if least.needed_bytes > limit {
        let detail = format!(
            "{smallest} needs {} of memory and it may use {}: {} are missing",
            units::bytes(least.needed_bytes),
            units::bytes(limit),
            units::bytes(least.needed_bytes - limit),
        );
        return (Trouble::OutOfMemory, detail);
    }
    let detail = format!(
        "{smallest} takes {} a round and the job's deadlines leave {}: {} are missing",
        units::seconds(least.predicted.round_seconds),
        units::seconds(site.most_seconds),
        units::seconds(least.predicted.round_seconds - site.most_seconds),
    );
    (Trouble::TooLate, detail)
}
