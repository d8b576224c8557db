//! The merged adapter made here, from an earlier one and the scalars of the rounds since, where that is cheaper
//! than fetching it.
//!
//! What is made has the digest that was asked for, or it counts as nothing: a log that is not whole, a file
//! that was changed, or another processor that computes otherwise cost a download and no more.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use artifacts::tensors::rewrite;
use chassis::clock::Stopwatch;
use domain::artifact::{ArtifactRef, Digest};
use domain::cause::Trouble;
use domain::zeroth::{Committed, GENERATOR, Scalars, Steps, Walk};
use engine::kernel::Unit;
use engine::threads::Threads;
use engine::train::Replay;

use crate::emphasis;
use crate::failure::Failure;
use crate::running::Running;

/// Seconds that a download takes whatever its length: questions for URLs, the manifest, a part.
const FETCH_SECONDS: f64 = 0.05;
/// Bytes a second of a link that was not measured.
const FETCH_RATE: f64 = 1e7;
/// Values and streams by which the speed of replaying is measured.
const SAMPLE: (usize, usize) = (1 << 15, 4);

/// Why a log cannot be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A round is missing, comes twice, or stands out of order.
    #[error("round {found} stands where round {expected} should")]
    Order {
        /// What stands there.
        found: u32,
        /// What should.
        expected: u32,
    },
    /// A round's steps do not begin where the ones before end.
    #[error("the steps of round {round} begin with {found}, not with {expected}")]
    Steps {
        /// Which round.
        round: u32,
        /// Its first step.
        found: u64,
        /// What should be.
        expected: u64,
    },
}

/// A replay that leads to the adapter that is asked for.
#[derive(Debug)]
pub struct Way {
    base: PathBuf,
    walk: Walk,
    /// Where in the walk's log it begins; what is before says by what directions are scaled.
    from: usize,
    /// The adapter that a mask goes by.
    mask: Option<PathBuf>,
}

/// Where an adapter of this digest lies once it was verified.
#[must_use]
pub fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{}.safetensors", digest.hex()))
}

/// The shortest way from an adapter in `folder` to that of round `last`; `None` if none of those that the log
/// begins with is there, or its directions are another generator's.
///
/// # Errors
/// [`Broken`] if the log is not whole.
pub fn way(folder: &Path, walk: &Walk, last: u32) -> Result<Option<Way>, Broken> {
    whole(walk, last)?;
    if walk.steps.generator != GENERATOR {
        return Ok(None);
    }
    let known = |one: &Committed| match walk.scaling {
        None => true,
        Some(scaling) => emphasis::before(&walk.log, one.round, scaling.rounds).is_some(),
    };
    let held = |one: &Committed| known(one) && file(folder, &one.start).is_file();
    let Some(from) = walk.log.iter().rposition(held) else {
        return Ok(None);
    };
    let base = walk.log.get(from).map(|first| file(folder, &first.start));
    Ok(base.map(|base| Way {
        base,
        walk: walk.clone(),
        from,
        mask: None,
    }))
}

/// Every round follows the one before, and the last is the one that made the adapter.
///
/// # Errors
/// The first that does not.
pub fn whole(walk: &Walk, last: u32) -> Result<(), Broken> {
    let length = u32::try_from(walk.log.len()).unwrap_or(u32::MAX);
    let first = last.saturating_sub(length).saturating_add(1);
    let mut next_step = None;
    for (expected, one) in (first..).zip(&walk.log) {
        if one.round != expected {
            let found = one.round;
            return Err(Broken::Order { found, expected });
        }
        let step = *next_step.get_or_insert(one.first_step);
        if one.first_step != step {
            return Err(Broken::Steps {
                round: one.round,
                found: one.first_step,
                expected: step,
            });
        }
        let steps = one.scalars.values().len() / usize::from(walk.steps.perturbations).max(1);
        next_step = Some(step + steps as u64);
    }
    Ok(())
}

impl Way {
    /// Whether some of its rounds are masked.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        let mut rounds = self.rounds();
        rounds.any(|one| emphasis::is_masked(&self.walk, one.round))
    }

    /// By the adapter in this file.
    #[must_use]
    pub fn masked(self, adapter: PathBuf) -> Self {
        let mask = Some(adapter);
        Self { mask, ..self }
    }

    fn rounds(&self) -> impl Iterator<Item = &Committed> {
        self.walk.log.iter().skip(self.from)
    }

    fn replay(&self) -> Result<Replay, Failure> {
        let source = emphasis::Source::new(&self.walk, self.mask.as_deref())?;
        let steps = &self.walk.steps;
        let mut rounds = self.rounds();
        rounds.try_fold(Replay::new(), |replay, one| {
            let emphasis = source.of(one.round)?;
            Ok(replay.then_by(steps, one.first_step, &one.scalars, emphasis))
        })
    }

    /// Makes the adapter, if that is cheaper than fetching `bytes` at `rate` bytes a second. Returns whether it
    /// now lies where [`file`] says.
    ///
    /// # Errors
    /// If the disk refuses to keep what was made, or the task is stopped.
    pub fn take(
        self,
        running: &Running,
        asked: &ArtifactRef,
        rate: Option<f64>,
    ) -> Result<bool, Failure> {
        let threads = threads(running.site.threads)?;
        let replay = self.replay()?;
        let numbers = replay.numbers() as f64 * asked.bytes as f64 / 4.0;
        let speed = threads.run(|| numbers_per_second(&self.walk.steps));
        if !is_cheaper(numbers / speed, asked.bytes, rate) {
            return Ok(false);
        }
        let folder = self.base.parent().unwrap_or(Path::new("."));
        let made = folder.join("replayed.safetensors");
        let digest = threads.run(|| {
            rewrite(&self.base, &made, |key, values| {
                replay.apply(key, values);
                running.advance();
            })
        });
        running.stop.check()?;
        let (from, rounds) = (
            self.rounds().next().map(|one| one.round),
            self.rounds().count(),
        );
        let digest = match digest {
            Ok(digest) => digest,
            // A file that was cut, or a full disk: whoever fetches finds out which.
            Err(error) => {
                tracing::warn!(%error, ?from, rounds, "the earlier adapter cannot be replayed from, fetching");
                return Ok(false);
            }
        };
        if digest != asked.sha256 {
            tracing::warn!(?from, rounds, %digest, asked = %asked.sha256, "replayed to another adapter, fetching it");
            return Ok(false);
        }
        let kept = std::fs::rename(&made, file(folder, &asked.sha256));
        kept.map_err(|error| Failure::of(Trouble::DiskFull, &error))?;
        tracing::info!(?from, rounds, "adapter replayed");
        Ok(true)
    }
}

