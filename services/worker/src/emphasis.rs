//! What the numbers of a round's directions are multiplied by, from what a task tells: a mask by one merged adapter,
//! a scale by the scalars of the rounds before.
//!
//! Promises: the same bits as the server has, or an error: an adapter made with another emphasis would have another
//! digest. Does not: fetch anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::tensors::{self, TensorFile};
use domain::cause::Trouble;
use domain::zeroth::{Committed, Walk};
use engine::train::{Emphasis, Mask};

use crate::catch_up::{self, Broken};
use crate::failure::Failure;

/// Why the emphasis of a round cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log does not hold the rounds that directions are scaled by.
    #[error("the task does not tell the rounds that the directions of round {round} are scaled by")]
    Rounds {
        /// Whose directions.
        round: u32,
    },
    /// The log that directions are scaled by is not whole.
    #[error(transparent)]
    Log(#[from] Broken),
    /// The adapter that the mask goes by is not here.
    #[error("the adapter that the mask of round {round} goes by is not here")]
    Mask {
        /// Whose mask.
        round: u32,
    },
    /// It cannot be read.
    #[error(transparent)]
    Tensors(#[from] tensors::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let trouble = match error {
            Error::Rounds { .. } | Error::Log(_) => Trouble::PlanUnsupported,
            Error::Mask { .. } | Error::Tensors(_) => Trouble::Internal,
        };
        Self::of(trouble, &error)
    }
}

/// Where the emphasis of rounds comes from.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    walk: &'a Walk,
    mask: Option<Arc<Mask>>,
}

impl<'a> Source<'a> {
    /// Of a task; `adapter` is the file of the one that its mask goes by.
    ///
    /// # Errors
    /// If the file cannot be read, or the log is not whole where directions are scaled by it.
    pub fn new(walk: &'a Walk, adapter: Option<&Path>) -> Result<Self, Error> {
        if let (Some(_), Some(last)) = (walk.scaling, walk.log.last()) {
            catch_up::whole(walk, last.round)?;
        }
        let Some((masked, adapter)) = walk.mask.as_ref().zip(adapter) else {
            return Ok(Self { walk, mask: None });
        };
        let mut mask = Mask::new(masked.share);
        TensorFile::open(adapter)?.each(|name, values| mask.add(name, values))?;
        let mask = Some(Arc::new(mask));
        Ok(Self { walk, mask })
    }

    /// What directions of this round are multiplied by.
    ///
    /// # Errors
    /// If the task does not tell enough.
    pub fn of(&self, round: u32) -> Result<Emphasis, Error> {
        let Walk { steps, log, .. } = self.walk;
        let mut emphasis = Emphasis::default();
        if let Some(scaling) = self.walk.scaling {
            let past = before(log, round, scaling.rounds).ok_or(Error::Rounds { round })?;
            let past = past.iter().map(|one| (steps, one.first_step, &one.scalars));
            emphasis = emphasis.scaled(scaling.weight, past);
        }
        if is_masked(self.walk, round) {
            let mask = self.mask.clone().ok_or(Error::Mask { round })?;
            emphasis = emphasis.masked(mask);
        }
        Ok(emphasis)
    }
}

/// Whether not all numbers move in this round.
pub fn is_masked(walk: &Walk, round: u32) -> bool {
    walk.mask
        .as_ref()
        .is_some_and(|masked| round > masked.after)
}

/// The last `count` rounds before `round`, or all that there were; `None` if the log does not hold them one after the
/// other: a scale by a round that stands twice, or in another's place, would be one that nobody else has.
pub fn before(log: &[Committed], round: u32, count: u32) -> Option<&[Committed]> {
    let first = round.saturating_sub(count).max(1);
    let wanted = usize::try_from(round.saturating_sub(first)).ok()?;
    if wanted == 0 {
        return Some(&[]);
    }
    let from = log.iter().position(|one| one.round == first)?;
    let found = log.get(from..from + wanted)?;
    let mut each = (first..).zip(found);
    each.all(|(expected, one)| one.round == expected)
        .then_some(found)
}

/// The adapter that a task's mask goes by, if it lies beside the merged ones in `folder`.
pub fn beside(folder: &Path, walk: &Walk) -> Option<PathBuf> {
    let masked = walk.mask.as_ref()?;
    let path = catch_up::file(folder, &masked.adapter.sha256);
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use domain::artifact::Digest;
    use domain::job::mezo::Scaling;
    use domain::job::spec::Training;
    use domain::zeroth::{Scalars, Steps};

    use super::*;

    fn log(rounds: impl IntoIterator<Item = u32>) -> Vec<Committed> {
        let committed = |round| Committed {
            round,
            first_step: 0,
            start: Digest::from_bytes(&[0; 32]),
            scalars: Scalars::default(),
        };
        rounds.into_iter().map(committed).collect()
    }

    #[test]
    fn the_rounds_before_are_all_there_or_nothing_is_made() {
        let of = |log: &[Committed], round, count| -> Option<Vec<u32>> {
            let found = before(log, round, count)?;
            Some(found.iter().map(|one| one.round).collect())
        };
        assert_eq!(of(&[], 1, 4), Some(vec![]), "there was no round before");
        assert_eq!(of(&log(1..3), 3, 4), Some(vec![1, 2]));
        assert_eq!(of(&log(1..9), 9, 4), Some(vec![5, 6, 7, 8]));
        assert_eq!(of(&log(1..9), 6, 2), Some(vec![4, 5]));
        assert_eq!(of(&log(4..9), 9, 4), Some(vec![5, 6, 7, 8]));
        assert_eq!(of(&log(6..9), 9, 4), None, "round 5 is missing");
        assert_eq!(of(&log(5..8), 9, 4), None, "round 8 is missing");
        assert_eq!(of(&[], 2, 4), None);
        assert_eq!(of(&log([3, 4, 5]), 6, 3), Some(vec![3, 4, 5]));
        assert_eq!(of(&log([3, 5, 4]), 6, 3), None, "another order");
        assert_eq!(of(&log([3, 4, 4]), 6, 3), None, "round 4 comes twice");
        assert_eq!(of(&log([3, 3, 4, 5]), 6, 3), None, "round 3 comes twice");
    }

    #[test]
    fn nothing_is_scaled_by_a_log_whose_steps_do_not_follow() {
        let mut walk = Walk {
            log: log([3, 4, 5]),
            scaling: Some(Scaling {
                weight: 0.1,
                rounds: 3,
            }),
            ..Walk::new(Steps::of(&Training::default(), 7))
        };
        let made = Source::new(&walk, None).and_then(|source| source.of(6));
        assert!(made.is_ok(), "{made:?}");
        if let Some(last) = walk.log.last_mut() {
            last.first_step += 1;
        }
        let broken = Source::new(&walk, None).unwrap_err();
        assert!(matches!(broken, Error::Log(_)), "{broken:?}");
    }
}
