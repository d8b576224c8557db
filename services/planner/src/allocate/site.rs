//! One site of the fleet: what it could train, and whether it can take part at all.

use std::collections::{BTreeMap, BTreeSet};

use domain::adapter::{Projection, RankTable, WeightName, WeightShape};
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::choice::Choice;
use domain::job::spec::Spec;
use domain::profile::{Profile, SCORED_PARAMETER_BYTES};

use super::lacking::{asked, lacking, measured as modes};
use super::lane::{Lanes, Source, is_sound};
use super::mode;
use super::predict::Conditions;
use super::program::Instance;
use super::space::Space;
use super::units::bytes;
use super::worth::Worth;

/// Bytes of a merged adapter's parameter while scoring loads it: as read, and as computed with (`worker/probe/scoring.rs`).
const LOADED_PARAMETER_BYTES: f64 = 2.0 * SCORED_PARAMETER_BYTES;

/// A site that can take part.
pub(super) struct Site<'a> {
    pub name: &'a WorkerName,
    pub profile: &'a Profile,
    /// Its share of the fleet's records.
    pub share: f64,
    /// What it may choose from.
    pub open: Lanes<'a>,
    /// What was measured and cannot run.
    pub shown: Lanes<'a>,
    pub source: Source<'a>,
}

/// The sites that can take part, in the order of their names, and the others with what they lack.
pub(super) struct Admitted<'a> {
    pub sites: Vec<Site<'a>>,
    pub excluded: Vec<SiteTrouble>,
}

impl<'a> Site<'a> {
    /// Its program, for a round of so many seconds.
    pub(super) fn instance(&self, seconds: f64) -> Instance<'_> {
        Instance {
            frontier: &self.source.space.frontier,
            choices: &self.open.choices,
            memory: self.memory(),
            seconds,
        }
    }

    /// Bytes that it may use.
    pub(super) fn memory(&self) -> f64 {
        self.profile.measurement.memory_limit_bytes as f64
    }
}

/// The profiles that can be planned with, all of one model, and the job's targets; the others with what
/// they lack.
pub(super) struct Usable<'a> {
    pub profiles: Vec<(&'a WorkerName, &'a Profile)>,
    pub targets: Vec<Projection>,
    pub layers: u16,
    pub weights: &'a [WeightShape],
    pub excluded: Vec<SiteTrouble>,
    /// How many sites were measured, usable or not: no more than these ever train.
    pub measured: usize,
}

impl<'a> Usable<'a> {
    /// Of all that were measured.
    pub(super) fn of(profiles: &'a BTreeMap<WorkerName, Profile>, spec: &Spec) -> Self {
        let weights = common_model(profiles);
        let mut usable = Self {
            profiles: Vec::new(),
            targets: Vec::new(),
            layers: 0,
            weights,
            excluded: Vec::new(),
            measured: profiles.len(),
        };
        for (name, profile) in profiles {
            match check(profile, weights, spec) {
                Ok(targets) => {
                    // The same for all, since they have the same weights.
                    usable.targets = targets;
                    usable.layers = profile.measurement.layers;
                    usable.profiles.push((name, profile));
                }
                Err(trouble) => usable.excluded.push(trouble.of(name)),
            }
        }
        usable
    }

    /// The sites with room for something.
    pub(super) fn admit(self, spec: &'a Spec, space: &'a Space, worth: &'a Worth) -> Admitted<'a> {
        let global = space.uniform(spec.adapter.rank_max);
        let (mut sites, mut excluded) = (Vec::new(), self.excluded);
        for (name, profile) in self.profiles {
            let source = Source {
                spec,
                profile,
                space,
                worth,
                conditions: Conditions::new(&profile.measurement, spec, &global, self.measured),
            };
            let (open, shown) = source.lanes();
            let site = Site {
                name,
                profile,
                share: 0.0,
                open,
                shown,
                source,
            };
            match lacking(&site) {
                None => sites.push(site),
                Some(trouble) => excluded.push(trouble.of(name)),
            }
        }
        let records = |site: &Site<'_>| site.profile.measurement.records as f64;
        let all: f64 = sites.iter().map(records).sum();
        for site in &mut sites {
            site.share = records(site) / all;
        }
        excluded.sort_by(|left, right| left.worker.cmp(&right.worker));
        Admitted { sites, excluded }
    }
}

/// What a site lacks.
pub(super) struct Lack {
    pub trouble: Trouble,
    pub detail: String,
}

impl Lack {
    pub(super) fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self {
            trouble,
            detail: detail.into(),
        }
    }