/// How fast this machine replays.
fn numbers_per_second(steps: &Steps) -> f64 {
    let (values, streams) = SAMPLE;
    let one = Steps {
        perturbations: 1,
        ..*steps
    };
    let sample = Replay::new().then(&one, 0, &Scalars::new(vec![1.0; streams]));
    let mut scratch = vec![0.0; values];
    let watch = Stopwatch::start();
    sample.apply(SAMPLE_KEY, &mut scratch);
    (values * streams) as f64 / watch.seconds().max(1e-9)
}

/// Any weight's key.
const SAMPLE_KEY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/// Whether so many seconds of computing are fewer than those of the download.
fn is_cheaper(seconds: f64, bytes: u64, rate: Option<f64>) -> bool {
    let rate = rate.filter(|rate| *rate > 0.0).unwrap_or(FETCH_RATE);
    seconds < FETCH_SECONDS + bytes as f64 / rate
}

fn threads(count: u16) -> Result<Threads, Failure> {
    let count = NonZeroUsize::new(count.into()).unwrap_or(NonZeroUsize::MIN);
    // The directions are the same on every unit.
    let threads = Threads::new(count, Unit::Portable);
    threads.map_err(|error| Failure::of(Trouble::Internal, &error))
}

#[cfg(test)]
mod tests {
    use domain::job::mezo::Scaling;
    use domain::job::spec::Training;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes(&[byte; 32])
    }

    /// Rounds of two steps, each beginning with the adapter of its own number.
    fn walk(rounds: &[u32]) -> Walk {
        let committed = |round: &u32| Committed {
            round: *round,
            first_step: 2 * u64::from(*round - 1),
            start: digest(*round as u8),
            scalars: Scalars::new(vec![0.5, -0.5]),
        };
        Walk {
            log: rounds.iter().map(committed).collect(),
            ..Walk::new(Steps::of(&Training::default(), 7))
        }
    }

    #[test]
    fn the_latest_adapter_that_is_here_is_where_the_way_begins() {
        let folder = tempfile::tempdir().unwrap();
        let way = |walk: &Walk| way(folder.path(), walk, 6).unwrap();
        assert!(way(&walk(&[4, 5, 6])).is_none(), "nothing is here");
        for here in [3, 4, 5] {
            std::fs::write(file(folder.path(), &digest(here)), "").unwrap();
        }
        let found = way(&walk(&[3, 4, 5, 6])).unwrap();
        assert_eq!(found.base, file(folder.path(), &digest(5)));
        let rounds: Vec<u32> = found.rounds().map(|one| one.round).collect();
        assert_eq!(rounds, [5, 6]);
        assert!(way(&walk(&[6])).is_none(), "round 5's is too old for it");
        let mut scaled = walk(&[3, 4, 5, 6]);
        scaled.scaling = Some(Scaling {
            weight: 0.1,
            rounds: 2,
        });
        let found = way(&scaled).unwrap();
        assert_eq!(found.base, file(folder.path(), &digest(5)));
        scaled.log.remove(0);
        assert!(
            way(&scaled).is_none(),
            "round 3 scales the directions of round 5"
        );
        let mut other = walk(&[5, 6]);
        other.steps.generator = GENERATOR + 1;
        assert!(way(&other).is_none(), "another generator's directions");
    }

    #[test]
    fn a_gap_a_repetition_and_another_order_break_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let broken = |rounds: &[u32], last| way(folder.path(), &walk(rounds), last).unwrap_err();
        let order = |found, expected| Broken::Order { found, expected };
        assert_eq!(broken(&[3, 5, 6], 6), order(3, 4));
        assert_eq!(broken(&[4, 5, 5, 6], 6), order(4, 3));
        assert_eq!(broken(&[5, 4, 6], 6), order(5, 4));
        assert_eq!(broken(&[4, 5], 6), order(4, 5));
        let mut shifted = walk(&[4, 5, 6]);
        shifted.log[1].first_step += 1;
        let found = way(folder.path(), &shifted, 6).unwrap_err();
        let expected = Broken::Steps {
            round: 5,
            found: 9,
            expected: 8,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_cheaper_follows_from_the_link() {
        assert!(is_cheaper(1.0, 20_000_000, None), "two seconds on the link");
        assert!(!is_cheaper(1.0, 20_000_000, Some(1e9)));
        assert!(is_cheaper(100.0, 20_000_000, Some(1e5)));
        assert!(
            is_cheaper(0.04, 0, Some(1e9)),
            "a download has its requests"
        );
        assert!(!is_cheaper(3.0, 20_000_000, Some(0.0)));
    }
}
