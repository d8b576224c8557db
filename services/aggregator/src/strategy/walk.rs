//! Zeroth-order steps in place of tensors: a site's adapter made again from its scalars, and the mean of the
//! scalars of sites that all walk along the same directions.
//!
//! Promises: what is made is what the site itself had, byte for byte; memory holds one tensor at a time,
//! whatever the number of sites. Does not: read messages, or know why sites agree on their directions.

use std::num::NonZeroUsize;
use std::path::Path;

use artifacts::tensors::{TensorFile, digest, rewrite};
use domain::adapter::{RankTable, WeightShape};
use domain::artifact::Digest;
use domain::job::Strategy;
use domain::zeroth::{Scalars, Steps};
use engine::kernel::Unit;
use engine::threads::Threads;
use engine::train::{Emphasis, Replay};

use super::apart;
use super::files;
use super::merge::Folded;
use super::round::{Round, all_threads};
use super::share::Share;
use crate::Error;

/// A round's adapter made of the mean of its members' scalars.
#[derive(Debug)]
pub struct Together {
    /// As of any merge.
    pub folded: Folded,
    /// The mean.
    pub mean: Scalars,
    /// How far each member's moves lie from it: see [`apart::scalars`].
    pub apart: Vec<f64>,
}

/// The steps of one round.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Which round.
    pub round: u32,
    /// How they are made.
    pub steps: Steps,
    /// The number of the first, counted through the job from 0.
    pub first_step: u64,
    /// What the numbers of directions are multiplied by.
    pub emphasis: Emphasis,
}

/// What a site starts from: the leading slices of a merged adapter.
#[derive(Debug, Clone, Copy)]
pub struct Leading<'a> {
    /// The merged adapter.
    pub start: &'a Path,
    /// How many of them, of each weight.
    pub ranks: &'a RankTable,
    /// The model's weights.
    pub weights: &'a [WeightShape],
}

impl Stretch {
    /// Does the steps of a site to what it started from; returns the digest of what is then in `out`.
    ///
    /// # Errors
    /// As [`Stretch::replay`].
    pub fn retrace(
        &self,
        own: &Leading<'_>,
        scalars: &Scalars,
        out: &Path,
    ) -> Result<Digest, Error> {
        let replay = self.steps_again(scalars);
        let file = TensorFile::open(own.start)?;
        let mut writer = files::create(out, own.ranks, own.weights)?;
        let threads = threads()?;
        for (weight, rank) in super::ordered(own.ranks) {
            let rank = usize::from(rank);
            for (key, is_a) in [(weight.peft_a(), true), (weight.peft_b(), false)] {
                let mut values = file.read_f32(&key)?;
                let width = file.shape(&key).and_then(|shape| shape.last().copied());
                let width = width.unwrap_or(0).max(1);
                if is_a {
                    values.truncate(rank * width);
                } else if rank < width {
                    let rows = values.chunks_exact(width);
                    values = rows
                        .flat_map(|row| row.iter().take(rank).copied())
                        .collect();
                }
                threads.run(|| replay.apply(&key, &mut values));
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(self.refused(super::Error::Diverged { key }));
                }
                writer.write(&key, &values)?;
            }
        }
        writer.finish()?;
        Ok(digest(out)?)
    }

    /// Does the steps to the adapter in `start`; returns the digest of what is then in `out`.
    ///
    /// # Errors
    /// If a file cannot be read or written, or a number passes 32-bit floats: [`super::Error::Diverged`].
    pub fn replay(&self, start: &Path, scalars: &Scalars, out: &Path) -> Result<Digest, Error> {
        let replay = self.steps_again(scalars);
        let threads = threads()?;
        let mut diverged: Option<String> = None;
        let digest = threads.run(|| {
            rewrite(start, out, |key, values| {
                replay.apply(key, values);
                if values.iter().any(|value| !value.is_finite()) {
                    diverged.get_or_insert_with(|| key.to_owned());
                }
            })
        });
        match diverged {
            None => Ok(digest?),
            Some(key) => Err(self.refused(super::Error::Diverged { key })),
        }
    }

    /// Makes a round's adapter of the mean of its members' scalars, which lie in the members' files.
    ///
    /// # Errors
    /// As [`Stretch::replay`]; if a member trained other ranks than the merged adapter has, or its file does
    /// not hold scalars.
    pub fn fold(&self, round: &Round, trim: f64) -> Result<Together, Error> {
        let mut members = Vec::with_capacity(round.members.len());
        for member in &round.members {
            if member.ranks != round.ranks {
                let rule = Strategy::Sum;
                return Err(self.refused(super::Error::Uneven { rule }));
            }
            let own = read(&member.update)?.evened(self.steps.perturbations);
            members.push((member.share, own));
        }
        let mean = mean(&members, trim);
        self.replay(&round.start, &mean, &round.out)?;
        Ok(Together {
            folded: Folded::default(),
            apart: apart::scalars(&members),
            mean,
        })
    }

    fn steps_again(&self, scalars: &Scalars) -> Replay {
        let (steps, emphasis) = (&self.steps, self.emphasis.clone());
        Replay::new().then_by(steps, self.first_step, scalars, emphasis)
    }

    fn refused(&self, source: super::Error) -> Error {
        let round = self.round;
        Error::Merge { round, source }
    }
}

fn threads() -> Result<Threads, Error> {
    let count: NonZeroUsize = all_threads();
    // The directions are the same on every unit.
    Threads::new(count, Unit::Portable).map_err(|source| Error::Threads { source })
}

/// Scalars that were stored as they came.
///
/// # Errors
/// If the file cannot be read, or does not hold scalars.
pub fn read(path: &Path) -> Result<Scalars, Error> {
    let folder = |source| Error::Folder {
        path: path.display().to_string(),
        source,
    };
    let bytes = std::fs::read(path).map_err(folder)?;
    Scalars::from_bytes(&bytes).ok_or(Error::Missing { what: "scalars" })
}

/// Step by step the mean of what sites found, by their shares: what the mean of their adapters would have
/// walked. A skipped step moved nothing. With `trim` so many of the sites' numbers, as a share of all, are
/// left out at each end, and the others' shares grow.
#[must_use]
pub fn mean(members: &[(Share, Scalars)], trim: f64) -> Scalars {
    let count = members.first().map_or(0, |(_, own)| own.values().len());
    let dropped = (trim * members.len() as f64).floor() as usize;
    let at = |index: usize| -> f64 {
        let found = members.iter().map(|(share, own)| {
            let value = own.values().get(index).copied();
            let value = value.filter(|value| value.is_finite()).unwrap_or(0.0);
            (share.weight, share.stretch * f64::from(value))
        });
        let mut found: Vec<(f64, f64)> = found.collect();
        if dropped == 0 {
            return found.iter().map(|(weight, value)| weight * value).sum();
        }
        found.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        let kept = found.len().saturating_sub(2 * dropped);
        let kept = || found.iter().skip(dropped).take(kept);
        let weight: f64 = kept().map(|(weight, _)| weight).sum();
        let sum: f64 = kept().map(|(weight, value)| weight * value).sum();
        if weight > 0.0 { sum / weight } else { 0.0 }
    };
    Scalars::new((0..count).map(|index| at(index) as f32).collect())
}