    fn of(self, worker: &WorkerName) -> SiteTrouble {
        SiteTrouble {
            worker: worker.clone(),
            trouble: self.trouble,
            detail: self.detail,
        }
    }
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

/// The targets, if the site's measurement can be planned with.
fn check(profile: &Profile, model: &[WeightShape], spec: &Spec) -> Result<Vec<Projection>, Lack> {
    let measured = &profile.measurement;
    if measured.weights != model {
        let detail = "its model has other weights than the other sites' models";
        return Err(Lack::new(Trouble::ModelUnusable, detail));
    }
    if measured.records == 0 {
        let detail = "it has no usable training record";
        return Err(Lack::new(Trouble::DataUnusable, detail));
    }
    let open = || {
        let modes = profile.modes.iter();
        modes.filter(|fitted| mode::is_open(&fitted.mode, spec))
    };
    if open().next().is_none() {
        let detail = format!("{}, and it measured {}", asked(spec), modes(profile));
        return Err(Lack::new(Trouble::PlanUnsupported, detail));
    }
    let lengths = [measured.mean_tokens, measured.mean_squares];
    let sound = lengths.iter().all(|f| f.is_finite() && *f >= 0.0);
    if !sound || measured.mean_tokens == 0.0 || !open().any(is_sound) {
        let detail = "its profile holds a figure that is not a positive number";
        return Err(Lack::new(Trouble::Internal, detail));
    }
    let scored = |fitted: &domain::profile::ModeProfile| {
        let measured = measured.mode(&fitted.mode);
        measured.is_some_and(|measured| !measured.scoring.is_empty())
    };
    if spec.evaluation.is_some() && !open().any(scored) {
        return Err(Lack::new(Trouble::OutOfMemory, unscored(profile, spec)));
    }
    targets(measured.layers, &measured.weights, spec)
}

/// That no pass of scoring found room, with what took it.
fn unscored(profile: &Profile, spec: &Spec) -> String {
    let measured = &profile.measurement;
    let open = || {
        let modes = measured.modes.iter();
        modes.filter(|measured| mode::is_open(&measured.mode, spec))
    };
    let base = open().map(|mode| mode.base_memory_bytes).min();
    let steps = open().flat_map(|mode| &mode.samples);
    let step = steps.map(|sample| sample.peak_memory_bytes).min();
    let rank = spec.adapter.rank_max;
    let parameters = targets(measured.layers, &measured.weights, spec).map_or(0, |targets| {
        RankTable::uniform(&targets, measured.layers, rank).parameters(&measured.weights)
    });
    let of = |taken: Option<u64>| bytes(taken.unwrap_or(0) as f64);
    format!(
        "it has no memory left to score the merged adapter of rank {rank}, which the job asks for: it may use {}; its \
         base alone takes {}, the smallest step that it measured {}, and the adapter {} while it is scored",
        bytes(measured.memory_limit_bytes as f64),
        of(base),
        of(step),
        bytes(LOADED_PARAMETER_BYTES * parameters as f64),
    )
}

/// The projections that the job fixes, or all that the model has; each must be there in every block.
fn targets(layers: u16, weights: &[WeightShape], spec: &Spec) -> Result<Vec<Projection>, Lack> {
    let known: BTreeSet<WeightName> = weights.iter().map(|weight| weight.name).collect();
    let wanted = match &spec.adapter.targets {
        Choice::Auto => {
            let own: BTreeSet<Projection> = known.iter().map(|name| name.projection()).collect();
            own.into_iter().collect()
        }
        Choice::Fixed(targets) => targets.clone(),
    };
    let table = RankTable::uniform(&wanted, layers, 1);
    let missing = table.trained().find(|(weight, _)| !known.contains(weight));
    match missing {
        None if layers > 0 => Ok(wanted),
        None => Err(Lack::new(Trouble::ModelUnusable, "its model has no blocks")),
        Some((weight, _)) => {
            let detail = format!("its model has no weight {weight}, which the job targets");
            Err(Lack::new(Trouble::ModelUnusable, detail))
        }
    }
}
