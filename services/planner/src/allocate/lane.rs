//! One batch and number of steps in one mode at one site: a choice of the site's program, with what it stands for.

use domain::job::spec::{Optimizer, Spec};
use domain::profile::{ModeProfile, Profile};

use super::mode;
use super::predict::{Conditions, memory_margin, most_seconds, time_margin};
use super::program::Choice;
use super::sizes::sizes;
use super::space::Space;
use super::worth::Worth;

/// What a choice of a program stands for.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub mode: &'a ModeProfile,
    pub batch: u16,
    /// Steps of a round.
    pub steps: u32,
    /// Bytes that scoring needs, the margin included.
    pub scoring: f64,
}

/// What choices are made from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub spec: &'a Spec,
    pub profile: &'a Profile,
    pub space: &'a Space,
    pub worth: &'a Worth,
    pub conditions: Conditions<'a>,
}

/// How many times the tokens of the largest step that was measured a planned one may have.
const REACH: f64 = 4.0;

/// Lanes and their choices, index by index.
#[derive(Default)]
pub(super) struct Lanes<'a> {
    pub lanes: Vec<Lane<'a>>,
    pub choices: Vec<Choice>,
}

impl<'a> Source<'a> {
    /// Every batch, and number of steps, in every mode that was measured and that the job leaves open: those to choose from, and
    /// those that are shown beside them. Zeroth-order ones are to choose from only where none by gradients fits.
    pub(super) fn lanes(&self) -> (Lanes<'a>, Lanes<'a>) {
        let [mut first, mut zeroth, mut shown] = [(); 3].map(|()| Lanes::default());
        let fitted = self.profile.modes.iter();
        for fitted in fitted.filter(|fitted| self.is_usable(fitted)) {
            let of = if !mode::runs(&fitted.mode, self.spec) {
                &mut shown
            } else if fitted.mode.optimizer == Optimizer::Mezo {
                &mut zeroth
            } else {
                &mut first
            };
            let (own, measured) = (fitted.mode.optimizer, &self.profile.measurement);
            let sizes = sizes(self.spec, own, (measured.records, measured.mean_tokens));
            for size in sizes
                .into_iter()
                .filter(|(batch, _)| self.is_near(fitted, *batch))
            {
                let (lane, choice) = self.lane(fitted, size);
                of.lanes.push(lane);
                of.choices.push(choice);
            }
        }
        let nothing_else = first.choices.is_empty();
        let (open, other) = if nothing_else || (!self.fits(&first) && self.fits(&zeroth)) {
            (zeroth, first)
        } else {
            (first, zeroth)
        };
        shown.lanes.extend(other.lanes);
        shown.choices.extend(other.choices);
        (open, shown)
    }

    /// Whether the site has room for one of these with the smallest adapter.
    pub(super) fn fits(&self, lanes: &Lanes<'_>) -> bool {
        let memory = self.profile.measurement.memory_limit_bytes as f64;
        let least = self.space.frontier.least();
        lanes.choices.iter().any(|choice| {
            let room = choice.room(memory, f64::INFINITY);
            room.is_some_and(|room| room >= least)
        })
    }

    /// Whether a batch lies near enough to what was measured in a mode: a few small steps tell nothing of
    /// large ones. One record, and what the job fixes, is planned as it is.
    fn is_near(&self, fitted: &ModeProfile, batch: u16) -> bool {
        let training = &self.spec.training;
        let tokens = training.batch_tokens_at_most(batch) as f64;
        let fixed = training.batch.fixed().is_some() || training.batch_tokens.is_some();
        batch == 1 || fixed || self.reaches(fitted, tokens)
    }

    /// Whether a step of so many tokens lies near enough to what was measured in a mode.
    pub(super) fn reaches(&self, fitted: &ModeProfile, tokens: f64) -> bool {
        let measured = self.profile.measurement.mode(&fitted.mode);
        let samples = measured.into_iter().flat_map(|mode| &mode.samples);
        let largest = samples
            .map(|sample| sample.peak_tokens())
            .fold(0.0, f64::max);
        tokens <= REACH * largest
    }

    /// Whether the job leaves a mode open and everything that a plan needs was measured in it.
    fn is_usable(&self, fitted: &ModeProfile) -> bool {
        let measured = self.profile.measurement.mode(&fitted.mode);
        let scored = measured.is_some_and(|measured| !measured.scoring.is_empty());
        mode::is_open(&fitted.mode, self.spec)
            && is_sound(fitted)
            && (self.spec.evaluation.is_none() || scored)
    }

    fn lane(&self, fitted: &'a ModeProfile, (batch, steps): (u16, u32)) -> (Lane<'a>, Choice) {
        let margin = memory_margin(fitted);
        let records = batch.saturating_mul(self.spec.training.accumulate);
        let scoring = self.conditions.scoring_bytes(fitted, batch).ceil() * (1.0 + margin);
        let mut memory = self.conditions.training_bytes(fitted, batch);
        if scoring > self.profile.measurement.memory_limit_bytes as f64 {
            // No adapter is small enough for it.
            memory.fixed = f64::INFINITY;
        }
        let choice = Choice {
            factor: self.worth.factor(&fitted.mode, (records, steps)),
            constant: self.worth.constant(self.profile, &fitted.mode),
            memory,
            seconds: self
                .conditions
                .seconds(fitted, (batch, steps), self.space.weights()),
            longest: most_seconds(self.spec) / (1.0 + time_margin(fitted)),
        };
        let lane = Lane {
            mode: fitted,
            batch,
            steps,
            scoring,
        };
        (lane, choice)
    }
}

/// Whether every figure of a fit is a number from 0.
pub(super) fn is_sound(fitted: &ModeProfile) -> bool {
    let errors = [fitted.fit_error, fitted.memory_error];
    let mut figures = fitted.cost.coefficients().into_iter().chain(errors);
    figures.all(|figure| figure.is_finite() && figure >= 0.0)
}
