//! Playing a slower machine: a share of this one's speed, or a cap on tokens a second.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::failure::Failure;
use crate::stop::Stop;

/// Longest wait between two signs of progress: an emulated machine computes all the time.
const SLICE_SECONDS: f64 = 0.1;

/// How many forward passes cost what a training step costs, where it was not measured: with a frozen
/// base a token takes 4 floating point operations per weight, 2 of them forward.
const FORWARD_SPEEDUP: f64 = 2.0;

/// What becomes of the time by which the work is faster than the machine that is played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tempo {
    /// It is waited for: a worker in a fleet.
    #[default]
    Kept,
    /// It is counted alone: a simulation, whose clock is not the world's.
    Counted,
}

/// The speed that is played.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    cap: Option<f64>,
    share: Option<f64>,
    tempo: Tempo,
}

impl Pace {
    /// At most so many tokens a second of training, at such a share of this machine's speed.
    #[must_use]
    pub const fn new(cap: Option<f64>, share: Option<f64>, tempo: Tempo) -> Self {
        Self { cap, share, tempo }
    }

    /// The same machine's pace of forward passes alone, which are so many times as fast as training on it.
    #[must_use]
    pub fn forward(self, speedup: Option<f64>) -> Self {
        let speedup = speedup.unwrap_or(FORWARD_SPEEDUP).max(1.0);
        Self {
            cap: self.cap.map(|rate| rate * speedup),
            ..self
        }
    }

    /// Seconds that work on so many tokens takes at this pace, if it really took `seconds`.
    #[must_use]
    pub fn seconds(self, tokens: usize, seconds: f64) -> f64 {
        let shared = self.share.map_or(seconds, |share| seconds / share);
        self.cap
            .map_or(shared, |rate| shared.max(tokens as f64 / rate))
    }

    /// Waits for what the work was too fast, telling progress as a machine of this pace would. Where
    /// time is counted alone there is nothing to wait for.
    ///
    /// # Errors
    /// [`Failure::Stopped`] as soon as the task is stopped.
    pub fn wait(
        self,
        runtime: &Handle,
        stop: &Stop,
        tokens: usize,
        seconds: f64,
        mut progress: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut left = match self.tempo {
            Tempo::Kept => self.seconds(tokens, seconds) - seconds,
            Tempo::Counted => 0.0,
        };
        while left > 0.0 {
            let slice = Duration::from_secs_f64(left.min(SLICE_SECONDS));
            let stopped = runtime
                .block_on(async { tokio::time::timeout(slice, stop.stopped()).await.is_ok() });
            if stopped {
                return Err(Failure::Stopped);
            }
            progress();
            left -= SLICE_SECONDS;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn capped(rate: f64) -> Pace {
        Pace::new(Some(rate), None, Tempo::Kept)
    }

    #[test]
    fn a_share_of_the_speed_stretches_all_work_and_a_cap_what_is_still_too_fast() {
        let quarter = Pace::new(None, Some(0.25), Tempo::Kept);
        assert_eq!(quarter.seconds(50, 0.1), 0.4);
        assert_eq!(quarter.forward(Some(4.0)).seconds(50, 0.1), 0.4);
        let both = Pace::new(Some(100.0), Some(0.25), Tempo::Kept);
        assert_eq!(both.seconds(50, 0.1), 0.5);
        assert_eq!(both.seconds(50, 0.2), 0.8);
    }

    #[test]
    fn where_time_is_counted_nobody_waits() {
        let stop = Stop::below(&CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let pace = Pace::new(Some(1.0), None, Tempo::Counted);
        assert_eq!(pace.seconds(1_000_000, 0.0), 1e6);
        let waited = pace.wait(runtime.handle(), &stop, 1_000_000, 0.0, || {
            panic!("it waits");
        });
        assert_eq!(waited, Ok(()));
    }

    #[test]
    fn a_pace_makes_fast_work_slow_and_leaves_slow_work_alone() {
        let pace = capped(100.0);
        assert_eq!(pace.seconds(50, 0.1), 0.5);
        assert_eq!(pace.seconds(50, 0.7), 0.7);
        assert_eq!(Pace::default().seconds(50, 0.1), 0.1);
    }

    #[test]
    fn a_forward_pass_is_slowed_by_what_it_costs() {
        let pace = capped(100.0);
        assert_eq!(pace.forward(Some(4.0)).seconds(400, 0.1), 1.0);
        assert_eq!(pace.forward(None).seconds(100, 0.1), 0.5);
        assert_eq!(pace.forward(Some(0.5)).seconds(100, 0.1), 1.0);
        assert_eq!(Pace::default().forward(Some(2.0)), Pace::default());
    }

    #[test]
    fn a_wait_ends_when_the_task_is_stopped_and_tells_progress_until_then() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let stop = Stop::below(&CancellationToken::new());
        let pace = capped(1.0);
        let mut slices = 0;
        let waited = pace.wait(runtime.handle(), &stop, 1_000_000, 0.0, || {
            slices += 1;
            if slices == 2 {
                stop.stop();
            }
        });
        assert_eq!((waited, slices), (Err(Failure::Stopped), 2));
    }
}
